"""Linear layer, whose sums are the logits."""

from coc_deploy.qat import QLinear
from coc_runtime import arithmetic
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import Linear, Tensor, Weight

from .place import Lowered, Place


def lower(unit: QLinear, at: Place) -> Lowered:
    integers, exponent, bias = unit.fold()
    codes = arithmetic.encode(integers, unit.weight_bits, unit.encoding)
    weight = Weight(codes, unit.weight_bits, unit.encoding)
    op = Linear(at.name, at.input, at.output, weight, bias, exponent)
    shape = op.output_shape(*at.inputs)
    return [(op, Tensor(at.output, shape, LOGIT_BITS, 0, at.inputs[0].exponent + exponent))]
