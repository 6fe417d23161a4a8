"""An image as a vector."""

from coc_deploy.qat import QFlatten
from coc_runtime.ops import Flatten

from .place import Lowered, Place, single


def lower(unit: QFlatten, at: Place) -> Lowered:
    return single(Flatten(at.name, at.input, at.output), at.inputs, unit.act)
