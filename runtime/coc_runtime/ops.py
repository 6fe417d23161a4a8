"""The operators of the integer graph. Each holds its definition, shape rule, cost rule, NumPy reference."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import arithmetic
from .arithmetic import Encoding
from .cost import LayerCost
from .errors import CocError
from .limits import EXACT_LIMIT, MAX_SHIFT, MAX_WINDOW


@dataclass(frozen=True)
class Tensor:
    """Logical type of an activation: code q stands for (q - zero_point) * 2**exponent.

    shape is per image, (C, H, W) or (C,). Up to 8 bits the container is uint8; logits are 32-bit
    signed integers with zero point 0.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    zero_point: int
    exponent: int

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Codes [N, *shape] as the float32 numbers that they stand for."""
        return np.ldexp((codes.astype(np.int32) - self.zero_point).astype(np.float32), self.exponent)


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


@dataclass(frozen=True, eq=False)
class Conv:
    """2-D convolution with folded batch-norm; padding is the input's zero point.

    real weight = integer weight * scale[channel]; bias counts units of scale * 2**(input exponent).
    output = clip(rint(float32(acc + bias) * float32(scale * 2**(input exp - output exp))) + zero point).
    ReLU is the clip at output zero point 0.
    """

    name: str
    input: str
    output: str
    weight: Weight
    bias: np.ndarray
    """int32 [O]"""
    scale: np.ndarray
    """float32 [O], at most 8 significant bits"""
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """top, left, bottom, right"""
    groups: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        out, per_group, kernel_h, kernel_w = self.weight.codes.shape
        if len(x.shape) != 3 or x.shape[0] != per_group * self.groups or out % self.groups:
            raise CocError(f"{self.name}: weights {self.weight.codes.shape} do not fit input {x.shape}")
        return (out, *_positions(self.name, x, (kernel_h, kernel_w), self.stride, self.pads))

    def cost(self, x: Tensor) -> LayerCost:
        shape = self.output_shape(x)
        weights = self.weight.codes.size
        return LayerCost(
            self.name, weights * shape[1] * shape[2], weights, self.weight.bits, x.bits, 2 * shape[0]
        )

    def check(self, x: Tensor) -> None:
        """Raise CocError unless any float32 evaluation of this layer is exact."""
        worst = arithmetic.worst_sum(self.weight.integers, x.zero_point, x.bits) + np.abs(
            self.bias.astype(np.int64)
        )
        if (arithmetic.odd_part(self.scale) * worst).max() >= EXACT_LIMIT:
            raise CocError(f"{self.name}: scaled sums reach 2**24 and would not be exact in float32")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        acc = convolve(codes, self, x.zero_point) + self.bias[:, None, None]
        multiplier = np.ldexp(self.scale, x.exponent - output.exponent)[:, None, None]
        return arithmetic.requantize(acc, multiplier, output.zero_point, output.bits)


def convolve(codes: np.ndarray, conv: Conv, zero_point: int) -> np.ndarray:
    """Exact sums of integer weights times (codes - zero_point), int32 [N, O, OH, OW].

    The matrix product runs in float32: `Conv.check` bounds its sums, so every order is exact.
    """
    values = codes.astype(np.float32) - np.float32(zero_point)
    out, _, *kernel = conv.weight.codes.shape
    windows = _windows(values, (kernel[0], kernel[1]), conv.stride, conv.pads)
    batch, _, height, width = windows.shape[:4]
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(batch, conv.groups, -1, height * width)
    matrix = conv.weight.integers.astype(np.float32).reshape(conv.groups, out // conv.groups, -1)
    return np.matmul(matrix, columns).reshape(batch, out, height, width).astype(np.int32)


def _positions(
    name: str, x: Tensor, kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int]
) -> tuple[int, int]:
    """How many windows fit the padded input, (down, across)."""
    top, left, bottom, right = pads
    height = (x.shape[1] + top + bottom - kernel[0]) // stride + 1
    width = (x.shape[2] + left + right - kernel[1]) // stride + 1
    if min(height, width) < 1:
        raise CocError(f"{name}: kernel {kernel[0]}x{kernel[1]} is larger than input {x.shape}")
    return height, width


def _windows(
    values: np.ndarray, kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int]
) -> np.ndarray:
    """Windows [N, C, OH, OW, KH, KW] of values [N, C, H, W], padded with 0."""
    top, left, bottom, right = pads
    values = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return np.lib.stride_tricks.sliding_window_view(values, kernel, axis=(2, 3))[:, :, ::stride, ::stride]


@dataclass(frozen=True)
class Add:
    """Residual addition on the finer of the two operands' scales, then requantized; ties to even."""

    name: str
    inputs: tuple[str, str]
    output: str

    def output_shape(self, a: Tensor, b: Tensor) -> tuple[int, ...]:
        if a.shape != b.shape:
            raise CocError(f"{self.name}: operands of shape {a.shape} and {b.shape} differ")
        return a.shape

    def cost(self, a: Tensor, b: Tensor) -> None:
        return None

    def check(self, a: Tensor, b: Tensor) -> None:
        if abs(a.exponent - b.exponent) > MAX_SHIFT:
            raise CocError(f"{self.name}: operand scales differ by more than 2**{MAX_SHIFT}")

    def reference(
        self, a: Tensor, a_codes: np.ndarray, b: Tensor, b_codes: np.ndarray, output: Tensor
    ) -> np.ndarray:
        fine = min(a.exponent, b.exponent)
        acc = (a_codes.astype(np.int32) - a.zero_point) << (a.exponent - fine)
        acc = acc + ((b_codes.astype(np.int32) - b.zero_point) << (b.exponent - fine))
        return arithmetic.requantize(acc, 2.0 ** (fine - output.exponent), output.zero_point, output.bits)


