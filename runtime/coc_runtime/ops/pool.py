"""Pools: the maximum or the mean of windows, and the mean of the whole image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .. import arithmetic
from ..arithmetic import EXACT_LIMIT
from ..errors import CocError
from ..limits import MAX_WINDOW
from . import windows
from .base import Tensor, Unary
from .entry import Entry
from .row import Stored
from .windows import Pads, Stride


@dataclass(frozen=True, eq=False)
class Pool(Unary):
    """One number of every window of every channel."""

    FIELDS = windows.FIELDS

    kernel: tuple[int, int]
    """height, width"""
    stride: Stride = 1
    pads: Pads = (0, 0, 0, 0)
    """top, left, bottom, right"""

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if len(x.shape) != 3:
            raise CocError(f"{self.name}: input {x.shape} is not channels, height, width")
        height, width = self.kernel
        if not (1 <= min(self.kernel) <= max(self.kernel) <= MAX_WINDOW):
            raise CocError(f"{self.name}: window {height}x{width} out of range")
        windows.check_stride(self.name, self.stride)
        windows.check_pads(self.name, self.kernel, self.pads)
        return (x.shape[0], *windows.positions(self.name, x, self.kernel, self.stride, self.pads))

    @property
    def since(self) -> int:
        return windows.since(self.stride)

    def row(self) -> Mapping[str, int]:
        return windows.row(self.kernel, self.stride, self.pads)

    @classmethod
    def from_row(cls, stored: Stored) -> Self:
        row, names = stored.row, (stored.name, stored.inputs[0].name, stored.output)
        return cls(*names, row.kernel, row.strides, row.pads)

    def entry(self) -> Mapping[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "pads": self.pads}

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        kernel = entry.kernel()
        names = (entry.name, entry.inputs[0], entry.output)
        return cls(*names, kernel, entry.stride(), entry.pads(kernel))


@dataclass(frozen=True)
class MaxPool(Pool):
    """Largest code of every window; the codes keep their type.

    Padding never wins: it is the smallest code, 0, and every window holds a pixel, since pads are smaller
    than the kernel.
    """

    KIND = 5
    KEEPS_TYPE = True
    ONNX = frozenset({"MaxPool"})
    ONNX_WINDOWS = ONNX

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        found = windows.of(codes, self.kernel, self.stride, self.pads)
        result: np.ndarray = found.max(axis=(4, 5))
        return result

    def onnx_window(self) -> tuple[str, dict[str, list[int]]]:
        shape = {"kernel_shape": list(self.kernel)}
        return "MaxPool", shape | windows.onnx_attributes(self.stride, self.pads)


@dataclass(frozen=True)
class AveragePool(Pool):
    """Mean of every window, of which padding is part as the value 0: divides by the kernel's size.

    Computes as GlobalAveragePool does: integer sum, times float32(1 / count) and the scales' ratio.
    torch.nn.AvgPool2d does the same by default (count_include_pad).
    """

    KIND = 6
    ONNX = frozenset({"AveragePool", "Clip", "Conv", "DequantizeLinear", "Mul", "QuantizeLinear", "Reshape"})
    ONNX_WINDOWS = frozenset({"AveragePool", "Conv"})

    def check(self, x: Tensor) -> None:
        assert MAX_WINDOW**2 << x.bits < EXACT_LIMIT  # every sum of a legal window

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        values = codes.astype(np.int32) - x.zero_point
        found = windows.of(values, self.kernel, self.stride, self.pads)
        acc = found.sum(axis=(4, 5), dtype=np.int32)
        return _mean(acc, self.kernel[0] * self.kernel[1], x, output)

    def onnx_window(self) -> tuple[str, dict[str, list[int]]]:
        """AveragePool, or, where that would round, a convolution of ones that sums windows."""
        attributes = windows.onnx_attributes(self.stride, self.pads)
        if not divides_exactly(self.kernel[0] * self.kernel[1]):
            return "Conv", attributes
        padded = {"count_include_pad": [1]} if any(self.pads) else {}
        return "AveragePool", {"kernel_shape": list(self.kernel), **attributes, **padded}


@dataclass(frozen=True)
class GlobalAveragePool(Unary):
    """Mean over the image: integer sum, times float32(1 / count) and the scales' ratio; ties to even."""

    KIND = 3
    ONNX = frozenset(
        {"Clip", "DequantizeLinear", "Flatten", "GlobalAveragePool", "Mul", "QuantizeLinear", "ReduceSum"}
    )

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if len(x.shape) != 3:
            raise CocError(f"{self.name}: input {x.shape} is not channels, height, width")
        return x.shape[:1]

    def check(self, x: Tensor) -> None:
        if x.shape[1] * x.shape[2] << x.bits > EXACT_LIMIT:
            raise CocError(f"{self.name}: image {x.shape} is too large to sum exactly")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        count = x.shape[1] * x.shape[2]
        acc = codes.astype(np.int32).sum(axis=(2, 3)) - count * x.zero_point
        return _mean(acc, count, x, output)


def divides_exactly(count: int) -> bool:
    """Whether a float mean of integers below 2**24 is exact: `count` is a power of two."""
    return count & (count - 1) == 0


def _mean(acc: np.ndarray, count: int, x: Tensor, output: Tensor) -> np.ndarray:
    """Integer sums over `count` values, times float32(1 / count) and the scales' ratio, as output codes."""
    multiplier = np.ldexp(np.float32(1) / np.float32(count), x.exponent - output.exponent)
    return arithmetic.requantize(acc, multiplier, output.zero_point, output.bits)
