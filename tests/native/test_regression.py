"""Regressions in the C core: numbers, exits and confidences of the reference, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coc_runtime import Session, cocwrite
from coc_runtime.graph import Graph, Task
from graphs import as_regression, random_graph, random_images, random_inception
from native_driver import Driver, Request

GRAPHS = (
    random_graph(3, exits=3, classes=4),
    random_graph(4, bits=4, act_bits=4, exits=1, classes=1),
    random_graph(5, bits=8, exits=0, classes=2),
    random_inception(6, exits=2, classes=1),
    random_graph(7, exits=5, channels=4, size=16, classes=300),
)
FIELDS = ("logits", "exit", "confidence", "label", "bitops")


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_every_level_equals_the_reference(driver: Driver, index: int) -> None:
    graph = as_regression(GRAPHS[index])
    data, images = cocwrite.dump(graph), random_images(graph, 12, seed=index)
    session = Session.from_graph(graph)
    expected, every = session.run(images), session.logits_per_exit(images)
    for level in driver.levels():
        for threads in (1, 3):
            request = Request(threads=threads, interleaved=threads == 3, cpu=level)
            found = driver.run(data, images, graph.classes, request)
            for field in FIELDS:
                np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
            np.testing.assert_array_equal(driver.run_all_exits(data, images, graph.classes, request), every)


def test_no_tolerance_lets_an_image_leave_at_exit_0(driver: Driver) -> None:
    graph: Graph = as_regression(GRAPHS[0])
    data, images = cocwrite.dump(graph), random_images(graph, 4)
    wide = Request(thresholds=np.full(3, np.inf, np.float32))
    assert driver.run(data, images, graph.classes, wide).exit.tolist() == [1] * 4


def test_the_backend_knows_the_task_and_takes_tolerances(tmp_path: Path) -> None:
    graph = as_regression(GRAPHS[0])
    path, images = tmp_path / "model.coc", random_images(graph, 30)
    path.write_bytes(cocwrite.dump(replace(graph, thresholds=(0.0, 1e38, 1e38))))
    assert Session(path, "native").info.task is Task.REGRESSION
    for thresholds in (None, (0, 0, 0), graph.thresholds, (1e300, 1e300, 0)):
        native, reference = (Session(path, name, thresholds=thresholds) for name in ("native", "reference"))
        assert replace(native.info, backend="", reason="", cpu_level=None, memory_bytes=None) == replace(
            reference.info, backend="", reason=""
        )
        found, expected = native.run(images), reference.run(images)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
