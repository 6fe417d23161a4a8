"""coc-export needs no data set: it compares on images that model.pt carries and on generated ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coc_deploy import checkpoint
from coc_export import generated
from coc_export.cli import main
from coc_export.export_report import report_path
from coc_export.parity import image_digests
from coc_runtime import Session, datasets
from coc_runtime.backends import Outcome, native
from coc_runtime.backends.native import NativeBackend
from coc_runtime.errors import CocError
from conftest import TinyRun
from exporting import complaint
from tiny import digits

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/cifar10-resnet20-1x8/model.pt"
CARRIED = 64
built = pytest.mark.skipif(native.why_missing() is not None, reason="the C extension is not built")


@pytest.fixture(autouse=True)
def no_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no data set, unless a test asks for one."""

    def fail(spec: str, split: str) -> datasets.Dataset:
        raise CocError(f"{spec}: is not here")

    request.getfixturevalue("tiny_run")
    monkeypatch.setattr(datasets, "load", fail)


def report(out: Path) -> dict[str, Any]:
    return dict(json.loads(report_path(out).read_text()))


def last(run: TinyRun) -> dict[str, Any]:
    return dict(json.loads((run.out / "history.json").read_text())[-1])


def old(run: TinyRun, folder: Path) -> Path:
    """The run's model as an earlier version would have written it: without images."""
    data = torch.load(run.model, weights_only=True)
    del data["images"]
    torch.save(data, folder / "old.pt")
    return folder / "old.pt"


