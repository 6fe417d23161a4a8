"""Codes as logits."""

import numpy as np

from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import Logits, Tensor
from contract.base import Contract, Instance, Refused, tensor


def draw(rng: np.random.Generator) -> Instance:
    x = tensor("x", rng, (int(rng.integers(1, 40)),))
    return Instance(Logits("logits", "x", "y"), [x], Tensor("y", x.shape, LOGIT_BITS, 0, x.exponent))


def misfits() -> Refused:
    yield Logits("logits", "x", "y"), [Tensor("x", (3, 1, 1), 8, 0, 0)]


CONTRACT = Contract(draw, misfits)
