"""Addition."""

from coc_deploy.qat import QAdd
from coc_runtime.ops import Add

from .place import Lowered, Place, single


def lower(unit: QAdd, at: Place) -> Lowered:
    first, second = at.inputs
    return single(Add(at.name, (first.name, second.name), at.output), at.inputs, unit.act)
