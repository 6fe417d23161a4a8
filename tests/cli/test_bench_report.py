"""coc-bench's report: what it contains, and that its figures are those of the artifact."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_files import artifact, float_model, image_folder
from coc_bench.bench_report import summary
from coc_bench.cli import main
from coc_bench.rounds import latencies
from coc_bench.subjects import display_names
from coc_bench.tables import table
from coc_runtime import cost, datasets
from coc_runtime.session import Session

RUN_KEYS = {
    "artifact",
    "backend",
    "threads",
    "accuracy",
    "latency_us",
    "images_per_s",
    "exit_share",
    "expected_bitops",
    "bitops_cr",
    "cr",
    "file_bytes",
    "load_ms",
    "peak_rss_mb",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run over an artifact on two back ends, one without exits, and both peers."""
    folder = tmp_path_factory.mktemp("bench")
    data = image_folder(folder / "images")
    exits = artifact(folder / "exits.onnx", exits=2)
    plain = artifact(folder / "plain.onnx", exits=0)
    floating = float_model(folder / "float.onnx")
    out = folder / "results" / "out.json"
    arguments = [str(exits), str(plain), "--data", data, "--json", str(out), "--rounds", "40", "--batch", "8"]
    arguments += ["--backend", "reference", "--backend", "onnxruntime"]
    code = main([*arguments, "--original", str(floating), "--int8-of", str(floating)])
    assert code == 0
    return {"report": json.loads(out.read_text()), "data": data, "exits": exits, "folder": out.parent}


def run_of(bench: dict[str, Any], name: str, backend: str) -> dict[str, Any]:
    (run,) = [r for r in bench["report"]["runs"] if (r["artifact"], r["backend"]) == (name, backend)]
    return run


def test_report_has_the_documented_schema(bench: dict[str, Any]) -> None:
    report = bench["report"]
    assert report["schema"] == 2
    assert {"cpu", "flags", "cores", "os", "python", "numpy", "onnxruntime", "date"} <= set(
        report["environment"]
    )
    assert len(report["runs"]) == 6
    for run in report["runs"]:
        assert set(run) >= RUN_KEYS
        assert set(run["latency_us"]) == {"mean", "p50", "p90", "p99", "max"}
        assert run["latency_us"]["p50"] <= run["latency_us"]["p90"] <= run["latency_us"]["max"]
        assert min(run["images_per_s"], run["load_ms"], run["peak_rss_mb"], run["file_bytes"]) > 0
        assert sum(run["exit_share"]) == pytest.approx(1)
        assert (run["samples"], run["rounds"], run["batch"]) == (60, 40, 8)


def test_figures_agree_with_a_session_run_by_hand(bench: dict[str, Any]) -> None:
    data = datasets.load(bench["data"], "test")
    session = Session(bench["exits"], backend="reference")
    result = session.run(data.images)
    run = run_of(bench, "exits.onnx", "reference")
    assert run["accuracy"] == pytest.approx((result.label == data.labels).mean())
    assert 0 < run["accuracy"] < 1
    assert run["exit_share"] == pytest.approx([(result.exit == k).mean() for k in range(3)])
    assert min(run["exit_share"]) > 0
    assert run["expected_bitops"] == pytest.approx(result.bitops.mean())
    meta = session.graph.meta
    assert run["bitops_cr"] == pytest.approx(meta["original_bitops"] / result.bitops.mean())
    layers = session.graph.layers()
    assert run["cr"] == pytest.approx(meta["original_bits"] / cost.stored_bits(layers))
    assert run["file_bytes"] == bench["exits"].stat().st_size


def test_uniform_ratio_counts_every_layer_at_the_chains_bits(bench: dict[str, Any]) -> None:
    run = run_of(bench, "plain.onnx", "reference")
    session = Session(bench["exits"].with_name("plain.onnx"), backend="reference")
    weights, activations = session.graph.meta["chain_bits"]
    macs = sum(layer.macs for layer in session.graph.layers())
    expected = session.graph.meta["original_bitops"] / (macs * weights * activations)
    assert run["bitops_cr_uniform"] == pytest.approx(expected)
    assert run["bitops_cr_uniform"] > run["bitops_cr"]  # Its stem and linear layer have 8 bits, not 1.


