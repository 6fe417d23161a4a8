"""Products of tensors."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coc_runtime.graph import Graph
from coc_runtime.ops import Mul, Tensor
from contract.base import TYPES, Contract, Instance, Refused, around, sizes, tensor


def draw(rng: np.random.Generator) -> Instance:
    """Images or vectors; the second factor of the same shape or a number for each channel; the product just
    fits its codes or saturates."""
    shape = sizes(rng, 9) if rng.random() < 0.8 else (int(rng.integers(1, 40)),)
    a, b, y = (tensor(name, rng, shape) for name in "aby")
    if len(shape) == 3 and rng.random() < 0.5:
        b = replace(b, shape=(shape[0], 1, 1))
    exponent = a.exponent + b.exponent + a.bits + b.bits - y.bits - int(rng.integers(0, 5))
    return Instance(Mul("mul", ("a", "b"), "y"), [a, b], replace(y, exponent=exponent))


def misfits() -> Refused:
    x = Tensor("x", (2, 3, 3), 8, 0, 0)
    for shape in ((2, 3, 2), (3, 3, 3), (18,), (2,), (2, 3, 1), (1, 3, 3), (1, 1, 1)):
        yield Mul("mul", ("x", "y"), "z"), [x, replace(x, name="y", shape=shape)]
    yield Mul("mul", ("x", "y"), "z"), [replace(x, shape=(2, 1, 1)), replace(x, name="y")]
    yield Mul("mul", ("x", "y"), "z"), [replace(x, shape=(2,)), replace(x, name="y", shape=(2, 1, 1))]


def every_product(zero: int, other: int, out_zero: int, exponent: int, gates: bool) -> Graph:
    """Of a tensor with itself, or with a number for each channel."""
    x = Tensor("x", (5, 9, 33), 8, zero, -5)
    b = replace(x, name="b", zero_point=other, shape=(5, 1, 1) if gates else x.shape)
    y = replace(x, name="y", zero_point=out_zero, exponent=exponent)
    return around(Mul("mul", ("x", "b"), "y"), y, [x, b])


def cases() -> Iterator[tuple[str, Graph]]:
    """Of every pair of types."""
    for first, (a_zero, a_bits) in enumerate(TYPES):
        for second, (b_zero, b_bits) in enumerate(TYPES):
            _, y_bits = TYPES[(first + 2 * second) % 5]
            y_zero = 1 << (y_bits - 1) if a_zero or b_zero else 0  # a channel may be negative
            a = Tensor("a", (3, 5, 7), a_bits, a_zero, -5)
            b = Tensor("b", (3, 5, 7) if second % 2 else (3, 1, 1), b_bits, b_zero, -7)
            y = Tensor("y", a.shape, y_bits, y_zero, a_bits + b_bits - y_bits - 16)
            yield f"mul-{a_zero}-{a_bits}-{b_zero}-{b_bits}", around(Mul("mul", ("a", "b"), "y"), y, [a, b])
    for zero, other, out_zero, exponent in (
        (128, 0, 128, -4),
        (128, 128, 128, -3),
        (0, 0, 0, -2),
        (0, 128, 0, -9),
    ):
        for gates in (False, True):
            name = f"mul-all-{zero}-{other}-{exponent}-{gates}"
            yield name, every_product(zero, other, out_zero, exponent, gates)
    x = Tensor("x", (2, 3, 3), 8, 128, -5)
    yield "mul-with-itself", around(Mul("mul", ("x", "x"), "y"), replace(x, name="y", exponent=-3), [x])


CONTRACT = Contract(draw, misfits, cases=cases)
