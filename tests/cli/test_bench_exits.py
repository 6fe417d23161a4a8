"""What coc-bench says of early exits is what a session run by hand gives."""

import base64
import io
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench_files import artifact, float_model, image_folder
from coc_bench.bench_report import profile_layers
from coc_bench.cli import main
from coc_bench.exits import histogram, sweep_thresholds
from coc_bench.pictures import png
from coc_bench.tables import gap_lines
from coc_runtime import arithmetic, datasets
from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError
from coc_runtime.session import Session
from coc_runtime.thresholds import forcing


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("exits")
    data = image_folder(folder / "images")
    model, floating = artifact(folder / "model.onnx", exits=2), float_model(folder / "float.onnx")
    out = folder / "out.json"
    arguments = [str(model), "--data", data, "--backend", "reference", "--rounds", "12", "--batch", "7"]
    assert main([*arguments, "--original", str(floating), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    return {"report": report, "run": report["runs"][0], "model": model, "data": data}


def test_accuracy_is_told_of_those_that_leave_and_of_all(done: dict[str, Any]) -> None:
    test = datasets.load(done["data"], "test")
    session = Session(done["model"], backend="reference")
    result, logits = session.run(test.images), session.logits_per_exit(test.images)
    for k in range(3):
        there = result.exit == k
        right = (result.label == test.labels)[there].mean()
        assert done["run"]["accuracy_by_exit"][k] == pytest.approx(right)
        assert done["run"]["exit_accuracy"][k] == pytest.approx((logits[k].argmax(1) == test.labels).mean())


def test_the_files_own_thresholds_are_a_point_of_the_curve_that_agrees_with_the_run(
    done: dict[str, Any],
) -> None:
    run = done["run"]
    (chosen,) = [point for point in run["curve"] if point["chosen"]]
    session = Session(done["model"], backend="reference")
    assert chosen["thresholds"] == run["thresholds"] == list(session.info.thresholds)
    for key in ("accuracy", "expected_bitops", "bitops_cr"):
        assert chosen[key] == pytest.approx(run[key]), key
    assert chosen["exit_share"] == pytest.approx(run["exit_share"])
    expected = np.dot(chosen["exit_share"], run["exit_latency_us"])
    assert chosen["expected_latency_us"] == pytest.approx(expected)


def test_the_curve_goes_from_all_leaving_at_once_to_none_leaving_early(done: dict[str, Any]) -> None:
    curve = done["run"]["curve"]
    assert curve[0]["exit_share"] == [1, 0, 0] and curve[-1]["exit_share"] == [0, 0, 1]
    costs = [point["expected_bitops"] for point in curve]
    assert costs == sorted(costs) and len(set(costs)) > 5
    info = Session(done["model"], backend="reference").info
    assert (costs[0], costs[-1]) == (info.exit_bitops[0], info.exit_bitops[-1])
    assert curve[-1]["accuracy"] == pytest.approx(done["run"]["exit_accuracy"][-1])


def test_every_timed_round_is_in_the_histogram_of_its_exit(done: dict[str, Any]) -> None:
    for run in done["report"]["runs"]:
        found = run["latency_histogram"]
        assert len(found["counts_by_exit"]) == len(run["exit_share"])
        assert all(len(counts) + 1 == len(found["edges_us"]) for counts in found["counts_by_exit"])
        assert sum(map(sum, found["counts_by_exit"])) == run["rounds"]
        timed = [sum(counts) > 0 for counts in found["counts_by_exit"]]
        assert timed == [latency is not None for latency in run["latency_us_by_exit"]]


def test_bins_of_a_histogram_rise_also_where_all_rounds_took_the_same() -> None:
    found = histogram(np.full(9, 5000), np.zeros(9, np.int64), 2)
    assert (np.diff(found["edges_us"]) > 0).all()
    assert [sum(counts) for counts in found["counts_by_exit"]] == [9, 0]


def test_images_shown_at_an_exit_left_there(done: dict[str, Any]) -> None:
    test = datasets.load(done["data"], "test")
    result = Session(done["model"], backend="reference").run(test.images)
    known = {image.tobytes(): index for index, image in enumerate(test.images)}
    for k, shown in enumerate(done["run"]["exit_images"]):
        assert len(shown) == min(8, (result.exit == k).sum())
        for entry in shown:
            with Image.open(io.BytesIO(base64.b64decode(entry["png"]))) as file:
                pixels = np.asarray(file).transpose(2, 0, 1)
            index = known[pixels.tobytes()]
            assert result.exit[index] == k
            assert entry["label"] == test.classes[test.labels[index]]
            assert entry["predicted"] == test.classes[result.label[index]]


def test_the_gap_is_the_ratio_of_saved_bitops_and_speed(done: dict[str, Any]) -> None:
    run = done["run"]
    expected = run["bitops_cr"] / run["mean_speedup_over_original"]
    assert run["bitops_cr_over_speedup"] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 5, 3), (3, 4, 7)])
