"""Files are written whole or not at all, whoever else writes them."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coc_runtime import files
from coc_runtime.errors import CocError
from coc_runtime.files import make_folder, remove_unfinished, taking_turns, write_bytes, write_json


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
    with pytest.raises(CocError, match=r"cannot be written \(is a directory\)"):
        write_bytes(tmp_path, b"")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_leaves_nothing_behind(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(CocError if isinstance(error, OSError) else KeyboardInterrupt):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"model.onnx": b"old"}


def test_two_writers_to_one_path_never_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins when the first has written and not yet renamed."""
    path, ready, go = tmp_path / "model.onnx", threading.Event(), threading.Event()
    rename = os.replace

    def late(source: Path, target: Path) -> None:
        if threading.current_thread() is first:
            ready.set()
            assert go.wait(30)
        rename(source, target)

    monkeypatch.setattr(os, "replace", late)
    first = threading.Thread(target=write_bytes, args=(path, b"1" * 100_000))
    first.start()
    assert ready.wait(30)
    write_bytes(path, b"2" * 50)
    assert path.read_bytes() == b"2" * 50
    go.set()
    first.join()
    assert path.read_bytes() == b"1" * 100_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


WRITER = """\
import sys
from pathlib import Path
from coc_runtime.files import write_bytes
path, letter = Path(sys.argv[1]), sys.argv[2].encode()
for size in range(1, 120):
    write_bytes(path, letter * (size * 997 % 40_000))
"""


def test_processes_that_write_one_path_leave_it_whole_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_bytes(path, b"a")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "bcd"]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        assert len(set(path.read_bytes())) <= 1
        seen += 1
    assert [writer.returncode for writer in writers] == [0, 0, 0] and seen > 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("name", ["model.pt", "ü" * 127, "x" * 255, "a\nb", os.fsdecode(b"\xff.onnx")])
def test_leftovers_of_killed_writers_are_recognised_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"
    left = files._temporary(path)
    others = {path, tmp_path / ".model.pt.tmp", tmp_path / f"{left.name}.json", tmp_path / "lock"}
    for entry in (left, *others - {path}):
        entry.write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == others


def test_files_get_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "out", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_who_takes_turns_waits_for_the_other(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with taking_turns([tmp_path, tmp_path / "."]):
            order.append("second")

    thread = threading.Thread(target=second)
    with taking_turns([tmp_path]):
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []
