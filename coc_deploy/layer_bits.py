"""Bits of single layers, by their names: the table `[q.layers]` of a recipe."""

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from coc_runtime.errors import CocError

FORM = re.compile(r"([1248])(?:x([48]))?")
ALLOWED = '"W" or "WxA" with W in 1, 2, 4, 8 and A in 4, 8, e.g. "4x8"'


def check(layers: Mapping[str, str], section: str) -> None:
    """Raise CocError unless every value has the form of bits."""
    for name, bits in layers.items():
        if not FORM.fullmatch(bits):
            raise CocError(f"recipe: {section}layers: {name!r} = {bits!r} is not allowed: {ALLOWED}")


def of(layers: Mapping[str, str], name: str) -> tuple[int | None, int | None]:
    """Bits of a layer's weights and of what it gives; None where the table says nothing.

    layers: names or patterns (`features.*`, `*.fc?`) -> bits. A layer's own name comes before patterns, and
    of the patterns that fit the longest one.
    """
    found = name if name in layers else max(_fitting(layers, name), key=lambda p: (len(p), p), default=None)
    if found is None:
        return None, None
    match = FORM.fullmatch(layers[found])
    assert match is not None
    weights, activations = match.groups()
    return int(weights), int(activations) if activations else None


def check_used(layers: Mapping[str, str], names: Collection[str]) -> None:
    """Raise CocError for a name or pattern that fits none of the layers."""
    for pattern in layers:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            listed = ", ".join(list(names)[:8]) + (", ..." if len(names) > 8 else "")
            raise CocError(f"recipe: q.layers: {pattern!r} fits no layer with weights; there are {listed}")


def _fitting(layers: Mapping[str, str], name: str) -> list[str]:
    return [pattern for pattern in layers if fnmatchcase(name, pattern)]
