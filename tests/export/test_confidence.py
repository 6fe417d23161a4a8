"""Confidences of exported files: within the stated error for any number of classes; no threshold flips."""

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.utils import Extractor

from coc_export.onnx.writer import write_onnx, write_segments
from coc_runtime import arithmetic, onnxfile
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.session import Session
from coc_runtime.thresholds import frontier
from confidences import CLASSES, chosen, logits_of
from graphs import random_graph, random_images


@cache
def gate(classes: int) -> onnx.ModelProto:
    """What a file computes from an exit's logits, cut out of it."""
    model = write_segments(random_graph(1, exits=1, size=4, classes=classes))[0]
    return Extractor(model).extract_model(["logits"], ["confidence"])


def optimized(model: onnx.ModelProto, logits: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"logits": logits})[0]


def plain(model: onnx.ModelProto, logits: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"logits": logits})[0]


def evaluated(model: onnx.ModelProto, logits: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(model).run(None, {"logits": logits})[0]


def in_index_order(model: onnx.ModelProto, logits: np.ndarray) -> np.ndarray:
    """An engine that adds one class after the other in single precision: what errs most."""
    terms = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.float32(1) / np.add.accumulate(terms, axis=1)[:, -1]


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("engine", (optimized, plain, evaluated, in_index_order))
def test_confidences_stay_within_the_stated_error_and_flip_no_chosen_exit(
    engine: Callable[[onnx.ModelProto, np.ndarray], np.ndarray], classes: int
) -> None:
    logits = logits_of(classes)
    ours = arithmetic.confidence(logits)
    found = engine(gate(classes), logits)
    wide = ours.astype(np.float64)
    assert (np.abs(found - wide) <= arithmetic.confidence_error(classes) * wide).all()
    for threshold in chosen(classes):
        np.testing.assert_array_equal(found >= threshold, ours >= threshold)


def test_in_single_precision_the_order_of_many_classes_would_move_exits() -> None:
    """Why the gap depends on the number of classes: what held for ten does not hold for a thousand."""
    logits = logits_of(1000)
    moved = in_index_order(gate(1000), logits) - arithmetic.confidence(logits).astype(np.float64)
    assert np.abs(moved).max() > 2 * arithmetic.confidence_error(10)


@pytest.mark.parametrize("classes", (2, 1000))
def test_a_file_of_many_classes_takes_the_exits_of_the_reference(classes: int) -> None:
    graph = random_graph(8, exits=1, size=4, classes=classes)
    images = random_images(graph, 60)
    logits = Session.from_graph(graph).logits_per_exit(images)
    found = frontier(logits, logits[-1].argmax(axis=1), graph.exit_bitops())
    backend = OrtBackend(onnxfile.parse(write_onnx(graph).SerializeToString(), "memory"))
    mixed = 0
    for point in found.spread(6):
        limits = arithmetic.gate_thresholds(found.thresholds[point].tolist())
        expected = arithmetic.exits_taken(logits, limits.tolist())
        mixed += len(set(expected)) == 2
        taken = [backend.run_single(images[i : i + 1], limits)[1] for i in range(len(images))]
        assert taken == expected.tolist()
    assert mixed > 2, "both exits are taken"
