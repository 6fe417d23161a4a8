"""Convolution, batch-norm and activation."""

from coc_deploy.qat import QConv
from coc_runtime import arithmetic
from coc_runtime.errors import CocError
from coc_runtime.ops import Conv, Weight

from .place import Lowered, Place, single


def lower(unit: QConv, at: Place) -> Lowered:
    try:
        integers, scale, bias = unit.fold()
    except CocError as error:
        raise CocError(f"{at.name}: {error}") from error
    codes = arithmetic.encode(integers, unit.weight_bits, unit.encoding)
    weight = Weight(codes, unit.weight_bits, unit.encoding)
    names = (at.name, at.input, at.output)
    conv = Conv(*names, weight, bias, scale, unit.stride, unit.pads, unit.groups, unit.dilation)
    return single(conv, at.inputs, unit.act)
