"""coc_profile in the C core: every operator with its costs, and times that add up, at every level."""

import struct

import numpy as np
import pytest

from coc_runtime import cocwrite
from coc_runtime.graph import Graph
from graphs import as_regression, random_graph, random_images, random_inception, random_mobile
from native_driver import Driver

GRAPHS = (
    random_graph(3, exits=2),
    random_graph(4, bits=4, act_bits=4, exits=0, size=9),
    random_inception(5, exits=2),
    random_mobile(7, exits=2),
    as_regression(random_graph(6, exits=3, classes=2)),
)


def profile(
    driver: Driver, graph: Graph, level: str, interleaved: bool, count: int
) -> tuple[list[tuple[str, int, int, int]], int, np.ndarray]:
    """Of each operator (kind, exit, MACs, BitOps); nanoseconds of the call; times, [N, operators + 1]."""
    data, images = cocwrite.dump(graph), random_images(graph, count)
    pixels = images.transpose(0, 2, 3, 1) if interleaved else images
    request = struct.pack("<I", len(data)) + data + level.encode().ljust(16, b"\0")
    request += struct.pack("<2I", interleaved, count) + np.ascontiguousarray(pixels).tobytes()
    answer = driver.ask("t", request)
    operators = struct.unpack_from("<I", answer)[0]
    described = [struct.unpack_from("<24s3Q", answer, 4 + 48 * j) for j in range(operators)]
    at = 4 + 48 * operators
    times = np.frombuffer(answer, np.uint64, offset=at + 8).reshape(count, operators + 1)
    rows = [(kind.rstrip(b"\0").decode(), *numbers) for kind, *numbers in described]
    return rows, struct.unpack_from("<Q", answer, at)[0], times


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
            rows, took, times = profile(driver, graph, level, interleaved, 3)
            assert rows == expected
            assert 0 < times.sum() <= took
            assert (times.sum(axis=1) > 0).all()


def test_no_image_is_fine(driver: Driver) -> None:
    assert profile(driver, GRAPHS[0], "scalar", False, 0)[2].shape == (0, len(GRAPHS[0].tensors))
