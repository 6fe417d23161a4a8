"""Concatenation."""

from coc_deploy.qat import QConcat
from coc_runtime.ops import Concat

from .place import Lowered, Place, single


def lower(unit: QConcat, at: Place) -> Lowered:
    """Two inputs at a time; what is joined already has the output's type and keeps its codes."""
    left, *others = at.inputs
    lowered: Lowered = []
    for index, right in enumerate(others, 1):
        suffix = "" if index == len(others) else f".{index}"
        op = Concat(f"{at.name}{suffix}", (left.name, right.name), f"{at.output}{suffix}")
        lowered += single(op, (left, right), unit.act)
        left = lowered[-1][1]
    return lowered
