"""A function of single values."""

from coc_deploy.qat import QLookup
from coc_runtime.ops import Lookup

from .place import Lowered, Place, single


def lower(unit: QLookup, at: Place) -> Lowered:
    return single(Lookup(at.name, at.input, at.output, unit.tables()), at.inputs, unit.act)
