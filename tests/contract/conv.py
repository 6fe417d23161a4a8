"""Convolution."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coc_runtime.arithmetic import Encoding, exact_scale_and_bias, worst_sum
from coc_runtime.graph import Graph
from coc_runtime.limits import SUM_LIMIT
from coc_runtime.ops import Conv, Tensor, Weight, windows
from coc_runtime.ops.windows import Pads, Stride, stride_of
from contract.base import (
    Contract,
    Instance,
    Refused,
    around,
    layer_weight,
    random_stride,
    tensor,
    wide_weight,
)


def draw(rng: np.random.Generator) -> Instance:
    """Of any shape; now and then with sums that float32 does not hold."""
    if rng.random() < 0.2:
        shape = (int(rng.choice((1, 2, 5))), 2100, 1, 1)
        x = tensor("x", rng, (2100, *(int(size) for size in rng.integers(1, 3, 2))), (0, 8))
        return _scaled(rng, x, wide_weight(rng, shape), stride_of(1, 1), (0, 0, 0, 0), 1)
    groups = int(rng.choice((1, 1, 2, 3)))
    per_group, out = int(rng.choice((1, 3, 4, 5, 16, 17))), int(rng.choice((1, 2, 5, 8))) * groups
    kernel_h, kernel_w = (int(size) for size in rng.choice((1, 1, 2, 3, 3, 5), 2))
    dilation = windows.dilation_of((kernel_h, kernel_w), *_random_dilation(rng))
    high, wide = windows.extent((kernel_h, kernel_w), dilation)
    pads = tuple(int(rng.integers(size)) for size in (high, wide) * 2)
    height = int(rng.integers(max(high - pads[0] - pads[2], 1), 13))
    width = int(rng.integers(max(wide - pads[1] - pads[3], 1), 13))
    x = tensor("x", rng, (per_group * groups, height, width))
    weight = layer_weight(rng, (out, per_group, kernel_h, kernel_w))
    stride, sides = random_stride(rng, 3), (pads[0], pads[1], pads[2], pads[3])
    return _scaled(rng, x, weight, stride, sides, groups, dilation)


def _random_dilation(rng: np.random.Generator) -> tuple[int, int]:
    """(1, 1) mostly."""
    return (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if rng.random() < 0.3 else (1, 1)


def _scaled(
    rng: np.random.Generator,
    x: Tensor,
    weight: Weight,
    stride: Stride,
    pads: Pads,
    groups: int,
    dilation: Stride = 1,
) -> Instance:
    """A convolution whose sums are of the order of its output's range."""
    out = len(weight.codes)
    worst = worst_sum(weight.integers, x.zero_point, x.bits)
    y_type = tensor("y", rng, ())
    reach = np.ldexp((1 << y_type.bits) / np.maximum(worst, 1), y_type.exponent - x.exponent)
    scale, bias = exact_scale_and_bias(
        reach * 2.0 ** rng.uniform(-1, 4, out),
        rng.uniform(-0.5, 0.5, out) * np.ldexp(float(1 << y_type.bits), y_type.exponent),
        x.exponent,
        worst,
    )
    node = Conv("conv", "x", "y", weight, bias, scale, stride, pads, groups, dilation)
    return Instance(node, [x], replace(y_type, shape=node.output_shape(x)))


def one_weight(scale: float = 1.0, bias: int = 0) -> Conv:
    weight = Weight(np.ones((1, 1, 1, 1), np.uint8), 1, Encoding.ODD)
    return Conv("conv", "x", "y", weight, np.array([bias], np.int32), np.array([scale], np.float32))


def misfits() -> Refused:
    for shape in ((2, 1, 1), (1,)):
        yield one_weight(), [Tensor("x", shape, 8, 0, 0)]
    x = Tensor("x", (1, 2, 2), 8, 0, 0)
    wide = Weight(np.ones((1, 1, 3, 1), np.uint8), 1, Encoding.ODD)
    yield replace(one_weight(), weight=wide), [x]
    two = Weight(np.ones((1, 1, 1, 1), np.uint8), 1, Encoding.ODD)
    yield replace(one_weight(), weight=two, groups=2), [Tensor("x", (2, 2, 2), 8, 0, 0)]
    spread = Weight(np.ones((1, 1, 2, 1), np.uint8), 1, Encoding.ODD)
    yield replace(one_weight(), weight=spread, dilation=(2, 1)), [x]


def inexact() -> Refused:
    x = Tensor("x", (1, 1, 1), 8, 0, 0)
    yield one_weight(1.0, SUM_LIMIT - 255), [x]
    yield one_weight(1.0, 255 - SUM_LIMIT), [x]


def _wide_sums() -> Graph:
    """One channel whose sums tie at 24 bits, one that ties at 31, and both ends of what a sum may be."""
    x, y = Tensor("x", (1, 4, 4), 8, 0, 0), Tensor("y", (4, 4, 4), 8, 128, 18)
    ones = Weight(np.ones((4, 1, 1, 1), np.uint8), 1, Encoding.ODD)
    bias = np.array([129 * 2**17 + 1, 253 * 2**23 - 128, 2**31 - 256, 256 - 2**31], np.int32)
    scale = np.ldexp(np.ones(4, np.float32), [0, -6, -6, -6]).astype(np.float32)
    return around(Conv("conv", "x", "y", ones, bias, scale), y, [x])


def cases() -> Iterator[tuple[str, Graph]]:
    """Of single pixels, with padding and without, and of kernels as large as the image; of wide sums whose
    rounding to float32 makes ties."""
    yield "conv-wide", _wide_sums()
    for name, kernel, dilation, pads in (
        ("wide", (1, 3), (1, 2), (0, 4, 0, 4)),
        ("even", (3, 3), 2, (2, 2, 2, 2)),
        ("far", (2, 2), (5, 256), (0, 255, 5, 255)),
    ):
        rng = np.random.default_rng(0)
        x = Tensor("x", (4, 8, 9), 8, 128, -5)
        weight = Weight(rng.integers(0, 16, (6, 2, *kernel)).astype(np.uint8), 4, Encoding.ODD)
        yield f"conv-dilated-{name}", _scaled(rng, x, weight, 1, pads, 2, dilation).graph()
    for bits in (1, 2, 4, 8):
        for kernel, size, pad, groups in (
            (1, 1, 0, 1),
            (3, 1, 1, 1),
            (4, 4, 0, 1),
            (3, 3, 0, 16),
            (5, 5, 0, 2),
        ):
            for zero_point in (0, 128):
                rng = np.random.default_rng(bits * kernel)
                x = Tensor("x", (16, size, size), 8, zero_point, -5)
                encoding = Encoding.SYMMETRIC if bits == 8 else Encoding.ODD
                codes = rng.integers(bits == 8, 1 << bits, (32, 16 // groups, kernel, kernel)).astype(
                    np.uint8
                )
                fan_in = codes[0].size
                scale = np.full(32, 2.0 ** -np.rint(bits + np.log2(fan_in) / 2 + 2), np.float32)
                bias = rng.integers(-99, 100, 32).astype(np.int32)
                weight, pads = Weight(codes, bits, encoding), (pad, pad, pad, pad)
                conv = Conv("conv", "x", "y", weight, bias, scale, 1, pads, groups)
                y = Tensor("y", (32, 1, 1), 8, 128, -6)
                yield f"conv-{bits}-{kernel}x{size}-{groups}-{zero_point}", around(conv, y, [x])


CONTRACT = Contract(draw, misfits, inexact, cases, counted=True)
