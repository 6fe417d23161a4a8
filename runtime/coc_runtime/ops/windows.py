"""Windows that move over an image: what convolutions and pools share."""

import numpy as np

from ..errors import CocError
from .base import Tensor

FIELDS = frozenset({"stride", "kernel_height", "kernel_width", "top", "left", "bottom", "right"})
"""The fields of a row in a .coc file."""

Pads = tuple[int, int, int, int]
"""top, left, bottom, right"""


def row(kernel: tuple[int, int], stride: int, pads: Pads) -> dict[str, int]:
    """The values of FIELDS."""
    height, width = kernel
    top, left, bottom, right = pads
    sides = {"top": top, "left": left, "bottom": bottom, "right": right}
    return {"kernel_height": height, "kernel_width": width, "stride": stride, **sides}


def check_pads(name: str, kernel: tuple[int, int], pads: Pads) -> None:
    """Raise CocError unless every window holds a pixel."""
    (height, width), (top, left, bottom, right) = kernel, pads
    if min(pads) < 0 or max(top, bottom) >= height or max(left, right) >= width:
        raise CocError(f"{name}: padding must be smaller than the {height}x{width} kernel")


def positions(name: str, x: Tensor, kernel: tuple[int, int], stride: int, pads: Pads) -> tuple[int, int]:
    """How many windows fit the padded input, (down, across)."""
    top, left, bottom, right = pads
    height = (x.shape[1] + top + bottom - kernel[0]) // stride + 1
    width = (x.shape[2] + left + right - kernel[1]) // stride + 1
    if min(height, width) < 1:
        raise CocError(f"{name}: kernel {kernel[0]}x{kernel[1]} is larger than input {x.shape}")
    return height, width


def of(values: np.ndarray, kernel: tuple[int, int], stride: int, pads: Pads) -> np.ndarray:
    """Windows [N, C, OH, OW, KH, KW] of values [N, C, H, W], padded with 0."""
    top, left, bottom, right = pads
    values = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return np.lib.stride_tricks.sliding_window_view(values, kernel, axis=(2, 3))[:, :, ::stride, ::stride]


def onnx_attributes(stride: int, pads: Pads) -> dict[str, list[int]]:
    """Attributes of an ONNX node, but for those of default value."""
    attributes = {}
    if stride != 1:
        attributes["strides"] = [stride] * 2
    if any(pads):
        attributes["pads"] = list(pads)
    return attributes
