"""Weights as they are stored: codes of a few bits each."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import arithmetic
from ..arithmetic import Encoding


@dataclass(frozen=True, eq=False)
class Weight:
    """Weight codes, uint8, each below 2**bits: [O, I / groups, KH, KW] or [O, I]."""

    codes: np.ndarray
    bits: int
    encoding: Encoding

    @cached_property
    def integers(self) -> np.ndarray:
        """The int32 integers that the codes stand for."""
        return arithmetic.decode(self.codes, self.bits, self.encoding)

    @cached_property
    def packed(self) -> np.ndarray:
        """The codes at their bits, uint8 [ceil(bits * count / 8)]."""
        return arithmetic.pack(self.codes, self.bits)

    def __post_init__(self) -> None:
        self.codes.setflags(write=False)
