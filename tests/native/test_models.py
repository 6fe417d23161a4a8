"""Whole models in the C core equal the NumPy reference, at every level, with threads, in both layouts."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from coc_runtime import Result, Session, cocwrite
from coc_runtime.graph import Graph
from coc_runtime.ops import Add
from graphs import random_graph, random_images, random_inception, random_mobile
from native_driver import Driver, Request

MODELS = (
    {"bits": 1, "exits": 2},
    {"bits": 2, "exits": 1, "channels": 5, "size": 7},
    {"bits": 4, "exits": 1, "channels": 16, "size": 16},
    {"bits": 8, "exits": 0, "channels": 4, "size": 9},
    {"bits": 1, "act_bits": 4, "exits": 3, "channels": 16, "size": 16},
    {"bits": 4, "act_bits": 4, "exits": 1, "channels": 17, "size": 14, "classes": 3},
    {"bits": 1, "exits": 1, "channels": 32, "size": 32, "classes": 100},
)


JOINED = (
    {"bits": 1, "exits": 2},
    {"bits": 2, "act_bits": 4, "exits": 1, "channels": 5, "size": 13},
    {"bits": 4, "exits": 3, "channels": 3, "size": 16},
    {"bits": 8, "act_bits": 2, "exits": 2, "channels": 4},
    {"bits": 1, "exits": 0, "channels": 16, "size": 40},
)


@cache
def model(index: int) -> tuple[Graph, bytes, np.ndarray]:
    graph = random_graph(index, **MODELS[index])  # type: ignore[arg-type]
    return graph, cocwrite.dump(graph), random_images(graph, 6, seed=index)


def assert_equal(found: Result, expected: Result) -> None:
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.exit, expected.exit)
    np.testing.assert_array_equal(found.label, expected.label)
    np.testing.assert_array_equal(found.bitops, expected.bitops)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


@pytest.mark.parametrize("index", range(len(MODELS)))
def test_every_level_equals_the_reference(driver: Driver, index: int) -> None:
    graph, data, images = model(index)
    session = Session.from_graph(graph)
    expected, every = session.run(images), session.logits_per_exit(images)
    for level in driver.levels():
        for interleaved in (False, True):
            for threads in (1, 2, 3):
                request = Request(threads=threads, interleaved=interleaved, cpu=level)
                assert_equal(driver.run(data, images, graph.classes, request), expected)
            np.testing.assert_array_equal(driver.run_all_exits(data, images, graph.classes, request), every)


@pytest.mark.parametrize("index", range(len(JOINED)))
def test_joined_branches_equal_the_reference(driver: Driver, index: int) -> None:
    assert_levels_equal(driver, random_inception(index, **JOINED[index]), index)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", range(len(JOINED)))
def test_tables_and_products_equal_the_reference(driver: Driver, index: int) -> None:
    assert_levels_equal(driver, random_mobile(index, **JOINED[index]), index)  # type: ignore[arg-type]


def assert_levels_equal(driver: Driver, graph: Graph, seed: int) -> None:
    data, images = cocwrite.dump(graph), random_images(graph, 4, seed=seed)
    session = Session.from_graph(graph)
    expected, every = session.run(images), session.logits_per_exit(images)
    for level in driver.levels():
        for threads in (1, 3):
            request = Request(threads=threads, interleaved=threads == 3, cpu=level)
            assert_equal(driver.run(data, images, graph.classes, request), expected)
            np.testing.assert_array_equal(driver.run_all_exits(data, images, graph.classes, request), every)


def test_levels_that_this_cpu_does_not_have_are_refused(driver: Driver) -> None:
    _, data, images = model(0)
    missing = {"scalar", "avx2", "avxvnni", "avx512", "neon"} - set(driver.levels())
    assert "scalar" in driver.levels() and missing
    for level in (*missing, "sse9"):
        assert driver.status_of_run(data, images, Request(cpu=level)) == "UNSUPPORTED"


def test_thresholds_of_a_session_replace_the_files(driver: Driver) -> None:
    graph, data, images = model(0)
    for thresholds in ((0.0, 0.0), (2.0, 0.0), (np.inf, 1.5), (0.3, 0.3)):
        given = np.array(thresholds, np.float32)
        expected = Session.from_graph(graph, thresholds=thresholds).run(images)
        assert_equal(driver.run(data, images, graph.classes, Request(thresholds=given)), expected)


def test_an_image_leaves_when_its_confidence_equals_the_threshold(driver: Driver) -> None:
    graph, data, images = model(0)
    one = images[:1]
    first = driver.run(data, one, graph.classes, Request(thresholds=np.zeros(2, np.float32)))
    confidence = first.confidence[0]
    above = np.nextafter(confidence, np.float32(2))
    for threshold, taken in ((confidence, 0), (above, 1)):
        request = Request(thresholds=np.array([threshold, 0], np.float32))
        assert driver.run(data, one, graph.classes, request).exit[0] == taken


def test_logits_outlive_what_their_segment_computes_after_them(driver: Driver) -> None:
    graph, _, images = model(0)
    tensors, last = dict(graph.tensors), graph.segments[-1]
    pooled = tensors[last.nodes[-1].inputs[0]]
    spare = [Add(f"spare{index}", (pooled.name, pooled.name), f"spare{index}") for index in range(4)]
    tensors |= {node.output: replace(pooled, name=node.output) for node in spare}
    longer = replace(last, nodes=(*last.nodes, *spare))
    changed = replace(graph, tensors=tensors, segments=(*graph.segments[:-1], longer))
    expected = Session.from_graph(changed, thresholds=[2, 2]).run(images)
    request = Request(thresholds=np.full(2, 2, np.float32))
    assert_equal(driver.run(cocwrite.dump(changed), images, graph.classes, request), expected)


def test_no_images_are_fine(driver: Driver) -> None:
    graph, data, images = model(0)
    assert len(driver.run(data, images[:0], graph.classes, Request()).label) == 0


def test_a_failing_allocator_gives_a_status_and_leaks_nothing(driver: Driver, tmp_path: Path) -> None:
    path = tmp_path / "model.coc"
    path.write_bytes(model(0)[1])
    assert int.from_bytes(driver.ask("m", bytes(path)), "little") == 3  # the file, the model, the session


def test_wrong_arguments_are_refused(driver: Driver) -> None:
    driver.ask("a", model(2)[1])


def test_every_status_has_a_line_of_its_own(driver: Driver) -> None:
    lines = driver.ask("s").decode().split("\0")[:-1]
    unknown, *known, beyond = lines
    assert unknown == beyond and len(set(known)) == len(known) and unknown not in known and all(known)
