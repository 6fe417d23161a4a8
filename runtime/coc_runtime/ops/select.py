"""Choosing channels: parts of an image or vector, permutations, shuffles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import CocError
from ..limits import MAX_CHANNELS
from .base import Tensor, Unary
from .entry import Entry
from .row import Stored

INDEX = np.dtype("<u4")
"""Of a channel in a file."""


@dataclass(frozen=True, eq=False)
class Select(Unary):
    """Channels of an image, or values of a vector, in any order; some may occur again."""

    KIND = 11
    SINCE = 2
    KEEPS_TYPE = True
    FIELDS = frozenset({"channels"})
    ONNX = frozenset({"Gather"})

    indices: np.ndarray
    """of the input's channels, int32 [O]"""

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if int(self.indices.max()) >= x.shape[0]:
            raise CocError(f"{self.name}: channel {int(self.indices.max())} is not one of input {x.shape}")
        return (len(self.indices), *x.shape[1:])

    def check_parameters(self) -> None:
        indices = self.indices
        if indices.ndim != 1 or indices.dtype != np.int32 or not 1 <= len(indices) <= MAX_CHANNELS:
            raise CocError(f"{self.name}: indices must be int32, 1 to {MAX_CHANNELS} of them")
        if int(indices.min()) < 0:
            raise CocError(f"{self.name}: channel {int(indices.min())} does not exist")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        return np.asarray(codes[:, self.indices])

    def row(self) -> Mapping[str, int]:
        return {"channels": len(self.indices)}

    def stored(self) -> Mapping[str, bytes]:
        return {"indices": self.indices.astype(INDEX).tobytes()}

    @classmethod
    def from_row(cls, stored: Stored) -> Self:
        (source,) = stored.inputs
        indices = stored.bytes((stored.row.channels * INDEX.itemsize,)).view(INDEX)
        if int(indices.max()) >= MAX_CHANNELS:
            raise CocError(f"{stored.name}: channel {int(indices.max())} does not exist")
        return cls(stored.name, source.name, stored.output, indices.astype(np.int32))

    def entry(self) -> Mapping[str, Any]:
        return {"channels": len(self.indices)}

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        count = entry.positive("channels", "{} channels are out of range")
        indices = entry.array("w", "int32", (count,))
        return cls(entry.name, entry.inputs[0], entry.output, indices)