def test_a_png_file_holds_the_pixels(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(png(image))) as file:
        assert np.array_equal(np.asarray(file).reshape(*shape[1:], shape[0]).transpose(2, 0, 1), image)


def test_forcing_thresholds_send_every_image_to_the_exit(done: dict[str, Any]) -> None:
    images = datasets.load(done["data"], "test").images
    for k in range(3):
        thresholds = forcing(k, 3, Task.CLASSIFICATION)
        session = Session(done["model"], backend="reference", thresholds=thresholds)
        assert set(session.run(images).exit) == {k}


def test_a_regression_is_forced_and_swept_by_tolerances() -> None:
    logits = np.random.default_rng(1).normal(size=(3, 40, 2)).astype(np.float32)
    assert forcing(0, 3, Task.REGRESSION) is None
    for k in (1, 2):
        thresholds = forcing(k, 3, Task.REGRESSION)
        assert thresholds is not None
        assert set(arithmetic.exits_taken(logits, thresholds, Task.REGRESSION)) == {k}
    swept = sweep_thresholds(logits, Task.REGRESSION)
    ends = [arithmetic.exits_taken(logits, point, Task.REGRESSION) for point in (swept[0], swept[-1])]
    assert set(ends[0]) == {2} and set(ends[1]) == {1}


def test_a_model_without_early_exits_has_one_point(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "images")
    out = tmp_path / "out.json"
    model = artifact(tmp_path / "plain.onnx", exits=0)
    words = [str(model), "--data", data, "--backend", "reference", "--rounds", "2", "--json", str(out)]
    assert main(words) == 0
    (run,) = json.loads(out.read_text())["runs"]
    assert [point["exit_share"] for point in run["curve"]] == [[1]]
    assert run["accuracy_by_exit"] == run["exit_accuracy"] == [run["accuracy"]]


@dataclass(frozen=True)
class Row:
    """As the runtime's profile gives them."""

    name: str
    kind: Task
    time_us: float


def test_layers_are_what_the_runtimes_profile_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(session: str, images: np.ndarray, rounds: int) -> list[Row]:
        if session == "reference":
            raise CocError("the reference has no profile")
        return [Row(f"{session} {len(images)} {rounds}", Task.CLASSIFICATION, 1.5)]

    module = types.ModuleType("coc_runtime.profile")
    module.profile = profile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coc_runtime.profile", module)
    images = np.zeros((2, 1, 1, 1), np.uint8)
    rows = profile_layers("native", images, 3)
    assert rows == [{"name": "native 2 3", "kind": Task.CLASSIFICATION.value, "time_us": 1.5}]
    json.dumps(rows)
    assert profile_layers("reference", images, 3) is None
    monkeypatch.setitem(sys.modules, "coc_runtime.profile", None)
    assert profile_layers("native", images, 3) is None


def test_the_layers_that_take_more_time_than_bitops_explain_the_gap(done: dict[str, Any]) -> None:
    shares = {"stem": (0.5, 0.1), "body": (0.2, 0.85), "add": (0.3, 0.0), "head": (0.0, 0.05)}
    layers = [{"name": n, "share_of_time": t, "share_of_bitops": b} for n, (t, b) in shares.items()]
    first, second = gap_lines(done["run"] | {"layers": layers})
    assert first.startswith("model.onnx, reference: ") and "fewer BitOps" in first
    assert second.endswith("stem 50% and 10%, add 30% and 0%")
    assert gap_lines(done["run"] | {"layers": []}) == [first]
    assert gap_lines(done["report"]["runs"][1]) == []
