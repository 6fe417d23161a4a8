"""ONNX Runtime and ONNX's reference evaluator give the integers of the definition, exit by exit."""

import itertools
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from coc_export.onnx.writer import write_onnx, write_segments
from coc_runtime import arithmetic, onnxfile
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.backends.reference import ReferenceBackend
from coc_runtime.graph import Graph
from coc_runtime.onnxfile import OnnxFile
from graphs import depthwise_graph, random_graph, random_images, random_inception, random_mobile

# (exits, channels, size): maps of 8x8, 7x7, 6x6 and 4x4 before pooling; channels that need padding bits
LAYOUTS = [(0, 3, 16), (1, 5, 14), (2, 11, 12), (2, 8, 8), (1, 3, 7)]
CASES = list(itertools.product((1, 2, 4, 8), (8, 4), LAYOUTS))


JOINED = [
    {"bits": 1, "exits": 2},
    {"bits": 2, "act_bits": 4, "exits": 1, "channels": 5, "size": 13},
    {"bits": 4, "exits": 3, "channels": 3, "size": 16},
    {"bits": 8, "act_bits": 2, "exits": 2, "channels": 16},
]


@cache
def exported(bits: int, act_bits: int, layout: tuple[int, int, int]) -> tuple[Graph, OnnxFile]:
    exits, channels, size = layout
    graph = random_graph(7 * bits + size, bits, act_bits, exits, channels, size)
    return graph, onnxfile.parse(write_onnx(graph).SerializeToString(), "memory")


def images_with_extremes(graph: Graph, count: int = 12) -> np.ndarray:
    """Random images, one all black and one all white."""
    images = random_images(graph, count, seed=5)
    images[0], images[1] = 0, 255
    return images


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize(("bits", "act_bits", "layout"), CASES)
def test_segments_equal_the_reference(
    bits: int, act_bits: int, layout: tuple[int, int, int], optimize: bool
) -> None:
    assert_segments_equal(*exported(bits, act_bits, layout), optimize)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize("index", range(len(JOINED)))
def test_joined_branches_equal_the_reference(index: int, optimize: bool) -> None:
    graph = random_inception(index, **JOINED[index])  # type: ignore[arg-type]
    file = onnxfile.parse(write_onnx(graph).SerializeToString(), "memory")
    assert_segments_equal(graph, file, optimize)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize(("bits", "act_bits"), [(1, 8), (4, 4)])
def test_tables_and_products_equal_the_reference(bits: int, act_bits: int, optimize: bool) -> None:
    graph = random_mobile(2, bits, act_bits, exits=2, channels=5, size=9)
    file = onnxfile.parse(write_onnx(graph).SerializeToString(), "memory")
    assert_segments_equal(graph, file, optimize)


def assert_segments_equal(graph: Graph, file: OnnxFile, optimize: bool) -> None:
    reference, backend = ReferenceBackend(graph), OrtBackend(file, 1, optimize=optimize)
    codes: np.ndarray | None = images_with_extremes(graph)
    for index in range(len(graph.segments)):
        assert codes is not None
        expected_logits, expected_carry = reference.run_segment(index, codes)
        logits, carry = backend.run_segment(index, codes)
        np.testing.assert_array_equal(logits, expected_logits)
        assert (carry is None) == (expected_carry is None)
        if carry is not None and expected_carry is not None:
            assert carry.dtype == np.uint8
            np.testing.assert_array_equal(carry, expected_carry)
        codes = expected_carry


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize(
    ("bits", "act_bits", "layout"), [(1, 8, (2, 8, 8)), (4, 4, (1, 5, 14)), (2, 8, (0, 3, 16))]
)
def test_single_images_leave_where_the_thresholds_say(
    bits: int, act_bits: int, layout: tuple[int, int, int], optimize: bool
) -> None:
    graph, file = exported(bits, act_bits, layout)
    exits = len(graph.thresholds)
    backend = OrtBackend(file, 1, optimize=optimize)
    images = images_with_extremes(graph)
    per_exit = logits_per_exit(graph, images)
    taken = set()
    for thresholds in ([0.0] * exits, [1.5] * exits, list(graph.thresholds)):
        for i in range(len(images)):
            expected = first_confident(per_exit[:, i], thresholds)
            logits, leave, _ = backend.run_single(images[i : i + 1], np.array(thresholds, np.float32))
            assert leave == expected
            np.testing.assert_array_equal(logits, per_exit[expected, i : i + 1])
            taken.add(leave)
    assert taken == set(range(exits + 1))


