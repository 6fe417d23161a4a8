"""One store of stages: what counts for a key and what does not, who shares what, who waits for whom."""

import itertools
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import studies
from coc_deploy import cli, keys, train
from coc_deploy.models import user
from coc_deploy.recipe import load
from coc_deploy.store import Store
from coc_study.cli import main as study_main
from tiny import stage_key, write_recipe

RECIPE = """\
chain = "PQ"
data = "imagefolder:images"
batch = 8
[original]
model = "net.py:net"
epochs = 1
[p]
ratio = 0.5
round_to = 1
epochs = 1
[q]
epochs = 1
"""
NET = """\
from torch import nn
from parts import block
def net(classes, channels):
    return nn.Sequential(
        block(channels, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )
"""
PARTS = """\
from torch import nn
def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
"""
STAGES = ("00-original", "01-prune", "02-quantize")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a recipe, a network in two files, and images in two classes."""
    folder = tmp_path / "project"
    write_recipe(folder, RECIPE)
    (folder / "net.py").write_text(NET)
    (folder / "parts.py").write_text(PARTS)
    values = np.random.default_rng(3)
    for part, name, number in itertools.product(("train", "test"), ("cat", "dog"), range(40)):
        place = folder / "images" / part / name
        place.mkdir(parents=True, exist_ok=True)
        pixels = values.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that train in the test."""
    names: list[str] = []
    plain = train.fit

    def fit(job: train.Job) -> list[dict[str, float]]:
        names.append(job.name)
        return plain(job)

    monkeypatch.setattr(train, "fit", fit)
    return names


def compress(recipe: object, out: object, *options: object) -> int:
    words = [recipe, "--out", out, "--threads", 1, *options]
    return cli.main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coc-compress: error: ")
    return line


def test_a_run_shows_its_stages_and_can_be_moved(project: Path, trained: list[str]) -> None:
    out = project / "run"
    assert compress(project / "recipe.toml", out) == 0
    folders = [(out / name).resolve() for name in STAGES]
    assert {folder.parent for folder in folders} == {(out / "stages").resolve()}
    moved = out.rename(project / "moved")
    assert (moved / "02-quantize/model.pt").read_bytes() == (moved / "model.pt").read_bytes()
    assert compress(project / "recipe.toml", moved) == 0
    assert trained == ["original", "prune", "quantize"]


def test_the_same_recipe_goes_on_from_another_working_directory(
    project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert compress("recipe.toml", "run") == 0
    monkeypatch.chdir(project.parent)
    assert compress("project/recipe.toml", "project/run") == 0
    monkeypatch.chdir("/")
    assert compress(project / "recipe.toml", project / "run") == 0
    assert trained == ["original", "prune", "quantize"]


def test_a_project_in_another_place_takes_the_stages_over(project: Path, trained: list[str]) -> None:
    assert compress(project / "recipe.toml", project / "run", "--store", project.parent / "store") == 0
    trained.clear()
    copy = project.parent / "copy"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("run"))
    assert compress(copy / "recipe.toml", copy / "run", "--store", project.parent / "store") == 0
    assert trained == []