def test_back_ends_report_the_same_accuracy_and_exits(bench: dict[str, Any]) -> None:
    for name in ("exits.onnx", "plain.onnx"):
        one, other = run_of(bench, name, "reference"), run_of(bench, name, "onnxruntime")
        for key in ("accuracy", "exit_share", "expected_bitops"):
            assert one[key] == other[key]


def test_peers_are_measured_in_the_same_run(bench: dict[str, Any]) -> None:
    original = run_of(bench, "float.onnx", "onnxruntime")
    assert original["kind"] == "original"
    assert original["speedup_over_original"] == 1
    assert original["bitops_cr"] == original["cr"] == 1
    int8 = run_of(bench, "float.onnx (int8)", "onnxruntime")
    assert int8["kind"] == "int8"
    assert int8["settings"]["calibration"] in ("MinMax", "Percentile", "Entropy")
    assert int8["bitops_cr"] is None
    assert abs(int8["accuracy"] - original["accuracy"]) < 0.2  # The same model, but for its rounding.
    assert all(run["speedup_over_original"] > 0 for run in bench["report"]["runs"])


def test_nothing_but_the_report_is_left_behind(bench: dict[str, Any]) -> None:
    assert [path.name for path in bench["folder"].iterdir()] == ["out.json"]


def test_thresholds_and_limit_are_obeyed(bench: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    out = bench["folder"].parent / "never.json"
    arguments = [str(bench["exits"]), "--data", bench["data"], "--json", str(out), "--rounds", "3"]
    assert main([*arguments, "--limit", "7", "--thresholds", "2,2"]) == 0
    (run,) = json.loads(out.read_text())["runs"]
    assert run["exit_share"] == [0, 0, 1]
    assert run["samples"] == 7
    assert run["latency_us_by_exit"][:2] == [None, None]
    lines = capsys.readouterr().out.splitlines()
    (start,) = [k for k, line in enumerate(lines) if line.startswith("artifact ")]
    header, rule, row = lines[start : start + 3]
    assert header.startswith("artifact") and set(rule) == {"-"}
    assert row.startswith("exits.onnx") and "0/0/100" in row


def test_rounds_give_every_runner_the_same_images_in_the_same_order() -> None:
    class Recorder:
        graph = None
        image_shape = (1, 1, 1)
        backend = "none"

        def __init__(self) -> None:
            self.seen: list[int] = []

        def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.seen.append(int(images[0, 0, 0, 0]))
            return np.zeros(1, np.int64), np.zeros(1, np.int64)

    runners = [Recorder(), Recorder(), Recorder()]
    images = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1)
    order = np.array([4, 2, 8, 0])
    timing = latencies(runners, images, order, beat=lambda: 1000, waited=lambda: 0)
    assert timing.elapsed.shape == (3, 4) and (timing.elapsed > 0).all()
    for runner in runners:
        assert runner.seen == [4, 2, 8, 0, 4, 4, 2, 2, 8, 8, 0, 0]  # warm-up; untimed and timed


def test_summary_is_in_microseconds() -> None:
    found = summary(np.arange(1, 101) * 1000)
    assert found == pytest.approx({"mean": 50.5, "p50": 50.5, "p90": 90.1, "p99": 99.01, "max": 100})


def test_table_marks_what_is_unknown_and_aligns_columns(bench: dict[str, Any]) -> None:
    lines = table(bench["report"]["runs"]).splitlines()
    assert len(lines) == 8
    ends = {len(line) for line in lines}
    assert len(ends) == 1
    (int8,) = [line for line in lines if "(int8)" in line]
    assert "  -  " in int8


def test_names_are_as_short_as_they_can_be() -> None:
    paths = [Path("a/one/model.onnx"), Path("a/two/model.onnx"), Path("b/other.onnx")]
    assert display_names(paths) == ["one/model.onnx", "two/model.onnx", "other.onnx"]
    assert display_names([Path("x/m.onnx"), Path("x/m.onnx")]) == ["m.onnx", "m.onnx"]
