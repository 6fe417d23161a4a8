"""Regression: real numbers, and exits that an image leaves where two that follow each other agree."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from coc_runtime import CocError, Session, arithmetic, cocfile, coclayout, cocwrite, manifest
from coc_runtime.graph import Graph, Task
from cocparts import take_apart
from graphs import as_regression, random_graph, random_images, random_inception

GRAPHS = [
    as_regression(random_graph(3, exits=3, classes=4)),
    as_regression(random_graph(4, bits=4, act_bits=4, exits=1, classes=1)),
    as_regression(random_graph(5, bits=8, exits=0, classes=2)),
    as_regression(random_inception(6, exits=2, classes=1)),
]


def taken_by_hand(logits: np.ndarray, tolerances: tuple[float, ...]) -> tuple[list[int], list[float]]:
    """(exit, confidence) of every image: the rule in the words of docs/artifacts.md."""
    exits, confidences = [], []
    for n in range(logits.shape[1]):
        k, distance = 0, np.inf
        while k < len(tolerances):
            if k > 0 and distance <= np.float32(tolerances[k]):
                break
            k += 1
            distance = max(
                abs(float(np.float32(a - b))) for a, b in zip(logits[k, n], logits[k - 1, n], strict=True)
            )
        exits.append(k)
        confidences.append(-distance)
    return exits, confidences


@pytest.mark.parametrize("graph", GRAPHS, ids=("three", "one", "none", "joined"))
def test_images_leave_where_an_exit_agrees_with_the_one_before(graph: Graph) -> None:
    session, images = Session.from_graph(graph), random_images(graph, 40)
    every = session.logits_per_exit(images)
    exits, confidences = taken_by_hand(every, graph.thresholds)
    result = session.run(images)
    assert result.exit.tolist() == exits
    assert result.confidence.tolist() == confidences and result.confidence.dtype == np.float32
    assert result.label.tolist() == [0] * 40
    np.testing.assert_array_equal(result.logits, every[result.exit, np.arange(40)])
    assert result.bitops.tolist() == [graph.exit_bitops()[k] for k in exits]
    assert arithmetic.exits_taken(every, graph.thresholds, Task.REGRESSION).tolist() == exits
    if len(graph.thresholds) > 1:
        assert len(set(exits)) == len(graph.thresholds)
    for n in range(4):
        assert session.run(images[n : n + 1]).confidence[0] == confidences[n]


def test_no_tolerance_lets_an_image_leave_at_exit_0() -> None:
    graph, never = GRAPHS[0], float("inf")
    images = random_images(graph, 8)
    wide = Session.from_graph(graph, thresholds=[never, never, never]).run(images)
    assert wide.exit.tolist() == [1] * 8
    strict = Session.from_graph(graph, thresholds=[1e300, 0, 0]).run(images)
    assert strict.exit.tolist() == [3] * 8
    alone = Session.from_graph(GRAPHS[2]).run(random_images(GRAPHS[2], 3))
    assert alone.confidence.tolist() == [-np.inf] * 3
    with pytest.raises(CocError, match="at least 0 .tolerances"):
        Session.from_graph(graph, thresholds=[0, -1, 0])


def test_outputs_that_agree_exactly_leave_at_tolerance_0() -> None:
    logits = np.array([[[1, 2]], [[1, 2.5]], [[1, 2.5]], [[0, 0]]], np.float32)
    assert arithmetic.exits_taken(logits, (0, 0, 0), Task.REGRESSION).tolist() == [2]
    assert arithmetic.exits_taken(logits, (9, 0.5, 0), Task.REGRESSION).tolist() == [1]
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert arithmetic.exits_taken(logits, (9, float(below), 0), Task.REGRESSION).tolist() == [2]


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_a_coc_file_keeps_task_and_tolerances(index: int) -> None:
    graph = GRAPHS[index]
    if index == 0:
        graph = replace(graph, thresholds=(0.0, 700.5, 3e38))
    data = cocwrite.dump(graph)
    read = cocfile.parse(data, "memory").graph
    assert read.task is Task.REGRESSION
    assert read.thresholds == tuple(np.float32(graph.thresholds).tolist())
    assert cocwrite.dump(read) == data
    images = random_images(graph, 5)
    found, expected = Session.from_graph(read).run(images), Session.from_graph(graph).run(images)
    np.testing.assert_array_equal(found.exit, expected.exit)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


def test_a_file_of_classes_differs_from_one_of_numbers_in_a_byte_of_the_header() -> None:
    graph = random_graph(3, exits=1)
    classes = cocwrite.dump(graph)
    numbers = cocwrite.dump(replace(graph, task=Task.REGRESSION))
    assert classes[:12] + classes[16:33] + classes[34:] == numbers[:12] + numbers[16:33] + numbers[34:]
    assert (classes[33], numbers[33]) == (0, 1)
    assert b"task" not in manifest.dump(graph)


def test_unknown_tasks_and_tolerances_without_end_are_refused() -> None:
    parts = take_apart(GRAPHS[0])
    for bad, message in (
        (replace(parts, task=2), "task 2 is not known"),
        (replace(parts, thresholds=[0.0, 1.0, float("inf")]), "not all between 0 and 3.4"),
        (replace(parts, task=0, thresholds=[0.0, 1.0, 3.0]), "not all between 0 and 2"),
    ):
        with pytest.raises(CocError, match=message):
            cocfile.parse(bad.build(), "memory")
    description = manifest.decode(manifest.dump(GRAPHS[0]))
    for task in ("classification", "ranking", 1, None):
        with pytest.raises(CocError, match="is not known"):
            manifest.task_of(description | {"task": task})
    assert struct.unpack_from("<B", parts.build(), 33)[0] == coclayout.TASKS.index(Task.REGRESSION)
