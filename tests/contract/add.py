"""Addition."""

from dataclasses import replace

import numpy as np

from coc_runtime.limits import MAX_SHIFT
from coc_runtime.ops import Add, Tensor
from contract.base import Contract, Instance, Refused, sizes, tensor


def draw(rng: np.random.Generator) -> Instance:
    """Images or vectors; the second operand's step up to MAX_SHIFT powers of two from the first's."""
    shape = sizes(rng, 9) if rng.random() < 0.8 else (int(rng.integers(1, 40)),)
    a, b, y = (tensor(name, rng, shape) for name in "aby")
    b = replace(b, exponent=a.exponent + int(rng.integers(-MAX_SHIFT, MAX_SHIFT + 1)))
    return Instance(Add("add", ("a", "b"), "y"), [a, b], replace(y, exponent=max(a.exponent, b.exponent)))


def misfits() -> Refused:
    x = Tensor("x", (2, 3, 3), 8, 0, 0)
    for shape in ((2, 3, 2), (3, 3, 3), (18,)):
        yield Add("add", ("x", "y"), "z"), [x, replace(x, name="y", shape=shape)]


def inexact() -> Refused:
    x = Tensor("x", (2, 3, 3), 8, 0, 0)
    for exponent in (-MAX_SHIFT - 1, MAX_SHIFT + 1):
        yield Add("add", ("x", "y"), "z"), [x, replace(x, name="y", exponent=exponent)]


CONTRACT = Contract(draw, misfits, inexact)
