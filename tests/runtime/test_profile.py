"""Where time goes: every operator of the graph with its costs, shares of one, on both back ends."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coc_export.onnx.writer import write_onnx
from coc_runtime import CocError, Session, cocwrite
from coc_runtime.backends import middle, native, ortprofile
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.graph import Graph
from coc_runtime.ops import Conv
from coc_runtime.profile import REST, LayerTime, profile, rows_of, table
from graphs import (
    as_regression,
    depthwise_graph,
    random_graph,
    random_images,
    random_inception,
    random_mobile,
)

GRAPHS: dict[str, Callable[[], Graph]] = {
    "residual": lambda: random_graph(3, exits=2),
    "4-bit activations, no exits": lambda: random_graph(4, bits=4, act_bits=4, exits=0, size=9),
    "pools and concatenations": lambda: random_inception(5, exits=2),
    "tables and products": lambda: random_mobile(7, exits=2),
    "regression": lambda: as_regression(random_graph(6, exits=2, classes=2)),
    "depthwise": lambda: depthwise_graph(1, 16),
}

missing = native.why_missing()
KINDS = ("onnx", pytest.param("coc", marks=pytest.mark.skipif(missing is not None, reason=str(missing))))


def write(graph: Graph, folder: Path, kind: str) -> Path:
    path = folder / f"model.{kind}"
    onnx = kind == "onnx"
    path.write_bytes(write_onnx(graph).SerializeToString() if onnx else cocwrite.dump(graph))
    return path


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back ends measure, but say 1, 2, 3 ... microseconds: what a clock says depends on the load."""
    for backend in (native.NativeBackend, OrtBackend):

        def measured(
            self: Session,
            images: np.ndarray,
            rounds: int,
            real: Callable[..., np.ndarray] = backend.operator_times,
        ) -> np.ndarray:
            found = real(self, images, rounds)
            assert found.dtype == np.float64 and np.isfinite(found).all() and (found >= 0).all()
            return np.arange(1.0, len(found) + 1)

        monkeypatch.setattr(backend, "operator_times", measured)


def check(rows: list[LayerTime], graph: Graph) -> None:
    """Names, order and costs are the graph's; times are `known_times`, shares add up."""
    nodes = [(node.name, type(node).__name__, k) for k, s in enumerate(graph.segments) for node in s.nodes]
    assert [(row.name, row.op, row.segment) for row in rows] == [*nodes, (REST, "", None)]
    costs = {cost.name: cost for cost in graph.layers()}
    for row in rows:
        cost = costs.pop(row.name, None)
        found = (row.macs, row.bitops)
        assert found == ((cost.macs, cost.bitops) if cost else (0, 0)), row.name
        if cost:
            assert (row.weight_bits, row.activation_bits) == (cost.weight_bits, cost.activation_bits)
    assert not costs
    assert sum(row.bitops for row in rows) == graph.exit_bitops()[-1]
    assert sum(row.share_of_time for row in rows) == pytest.approx(1)
    assert sum(row.share_of_bitops for row in rows) == pytest.approx(1)
    assert [row.time_us for row in rows] == list(range(1, len(rows) + 1))
    whole = len(rows) * (len(rows) + 1) / 2
    for row in rows:
        assert row.share_of_time == pytest.approx(row.time_us / whole)


@pytest.mark.usefixtures("known_times")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRAPHS)
def test_rows_are_the_graphs_operators_and_add_up(name: str, kind: str, tmp_path: Path) -> None:
    graph = GRAPHS[name]()
    rows = profile(write(graph, tmp_path, kind), random_images(graph, 3), rounds=4)
    check(rows, graph)


@pytest.mark.usefixtures("known_times")
@pytest.mark.skipif(missing is not None, reason=str(missing))
def test_every_level_of_the_core_has_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = GRAPHS["pools and concatenations"]()
    path = write(graph, tmp_path, "coc")
    for level in native.levels():
        monkeypatch.setenv("COC_CPU", level)
        for threads in (1, 2):
            session = Session(path, threads=threads)
            assert session.info.cpu_level == level
            check(profile(session, random_images(graph, 2), rounds=2), graph)


def counted(session: Session, images: np.ndarray, rounds: int) -> list[np.ndarray]:
    """How many events of ONNX Runtime's profile each operator has, and none, run by run."""
    seen: list[np.ndarray] = []

    def remember(events: list[dict], names: dict[str, int], operators: int) -> list:
        found = real(events, names, operators)
        seen.extend(counts for _, counts in found)
        return found

    real = ortprofile.sum_events
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ortprofile, "sum_events", remember)
        session.operator_times(images, rounds)
    return seen


def test_a_profile_runs_all_segments_whatever_the_thresholds(tmp_path: Path) -> None:
    """Of ONNX Runtime; for the core tests/native/test_profile.py has a graph that images leave at once."""
    graph = replace(GRAPHS["residual"](), thresholds=(0.0, 0.0))
    session = Session(write(graph, tmp_path, "onnx"))
    images = random_images(graph, 2)
    before = session.run(images)
    assert set(before.exit) == {0}
    nodes = [node for segment in graph.segments for node in segment.nodes]
    counts = counted(session, images, 2)
    assert len(counts) > 3
    for found in counts:
        assert all(found[j] > 0 for j, node in enumerate(nodes) if isinstance(node, Conv))
    np.testing.assert_array_equal(session.run(images).logits, before.logits)


