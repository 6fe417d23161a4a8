"""Means of windows of different sizes."""

from coc_deploy.qat import QAdaptiveAvgPool, QPixelAvgPool
from coc_runtime.ops import AdaptiveAveragePool, PixelAveragePool

from .place import Lowered, Place, single


def lower_pixels(unit: QPixelAvgPool, at: Place) -> Lowered:
    op = PixelAveragePool(at.name, at.input, at.output, unit.kernel, unit.stride, unit.pads)
    return single(op, at.inputs, unit.act)


def lower_adaptive(unit: QAdaptiveAvgPool, at: Place) -> Lowered:
    return single(AdaptiveAveragePool(at.name, at.input, at.output, unit.size), at.inputs, unit.act)