def _mean(acc: np.ndarray, count: int, x: Tensor, output: Tensor) -> np.ndarray:
    """Integer sums over `count` values, times float32(1 / count) and the scales' ratio, as output codes."""
    multiplier = np.ldexp(np.float32(1) / np.float32(count), x.exponent - output.exponent)
    return arithmetic.requantize(acc, multiplier, output.zero_point, output.bits)


@dataclass(frozen=True)
class GlobalAveragePool:
    """Mean over the image: integer sum, times float32(1 / count) and the scales' ratio; ties to even."""

    name: str
    input: str
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if len(x.shape) != 3:
            raise CocError(f"{self.name}: input {x.shape} is not channels, height, width")
        return x.shape[:1]

    def cost(self, x: Tensor) -> None:
        return None

    def check(self, x: Tensor) -> None:
        if x.shape[1] * x.shape[2] << x.bits > EXACT_LIMIT:
            raise CocError(f"{self.name}: image {x.shape} is too large to sum exactly")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        count = x.shape[1] * x.shape[2]
        acc = codes.astype(np.int32).sum(axis=(2, 3)) - count * x.zero_point
        return _mean(acc, count, x, output)


@dataclass(frozen=True)
class MaxPool:
    """Largest code of every window; the codes keep their type.

    Padding never wins: it is the smallest code, 0, and every window holds a pixel, since pads are smaller
    than the kernel.
    """

    name: str
    input: str
    output: str
    kernel: tuple[int, int]
    """height, width"""
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """top, left, bottom, right"""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        return _pooled_shape(self, x)

    def cost(self, x: Tensor) -> None:
        return None

    def check(self, x: Tensor) -> None:
        pass

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        result: np.ndarray = _windows(codes, self.kernel, self.stride, self.pads).max(axis=(4, 5))
        return result


@dataclass(frozen=True)
class AveragePool:
    """Mean of every window, of which padding is part as the value 0: divides by the kernel's size.

    Computes as GlobalAveragePool does: integer sum, times float32(1 / count) and the scales' ratio.
    torch.nn.AvgPool2d does the same by default (count_include_pad).
    """

    name: str
    input: str
    output: str
    kernel: tuple[int, int]
    """height, width"""
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """top, left, bottom, right"""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        return _pooled_shape(self, x)

    def cost(self, x: Tensor) -> None:
        return None

    def check(self, x: Tensor) -> None:
        assert MAX_WINDOW**2 << x.bits < EXACT_LIMIT  # every sum of a legal window

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        values = codes.astype(np.int32) - x.zero_point
        acc = _windows(values, self.kernel, self.stride, self.pads).sum(axis=(4, 5), dtype=np.int32)
        count = self.kernel[0] * self.kernel[1]
        return _mean(acc, count, x, output)


