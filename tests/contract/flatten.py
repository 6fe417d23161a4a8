"""An image as a vector."""

import numpy as np

from coc_runtime.ops import Flatten, Tensor
from contract.base import Contract, Instance, Refused, like, sizes, tensor


def draw(rng: np.random.Generator) -> Instance:
    x, node = tensor("x", rng, sizes(rng, 9)), Flatten("flatten", "x", "y")
    return Instance(node, [x], like("y", x, node.output_shape(x)))


def misfits() -> Refused:
    yield Flatten("flatten", "x", "y"), [Tensor("x", (18,), 8, 0, 0)]


CONTRACT = Contract(draw, misfits)
