"""A FIFO, device, socket or folder where a file is expected is told in one line, by every command."""

from pathlib import Path

import pytest
import torch

import specials
from coc_bench import cli as bench
from coc_deploy import checkpoint, keys, recipe
from coc_deploy import cli as compress
from coc_deploy.models import weights
from coc_export import cli as export
from coc_runtime import CocError, Session, datasets
from coc_study import cli as study
from exporting import image_folder
from specials import KINDS, at_once
from tiny import RECIPE

COMMANDS = {
    "coc-compress": compress.main,
    "coc-export": export.main,
    "coc-bench": bench.main,
    "coc-study": study.main,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "line",
    [
        "coc-compress in --out run",
        "coc-compress in --check",
        "coc-study all in --plan",
        "coc-export in --out m.coc",
        "coc-export in.coc --out m.coc",
        "coc-export in.onnx --out m.coc",
        "coc-export in --out m.onnx --float",
        "coc-export --verify in",
        "coc-export --verify in.coc",
        "coc-export --verify in.onnx",
        "coc-bench in --data random",
        "coc-bench in.coc --data random",
        "coc-bench --from in",
        "coc-bench --compare in in",
    ],
)
def test_commands_tell_it(
    line: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *arguments = line.split()
    name = next(word for word in arguments if word.startswith("in"))
    specials.make(kind, tmp_path / name)
    with at_once():
        assert COMMANDS[command](arguments) == 2
    (told,) = capsys.readouterr().err.splitlines()
    expected = "is a directory" if kind == "directory" else "is not a regular file"
    assert told.startswith(f"{command}: error: ") and f"{name}: {expected}: " in told
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "setting",
    ["original.checkpoint={}", "original.weights={}", "original.model={}:make", "d.model={}:make"],
)
def test_files_that_a_recipe_names_are_told(
    setting: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specials.make(kind, tmp_path / "in.py")
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("width = 4", ""))
    arguments = [str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]
    with at_once():
        assert compress.main([*arguments, "--set", setting.format("in.py")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "in.py: is " in line


def test_functions_that_read_models_tell_it(kind: str, tmp_path: Path) -> None:
    path = specials.make(kind, tmp_path / "in")
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    readers = [
        lambda: Session(path),
        lambda: Session(path, backend="reference"),
        lambda: checkpoint.load(path),
        lambda: weights.load_weights(model, path, [0.5], [0.5]),
        lambda: recipe.read(path),
        lambda: keys._of_file(str(path), "weights", keys._digest),
    ]
    for read in readers:
        with at_once(), pytest.raises(CocError, match=r"in: is (a directory|not a regular file): \S"):
            read()


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_reports_are_not_written_over_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench_files import artifact

    out = specials.make(kind, tmp_path / "out.json")
    model = artifact(tmp_path / "model.coc", exits=0)
    with at_once():
        assert bench.main([str(model), "--data", "random", "--rounds", "2", "--json", str(out)]) == 2
    assert "out.json: cannot be written (is not a regular file)" in capsys.readouterr().err
    assert not out.is_file()


@pytest.mark.parametrize("place", ["train/a/2.png", "test/b/0.png"])
def test_images_are_told(place: str, kind: str, tmp_path: Path) -> None:
    spec = image_folder(tmp_path / "images", 8)
    path = tmp_path / "images" / place
    path.unlink()
    specials.make(kind, path)
    splits = ("test",) if place.startswith("test") else ("train", "held-out")
    words = rf"{place}: is (a directory|not a regular file): take it out"
    with at_once(), pytest.raises(CocError, match=words):
        for split in splits:
            datasets.load(spec, split)
