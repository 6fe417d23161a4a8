"""The one table of how quantized units of torch become operators, each family in a file of its own."""

from collections.abc import Callable
from typing import Any

from torch import nn

from coc_deploy.qat import (
    QAdaptiveAvgPool,
    QAdd,
    QAvgPool,
    QConcat,
    QConv,
    QFlatten,
    QLinear,
    QLogits,
    QLookup,
    QMaxPool,
    QMul,
    QPixelAvgPool,
    QPool,
    QSelect,
)
from coc_runtime.errors import CocError

from . import add, concat, conv, flatten, linear, logits, lookup, mul, pool, select, uneven
from .place import Lowered, Place

UNITS: dict[type[nn.Module], Callable[[Any, Place], Lowered]] = {
    QConv: conv.lower,
    QAdd: add.lower,
    QMul: mul.lower,
    QLookup: lookup.lower,
    QConcat: concat.lower,
    QPool: pool.lower_global,
    QAvgPool: pool.lower_average,
    QMaxPool: pool.lower_max,
    QPixelAvgPool: uneven.lower_pixels,
    QAdaptiveAvgPool: uneven.lower_adaptive,
    QFlatten: flatten.lower,
    QSelect: select.lower,
    QLogits: logits.lower,
    QLinear: linear.lower,
}
SUPPORTED = (
    "convolution, addition, product, functions of single values, concatenation and choice of channels, "
    "max and average pooling, flattening, linear, logits"
)
"""The same for people."""


def lower_unit(unit: nn.Module | None, at: Place) -> Lowered:
    """The operators of a unit; None stands for an operation that is no module. CocError if there are none."""
    if unit is None or type(unit) not in UNITS:
        kind = type(unit).__name__ if unit is not None else "operation"
        raise CocError(f"{at.name}: {kind} cannot be exported; supported: {SUPPORTED}")
    return UNITS[type(unit)](unit, at)
