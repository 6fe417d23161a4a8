"""coc_profile in the C core: each operator's costs, and its time by the driver's clock, at every level."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from coc_runtime import cocwrite
from coc_runtime.graph import Graph
from graphs import as_regression, random_graph, random_images, random_inception, random_mobile
from native_driver import Driver

GRAPHS = (
    replace(random_graph(3, exits=2), thresholds=(0.0, 0.0)),  # every image would leave at once
    random_graph(4, bits=4, act_bits=4, exits=0, size=9),
    random_inception(5, exits=2),
    random_mobile(7, exits=2),
    as_regression(random_graph(6, exits=3, classes=2)),
)


def profile(
    driver: Driver, graph: Graph, level: str, interleaved: bool, count: int
) -> tuple[list[tuple[str, int, int, int]], np.ndarray]:
    """Of each operator (kind, exit, MACs, BitOps); times, [N, operators + 1]."""
    data, images = cocwrite.dump(graph), random_images(graph, count)
    pixels = images.transpose(0, 2, 3, 1) if interleaved else images
    request = struct.pack("<I", len(data)) + data + level.encode().ljust(16, b"\0")
    request += struct.pack("<2I", interleaved, count) + np.ascontiguousarray(pixels).tobytes()
    answer = driver.ask("t", request)
    operators = struct.unpack_from("<I", answer)[0]
    described = [struct.unpack_from("<24s3Q", answer, 4 + 48 * j) for j in range(operators)]
    times = np.frombuffer(answer, np.uint64, offset=4 + 48 * operators).reshape(count, operators + 1)
    return [(kind.rstrip(b"\0").decode(), *numbers) for kind, *numbers in described], times


def clocked(graph: Graph, count: int) -> np.ndarray:
    """The times of a clock that says n more than before when it is asked for the n-th time.

    That is once in front of an image, once behind its pixels, and behind every operator and every exit's
    confidence.
    """
    asked, rows = 0, []
    for _ in range(count):
        rest, row = asked + 2, []
        asked += 2
        for segment in graph.segments:
            for _ in segment.nodes:
                asked += 1
                row.append(asked)
            asked += 1
            rest += asked
        rows.append([*row, rest])
    operators = sum(len(segment.nodes) for segment in graph.segments)
    return np.array(rows, np.uint64).reshape(count, operators + 1)


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_every_level_names_the_graphs_operators_and_costs_and_times_them(driver: Driver, index: int) -> None:
    graph = GRAPHS[index]
    expected = [
        (type(node).__name__, k, cost.macs if cost else 0, cost.bitops if cost else 0)
        for k, segment in enumerate(graph.segments)
        for node in segment.nodes
        for cost in [node.cost(*(graph.tensors[name] for name in node.inputs))]  # type: ignore[arg-type, call-arg]
    ]
    for level in driver.levels():
        for interleaved in (False, True):
            rows, times = profile(driver, graph, level, interleaved, 3)
            assert rows == expected
            np.testing.assert_array_equal(times, clocked(graph, 3))


def test_no_image_is_fine(driver: Driver) -> None:
    assert profile(driver, GRAPHS[0], "scalar", False, 0)[1].shape == (0, len(GRAPHS[0].tensors))
