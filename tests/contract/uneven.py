"""Means of windows of different sizes."""

from collections.abc import Iterator

import numpy as np

from coc_runtime.graph import Graph
from coc_runtime.ops import AdaptiveAveragePool, PixelAveragePool, Tensor
from contract.base import TYPES, Contract, Instance, Refused, around, sizes, tensor
from contract.pool import POOLS, window


def draw_pixels(rng: np.random.Generator) -> Instance:
    x, kernel, stride, pads = window(rng)
    node = PixelAveragePool("pool", "x", "y", kernel, stride, pads)
    return Instance(node, [x], tensor("y", rng, node.output_shape(x)))


def draw_grid(rng: np.random.Generator) -> Instance:
    """Finer and coarser than the image."""
    x = tensor("x", rng, sizes(rng))
    node = AdaptiveAveragePool("pool", "x", "y", (int(rng.integers(1, 20)), int(rng.integers(1, 20))))
    return Instance(node, [x], tensor("y", rng, node.output_shape(x)))


def pixel_misfits() -> Refused:
    for kernel, stride, pads, shape in (
        ((3, 3), 1, (3, 0, 0, 0), (2, 8, 8)),
        ((3, 3), 0, (0, 0, 0, 0), (2, 8, 8)),
        ((9, 3), 1, (0, 0, 0, 0), (2, 8, 8)),
        ((256, 1), 1, (0, 0, 0, 0), (2, 300, 8)),
        ((1, 1), 1, (0, 0, 0, 0), (8,)),
    ):
        yield PixelAveragePool("pool", "x", "y", kernel, stride, pads), [Tensor("x", shape, 8, 0, 0)]


def grid_misfits() -> Refused:
    for size, shape in (((0, 3), (2, 8, 8)), ((3, 256), (2, 8, 8)), ((3, 3), (8,))):
        yield AdaptiveAveragePool("pool", "x", "y", size), [Tensor("x", shape, 8, 0, 0)]


def grid_inexact() -> Refused:
    """Windows of 256x257 pixels of 8 bits; of 256x256 the sums stay below 2**24."""
    yield AdaptiveAveragePool("pool", "x", "y", (1, 1)), [Tensor("x", (1, 256, 257), 8, 0, 0)]


def pixel_cases() -> Iterator[tuple[str, Graph]]:
    for index, (kernel, stride, pads, shape) in enumerate(POOLS):
        zero_point, bits = TYPES[index % len(TYPES)]
        x = Tensor("x", shape, bits, zero_point, -4)
        node = PixelAveragePool("pool", "x", "y", kernel, stride, pads)
        y = Tensor("y", node.output_shape(x), bits, zero_point, -5)
        yield f"pixel-average-{index}", around(node, y, [x])


def grid_cases() -> Iterator[tuple[str, Graph]]:
    for index, (size, shape) in enumerate(
        [
            ((1, 1), (3, 7, 9)),
            ((7, 7), (4, 2, 3)),
            ((3, 5), (2, 8, 33)),
            ((6, 6), (3, 13, 13)),
            ((2, 1), (1, 3, 1)),
        ]
    ):
        zero_point, bits = TYPES[index % len(TYPES)]
        x = Tensor("x", shape, bits, zero_point, -4)
        node = AdaptiveAveragePool("pool", "x", "y", size)
        y = Tensor("y", node.output_shape(x), bits, zero_point, -5)
        yield f"adaptive-average-{index}", around(node, y, [x])


PIXELS = Contract(draw_pixels, pixel_misfits, cases=pixel_cases)
GRID = Contract(draw_grid, grid_misfits, grid_inexact, grid_cases)
