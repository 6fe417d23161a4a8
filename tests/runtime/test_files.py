"""Files are written whole or not at all."""

import json
from pathlib import Path

import pytest

from coc_runtime.errors import CocError
from coc_runtime.files import make_folder, write_json


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"schema": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"bad": float("nan")})
    assert json.loads(path.read_text()) == {"schema": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CocError, match="file/out.json: cannot be written"):
        write_json(tmp_path / "file/out.json", {})
    with pytest.raises(CocError, match="file/folder: cannot be created"):
        make_folder(tmp_path / "file/folder")