def export(source: Path, out: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main([str(source), "--out", str(out), *options]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", ["m.onnx", "m.coc"])
def test_the_file_is_enough(
    name: str, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = export(tiny_run.model, tmp_path / name, capsys=capsys)
    found, history = report(tmp_path / name), last(tiny_run)
    carried, (made,) = found["parity"], found["parity"]["also"]
    assert (carried["set"], carried["data"], carried["images"]) == ("carried", "digits", CARRIED)
    assert (made["set"], made["data"], made["images"]) == ("generated", None, generated.MOST)
    for section in (carried, made):
        assert (section["differing_logits"], section["flipped_exits"]) == (0, 0)
        assert len(section["pairs"]) >= 6 and all(
            len(section[f"{key}_sha256"]) == 64 for key in ("images", "logits")
        )
        assert section["accuracy"] is None, "neither set is a test split"
    assert "labels_sha256" in carried and "labels_sha256" not in made
    assert found["recorded"] == {
        "data": "digits",
        "quality": {"accuracy": history["accuracy"]},
        "images": history["test_images"],
        "exit_share": history["exit_share"],
    }
    assert found["cost"]["exit_share"] == history["exit_share"]
    assert found["cost"]["exit_share_of"] == "recorded"
    for key in ("expected_bitops", "bitops_cr", "bitops_cr_uniform", "cr"):
        assert found["cost"][key] == pytest.approx(history[key]), key
    assert f"parity    {CARRIED} images of digits that model.pt carries, " in lines[0]
    assert lines[1] == f"          {generated.MOST} generated images: 0 differing logits, 0 flipped exits"
    measured = f"{history['accuracy']:.2f} % on {history['test_images']} test images of digits"
    assert f"accuracy  {measured}, recorded by coc-compress" in lines
    (exits,) = (line for line in lines if line.startswith("exits "))
    assert exits.endswith(", recorded by coc-compress")
    card = (tmp_path / "m.md").read_text()
    assert f"| accuracy | {measured}, recorded by coc-compress |" in card
    assert (
        f"on {CARRIED} images of digits that model.pt carries and {generated.MOST} generated images: 0 "
        in card
    )


def test_the_digest_in_the_report_is_that_of_the_carried_images(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([str(tiny_run.model), "--out", str(tmp_path / "m.coc")]) == 0
    images = checkpoint.load(tiny_run.model).images
    assert images is not None
    section = report(tmp_path / "m.coc")["parity"]
    for key, value in image_digests(images.images, images.labels).items():
        assert section[key] == value
    monkeypatch.undo()
    held_out = {image.tobytes() for image in digits("held-out").images}
    assert {image.tobytes() for image in images.images} <= held_out


def test_data_adds_the_whole_test_split(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    lines = export(tiny_run.model, tmp_path / "m.coc", "--data", "digits", capsys=capsys)
    found, history = report(tmp_path / "m.coc"), last(tiny_run)
    sections = [found["parity"], *found["parity"]["also"]]
    assert [part["set"] for part in sections] == ["test split", "carried", "generated"]
    assert found["parity"]["accuracy"] == pytest.approx(history["accuracy"]) and "recorded" not in found
    assert found["cost"]["exit_share_of"] == "test split"
    assert lines[1].startswith(f"          {CARRIED} images of digits that model.pt carries: 0 differing")
    assert f"accuracy  {history['accuracy']:.2f} %" in lines


def test_a_model_of_an_earlier_version_is_compared_on_generated_images_alone(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = export(old(tiny_run, tmp_path), tmp_path / "m.coc", capsys=capsys)
    found = report(tmp_path / "m.coc")
    assert (found["parity"]["set"], found["parity"]["also"]) == ("generated", [])
    assert lines[0].startswith(f"parity    {generated.MOST} generated images, ")
    assert found["cost"]["exit_share"] == last(tiny_run)["exit_share"]


def test_the_committed_example_exports_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = json.loads((EXAMPLE.parent / "history.json").read_text())[-1]
    lines = export(EXAMPLE, tmp_path / "model.coc", "--images", "25", capsys=capsys)
    assert lines[0].startswith("parity    25 generated images, ")
    measured = f"{history['accuracy']:.2f} % on {history['test_images']:,} test images of imagefolder:cifar"
    assert f"accuracy  {measured}, recorded by coc-compress" in lines
    cost, committed = report(tmp_path / "model.coc")["cost"], EXAMPLE.with_name("model.coc.report.json")
    expected = json.loads(committed.read_text())["cost"]
    assert cost["exit_share"] == pytest.approx(expected["exit_share"])
    assert cost["expected_bitops"] == pytest.approx(expected["expected_bitops"])


@pytest.mark.parametrize("source", ["model.pt", "m.coc", "m.onnx"])
def test_with_other_thresholds_nothing_is_claimed(
    source: str, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tiny_run.model
    if source != "model.pt":
        given = tmp_path / source
        export(tiny_run.model, given, "--images", "3", capsys=capsys)
    out = tmp_path / "o.coc"
    lines = export(given, out, "--thresholds", "0.5,0.4", capsys=capsys)
    found = report(out)
    cost, spent = found["cost"], Session(out).info.exit_bitops
    assert "recorded" not in found and found["parity"]["accuracy"] is None
    keys = ("exit_share", "exit_share_of", "expected_bitops", "bitops_cr", "bitops_cr_uniform")
    assert {cost[key] for key in keys} == {None} and cost["cr"] > 1
    assert "accuracy  not measured: give --data with test images" in lines
    assert "exits     not measured: give --data with test images" in lines
    assert any(line.startswith(f"BitOps    {spent[0]:,} to {spent[-1]:,} an image") for line in lines)
    card = (tmp_path / "o.md").read_text()
    assert (
        "| accuracy | not measured |" in card and f"| BitOps | {spent[0]:,} to {spent[-1]:,} an image" in card
    )
    assert f"| 1 | 0.4 | not measured | {spent[1]:,} |" in card


def test_an_artifact_tells_the_recorded_accuracy_and_no_exits(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(tiny_run.model, tmp_path / "m.coc", capsys=capsys)
    lines = export(tmp_path / "m.coc", tmp_path / "m.onnx", capsys=capsys)
    found = report(tmp_path / "m.onnx")
    assert found["parity"]["set"] == "generated" and found["cost"]["exit_share"] is None
    accuracy = f"{last(tiny_run)['accuracy']:.2f} %"
    assert f"accuracy  {accuracy} on the test images of digits, recorded by coc-compress" in lines


def test_without_early_exits_the_cost_is_certain(tiny_run: TinyRun, tmp_path: Path) -> None:
    assert main([str(tiny_run.out / "03-quantize/model.pt"), "--out", str(tmp_path / "q.coc")]) == 0
    cost = report(tmp_path / "q.coc")["cost"]
    assert cost["exit_share"] == [1.0] and cost["expected_bitops"] == cost["exit_bitops"][0]
    assert "spread" not in report(tmp_path / "q.coc")["parity"]["also"][0]


@pytest.mark.parametrize("name", ["m.onnx", "m.coc"])
def test_every_exit_is_taken_by_generated_images(name: str, tiny_run: TinyRun, tmp_path: Path) -> None:
    assert main([str(tiny_run.model), "--out", str(tmp_path / name)]) == 0
    (made,) = report(tmp_path / name)["parity"]["also"]
    spread = made["spread"]
    assert len(spread["exit_share"]) == 3 and min(spread["exit_share"]) > 0.1
    result = Session(tmp_path / name, thresholds=spread["thresholds"]).run(generated.images((1, 8, 8)))
    assert np.bincount(result.exit, minlength=3) / len(result.exit) == pytest.approx(spread["exit_share"])
    if name == "m.onnx" or native.why_missing() is None:
        assert len(spread["pairs"]) >= 3


def saturates(backend: NativeBackend, images: np.ndarray) -> np.ndarray:
    """A kernel that is wrong where all pixels are 255."""
    logits = right_logits(backend, images)
    white = (images == 255).all(axis=(1, 2, 3))
    logits[:, white] += (backend.cpu == "scalar") * np.float32(1)
    return logits


right_logits, right_run = NativeBackend.logits_per_exit, NativeBackend.run


@built
def test_a_difference_that_only_borders_show_fails_the_export(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(NativeBackend, "logits_per_exit", saturates)
    line = complaint([str(tiny_run.model), "--out", str(tmp_path / "m.coc")], capsys)
    assert "back ends differ on" in line and list(tmp_path.iterdir()) == []


@built
def test_an_exit_that_only_other_thresholds_reach_is_tried(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = checkpoint.load(tiny_run.model).network.thresholds

    def late(backend: NativeBackend, images: np.ndarray) -> Outcome:
        logits, label, exits, confidence, bitops = right_run(backend, images)
        if backend.thresholds != own and backend.cpu == "scalar":
            exits[exits == 1] = 2
        return logits, label, exits, confidence, bitops

    monkeypatch.setattr(NativeBackend, "run", late)
    line = complaint([str(tiny_run.model), "--out", str(tmp_path / "m.coc")], capsys)
    assert "back ends differ on 0 logits and " in line and list(tmp_path.iterdir()) == []


def test_choosing_says_which_data_are_wanted(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_run.model), "--out", str(tmp_path / "m.coc"), "--max-drop", "1"]
    line = complaint([*arguments, "--choose-on", "cifar10"], capsys)
    assert "--choose-on cifar10: cifar10: is not here (the model was trained on digits)" in line
    assert "needs --choose-on DATA" in complaint(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def test_verify_repeats_the_generated_part_of_the_report(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "m.onnx", tmp_path / "m.coc"]
    assert main([str(tiny_run.model), "--out", str(paths[0]), "--out", str(paths[1])]) == 0
    words = ["--verify", *map(str, paths)]
    capsys.readouterr()
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, beside in (("m.onnx", "m.report.json"), ("m.coc", "m.coc.report.json")):
        assert f"{name}, generated images: logits and exits are those of {beside}, bit for bit" in lines
    assert lines[-1].startswith(f"verified: {generated.MOST} generated images, ")
    spoiled = report(paths[1])
    spoiled["parity"]["also"][0]["logits_sha256"] = "0" * 64
    report_path(paths[1]).write_text(json.dumps(spoiled))
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "m.coc, generated images: logits are not those of m.coc.report.json on the same images" in line


def test_verify_names_the_data_that_a_report_covers(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    assert main([str(tiny_run.model), "--out", str(path), "--images", "20"]) == 0
    found = report(path)
    tested = {"set": "test split", "data": "imagefolder:birds", "images": 300}
    found["parity"]["also"].append(found["parity"] | tested | {"also": []})
    report_path(path).write_text(json.dumps(found))
    capsys.readouterr()
    assert main(["--verify", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    covers = "m.report.json covers 300 test images of imagefolder:birds"
    assert f"m.onnx: {covers}: --data imagefolder:PATH compares these, too" in lines
    assert lines[-1].startswith("verified: 20 generated images, ")


def test_verify_tells_artifacts_with_other_thresholds_apart(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.coc", tmp_path / "b.coc"
    assert main([str(tiny_run.model), "--out", str(a), "--images", "2"]) == 0
    limits = Session(a).info.thresholds
    other = f"{np.nextafter(np.float32(limits[0]), np.float32(2))},{limits[1]}"
    assert main([str(a), "--out", str(b), "--thresholds", other, "--images", "2"]) == 0
    assert main(["--verify", str(a), str(b)]) == 1
    assert "a.coc and b.coc have other thresholds" in capsys.readouterr().err


@pytest.mark.parametrize("also", [3, [3], [{"images": 0}], [{}]])
def test_a_report_whose_sets_are_none_is_told(
    also: Any, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.coc"
    assert main([str(tiny_run.model), "--out", str(path), "--images", "2"]) == 0
    spoiled = report(path)
    spoiled["parity"]["also"] = also
    report_path(path).write_text(json.dumps(spoiled))
    assert "not a report of coc-export" in complaint(["--verify", str(path)], capsys)
