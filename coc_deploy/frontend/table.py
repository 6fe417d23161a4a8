"""Which rule translates which operator of an exported program: all there are, in one place."""

from collections.abc import Callable
from typing import Any

from .builder import Builder
from .rules import activations, arithmetic, convolutions, normalization, pooling, shapes
from .rules.shapes import CHECKS, SHAPED, VIEWS
from .value import Call

__all__ = ["CHECKS", "RULES", "SHAPED", "VIEWS"]

Rule = Callable[[Builder, Call], Any]

RULES: dict[str, Rule] = {
    **convolutions.RULES,
    **normalization.RULES,
    **activations.RULES,
    **arithmetic.RULES,
    **pooling.RULES,
    **shapes.RULES,
}
"""Operator -> its rule. A rule gives a `Value`, or a tuple where the operator has several results."""
