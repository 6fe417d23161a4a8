"""Choosing channels."""

from collections.abc import Iterator

import numpy as np

from coc_runtime.graph import Graph
from coc_runtime.ops import Select, Tensor
from contract.base import Contract, Instance, Refused, around, like, sizes, tensor


def select(*indices: int) -> Select:
    return Select("select", "x", "y", np.array(indices, np.int32))


def draw(rng: np.random.Generator) -> Instance:
    """Of images and vectors; channels in any order, some left out, some again."""
    shape = sizes(rng, 9) if rng.random() < 0.8 else (int(rng.integers(1, 40)),)
    x = tensor("x", rng, shape)
    node = select(*rng.integers(0, shape[0], int(rng.integers(1, 12))))
    return Instance(node, [x], like("y", x, node.output_shape(x)))


def misfits() -> Refused:
    for shape in ((3, 2, 2), (3,)):
        for indices in ((3,), (0, 1, 2, 70000)):
            yield select(*indices), [Tensor("x", shape, 8, 0, 0)]


def cases() -> Iterator[tuple[str, Graph]]:
    for zero_point in (0, 128):
        x = Tensor("x", (6, 5, 33), 8, zero_point, -5)
        for name, indices in {
            "slice": (2, 3, 4),
            "one": (5,),
            "shuffle": (0, 3, 1, 4, 2, 5),
            "again": (1, 1, 0, 1, 5, 5, 2, 3, 4),
        }.items():
            node = select(*indices)
            yield f"select-{name}-{zero_point}", around(node, like("y", x, node.output_shape(x)), [x])


CONTRACT = Contract(draw, misfits, cases=cases)
