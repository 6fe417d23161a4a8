"""Gating, batches, and everything that a session refuses, on the NumPy reference."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest

from coc_runtime import CocError, Result, Session, arithmetic
from coc_runtime.backends.reference import ReferenceBackend, run_node
from coc_runtime.graph import Graph
from graphs import random_graph, random_images


def assert_same(a: Result, b: Result) -> None:
    for field in fields(Result):
        first, second = getattr(a, field.name), getattr(b, field.name)
        assert first.dtype == second.dtype, field.name
        np.testing.assert_array_equal(first, second, err_msg=field.name)


def one_by_one(session: Session, images: np.ndarray) -> Result:
    parts = [session.run(images[at : at + 1]) for at in range(len(images))]
    return Result(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Result)))


def all_logits(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Logits of every exit by running the nodes one after the other, without segments and chunks."""
    known = {graph.input: images}
    for segment in graph.segments:
        for node in segment.nodes:
            known[node.output] = run_node(graph, node, known)
    return np.stack([graph.tensors[s.logits].values(known[s.logits]) for s in graph.segments])


@pytest.mark.parametrize(("bits", "act_bits", "exits"), [(1, 8, 1), (2, 4, 3), (8, 8, 2), (4, 4, 0)])
def test_a_batch_gives_what_its_images_give_one_by_one(bits: int, act_bits: int, exits: int) -> None:
    graph = random_graph(11, bits, act_bits, exits)
    session, images = Session.from_graph(graph), random_images(graph, 40, seed=5)
    batch = session.run(images)
    assert set(batch.exit.tolist()) == set(range(exits + 1))
    assert_same(batch, one_by_one(session, images))
    shuffled = np.random.default_rng(0).permutation(40)
    again = session.run(images[shuffled])
    assert_same(again, Result(*(getattr(batch, f.name)[shuffled] for f in fields(Result))))


def test_each_image_leaves_at_the_first_exit_whose_confidence_reaches_the_threshold() -> None:
    graph = random_graph(3, exits=3)
    images = random_images(graph, 50, seed=1)
    result = Session.from_graph(graph).run(images)
    every = all_logits(graph, images)
    bitops = graph.exit_bitops()
    for n in range(50):
        confident = [
            k for k in range(3) if arithmetic.confidence(every[k, n : n + 1])[0] >= graph.thresholds[k]
        ]
        taken = confident[0] if confident else 3
        assert result.exit[n] == taken
        np.testing.assert_array_equal(result.logits[n], every[taken, n])
        assert result.label[n] == every[taken, n].argmax()
        assert result.confidence[n] == arithmetic.confidence(every[taken, n : n + 1])[0]
        assert result.bitops[n] == bitops[taken]


def test_logits_per_exit_runs_every_segment_for_every_image() -> None:
    graph = random_graph(4, exits=2)
    images = random_images(graph, 30)
    found = Session.from_graph(graph, thresholds=[0, 0]).logits_per_exit(images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, all_logits(graph, images))


def test_threshold_0_leaves_at_once_and_above_1_never() -> None:
    graph = random_graph(5, exits=2)
    images = random_images(graph, 10)
    assert Session.from_graph(graph, thresholds=[0, 0]).run(images).exit.tolist() == [0] * 10
    assert Session.from_graph(graph, thresholds=[2, 0]).run(images).exit.tolist() == [1] * 10
    for never in (1.5, np.nextafter(1.0, 2.0), np.inf, 1e300):
        assert Session.from_graph(graph, thresholds=[never] * 2).run(images).exit.tolist() == [2] * 10


def test_a_confidence_of_1_leaves_at_threshold_1_but_not_just_above() -> None:
    graph = random_graph(5, exits=1, classes=1)
    images = random_images(graph, 3)
    assert Session.from_graph(graph, thresholds=[1.0]).run(images).exit.tolist() == [0] * 3
    assert Session.from_graph(graph, thresholds=[1.0 + 1e-12]).run(images).exit.tolist() == [1] * 3


def test_a_confidence_equal_to_the_threshold_leaves() -> None:
    graph = random_graph(6, exits=1)
    images = random_images(graph, 20)
    first = Session.from_graph(graph).logits_per_exit(images)[0]
    confidences = arithmetic.confidence(first)
    exact = float(confidences[7])
    result = Session.from_graph(graph, thresholds=[exact]).run(images)
    np.testing.assert_array_equal(result.exit == 0, confidences >= np.float32(exact))
    assert result.exit[7] == 0


