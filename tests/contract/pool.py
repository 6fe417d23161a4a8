"""Pools of windows and of the whole image."""

from collections.abc import Iterator

import numpy as np

from coc_runtime.graph import Graph
from coc_runtime.limits import EXACT_LIMIT, MAX_WINDOW
from coc_runtime.ops import AveragePool, GlobalAveragePool, MaxPool, Tensor
from coc_runtime.ops.windows import Stride
from contract.base import TYPES, Contract, Instance, Refused, around, like, random_stride, sizes, tensor

POOLS = [
    # kernel, stride, pads, (channels, height, width)
    ((2, 2), 2, (0, 0, 0, 0), (3, 8, 66)),
    ((3, 3), 2, (1, 1, 1, 1), (2, 9, 67)),
    ((3, 3), 2, (0, 0, 1, 1), (4, 6, 34)),
    ((3, 3), 1, (1, 1, 1, 1), (3, 7, 40)),
    ((1, 1), 2, (0, 0, 0, 0), (3, 5, 5)),
    ((2, 4), 3, (1, 3, 0, 2), (2, 5, 17)),
    ((5, 3), 1, (4, 2, 4, 2), (1, 1, 1)),
    ((7, 7), 1, (0, 0, 0, 0), (9, 7, 7)),
    ((4, 1), 4, (0, 0, 3, 0), (17, 5, 3)),
    ((3, 2), 5, (2, 0, 2, 1), (1, 4, 12)),
    # sums of half a count make ties, which a division rounds differently than the product with 1 / count
    ((2, 7), 1, (1, 1, 0, 1), (3, 16, 40)),
    ((4, 7), 1, (0, 2, 1, 1), (3, 16, 40)),
]


def window(
    rng: np.random.Generator,
) -> tuple[Tensor, tuple[int, int], Stride, tuple[int, int, int, int]]:
    """An image, a kernel that fits it, a stride and pads."""
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    top, left, bottom, right = (int(rng.integers(size)) for size in kernel * 2)
    height = int(rng.integers(max(kernel[0] - top - bottom, 1), 12))
    width = int(rng.integers(max(kernel[1] - left - right, 1), 40))
    x = tensor("x", rng, (int(rng.integers(1, 6)), height, width))
    return x, kernel, random_stride(rng, 4), (top, left, bottom, right)


def draw_max(rng: np.random.Generator) -> Instance:
    x, kernel, stride, pads = window(rng)
    node = MaxPool("pool", "x", "y", kernel, stride, pads)
    return Instance(node, [x], like("y", x, node.output_shape(x)))


def draw_average(rng: np.random.Generator) -> Instance:
    x, kernel, stride, pads = window(rng)
    node = AveragePool("pool", "x", "y", kernel, stride, pads)
    return Instance(node, [x], tensor("y", rng, node.output_shape(x)))


def draw_global(rng: np.random.Generator) -> Instance:
    x, node = tensor("x", rng, sizes(rng)), GlobalAveragePool("pool", "x", "y")
    return Instance(node, [x], tensor("y", rng, node.output_shape(x)))


def _misfits(kind: type[MaxPool | AveragePool]) -> Refused:
    x = Tensor("x", (2, 3, 3), 8, 0, 0)
    for kernel, stride, pads in (
        ((4, 1), 1, (0, 0, 0, 0)),
        ((1, 5), 1, (0, 0, 0, 1)),
        ((2, 2), 1, (2, 0, 0, 0)),
        ((2, 2), 1, (0, 0, 0, -1)),
        ((2, 2), 0, (0, 0, 0, 0)),
        ((2, 2), (1, 0), (0, 0, 0, 0)),
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((MAX_WINDOW + 1, 1), 1, (255, 0, 0, 0)),
    ):
        yield kind("pool", "x", "y", kernel, stride, pads), [x]
    yield kind("pool", "x", "y", (1, 1)), [Tensor("x", (18,), 8, 0, 0)]


def _global_misfits() -> Refused:
    yield GlobalAveragePool("pool", "x", "y"), [Tensor("x", (18,), 8, 0, 0)]


def _too_large() -> Refused:
    for bits in (2, 8):
        yield GlobalAveragePool("pool", "x", "y"), [Tensor("x", (1, EXACT_LIMIT >> bits, 2), bits, 0, 0)]


def _cases(kind: type[MaxPool | AveragePool]) -> Iterator[tuple[str, Graph]]:
    for index, (kernel, stride, pads, shape) in enumerate(POOLS):
        zero_point, bits = TYPES[index % len(TYPES)]
        x = Tensor("x", shape, bits, zero_point, -5)
        name = f"{kernel[0]}x{kernel[1]}s{stride}-{''.join(map(str, pads))}-{zero_point}"
        pool = kind("pool", "x", "y", kernel, stride, pads)
        if kind is MaxPool:
            yield f"max-{name}", around(pool, like("y", x, pool.output_shape(x)), [x])
            continue
        for out_zero, out_bits, exponent in ((0, 8, -5), (128, 8, -7), (8, 4, bits - 10)):
            y = Tensor("y", pool.output_shape(x), out_bits, out_zero, exponent)
            yield f"average-{name}-{out_zero}-{exponent}", around(pool, y, [x])


MAX = Contract(draw_max, lambda: _misfits(MaxPool), cases=lambda: _cases(MaxPool))
AVERAGE = Contract(draw_average, lambda: _misfits(AveragePool), cases=lambda: _cases(AveragePool))
GLOBAL_AVERAGE = Contract(draw_global, _global_misfits, _too_large)
