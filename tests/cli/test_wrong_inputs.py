"""Every wrong input of wrong_inputs.toml is answered by one line on stderr and its exit code, and by no
traceback."""

from pathlib import Path

import pytest

import wrong_inputs
from wrong_inputs import Wrong

INPUTS = wrong_inputs.inputs()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong") / "with spaces"
    folder.mkdir()
    wrong_inputs.prepare(folder)
    return folder


@pytest.mark.parametrize("wrong", INPUTS, ids=[wrong.line for wrong in INPUTS])
def test_a_wrong_input_is_told_in_one_line(wrong: Wrong, place: Path, tmp_path: Path) -> None:
    found = wrong_inputs.ask(wrong_inputs.words(wrong, place, tmp_path / "out"))
    assert not wrong_inputs.faults(wrong, found), found


def test_a_wrong_answer_is_seen() -> None:
    wrong = Wrong("coc-bench x", "no such file")
    good = "coc-bench: error: x: no such file\n"
    assert wrong_inputs.faults(wrong, wrong_inputs.Found(2, "", good)) == []
    for code, err in ((1, good), (2, good * 2), (2, ""), (2, "coc-bench: error: x\n"), (70, "Traceback\n")):
        assert wrong_inputs.faults(wrong, wrong_inputs.Found(code, "", err))