def test_stock_onnxruntime_runs_the_file_in_three_lines() -> None:
    graph = random_graph(3, exits=2)
    images = images_with_extremes(graph)
    per_exit = logits_per_exit(graph, images)
    session = onnxruntime.InferenceSession(write_onnx(graph).SerializeToString())
    for i in range(len(images)):
        logits, taken, confidence = session.run(None, {"image": images[i : i + 1]})
        expected = first_confident(per_exit[:, i], list(graph.thresholds))
        assert taken.dtype == np.int64 and taken.tolist() == [expected]
        np.testing.assert_array_equal(logits, per_exit[expected, i : i + 1])
        np.testing.assert_allclose(confidence, arithmetic.confidence(logits), atol=1e-6)


@pytest.mark.parametrize("opset", onnxfile.IR_VERSIONS)
def test_file_without_exits_runs_batches(opset: int) -> None:
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip(f"this onnx does not know opset {opset}")
    graph = random_graph(4, exits=0)
    images = images_with_extremes(graph)
    session = onnxruntime.InferenceSession(write_onnx(graph, opset=opset).SerializeToString())
    logits, taken, confidence = session.run(None, {"image": images})
    np.testing.assert_array_equal(logits, logits_per_exit(graph, images)[0])
    assert taken.dtype == np.int64 and taken.tolist() == [0] * len(images)
    np.testing.assert_allclose(confidence, arithmetic.confidence(logits), atol=1e-6)


@pytest.mark.parametrize(
    ("bits", "act_bits", "exits", "channels", "size"), [(1, 8, 1, 3, 6), (2, 4, 1, 5, 7), (8, 4, 0, 3, 8)]
)
def test_onnx_reference_evaluator_equals_the_reference(
    bits: int, act_bits: int, exits: int, channels: int, size: int
) -> None:
    graph = random_graph(11, bits, act_bits, exits, channels, size)
    evaluator = ReferenceEvaluator(write_onnx(graph))
    images = images_with_extremes(graph, 4)
    per_exit = logits_per_exit(graph, images)
    for i in range(len(images)):
        for thresholds in [[0.0] * exits, [1.5] * exits]:
            feeds = {"image": images[i : i + 1]}
            if exits:
                feeds["thresholds"] = np.array(thresholds, np.float32)
            logits, taken, _ = evaluator.run(None, feeds)
            expected = first_confident(per_exit[:, i], thresholds)
            assert taken.tolist() == [expected]
            np.testing.assert_array_equal(logits, per_exit[expected, i : i + 1])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # it pads a max pool's codes with NaN
def test_onnx_reference_evaluator_equals_joined_branches() -> None:
    graph = random_inception(2, 1, 4, 0, 3, 8)
    images = images_with_extremes(graph, 3)
    logits, _, _ = ReferenceEvaluator(write_onnx(graph)).run(None, {"image": images})
    np.testing.assert_array_equal(logits, logits_per_exit(graph, images)[0])


def test_split_files_chain_by_the_names_of_what_they_carry() -> None:
    graph = random_graph(5, 1, 8, exits=2)
    images = images_with_extremes(graph)
    known = {"image": images}
    for model, expected in zip(write_segments(graph), logits_per_exit(graph, images), strict=True):
        session = onnxruntime.InferenceSession(model.SerializeToString())
        inputs = {entry.name: known[entry.name] for entry in session.get_inputs()}
        known |= dict(
            zip([entry.name for entry in session.get_outputs()], session.run(None, inputs), strict=True)
        )
        np.testing.assert_array_equal(known["logits"], expected)
        np.testing.assert_allclose(known["confidence"], arithmetic.confidence(expected), atol=1e-6)


def logits_per_exit(graph: Graph, images: np.ndarray) -> np.ndarray:
    """float32 [exits + 1, N, classes] by the definition."""
    backend, codes, found = ReferenceBackend(graph), images, []
    for index in range(len(graph.segments)):
        logits, carry = backend.run_segment(index, codes)
        found.append(logits)
        codes = images if carry is None else carry
    return np.stack(found)


def first_confident(logits: np.ndarray, thresholds: list[float]) -> int:
    """The exit that an image with these logits [exits + 1, classes] takes."""
    confidences = arithmetic.confidence(logits)
    leaving = [k for k, threshold in enumerate(thresholds) if confidences[k] >= np.float32(threshold)]
    return leaving[0] if leaving else len(thresholds)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("channels", [3, 16])
def test_depthwise_convolution_equals_the_reference(bits: int, channels: int) -> None:
    graph = depthwise_graph(bits, channels)
    images = images_with_extremes(graph)
    expected = ReferenceBackend(graph).run_segment(0, images)[0]
    assert len(np.unique(expected)) > 20
    file = onnxfile.parse(write_onnx(graph).SerializeToString(), "memory")
    for optimize in (True, False):
        found = OrtBackend(file, optimize=optimize).run_segment(0, images)[0]
        np.testing.assert_array_equal(found, expected)
