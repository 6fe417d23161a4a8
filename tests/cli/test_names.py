"""Folders, files and classes with names that are not UTF-8 or hold line breaks go through every command."""

import json
import os
from pathlib import Path

import pytest

import coc_bench.cli
import coc_deploy.cli
import coc_export.cli
from coc_deploy import checkpoint
from exporting import image_folder

FOLDER = os.fsdecode(b"caf\xe9 a\nb")
SHOWN = r"caf\xe9 a\nb"
CLASSES = (os.fsdecode(b"k\xff1"), "k\n2")
RECIPE = """\
chain = "Q"
data = "imagefolder:images"
batch = 4
[original]
model = "net.py:make"
epochs = 1
[q]
epochs = 1
"""
NET = """\
from coc_deploy.models import resnet
def make(classes, channels):
    return resnet.cifar(1, 4, "B", channels, classes)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in it: images, a recipe with a byte order mark, a network."""
    folder = tmp_path_factory.mktemp("names") / FOLDER
    image_folder(folder / "images", 8, CLASSES)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8-sig")
    (folder / "net.py").write_text(NET)
    arguments = [str(folder / "recipe.toml"), "--out", str(folder / "run"), "--threads", "1"]
    assert coc_deploy.cli.main(arguments) == 0
    return folder


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_a_run_writes_all_its_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(place / "recipe.toml"), "--out", str(place / "run"), "--threads", "1"]
    assert coc_deploy.cli.main(arguments) == 0
    assert lines(capsys)[-1].endswith(f"{SHOWN}/run/model.pt")
    assert f"# Q on imagefolder:{place.parent}/{SHOWN}/images\n" in (place / "run/report.md").read_text(
        "utf-8"
    )
    assert json.loads((place / "run/recipe.json").read_text())["data"] == f"imagefolder:{place / 'images'}"
    meta = checkpoint.load(place / "run/model.pt").meta
    assert meta["classes"] == [r"k\n2", r"k\xff1"] and meta["data"] == "imagefolder:images"


def test_artifacts_are_written_verified_and_measured(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [os.fsdecode(b"m\n\xff.onnx"), os.fsdecode(b"m\n\xff.coc")]
    outs = [str(place / name) for name in names]
    data = ["--data", f"imagefolder:{place / 'images'}"]
    model = str(place / "run/model.pt")
    assert coc_export.cli.main([model, "--out", outs[0], "--out", outs[1], *data]) == 0
    wrote = [line for line in lines(capsys) if line.startswith("wrote ")]
    assert [line.partition(SHOWN)[2] for line in wrote] == [
        r"/m\n\xff.onnx and m\n\xff.report.json",
        r"/m\n\xff.coc and m\n\xff.coc.report.json",
        r"/m\n\xff.md",
    ]
    assert coc_export.cli.main(["--verify", *outs, *data]) == 0
    assert lines(capsys)[-1].startswith("verified: 6 images of imagefolder:images")
    original = place / os.fsdecode(b"float\xff.onnx")
    assert (
        coc_export.cli.main([str(place / "run/00-original/model.pt"), "--out", str(original), "--float"]) == 0
    )
    lines(capsys)
    report, page = place / "b\n.json", place / "b\n.html"
    wanted = [*outs, *data, "--original", str(original), "--rounds", "3", "--json", str(report)]
    assert coc_bench.cli.main([*wanted, "--html", str(page)]) == 0
    assert r"m\n\xff.coc" in "\n".join(lines(capsys))
    found = [run["artifact"] for run in json.loads(report.read_text())["runs"]]
    assert found == [r"m\n\xff.onnx", r"m\n\xff.coc", r"float\xff.onnx"]
    assert r"m\n\xff.onnx" in page.read_text("utf-8")
