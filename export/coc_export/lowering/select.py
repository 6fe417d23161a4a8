"""Choosing channels."""

from coc_deploy.qat import QSelect
from coc_runtime.ops import Select

from .place import Lowered, Place, single


def lower(unit: QSelect, at: Place) -> Lowered:
    indices = unit.indices(at.inputs[0].shape[0])
    return single(Select(at.name, at.input, at.output, indices), at.inputs, unit.act)
