"""An operator's row in a .coc file, and what a file tells of an operator. docs/format.md has the bytes."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..arithmetic import Encoding
from .base import Tensor
from .weight import Weight
from .windows import Stride, stride_of

ENCODINGS = (Encoding.ODD, Encoding.SYMMETRIC)
PER_CHANNEL = {"biases": np.dtype("<i4"), "scales": np.dtype([("odd", "u1"), ("exponent", "i1")])}
"""Sections that hold a number for each output channel of some operators, in the order of the file."""
BEHIND = ("weights", "tables", "indices")
"""What lies behind the description, at multiples of WEIGHT_ALIGNMENT; an operator has one of them or none."""
EVERY = frozenset({"kind", "input", "bits", "zero_point", "exponent"})
"""The fields of a Row that every operator uses."""


class Row(NamedTuple):
    """An operator's 24 bytes; a field that its kind does not use is 0."""

    kind: int
    weight_bits: int = 0
    encoding: int = 0
    stride: int = 0
    input: int = 0
    second: int = 0
    kernel_height: int = 0
    kernel_width: int = 0
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    groups: int = 0
    channels: int = 0
    bits: int = 0
    zero_point: int = 0
    exponent: int = 0
    across: int = 0

    @property
    def kernel(self) -> tuple[int, int]:
        return self.kernel_height, self.kernel_width

    @property
    def strides(self) -> Stride:
        return stride_of(self.stride, self.across or self.stride)

    @property
    def dilation(self) -> Stride:
        """Of a convolution, in the place of a second input."""
        return stride_of((self.second & 255) + 1, (self.second >> 8) + 1)

    @property
    def pads(self) -> tuple[int, int, int, int]:
        return self.top, self.left, self.bottom, self.right


ROW = struct.Struct("<4B2H6BHI2BbB")


@dataclass(frozen=True)
class Stored:
    """An operator in a .coc file. Its parameters are taken once each."""

    row: Row
    name: str
    inputs: tuple[Tensor, ...]
    output: str
    weight: Callable[[tuple[int, ...]], Weight]
    """Its weights, of a shape; CocError if the file does not hold so many."""
    bytes: Callable[[tuple[int, ...]], np.ndarray]
    """uint8 of a shape, where it has bytes in the place of weights."""
    per_channel: Callable[[str], np.ndarray]
    """Its numbers in a section of PER_CHANNEL, one per output channel."""