def _pooled_shape(pool: MaxPool | AveragePool, x: Tensor) -> tuple[int, ...]:
    if len(x.shape) != 3:
        raise CocError(f"{pool.name}: input {x.shape} is not channels, height, width")
    height, width = pool.kernel
    if not (1 <= min(pool.kernel) <= max(pool.kernel) <= MAX_WINDOW and pool.stride >= 1):
        raise CocError(f"{pool.name}: window {height}x{width}, stride {pool.stride} out of range")
    top, left, bottom, right = pool.pads
    if min(pool.pads) < 0 or max(top, bottom) >= height or max(left, right) >= width:
        raise CocError(f"{pool.name}: padding must be smaller than the {height}x{width} kernel")
    return (x.shape[0], *_positions(pool.name, x, pool.kernel, pool.stride, pool.pads))


@dataclass(frozen=True)
class Concat:
    """Channels of both inputs, each requantized to the output's scale; ties to even."""

    name: str
    inputs: tuple[str, str]
    output: str

    def output_shape(self, a: Tensor, b: Tensor) -> tuple[int, ...]:
        if len(a.shape) != 3 or a.shape[1:] != b.shape[1:]:
            raise CocError(f"{self.name}: images of shape {a.shape} and {b.shape} do not join")
        return (a.shape[0] + b.shape[0], *a.shape[1:])

    def cost(self, a: Tensor, b: Tensor) -> None:
        return None

    def check(self, a: Tensor, b: Tensor) -> None:
        pass

    def reference(
        self, a: Tensor, a_codes: np.ndarray, b: Tensor, b_codes: np.ndarray, output: Tensor
    ) -> np.ndarray:
        parts = [
            arithmetic.requantize(
                codes.astype(np.int32) - x.zero_point,
                2.0 ** (x.exponent - output.exponent),
                output.zero_point,
                output.bits,
            )
            for x, codes in ((a, a_codes), (b, b_codes))
        ]
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Flatten:
    """(C, H, W) as (C * H * W,); the codes and their type stay."""

    name: str
    input: str
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if len(x.shape) != 3:
            raise CocError(f"{self.name}: input {x.shape} is not channels, height, width")
        return (x.shape[0] * x.shape[1] * x.shape[2],)

    def cost(self, x: Tensor) -> None:
        return None

    def check(self, x: Tensor) -> None:
        pass

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        return codes.reshape(len(codes), *output.shape)


@dataclass(frozen=True, eq=False)
class Linear:
    """Linear layer whose integer sums are the logits: value = (acc + bias) * 2**(input exp + exponent)."""

    name: str
    input: str
    output: str
    weight: Weight
    bias: np.ndarray
    """int32 [O]"""
    exponent: int
    """real weight = integer weight * 2**exponent"""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        out, features = self.weight.codes.shape
        if x.shape != (features,):
            raise CocError(f"{self.name}: weights {self.weight.codes.shape} do not fit input {x.shape}")
        return (out,)

    def cost(self, x: Tensor) -> LayerCost:
        out, features = self.weight.codes.shape
        return LayerCost(self.name, out * features, out * features, self.weight.bits, x.bits, out)

    def check(self, x: Tensor) -> None:
        worst = arithmetic.worst_sum(self.weight.integers, x.zero_point, x.bits)
        if (worst + np.abs(self.bias.astype(np.int64))).max() >= EXACT_LIMIT:
            raise CocError(f"{self.name}: sums reach 2**24 and would not be exact in float32")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        values = codes.astype(np.int32) - x.zero_point
        return (values @ self.weight.integers.T + self.bias).astype(np.int32)


Op = Conv | Add | GlobalAveragePool | Linear | MaxPool | AveragePool | Concat | Flatten
OPS: tuple[type, ...] = (Conv, Add, GlobalAveragePool, Linear, MaxPool, AveragePool, Concat, Flatten)
