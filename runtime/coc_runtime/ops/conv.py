"""Convolution."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .. import arithmetic
from ..cost import LayerCost
from ..errors import CocError
from ..limits import EXACT_LIMIT, MAX_SCALE_EXPONENT, MULTIPLIER_BITS
from . import windows
from .base import Tensor
from .entry import Entry
from .layer import Layer
from .row import PER_CHANNEL, Stored
from .windows import Pads, Stride, down_and_across


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """2-D convolution with folded batch-norm; padding is the input's zero point.

    real weight = integer weight * scale[channel]; bias counts units of scale * 2**(input exponent).
    output = clip(rint(float32(acc + bias) * float32(scale * 2**(input exp - output exp))) + zero point).
    ReLU is the clip at output zero point 0.
    """

    KIND = 1
    FIELDS = Layer.FIELDS | windows.FIELDS | {"groups", "second"}
    SECTIONS = ("biases", "scales")
    RANK = 4
    ONNX = Layer.ONNX | {"Clip", "Conv", "Mul", "QLinearConv", "QuantizeLinear"}
    ONNX_WINDOWS = frozenset({"Conv", "QLinearConv"})

    scale: np.ndarray
    """float32 [O], at most 8 significant bits"""
    stride: Stride = 1
    pads: Pads = (0, 0, 0, 0)
    """top, left, bottom, right"""
    groups: int = 1
    dilation: Stride = 1
    """Pixels from weight to weight"""

    @property
    def kernel(self) -> tuple[int, int]:
        """height, width"""
        height, width = self.weight.codes.shape[2:]
        return height, width

    @property
    def since(self) -> int:
        return windows.since(self.stride, self.dilation)

    @property
    def channel_scales(self) -> np.ndarray:
        return self.scale

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        out, per_group = self.weight.codes.shape[:2]
        if len(x.shape) != 3 or x.shape[0] != per_group * self.groups or out % self.groups:
            raise CocError(f"{self.name}: weights {self.weight.codes.shape} do not fit input {x.shape}")
        extent = windows.extent(self.kernel, self.dilation)
        return (out, *windows.positions(self.name, x, extent, self.stride, self.pads))

    def cost(self, x: Tensor) -> LayerCost:
        shape = self.output_shape(x)
        weights = self.weight.codes.size
        return LayerCost(
            self.name, weights * shape[1] * shape[2], weights, self.weight.bits, x.bits, 2 * shape[0]
        )

    def check_parameters(self) -> None:
        super().check_parameters()
        channels, limit = len(self.weight.codes), 2.0**MAX_SCALE_EXPONENT
        if self.scale.shape != (channels,) or self.scale.dtype != np.float32:
            raise CocError(f"{self.name}: scale must be float32 [{channels}]")
        if not ((self.scale >= 1 / limit) & (self.scale <= limit)).all():
            raise CocError(
                f"{self.name}: scales must lie in 2**-{MAX_SCALE_EXPONENT} .. 2**{MAX_SCALE_EXPONENT}"
            )
        windows.check_stride(self.name, self.stride)
        windows.check_dilation(self.name, self.kernel, self.dilation)
        if min(self.pads) < 0 or self.groups < 1:
            raise CocError(f"{self.name}: padding {self.pads} or {self.groups} groups out of range")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        acc = convolve(codes, self, x.zero_point) + self.bias[:, None, None]
        multiplier = np.ldexp(self.scale, x.exponent - output.exponent)[:, None, None]
        return arithmetic.requantize(acc, multiplier, output.zero_point, output.bits)

    def temporaries(self, output: Tensor) -> int:
        """Columns of the matrix product."""
        per_pixel = int(np.prod(self.weight.codes.shape[1:])) * self.groups
        return per_pixel * output.shape[1] * output.shape[2]

    def row(self) -> Mapping[str, int]:
        window = windows.row(self.kernel, self.stride, self.pads)
        down, across = down_and_across(self.dilation)
        return {**super().row(), **window, "groups": self.groups, "second": down - 1 | across - 1 << 8}

    def stored(self) -> Mapping[str, bytes]:
        odd = arithmetic.odd_part(self.scale)
        if odd.max() >= 1 << MULTIPLIER_BITS:
            raise CocError(f"{self.name}: a scale has more than {MULTIPLIER_BITS} significant bits")
        scales = np.empty(len(odd), PER_CHANNEL["scales"])
        scales["odd"], scales["exponent"] = odd, np.frexp(self.scale / odd)[1] - 1
        return {**super().stored(), "scales": scales.tobytes()}

    @classmethod
    def from_row(cls, stored: Stored) -> Self:
        row, (source,) = stored.row, stored.inputs
        if len(source.shape) != 3 or source.shape[0] % row.groups or row.channels % row.groups:
            raise CocError(f"{row.groups} groups do not divide {source.shape} and {row.channels} channels")
        weight = stored.weight((row.channels, source.shape[0] // row.groups, *row.kernel))
        bias, scale = stored.per_channel("biases").astype(np.int32), _scale(stored.per_channel("scales"))
        names = (stored.name, source.name, stored.output)
        return cls(*names, weight, bias, scale, row.strides, row.pads, row.groups, row.dilation)

    def entry(self) -> Mapping[str, Any]:
        window = {"stride": self.stride, "pads": self.pads, "groups": self.groups}
        dilation = {} if self.dilation == 1 else {"dilation": self.dilation}
        return {**super().entry(), **window, **dilation}

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        weight = entry.weight(cls.RANK)
        kernel_h, kernel_w = weight.codes.shape[2:]
        dilation = entry.dilation()
        pads, stride = entry.pads(windows.extent((kernel_h, kernel_w), dilation)), entry.stride()
        groups = entry.positive("groups", "{} groups are out of range")
        scale = entry.array("s", "float32", weight.codes.shape[:1])
        bias = entry.array("b", "int32", weight.codes.shape[:1])
        names = (entry.name, entry.inputs[0], entry.output)
        return cls(*names, weight, bias, scale, stride, pads, groups, dilation)

    def onnx_window(self) -> tuple[str, dict[str, list[int]]]:
        attributes = windows.onnx_attributes(self.stride, self.pads, self.dilation)
        if self.groups != 1:
            attributes["group"] = [self.groups]
        return "Conv", attributes


def convolve(codes: np.ndarray, conv: Conv, zero_point: int) -> np.ndarray:
    """Exact sums of integer weights times (codes - zero_point), int32 [N, O, OH, OW].

    The matrix product runs in float32 where that holds every sum, else in float64: every order is exact.
    """
    integers = conv.weight.integers
    weights = np.abs(integers.astype(np.int64)).reshape(len(integers), -1).sum(axis=1)
    narrow = 255 * int(weights.max()) < EXACT_LIMIT
    dtype = np.dtype(np.float32 if narrow else np.float64)
    values = codes.astype(dtype) - np.asarray(zero_point, dtype)
    out = len(integers)
    found = windows.of(values, conv.kernel, conv.stride, conv.pads, conv.dilation)
    batch, _, height, width = found.shape[:4]
    columns = found.transpose(0, 1, 4, 5, 2, 3).reshape(batch, conv.groups, -1, height * width)
    matrix = integers.astype(dtype).reshape(conv.groups, out // conv.groups, -1)
    return np.matmul(matrix, columns).reshape(batch, out, height, width).astype(np.int32)


def _scale(stored: np.ndarray) -> np.ndarray:
    """float32 [O] of stored odd parts and exponents."""
    values = np.ldexp(stored["odd"].astype(np.float64), stored["exponent"].astype(np.int32))
    limit = 2.0**MAX_SCALE_EXPONENT
    if not (stored["odd"] % 2 == 1).all() or values.min() < 1 / limit or values.max() > limit:
        raise CocError(f"a scale is not odd * 2**e between 2**-{MAX_SCALE_EXPONENT} and its inverse")
    return values.astype(np.float32)
