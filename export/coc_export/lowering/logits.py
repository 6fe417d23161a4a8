"""Codes as logits."""

from coc_deploy.qat import QLogits
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import Logits, Tensor

from .place import Lowered, Place


def lower(unit: QLogits, at: Place) -> Lowered:
    (source,) = at.inputs
    op = Logits(at.name, at.input, at.output)
    return [(op, Tensor(at.output, op.output_shape(source), LOGIT_BITS, 0, source.exponent))]
