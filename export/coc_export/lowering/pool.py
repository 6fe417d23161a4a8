"""Pools of windows and of the whole image."""

from coc_deploy.qat import QAvgPool, QMaxPool, QPool
from coc_runtime.ops import AveragePool, GlobalAveragePool, MaxPool

from .place import Lowered, Place, single


def lower_global(unit: QPool, at: Place) -> Lowered:
    return single(GlobalAveragePool(at.name, at.input, at.output), at.inputs, unit.act)


def lower_average(unit: QAvgPool, at: Place) -> Lowered:
    op = AveragePool(at.name, at.input, at.output, unit.kernel, unit.stride, unit.pads)
    return single(op, at.inputs, unit.act)


def lower_max(unit: QMaxPool, at: Place) -> Lowered:
    op = MaxPool(at.name, at.input, at.output, unit.kernel, unit.stride, unit.pads)
    return single(op, at.inputs, unit.act)
