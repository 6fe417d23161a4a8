"""Concatenation."""

from collections.abc import Iterator

import numpy as np

from coc_runtime.graph import Graph
from coc_runtime.ops import Concat, Tensor
from contract.base import TYPES, Contract, Instance, Refused, around, sizes, tensor


def draw(rng: np.random.Generator) -> Instance:
    channels, height, width = sizes(rng, 9)
    a = tensor("a", rng, (channels, height, width))
    b = tensor("b", rng, (int(rng.integers(1, 9)), height, width))
    node = Concat("concat", ("a", "b"), "y")
    return Instance(node, [a, b], tensor("y", rng, node.output_shape(a, b)))


def misfits() -> Refused:
    x = Tensor("x", (2, 3, 3), 8, 0, 0)
    for shape in ((2, 3, 2), (2, 2, 3), (18,)):
        yield Concat("concat", ("x", "y"), "z"), [x, Tensor("y", shape, 8, 0, 0)]
    vector = Tensor("x", (4,), 8, 0, 0)
    yield Concat("concat", ("x", "x"), "z"), [vector, vector]


def cases() -> Iterator[tuple[str, Graph]]:
    """Of every pair of types."""
    for first, (a_zero, a_bits) in enumerate(TYPES):
        for second, (b_zero, b_bits) in enumerate(TYPES):
            y_zero, y_bits = TYPES[(first + 2 * second) % 4]
            a = Tensor("a", (3, 5, 7), a_bits, a_zero, -5)
            b = Tensor("b", (1 + 4 * (first == second), 5, 7), b_bits, b_zero, -5 + first - second)
            y = Tensor("y", (a.shape[0] + b.shape[0], 5, 7), y_bits, y_zero, -4 - first % 2)
            yield (
                f"concat-{a_zero}-{a_bits}-{b_zero}-{b_bits}",
                around(Concat("c", ("a", "b"), "y"), y, [a, b]),
            )
    x = Tensor("x", (2, 3, 3), 8, 128, -5)
    y = Tensor("y", (4, 3, 3), 8, 128, -5)
    yield "concat-with-itself", around(Concat("c", ("x", "x"), "y"), y, [x])


CONTRACT = Contract(draw, misfits, cases=cases)