def test_only_images_that_stay_are_run_further(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(7, exits=2)
    session, seen = Session.from_graph(graph), []
    original = ReferenceBackend.run_segment

    def counted(self: ReferenceBackend, index: int, codes: np.ndarray):  # type: ignore[no-untyped-def]
        seen.append(len(codes))
        return original(self, index, codes)

    monkeypatch.setattr(ReferenceBackend, "run_segment", counted)
    exits = session.run(random_images(graph, 30)).exit
    assert seen == [30, (exits > 0).sum(), (exits > 1).sum()]
    seen.clear()
    Session.from_graph(graph, thresholds=[0, 0]).run(random_images(graph, 30))
    assert seen == [30]


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(8, exits=1)
    images = random_images(graph, 11)
    whole = Session.from_graph(graph).run(images)
    monkeypatch.setattr("coc_runtime.backends.reference.MAX_CHUNK", 4)
    assert_same(Session.from_graph(graph).run(images), whole)
    monkeypatch.setattr("coc_runtime.backends.reference.CHUNK_BYTES", 1)
    assert_same(Session.from_graph(graph).run(images), whole)


def test_images_in_any_memory_layout_are_read_alike_and_left_alone() -> None:
    graph = random_graph(9)
    session, images = Session.from_graph(graph), random_images(graph, 6)
    whole = session.run(images)
    copy = images.copy()
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    channels_last.setflags(write=False)
    assert_same(session.run(channels_last), whole)
    assert_same(session.run(np.repeat(images, 2, axis=0)[::2]), whole)
    np.testing.assert_array_equal(images, copy)


def test_no_images_give_empty_results_of_the_right_shapes() -> None:
    session = Session.from_graph(random_graph(0, exits=2, classes=7))
    empty = np.empty((0, 3, 8, 8), np.uint8)
    result = session.run(empty)
    shapes = {field.name: getattr(result, field.name).shape for field in fields(Result)}
    assert shapes == {"logits": (0, 7), "label": (0,), "exit": (0,), "confidence": (0,), "bitops": (0,)}
    dtypes = [getattr(result, field.name).dtype for field in fields(Result)]
    assert dtypes == [np.float32, np.int64, np.int64, np.float32, np.int64]
    assert session.logits_per_exit(empty).shape == (3, 0, 7)


def test_threads_may_share_a_session() -> None:
    graph = random_graph(10, exits=2)
    session = Session.from_graph(graph)
    batches = [random_images(graph, 7, seed) for seed in range(12)]
    expected = [session.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(session.run, batches), expected, strict=True):
            assert_same(found, wanted)


def test_a_single_image_goes_to_a_backend_that_decides_the_exit_itself() -> None:
    graph = random_graph(12, exits=2)
    session, images = Session.from_graph(graph, thresholds=[0.5, 0.75]), random_images(graph, 2)
    logits = np.linspace(0, 3, 10, dtype=np.float32)[None]
    calls = []

    def run_single(images: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
        calls.append((len(images), thresholds.dtype.name, thresholds.tolist()))
        return logits, 1, np.zeros(1, np.float32)

    session._backend.run_single = run_single  # type: ignore[misc]
    result = session.run(images[:1])
    assert calls == [(1, "float32", [0.5, 0.75])]
    assert (result.exit.tolist(), result.label.tolist()) == ([1], [9])
    assert result.exit.dtype == np.int64
    np.testing.assert_array_equal(result.logits, logits)
    np.testing.assert_array_equal(result.confidence, arithmetic.confidence(logits))
    assert result.bitops.tolist() == [graph.exit_bitops()[1]]
    session.run(images)
    session.run(images[:0])
    assert len(calls) == 1


def test_info_says_what_runs() -> None:
    graph = random_graph(1, exits=2, size=7, classes=5)
    info = Session.from_graph(graph, thresholds=[0, 1]).info
    assert (info.input_shape, info.classes, info.exits) == ((3, 7, 7), 5, 3)
    assert info.thresholds == (0.0, 1.0)
    assert list(info.exit_bitops) == graph.exit_bitops()
    assert info.backend == "reference"
    assert info.reason
    assert Session.from_graph(graph).info.thresholds == graph.thresholds
    with pytest.raises(FrozenInstanceError):
        info.exits = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1]], "images are a list, not a NumPy array: expected uint8 [N, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 8), np.float32), "images are float32: expected uint8 [N, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 8), np.int8), "images are int8: expected uint8"),
        (np.zeros((3, 8, 8), np.uint8), "images have shape [3, 8, 8]: expected uint8 [N, 3, 8, 8]"),
        (np.zeros((2, 1, 8, 8), np.uint8), "images have shape [2, 1, 8, 8]: expected"),
        (np.zeros((2, 8, 8, 3), np.uint8), "images have shape [2, 8, 8, 3]: expected"),
        (np.zeros((0, 3, 8, 9), np.uint8), "images have shape [0, 3, 8, 9]: expected"),
    ],
)
def test_other_images_are_refused_in_one_line(images: np.ndarray, message: str) -> None:
    session = Session.from_graph(random_graph(0))
    for method in (session.run, session.logits_per_exit):
        with pytest.raises(CocError, match=re.escape(message)) as caught:
            method(images)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "thresholds", [[], [0.5, 0.5], [float("nan")], [-1], 0.5, ["high"], [None], [10**400]]
)
def test_bad_thresholds_are_refused(thresholds: object) -> None:
    with pytest.raises(CocError, match="threshold"):
        Session.from_graph(random_graph(0, exits=1), thresholds=thresholds)  # type: ignore[arg-type]


def test_an_illegal_graph_is_refused() -> None:
    graph = random_graph(0)
    tensors = {**graph.tensors, "stem": replace(graph.tensors["stem"], shape=(8, 8, 9))}
    with pytest.raises(CocError, match="stem"):
        Session.from_graph(replace(graph, tensors=tensors))


def test_unknown_backends_and_bad_thread_counts_are_refused_before_the_file_is_read(tmp_path: Path) -> None:
    nowhere = tmp_path / "absent.onnx"
    with pytest.raises(
        CocError, match="unknown backend 'tpu': choose one of auto, native, onnxruntime, reference"
    ):
        Session(nowhere, backend="tpu")
    for threads in (0, -1, 1.5, True, "2"):
        with pytest.raises(CocError, match="threads"):
            Session(nowhere, backend="reference", threads=threads)  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CocError, match=r"absent\.onnx"):
        Session(tmp_path / "absent.onnx", backend="reference")


def test_a_missing_onnxruntime_is_an_error_only_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CocError, match=r"onnxruntime.*pip install 'coc-deploy\[ort\]'"):
        Session(tmp_path / "absent.onnx", backend="onnxruntime")
    from coc_runtime.session import _choose_backend

    name, reason = _choose_backend("auto")
    assert name == "reference"
    assert "onnxruntime" in reason
