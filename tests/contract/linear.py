"""Linear layer."""

import numpy as np

from coc_runtime.arithmetic import Encoding
from coc_runtime.limits import LOGIT_BITS, SUM_LIMIT
from coc_runtime.ops import Linear, Tensor, Weight
from contract.base import Contract, Instance, Refused, layer_weight, tensor, wide_weight


def draw(rng: np.random.Generator) -> Instance:
    """Of any size; now and then with sums that float32 does not hold."""
    features, classes = int(rng.choice((1, 3, 16, 17, 65, 2100))), int(rng.choice((1, 2, 7, 10)))
    x = tensor("x", rng, (features,))
    weight = (wide_weight if features > 2000 else layer_weight)(rng, (classes, features))
    bias = rng.integers(-(10**6), 10**6, classes).astype(np.int32)
    exponent = int(rng.integers(-12, 1))
    node = Linear("linear", "x", "y", weight, bias, exponent)
    return Instance(node, [x], Tensor("y", (classes,), LOGIT_BITS, 0, x.exponent + exponent))


def one_weight(bias: int = 0) -> Linear:
    weight = Weight(np.ones((1, 1), np.uint8), 1, Encoding.ODD)
    return Linear("linear", "x", "y", weight, np.array([bias], np.int32), 0)


def misfits() -> Refused:
    for shape in ((2,), (1, 1, 1)):
        yield one_weight(), [Tensor("x", shape, 8, 0, 0)]


def inexact() -> Refused:
    for bias in (SUM_LIMIT - 255, 255 - SUM_LIMIT):
        yield one_weight(bias), [Tensor("x", (1,), 8, 0, 0)]


CONTRACT = Contract(draw, misfits, inexact, counted=True)
