"""coc-export --choose-on and --thresholds: the budget holds on the held-out images, the report says how."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coc_export import choosing, latency
from coc_export.cli import main
from coc_export.export_report import report_path
from coc_export.latency import Timing
from coc_runtime import datasets, quality
from coc_runtime.graph import Task
from coc_runtime.session import Session
from conftest import TinyRun
from tiny import digits


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with m.onnx and m.coc as the run left them."""
    folder = tmp_path_factory.mktemp("exported")
    outs = ["--out", str(folder / "m.onnx"), "--out", str(folder / "m.coc")]
    assert main([str(tiny_run.model), *outs, "--images", "5"]) == 0
    return folder


def report(out: Path) -> dict[str, Any]:
    return dict(json.loads(report_path(out).read_text()))


def run(out: Path) -> tuple[float, float, list[float]]:
    """Accuracy and mean BitOps on the held-out images, and the thresholds in the file."""
    data, session = digits("held-out"), Session(out)
    result = session.run(data.images)
    return quality.accuracy(result.logits, data.labels), result.bitops.mean(), list(session.info.thresholds)


@pytest.mark.parametrize("name", ["o.coc", "o.onnx"])
def test_max_drop_is_kept_on_the_held_out_images_with_fewer_bitops(
    name: str, exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    arguments = [str(exported / "m.coc"), "--out", str(out), "--choose-on", "digits", "--max-drop", "6"]
    assert main([*arguments, "--images", "5"]) == 0
    accuracy, bitops, stored = run(out)
    section = report(out)["threshold_choice"]
    last = Session(out, thresholds=[2.0, 2.0]).run(digits("held-out").images)
    best = quality.accuracy(last.logits, digits("held-out").labels)
    assert accuracy >= best - 6 and bitops < last.bitops.mean()
    choice = section["choice"]
    assert choice["accuracy"] == pytest.approx(accuracy)
    assert choice["bitops"]["mean"] == pytest.approx(bitops)
    assert choice["thresholds"] == stored == report(out)["thresholds"]
    assert section["last_exit"]["accuracy"] == pytest.approx(best)
    assert section["images"] == len(digits("held-out").labels) and section["split"] == "held-out"
    assert section["budget"] == {"option": "--max-drop", "text": "6", "value": 6.0}
    assert section["cpu"] and section["backend"].split()[0] in ("native", "onnxruntime", "reference")


def test_bitops_are_kept_and_buy_accuracy(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spent = Session(exported / "m.coc").info.exit_bitops
    found = []
    for limit in (spent[0] * 1.05, (spent[0] + spent[2]) / 2, spent[2]):
        out = tmp_path / "o.coc"
        arguments = [str(exported / "m.coc"), "--out", str(out), "--choose-on", "digits"]
        assert main([*arguments, "--bitops", f"{limit:.1f}", "--images", "5"]) == 0
        accuracy, bitops, _ = run(out)
        assert bitops <= limit
        found.append(accuracy)
    assert found[0] < found[2]
    assert "thresholds chosen on 126 held-out images of digits: --bitops " in capsys.readouterr().out


def test_the_test_split_is_never_read_for_thresholds(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(exported / "m.coc"), "--choose-on", "digits", "--max-drop", "6", "--images", "5"]
    assert main([*arguments, "--out", str(tmp_path / "a.coc")]) == 0
    load = datasets.load

    def spoiled(spec: str, split: str) -> datasets.Dataset:
        data = load(spec, split)
        if split == "held-out":
            return data
        return datasets.Dataset(data.name, 255 - data.images, data.labels[::-1], data.classes)

    monkeypatch.setattr(datasets, "load", spoiled)
    assert main([*arguments, "--out", str(tmp_path / "b.coc")]) == 0
    assert (tmp_path / "a.coc").read_bytes() == (tmp_path / "b.coc").read_bytes()


def test_neighbours_are_cheaper_and_dearer_and_lose_more_and_less(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.coc"
    spent = Session(exported / "m.coc").info.exit_bitops
    limit = (spent[0] + spent[2]) / 2
    arguments = [str(exported / "m.coc"), "--out", str(out), "--choose-on", "digits"]
    assert main([*arguments, "--bitops", str(limit), "--images", "5"]) == 0
    section = report(out)["threshold_choice"]
    costs = [section[name]["bitops"]["mean"] for name in ("cheaper", "choice", "dearer")]
    assert costs == sorted(costs) and costs[0] < costs[1] < costs[2]
    for point in (section["choice"], *section["frontier"]):
        times, ops = point["latency_us"], point["bitops"]
        assert 0 < times["p50"] <= times["p99"] <= times["worst"] and times["mean"] > 0
        assert ops["p50"] <= ops["p99"] <= ops["worst"] == spent[2]
        assert sum(point["exit_share"]) == pytest.approx(1)
    frontier = [point["bitops"]["mean"] for point in section["frontier"]]
    assert frontier == sorted(frontier) and 2 < len(frontier) <= choosing.POINTS


def slow(path: Path, images: np.ndarray) -> Timing:
    """Exit k takes k + 1 ms, and an .onnx file twice that."""
    factor = 2 if path.suffix == ".onnx" else 1
    samples = tuple(np.full(20, 1000.0 * factor * (k + 1)) for k in range(3))
    return Timing("stopwatch", samples)


@pytest.mark.parametrize(
    ("names", "allowed_ms"), [(("o.coc",), 1.5), (("o.onnx",), 3.0), (("o.onnx", "o.coc"), 3.0)]
)
def test_every_artifact_keeps_the_mean_latency(
    names: tuple[str, ...],
    allowed_ms: float,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latency, "measure", slow)
    outs = [word for name in names for word in ("--out", str(tmp_path / name))]
    arguments = [str(exported / "m.coc"), *outs, "--choose-on", "digits", "--images", "5"]
    assert main([*arguments, "--max-latency", f"{allowed_ms}ms"]) == 0
    limits = set()
    for name in names:
        section = report(tmp_path / name)["threshold_choice"]
        choice = section["choice"]
        factor = 2 if name.endswith(".onnx") else 1
        expected = sum(1000 * factor * (k + 1) * share for k, share in enumerate(choice["exit_share"]))
        assert choice["latency_us"]["mean"] == pytest.approx(expected) and expected <= 1000 * allowed_ms
        assert choice["latency_us"]["worst"] == 3000 * factor
        limits.add(tuple(choice["thresholds"]))
    assert len(limits) == 1, "one model, one set of thresholds"
    assert expected > 0.9 * 1000 * allowed_ms or factor == 1, "no better thresholds were left unused"


def test_latency_is_measured_at_every_exit_it_is_forced_to(exported: Path) -> None:
    for name in ("m.onnx", "m.coc"):
        timing = latency.measure(exported / name, digits("held-out").images)
        assert len(timing.samples) == 3 and all(len(sample) >= latency.FEWEST for sample in timing.samples)
        assert all((sample > 0).all() for sample in timing.samples)


def test_a_mixture_weighs_each_exit_by_its_share() -> None:
    timing = Timing("x", (np.full(10, 1.0), np.array([]), np.array([5.0] * 9 + [50.0])))
    found = timing.mixture((0.8, 0.0, 0.2), deepest=2)
    assert found["mean"] == pytest.approx(0.8 + 1.0), "the slowest run of a hundred is not the exit's"
    assert (found["p50"], found["p99"], found["worst"]) == (1.0, 50.0, 50.0)
    assert timing.mixture((1.0, 0.0, 0.0), deepest=0)["worst"] == 1.0
    assert timing.exits()[1] is None


@pytest.mark.parametrize("name", ["m.onnx", "m.coc"])
def test_thresholds_by_hand_go_into_the_file_and_only_they(name: str, exported: Path, tmp_path: Path) -> None:
    outs = ["--out", str(tmp_path / "o.onnx"), "--out", str(tmp_path / "o.coc")]
    assert main([str(exported / name), *outs, "--thresholds", "0.5,0.25", "--images", "5"]) == 0
    images = digits("test").images[:40]
    for kind in ("onnx", "coc"):
        out, before = tmp_path / f"o.{kind}", exported / f"m.{kind}"
        assert Session(out).info.thresholds == (0.5, 0.25) == tuple(report(out)["thresholds"])
        expected = Session(before, thresholds=[0.5, 0.25]).run(images)
        result = Session(out).run(images)
        np.testing.assert_array_equal(result.exit, expected.exit)
        np.testing.assert_array_equal(result.logits, expected.logits)
        written = report(out)
        assert written["written_from"]["file"] == name
        assert written["source_sha256"] == report(before)["source_sha256"]
        names = {name for pair in written["parity"]["pairs"] for name in pair["pair"]}
        assert "reference" in names and "torch integer mode" not in names
        assert "accuracy" not in Session(out).graph.meta, "it was measured with other thresholds"
        assert out.stat().st_size < before.stat().st_size


@pytest.mark.parametrize("name", ["m.onnx", "m.coc"])
def test_either_file_is_made_from_the_other_byte_for_byte(name: str, exported: Path, tmp_path: Path) -> None:
    outs = ["--out", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "m.coc")]
    assert main([str(exported / name), *outs, "--images", "5"]) == 0
    for made in ("m.onnx", "m.coc"):
        assert (tmp_path / made).read_bytes() == (exported / made).read_bytes()


def test_an_artifact_has_its_thresholds_chosen_anew_in_place(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.coc"
    shutil.copy(exported / "m.coc", path)
    assert main([str(path), "--out", str(path), "--thresholds", "0.75,0.5", "--images", "5"]) == 0
    assert Session(path).info.thresholds == (0.75, 0.5)


def test_the_choice_is_that_of_the_chain(exported: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    """The E stage and coc-export search alike: the recipe's max_drop gives the recipe's thresholds."""
    out = tmp_path / "o.coc"
    arguments = [str(exported / "m.coc"), "--out", str(out), "--choose-on", "digits", "--max-drop", "5"]
    assert main([*arguments, "--images", "5"]) == 0
    assert out.read_bytes() == (exported / "m.coc").read_bytes()
    last = json.loads((tiny_run.out / "history.json").read_text())[-1]
    assert report(out)["thresholds"] == last["thresholds"]


def test_the_deepest_exit_is_the_first_that_lets_everything_go() -> None:
    assert choosing._deepest((0.5, 0.0), Task.CLASSIFICATION) == 1
    assert choosing._deepest((0.5, 2.0), Task.CLASSIFICATION) == 2
    assert choosing._deepest((0.0, 0.0), Task.REGRESSION) == 2