@pytest.mark.parametrize("change", ["image", "label", "class", "test image"])
def test_other_images_under_the_same_path_do_not_continue(
    change: str, project: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(project / "recipe.toml", project / "run") == 0
    capsys.readouterr()
    images = project / "images"
    if change.endswith("image"):
        place = images / ("test" if change.startswith("test") else "train") / "cat/7.png"
        pixels = np.array(Image.open(place))
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(place)
    elif change == "label":
        (images / "train/cat/7.png").rename(images / "train/dog/1007.png")
    else:
        for part in ("train", "test"):
            (images / part / "dog").rename(images / part / "eel")
    assert compress(project / "recipe.toml", project / "run") == 2
    line = refused(capsys)
    assert "00-original holds the result of other images or labels than data" in line
    assert "choose another --out" in line and len(trained) == 3


def test_other_code_is_told_and_may_count_as_the_same(
    project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = project / "run"
    assert compress(project / "recipe.toml", out, "--set", "chain=P") == 0
    capsys.readouterr()
    before = keys.code_version()
    monkeypatch.setattr(keys, "code_version", lambda: "9.9-other")
    trained.clear()
    assert compress(project / "recipe.toml", out) == 2
    line = refused(capsys)
    assert f"00-original was computed by coc-deploy {before}, this is 9.9-other" in line
    assert "choose another --out" in line and "--same-code" in line and trained == []
    assert compress(project / "recipe.toml", out, "--same-code") == 0
    assert trained == ["quantize"]
    assert compress(project / "recipe.toml", project / "new") == 0
    assert trained == ["quantize", "original", "prune", "quantize"]


def test_a_stage_that_other_code_began_is_not_thrown_away_without_a_word(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(job: train.Job, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "_report", interrupted)
        assert compress(project / "recipe.toml", project / "run") == 130
    assert (project / "run/00-original/progress.pt").exists()
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(keys, "code_version", lambda: "9.9-other")
        assert compress(project / "recipe.toml", project / "run") == 2
    assert "00-original was computed by coc-deploy" in refused(capsys)
    assert compress(project / "recipe.toml", project / "run", "--set", "original.epochs=2") == 0


def test_a_run_of_an_older_version_is_refused_in_a_line(
    project: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its stages were folders of the run itself, with keys that held paths."""
    old = project / "run/00-original"
    old.mkdir(parents=True)
    (old / "result.json").write_text('{"key": "0123456789abcdef"}')
    assert compress(project / "recipe.toml", project / "run") == 2
    line = refused(capsys)
    assert "00-original is of an older coc-deploy" in line and "choose another --out" in line
    assert trained == []


def test_what_a_users_file_holds_counts_and_what_it_imports_from_its_folder(project: Path) -> None:
    recipe, seen = project / "recipe.toml", set()

    def key() -> str:
        return stage_key(load(recipe, []), "")

    seen.add(key())
    (project / "other.py").write_text("x = 1\n")
    (project / "net.py").rename(project / "renamed.py")
    recipe.write_text(RECIPE.replace("net.py", "renamed.py"))
    seen.add(key())
    assert len(seen) == 1, "neither its name nor a file that it does not import"
    (project / "parts.py").write_text(PARTS.replace("ReLU", "ReLU6"))
    seen.add(key())
    (project / "parts.py").write_text(f"{PARTS}\ndef late():\n    from deep.er import x\n")
    seen.add(key())
    (project / "deep").mkdir()
    (project / "deep/__init__.py").write_text("")
    (project / "deep/er.py").write_text("from . import est\nfrom ..parts import block\n")
    seen.add(key())
    (project / "deep/est.py").write_text("import deep.er\n")
    seen.add(key())
    (project / "deep/est.py").write_text("import deep.er  # changed\n")
    seen.add(key())
    assert len(seen) == 6
    assert list(user.imported(project / "renamed.py")) == ["deep", "deep.er", "deep.est", "parts"]


def test_a_run_takes_the_stages_of_a_study_and_a_study_those_of_a_run(
    tmp_path: Path, trained: list[str]
) -> None:
    text = studies.TEXT.partition("[study]")[0].replace("[p]", "[p]\nratio = 0.25")
    recipe = write_recipe(tmp_path, f'chain = "PQ"\nseed = 1\n{text}')
    store = tmp_path / "store"
    assert compress(recipe, tmp_path / "run", "--store", store) == 0
    assert trained == ["original", "prune", "quantize"]
    trained.clear()
    words = ("pairs", studies.write(tmp_path), "--out", tmp_path / "out", "--threads", 1, "--store", store)
    assert study_main([str(word) for word in words]) == 0
    assert sorted(trained) == ["exit"] * 2 + ["prune"] * 3 + ["quantize"] * 3
    assert not (tmp_path / "out/stages").exists()
    trained.clear()
    assert compress(recipe, tmp_path / "other", "--store", store, "--set", "chain=QP") == 0
    assert trained == [] and len(Store(store).finished()) == 11


def test_who_finds_a_stage_held_says_so_and_waits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stage, entered = Store(tmp_path).stage("key"), threading.Event()

    def enter() -> None:
        with stage.hold():
            entered.set()

    waiting = threading.Thread(target=enter)
    with stage.hold():
        waiting.start()
        assert not entered.wait(0.5)
        printed = capfd.readouterr().out
    waiting.join()
    assert entered.is_set()
    assert f"waiting for process {os.getpid()} (" in printed and f"works in {stage.folder}" in printed
