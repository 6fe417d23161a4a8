"""Tables of codes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coc_runtime.graph import Graph
from coc_runtime.ops import Lookup, Tensor
from contract.base import TYPES, Contract, Instance, Refused, around, sizes, tensor


def draw(rng: np.random.Generator) -> Instance:
    """Of images and vectors, one table or one for each channel."""
    shape = sizes(rng, 9) if rng.random() < 0.8 else (int(rng.integers(1, 40)),)
    x, y = tensor("x", rng, shape), tensor("y", rng, shape)
    count = int(rng.choice((1, shape[0])))
    tables = rng.integers(0, 1 << y.bits, (count, 1 << x.bits)).astype(np.uint8)
    return Instance(Lookup("lookup", "x", "y", tables), [x], y)


def misfits() -> Refused:
    for count, codes in ((2, 256), (4, 256), (1, 16), (1, 255), (3, 128)):
        yield (
            Lookup("lookup", "x", "y", np.zeros((count, codes), np.uint8)),
            [Tensor("x", (3, 2, 2), 8, 0, 0)],
        )


def cases() -> Iterator[tuple[str, Graph]]:
    """Of every pair of types; tables that turn codes round, and of many codes, so that vectors are full."""
    for first, (zero, bits) in enumerate(TYPES):
        for second, (y_zero, y_bits) in enumerate(TYPES):
            x = Tensor("x", (3, 7, 37), bits, zero, -5)
            y = replace(x, name="y", bits=y_bits, zero_point=y_zero, exponent=-3)
            turned = np.arange(1 << bits)[::-1] * ((1 << y_bits) - 1) // ((1 << bits) - 1)
            tables = np.stack([turned, turned[::-1], turned // 2])[: 1 + 2 * ((first + second) % 2)]
            yield (
                f"lookup-{zero}-{bits}-{y_zero}-{y_bits}",
                around(Lookup("lookup", "x", "y", tables.astype(np.uint8)), y, [x]),
            )


CONTRACT = Contract(draw, misfits, cases=cases)