@pytest.mark.parametrize("name", GRAPHS)
def test_onnxruntimes_convolutions_additions_and_heads_are_all_attributed(name: str, tmp_path: Path) -> None:
    """What ONNX Runtime calls its fused nodes is read from its profile; a new version may change it."""
    graph = GRAPHS[name]()
    names = ortprofile.operator_names(graph)
    nodes = [node for segment in graph.segments for node in segment.nodes]
    for counts in counted(Session(write(graph, tmp_path, "onnx")), random_images(graph, 1), 1):
        for j, node in enumerate(nodes):
            assert names[node.name] == j
            assert counts[j] > 0 or type(node).__name__ == "Flatten", node.name


EVENTS = [
    ("Session", "model_loading_array", 900, ""),
    ("Node", "stem_token_2_kernel_time", 7, "QLinearConv"),
    ("Node", "y1_nchwc_kernel_time", 3, "Conv"),
    ("Node", "Softmax_3_kernel_time", 2, "Softmax"),
    ("Node", "head_token_1_kernel_time", 4, "QGemm"),
    ("Node", "If_4_kernel_time", 400, "If"),
    ("Session", "SequentialExecutor::Execute", 500, ""),
    ("Session", "model_run", 600, ""),
    ("Node", "stem_kernel_time", 1, "QLinearConv"),
    ("Session", "model_run", 600, ""),
]


def test_events_are_summed_per_run_and_operator() -> None:
    events = [
        {"cat": cat, "name": name, "dur": dur, "args": {"op_name": op} if op else {}}
        for cat, name, dur, op in EVENTS
    ]
    names = {"stem": 0, "y1": 1, "head_token_1": 2}
    first, second = ortprofile.sum_events(json.loads(json.dumps(events)), names, 3)
    assert first[0].tolist() == [7.5, 3.5, 4.5, 2.5] and first[1].tolist() == [1, 1, 1, 1]
    assert second[0].tolist() == [1.5, 0, 0, 0] and second[1].tolist() == [1, 0, 0, 0]


def test_what_recording_takes_is_taken_off_alike() -> None:
    times, counts = np.array([10.0, 6.0, 0.0, 4.0]), np.array([1.0, 1.0, 0.0, 2.0])
    assert ortprofile.fit(times, counts, 12.0).tolist() == [8.0, 4.0, 0.0, 0.0]
    assert ortprofile.fit(times, counts, 30.0).tolist() == [10.0, 6.0, 0.0, 14.0]
    assert ortprofile.fit(times, counts, 0.5).min() >= 0
    assert times.tolist() == [10.0, 6.0, 0.0, 4.0]


def test_interruptions_do_not_change_the_middle() -> None:
    times = np.array([[1.0, 2.0]] * 9 + [[2.0, 2.0]] * 9 + [[1000.0, 1.0], [0.0, 900.0]])
    assert middle(times).tolist() == [1.5, 2.0]
    assert middle(np.array([3.0])) == 3.0


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_requests_are_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    graph = random_graph(3, exits=1)
    path = write(graph, tmp_path, kind)
    images = random_images(graph, 2)
    for session, taken, rounds, words in (
        (path, images[:0], 1, "at least 1 image and 1 round: 0 and 1 given"),
        (path, images, 0, "at least 1 image and 1 round: 2 and 0 given"),
        (path, images.astype(float), 1, "expected uint8"),
        (Session(path, backend="reference"), images, 1, "backend reference has no profile: choose native"),
    ):
        with pytest.raises(CocError, match=words) as caught:
            profile(session, taken, rounds)
        assert "\n" not in str(caught.value)


def test_a_profile_that_cannot_be_kept_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = random_graph(3, exits=1)
    session = Session(write(graph, tmp_path, "onnx"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(CocError, match="temporary file"):
        profile(session, random_images(graph, 1), 1)


def test_the_table_names_what_takes_more_time_than_bitops() -> None:
    graph = random_graph(3, exits=1)
    count = sum(len(segment.nodes) for segment in graph.segments)
    times = np.ones(count + 1)
    times[2], times[-1] = 50.0, 9.0
    rows = rows_of(graph, times)
    lines, macs = table(rows).splitlines(), f"{sum(row.macs for row in rows):,}"
    assert len(lines) == len(rows) + 3 and table(rows).isascii()
    total = sum(times)
    assert lines[-1].startswith(f"more time than BitOps: {rows[2].name} ({50 / total:.1%} of the time, ")
    assert f"{REST} ({9 / total:.1%} of the time, 0.0% of the BitOps)" in lines[-1]
    assert lines[-2].split() == [
        "sum",
        macs,
        f"{graph.exit_bitops()[-1]:,}",
        f"{total:.2f}",
    ]
    stem = lines[1].split()
    assert stem[:4] == ["stem", "Conv", "0", "8x8"] and stem[5] == f"{rows[0].bitops:,}"


def test_the_table_says_where_time_follows_bitops() -> None:
    graph = random_graph(3, exits=0)
    rows = rows_of(
        graph, np.array([*(float(row.bitops) for row in rows_of(graph, np.ones(len(graph.tensors))))])
    )
    assert table(rows).splitlines()[-1].startswith("time follows BitOps")
    with pytest.raises(CocError, match="without rows"):
        table([])
