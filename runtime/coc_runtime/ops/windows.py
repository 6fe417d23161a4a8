"""Windows that move over an image: what convolutions and pools share."""

import numpy as np

from ..errors import CocError
from ..limits import MAX_DILATION
from .base import Tensor

FIELDS = frozenset({"stride", "across", "kernel_height", "kernel_width", "top", "left", "bottom", "right"})
"""The fields of a row in a .coc file."""

Pads = tuple[int, int, int, int]
"""top, left, bottom, right"""


Stride = int | tuple[int, int]
"""Pixels from window to window; where they are not the same, down and across."""


def stride_of(down: int, across: int) -> Stride:
    return down if down == across else (down, across)


def down_and_across(stride: Stride) -> tuple[int, int]:
    return (stride, stride) if isinstance(stride, int) else stride


def check_stride(name: str, stride: Stride) -> None:
    """Raise CocError unless it is positive and in its one form."""
    down, across = down_and_across(stride)
    if min(down, across) < 1 or stride != stride_of(down, across):
        raise CocError(f"{name}: stride {stride} out of range")


def since(stride: Stride, dilation: Stride = 1) -> int:
    """The first version of files that has such a stride and dilation."""
    return 1 if isinstance(stride, int) and dilation == 1 else 2


def extent(kernel: tuple[int, int], dilation: Stride) -> tuple[int, int]:
    """Height and width of the pixels that a window spans."""
    down, across = down_and_across(dilation)
    return (kernel[0] - 1) * down + 1, (kernel[1] - 1) * across + 1


def dilation_of(kernel: tuple[int, int], down: int, across: int) -> Stride:
    """A dilation in its one form: 1 along a kernel of one row or column."""
    return stride_of(down if kernel[0] > 1 else 1, across if kernel[1] > 1 else 1)


def check_dilation(name: str, kernel: tuple[int, int], dilation: Stride) -> None:
    """Raise CocError unless it is in range and in its one form."""
    down, across = down_and_across(dilation)
    if not (1 <= down <= MAX_DILATION and 1 <= across <= MAX_DILATION):
        raise CocError(f"{name}: dilation {dilation} is not 1 to {MAX_DILATION}")
    if dilation != dilation_of(kernel, down, across):
        raise CocError(
            f"{name}: dilation {dilation} is not the one form for a {kernel[0]}x{kernel[1]} kernel"
        )


def row(kernel: tuple[int, int], stride: Stride, pads: Pads) -> dict[str, int]:
    """The values of FIELDS."""
    height, width = kernel
    top, left, bottom, right = pads
    sides = {"top": top, "left": left, "bottom": bottom, "right": right}
    down, across = down_and_across(stride)
    strides = {"stride": down, "across": 0 if down == across else across}
    return {"kernel_height": height, "kernel_width": width, **strides, **sides}


def check_pads(name: str, kernel: tuple[int, int], pads: Pads) -> None:
    """Raise CocError unless padding is smaller than the kernel; of a dilated one, than its extent."""
    (height, width), (top, left, bottom, right) = kernel, pads
    if min(pads) < 0 or max(top, bottom) >= height or max(left, right) >= width:
        raise CocError(f"{name}: padding must be smaller than the {height}x{width} kernel")


def positions(name: str, x: Tensor, kernel: tuple[int, int], stride: Stride, pads: Pads) -> tuple[int, int]:
    """How many windows fit the padded input, (down, across)."""
    top, left, bottom, right = pads
    down, across = down_and_across(stride)
    height = (x.shape[1] + top + bottom - kernel[0]) // down + 1
    width = (x.shape[2] + left + right - kernel[1]) // across + 1
    if min(height, width) < 1:
        raise CocError(f"{name}: kernel {kernel[0]}x{kernel[1]} is larger than input {x.shape}")
    return height, width


def of(
    values: np.ndarray, kernel: tuple[int, int], stride: Stride, pads: Pads, dilation: Stride = 1
) -> np.ndarray:
    """Windows [N, C, OH, OW, KH, KW] of values [N, C, H, W], padded with 0."""
    top, left, bottom, right = pads
    values = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    down, across = down_and_across(stride)
    found = np.lib.stride_tricks.sliding_window_view(values, extent(kernel, dilation), axis=(2, 3))
    between, beside = down_and_across(dilation)
    return found[:, :, ::down, ::across, ::between, ::beside]


def inside(size: int, kernel: int, stride: int, before: int, behind: int) -> np.ndarray:
    """What windows hold of rows or columns without their padding, int64 [windows, 2]: the first and the one
    behind the last."""
    begins = np.arange((size + before + behind - kernel) // stride + 1) * stride - before
    return np.stack([np.maximum(begins, 0), np.minimum(begins + kernel, size)], axis=1)


def grid(size: int, count: int) -> np.ndarray:
    """The same of `count` windows that cover all: window i begins at floor(i * size / count) and ends before
    ceil((i + 1) * size / count)."""
    index = np.arange(count)
    return np.stack([index * size // count, -(-(index + 1) * size // count)], axis=1)


def members(spans: np.ndarray, size: int) -> np.ndarray:
    """1 where a row or column belongs to a window, float32 [windows, size]."""
    index = np.arange(size)
    return ((spans[:, :1] <= index) & (index < spans[:, 1:])).astype(np.float32)


def onnx_attributes(stride: Stride, pads: Pads, dilation: Stride = 1) -> dict[str, list[int]]:
    """Attributes of an ONNX node, but for those of default value."""
    attributes = {}
    if dilation != 1:
        attributes["dilations"] = list(down_and_across(dilation))
    if stride != 1:
        attributes["strides"] = list(down_and_across(stride))
    if any(pads):
        attributes["pads"] = list(pads)
    return attributes
