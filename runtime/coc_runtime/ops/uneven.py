"""Means of windows that hold different numbers of pixels: without their padding, or of a grid of windows."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .. import arithmetic
from ..errors import CocError
from ..limits import EXACT_LIMIT, MAX_WINDOW
from . import windows
from .base import Op, Tensor, Unary
from .entry import Entry
from .pool import Pool
from .row import Stored


class Uneven(Op):
    """The mean of each window's pixels: integer sum, times float32(1 / pixels) and the scales' ratio."""

    SINCE = 2
    ONNX = frozenset({"Clip", "DequantizeLinear", "MatMul", "Mul", "QuantizeLinear", "Reshape"})

    @abstractmethod
    def spans(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Of an image of that size, the windows' rows and their columns, int64 [windows, 2]: the first and
        the one behind the last."""

    def check(self, x: Tensor) -> None:
        rows, columns = (int((span[:, 1] - span[:, 0]).max()) for span in self.spans(*x.shape[1:]))
        if rows * columns << x.bits > EXACT_LIMIT:
            raise CocError(f"{self.name}: windows of {rows}x{columns} pixels are too large to sum exactly")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        (top, bottom), (left, right) = (span.T for span in self.spans(*x.shape[1:]))
        values = codes.astype(np.int64) - x.zero_point
        until = np.pad(values.cumsum(axis=2).cumsum(axis=3), ((0, 0), (0, 0), (1, 0), (1, 0)))
        rows = until[:, :, bottom] - until[:, :, top]
        counts = self.counts(*x.shape[1:]).astype(np.float32)
        multiplier = np.ldexp(np.float32(1) / counts, x.exponent - output.exponent)
        sums = rows[..., right] - rows[..., left]
        return arithmetic.requantize(sums, multiplier, output.zero_point, output.bits)

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Which rows, and which columns, belong to each window."""
        rows, columns = self.spans(height, width)
        return windows.members(rows, height), windows.members(columns, width)

    def counts(self, height: int, width: int) -> np.ndarray:
        """How many pixels each window holds, int64 [down, across]."""
        rows, columns = (span[:, 1] - span[:, 0] for span in self.spans(height, width))
        return rows[:, None] * columns


@dataclass(frozen=True)
class PixelAveragePool(Uneven, Pool):
    """Mean of every window's pixels; padding does not count.

    torch.nn.AvgPool2d does that with count_include_pad=False, and with ceil_mode where nothing is padded.
    """

    KIND = 13

    @property
    def since(self) -> int:
        return self.SINCE

    def spans(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        top, left, bottom, right = self.pads
        down, across = windows.down_and_across(self.stride)
        rows = windows.inside(height, self.kernel[0], down, top, bottom)
        return rows, windows.inside(width, self.kernel[1], across, left, right)


@dataclass(frozen=True, eq=False)
class AdaptiveAveragePool(Uneven, Unary):
    """Means of a grid of windows that cover the image; neighbours overlap where its size cannot be divided.

    Window i of n begins at floor(i * size / n) and ends before ceil((i + 1) * size / n), as torch's do.
    """

    KIND = 14
    FIELDS = windows.FIELDS

    size: tuple[int, int]
    """windows down and across; in a row, the kernel"""

    def spans(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return windows.grid(height, self.size[0]), windows.grid(width, self.size[1])

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if len(x.shape) != 3:
            raise CocError(f"{self.name}: input {x.shape} is not channels, height, width")
        if not 1 <= min(self.size) <= max(self.size) <= MAX_WINDOW:
            raise CocError(f"{self.name}: a grid of {self.size[0]}x{self.size[1]} windows is out of range")
        return (x.shape[0], *self.size)

    def row(self) -> Mapping[str, int]:
        return windows.row(self.size, 1, (0, 0, 0, 0))

    @classmethod
    def from_row(cls, stored: Stored) -> Self:
        if stored.row.strides != 1 or any(stored.row.pads):
            raise CocError(f"{stored.name}: a grid of windows has neither stride nor padding")
        return cls(stored.name, stored.inputs[0].name, stored.output, stored.row.kernel)

    def entry(self) -> Mapping[str, Any]:
        return {"size": self.size}

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        height, width = entry.integers("size", 2)
        return cls(entry.name, entry.inputs[0], entry.output, (height, width))
