"""Means of windows of different sizes."""

import dataclasses

from coc_deploy.qat import QUnevenPool

from .place import Lowered, Place, single


def lower(unit: QUnevenPool, at: Place) -> Lowered:
    pool = dataclasses.replace(unit.pool, name=at.name, input=at.input, output=at.output)
    return single(pool, at.inputs, unit.act)
