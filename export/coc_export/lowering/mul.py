"""Product."""

from coc_deploy.qat import QMul
from coc_runtime.ops import Mul

from .place import Lowered, Place, single


def lower(unit: QMul, at: Place) -> Lowered:
    first, second = at.inputs
    return single(Mul(at.name, (first.name, second.name), at.output), at.inputs, unit.act)
