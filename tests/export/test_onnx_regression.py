"""Regressions in ONNX: the gate between successive exits, in one file and in segments, in ONNX Runtime."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from coc_export.onnx.writer import write_onnx, write_segments
from coc_runtime import CocError, Session, onnxfile
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.graph import Graph, Task
from graphs import as_regression, random_graph, random_images, random_inception


@cache
def graph_of(index: int) -> Graph:
    plain = (
        random_graph(3, exits=3, classes=4),
        random_graph(4, bits=4, act_bits=4, exits=1, classes=1),
        random_graph(5, bits=8, exits=0, classes=2),
        random_inception(6, exits=2, classes=1),
    )
    return as_regression(plain[index])


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize("index", range(4))
def test_onnx_runtime_takes_the_exits_and_gives_the_numbers_of_the_reference(
    index: int, optimize: bool
) -> None:
    graph = graph_of(index)
    images, expected = random_images(graph, 20), Session.from_graph(graph).run(random_images(graph, 20))
    file = onnxfile.parse(write_onnx(graph).SerializeToString(), "memory")
    assert file.graph.task is Task.REGRESSION
    session = Session.from_graph(file.graph, backend=OrtBackend(file, optimize=optimize))
    batch = session.run(images)
    singles = [session.run(images[n : n + 1]) for n in range(20)]
    for field in ("logits", "exit", "confidence", "label", "bitops"):
        np.testing.assert_array_equal(getattr(batch, field), getattr(expected, field))
        one_by_one = np.concatenate([getattr(single, field) for single in singles])
        np.testing.assert_array_equal(one_by_one, getattr(expected, field))
    if graph.thresholds:
        assert len(set(expected.exit.tolist())) == len(graph.thresholds)


@pytest.mark.parametrize("thresholds", [None, (0, 0, 0), (np.inf, np.inf, np.inf), (0.0, 0.3, 1e38)])
def test_the_file_alone_decides_by_its_input_of_tolerances(thresholds: tuple[float, ...] | None) -> None:
    graph = graph_of(0)
    images = random_images(graph, 6)
    expected = Session.from_graph(graph, thresholds=thresholds).run(images)
    session = onnxruntime.InferenceSession(write_onnx(graph).SerializeToString())
    for n in range(6):
        feeds = {"image": images[n : n + 1]}
        if thresholds is not None:
            feeds["thresholds"] = np.array(thresholds, np.float32)
        logits, taken, confidence = session.run(["logits", "exit", "confidence"], feeds)
        assert (taken[0], confidence[0]) == (expected.exit[n], expected.confidence[n])
        np.testing.assert_array_equal(logits[0], expected.logits[n])


def test_split_files_read_the_numbers_of_the_exit_before() -> None:
    graph = graph_of(0)
    images = random_images(graph, 7)
    every = Session.from_graph(graph).logits_per_exit(images)
    known: dict[str, np.ndarray] = {"image": images}
    for k, model in enumerate(write_segments(graph)):
        session = onnxruntime.InferenceSession(model.SerializeToString())
        names = [entry.name for entry in session.get_inputs()]
        assert ("logits_before" in names) == (k > 0)
        outputs = [entry.name for entry in session.get_outputs()]
        feeds = {name: known[name] for name in names}
        known |= dict(zip(outputs, session.run(None, feeds), strict=True))
        known["logits_before"] = known["logits"]
        np.testing.assert_array_equal(known["logits"], every[k])
        expected = -np.abs(every[k] - every[k - 1]).max(axis=1) if k else np.full(7, -np.inf)
        np.testing.assert_array_equal(known["confidence"], expected)
        assert '"task":"regression"' in model.metadata_props[0].value


def test_standard_operators_that_the_reference_evaluator_runs() -> None:
    graph = graph_of(0)
    image = random_images(graph, 1)
    expected = Session.from_graph(graph).run(image)
    model = write_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    logits, taken, confidence = ReferenceEvaluator(model).run(None, {"image": image})
    np.testing.assert_array_equal(logits, expected.logits)
    assert (taken[0], confidence[0]) == (expected.exit[0], expected.confidence[0])


def test_files_whose_gate_is_not_the_manifest_s_or_broadcasts_are_refused() -> None:
    model = write_onnx(graph_of(1))
    structure = model.metadata_props[0].value.encode()
    other = structure.replace(b',"task":"regression"', b"")
    with pytest.raises(CocError, match="gates like a regression, the manifest says classification"):
        onnxfile.parse(onnxfile.model_bytes(model.graph.SerializeToString(), other), "memory")
    (endless,) = [tensor for tensor in model.graph.initializer if tensor.name == "inf"]
    endless.CopyFrom(numpy_helper.from_array(np.full((1000, 1), np.inf, np.float32), "inf"))
    with pytest.raises(CocError, match="a Sub reads a constant that is no scalar"):
        onnxfile.parse(onnxfile.model_bytes(model.graph.SerializeToString(), structure), "memory")


def test_classes_are_written_without_a_word_of_tasks(tmp_path: Path) -> None:
    graph = random_graph(3, exits=1)
    content = write_onnx(graph).SerializeToString(deterministic=True)
    assert b'"task"' not in content and b"Softmax" in content
    path = tmp_path / "model.onnx"
    path.write_bytes(write_onnx(replace(graph, task=Task.REGRESSION)).SerializeToString(deterministic=True))
    for backend in ("reference", "onnxruntime"):
        assert Session(path, backend).info.task is Task.REGRESSION
    assert b"Softmax" not in path.read_bytes()
