"""coc-compress tells a user's mistake in one line on stderr and exits with 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from coc_deploy import chain
from coc_deploy.cli import main
from tiny import write_recipe


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coc-compress: error: ")
    return line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "q.bits=3x8"], "q.bits = '3x8' is not allowed"),
        (["--set", "chain=QX"], "chain = 'QX' is not allowed"),
        (["--set", "nonsense"], "expected key=value"),
        (["--set", "data=mnist"], "unknown data 'mnist'"),
        (["--set", "data=imagefolder:none"], "is not a folder"),
        (["--threads", "0"], "--threads 0: must be at least 1"),
        (["--store", "/proc/store"], "/proc/store: cannot be created"),
        (["--reuse", "runs/first"], "--reuse is now --store: --store runs/first/stages"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert words in complaint([str(recipe), "--out", str(tmp_path / "run"), *options], capsys)


def test_a_missing_recipe_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path / "none.toml"), "--out", str(tmp_path / "run")]
    assert "none.toml: cannot be read" in complaint(arguments, capsys)


@pytest.mark.parametrize("out", ["taken", "taken/run", "/proc/run"])
def test_a_folder_that_cannot_be_made_is_told(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    target = tmp_path / out
    line = complaint([str(write_recipe(tmp_path)), "--out", str(target)], capsys)
    assert f"{target}: cannot be created" in line and "choose another folder" in line


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run/recipe.json").mkdir(parents=True)
    line = complaint([str(write_recipe(tmp_path)), "--out", str(tmp_path / "run")], capsys)
    assert "recipe.json: cannot be written" in line
    assert not list((tmp_path / "run").glob(".*"))


def test_a_damaged_result_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run/00-original"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    line = complaint([str(write_recipe(tmp_path)), "--out", str(tmp_path / "run")], capsys)
    assert "result.json: unreadable; remove this folder" in line


def test_a_keyboard_interrupt_ends_in_one_line_that_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chain, "run", interrupted)
    assert main([str(write_recipe(tmp_path)), "--out", str(tmp_path / "run")]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "the same command continues" in line


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from coc_deploy.cli import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--store" in done.stdout, done.stderr
