"""The operators of the integer graph, one file each or per close family.

`OPS` lists them; `base` says what an operator is.
"""

from collections.abc import Iterable

from .add import Add
from .base import Op, Tensor
from .concat import Concat
from .conv import Conv, convolve
from .flatten import Flatten
from .layer import Layer
from .linear import Linear
from .logits import Logits
from .lookup import Lookup
from .mul import Mul
from .pool import AveragePool, GlobalAveragePool, MaxPool
from .select import Select
from .uneven import AdaptiveAveragePool, PixelAveragePool
from .weight import Weight

__all__ = [
    "KINDS",
    "OPS",
    "AdaptiveAveragePool",
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "Layer",
    "Linear",
    "Logits",
    "Lookup",
    "MaxPool",
    "Mul",
    "Op",
    "PixelAveragePool",
    "Select",
    "Tensor",
    "Weight",
    "convolve",
    "version_of",
]

OPS: tuple[type[Op], ...] = (
    Conv,
    Add,
    GlobalAveragePool,
    Linear,
    MaxPool,
    AveragePool,
    Concat,
    Flatten,
    Lookup,
    Mul,
    Select,
    Logits,
    PixelAveragePool,
    AdaptiveAveragePool,
)
"""Every operator there is, by its number in .coc files."""

KINDS: dict[int, type[Op]] = {op.KIND: op for op in OPS}
"""The operator of each number."""


def version_of(nodes: Iterable[Op]) -> int:
    """The version of a file, and the format of a manifest, with these operators."""
    return max(node.since for node in nodes)
