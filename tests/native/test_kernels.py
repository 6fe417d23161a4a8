"""Every convolution kernel that this CPU has computes what the NumPy reference computes, under sanitizers."""

import itertools
import re
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from coc_runtime import arithmetic
from coc_runtime.arithmetic import EXACT_LIMIT, Encoding
from coc_runtime.limits import SUM_LIMIT
from coc_runtime.ops import Conv, Tensor, Weight
from native_driver import NATIVE, Driver

CHANNELS = (1, 3, 4, 5, 15, 16, 17)
MANY = (32, 33, 47, 48, 49, 63, 64, 65)
"""Kernels that share work among channels take layers with many of them only."""
WIDTHS = (1, 2, 4, 7, 8, 14, 16, 32)
NAME_BYTES = 64


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution with its tensors; exponents are 0, so that a scale is the kernel's multiplier."""

    conv: Conv
    x: Tensor
    y: Tensor

    def pack(self, codes: np.ndarray) -> bytes:
        """The request of the driver for an image, uint8 [C, H, W]."""
        conv, weight = self.conv, self.conv.weight
        worst = arithmetic.worst_sum(weight.integers, self.x.zero_point, self.x.bits)
        fields = (
            *self.x.shape,
            *self.y.shape,
            *weight.codes.shape[2:],
            conv.stride,
            *conv.pads[:2],
            conv.groups,
            weight.bits,
            int(weight.encoding is Encoding.SYMMETRIC),
            self.x.bits,
            self.x.zero_point,
            self.y.zero_point,
            (1 << self.y.bits) - 1,
            len(weight.packed),
            int((worst + np.abs(conv.bias.astype(np.int64))).max() >= EXACT_LIMIT),
        )
        arrays = (weight.packed, conv.bias, conv.scale, codes)
        return struct.pack("<20I", *fields) + b"".join(array.tobytes() for array in arrays)

    def reference(self, codes: np.ndarray) -> np.ndarray:
        return self.conv.reference(self.x, codes[None], self.y)[0]


def make(
    weight: Weight,
    bias: np.ndarray,
    scale: np.ndarray,
    image: tuple[int, int, int],
    *,
    in_bits: int = 8,
    in_zero: int = 0,
    out_bits: int = 8,
    out_zero: int = 0,
    stride: int = 1,
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    groups: int = 1,
) -> Layer:
    conv = Conv(
        "conv", "x", "y", weight, bias.astype(np.int32), scale.astype(np.float32), stride, pads, groups
    )
    x = Tensor("x", image, in_bits, in_zero, 0)
    return Layer(conv, x, Tensor("y", conv.output_shape(x), out_bits, out_zero, 0))


def compare(driver: Driver, layer: Layer, codes: np.ndarray) -> list[str]:
    """Runs all kernels; returns their names."""
    answer = driver.ask("k", layer.pack(codes))
    with np.errstate(over="ignore"):  # an infinite product is clipped like any large one
        expected = layer.reference(codes)
    step = NAME_BYTES + expected.size
    assert answer and len(answer) % step == 0
    names = []
    for at in range(0, len(answer), step):
        names.append(answer[at : at + NAME_BYTES].rstrip(b"\0").decode())
        found = np.frombuffer(answer, np.uint8, expected.size, at + NAME_BYTES).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected, err_msg=names[-1])
    assert names[-1] == "conv_scalar"
    return names


@st.composite
def layers(draw: st.DrawFn) -> tuple[Layer, np.ndarray]:
    """A legal layer at the borders of vectors and groups, and an image for it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    per_group, per_group_out = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(CHANNELS))
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    if draw(st.integers(0, 3)) == 0:
        per_group, per_group_out, groups = draw(st.sampled_from(MANY)), draw(st.sampled_from(MANY)), 1
    elif draw(st.integers(0, 5)) == 0:
        per_group, per_group_out, groups = 1, draw(st.sampled_from((1, 2))), draw(st.sampled_from(CHANNELS))
    kernel = draw(st.sampled_from(((1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2), (7, 7), (4, 3))))
    pads = tuple(draw(st.sampled_from((0, size // 2, size - 1))) for size in (*kernel, *kernel))
    height, width = draw(st.sampled_from((1, 2, 3, 4, 5, 8, 9))), draw(st.sampled_from(WIDTHS))
    assume(height + pads[0] + pads[2] >= kernel[0] and width + pads[1] + pads[3] >= kernel[1])
    bits, encoding = draw(st.sampled_from((1, 1, 2, 4, 8))), draw(st.sampled_from(tuple(Encoding)))
    in_bits, out_bits = draw(st.sampled_from((8, 8, 4, 2, 5))), draw(st.sampled_from((8, 8, 4, 2, 5)))
    in_zero = draw(st.sampled_from((0, 1 << (in_bits - 1))))
    shape = (per_group_out * groups, per_group, *kernel)
    weight = Weight(_fill(draw, rng, shape, bits), bits, encoding)
    worst = arithmetic.worst_sum(weight.integers, in_zero, in_bits)
    assume(worst.max() < EXACT_LIMIT // 2)
    bias = np.rint(worst * rng.uniform(-1, 1, shape[0]) * draw(st.sampled_from((0, 0.1, 1))))
    # From sums that hardly move a code to sums that saturate at both ends; powers of two give ties.
    reach = draw(st.sampled_from((1, 100, 1000, 100_000)))
    mantissa = rng.integers(128, 256, shape[0]) if draw(st.booleans()) else np.full(shape[0], 128)
    scale = np.ldexp(mantissa / 128, np.rint(np.log2(reach / np.maximum(worst, 1))).astype(int))
    layer = make(
        weight,
        bias,
        scale,
        (per_group * groups, height, width),
        in_bits=in_bits,
        in_zero=in_zero,
        out_bits=out_bits,
        out_zero=draw(st.sampled_from((0, 1 << (out_bits - 1)))),
        stride=draw(st.sampled_from((1, 1, 2, 2, 3))),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        groups=groups,
    )
    return layer, _fill(draw, rng, layer.x.shape, in_bits)


def _fill(draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Codes: random, or the smallest or the largest everywhere."""
    kind = draw(st.sampled_from(("random", "random", "random", "low", "high")))
    if kind == "random":
        return rng.integers(0, 1 << bits, shape).astype(np.uint8)
    return np.full(shape, 0 if kind == "low" else (1 << bits) - 1, np.uint8)


@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=layers())
def test_kernels_equal_the_reference(driver: Driver, case: tuple[Layer, np.ndarray]) -> None:
    compare(driver, *case)


@pytest.mark.parametrize("limit", (EXACT_LIMIT, SUM_LIMIT))
@pytest.mark.parametrize("in_bits", (8, 4))
@pytest.mark.parametrize("encoding", tuple(Encoding))
@pytest.mark.parametrize("bits", (1, 2, 4, 8))
@pytest.mark.parametrize("kernel", (1, 3, 5))
def test_accumulators_hold_the_largest_sums(
    driver: Driver, bits: int, encoding: Encoding, in_bits: int, kernel: int, limit: int
) -> None:
    """All activations at the maximum, all weights equal, channels up to sums of 24 or of 31 bits."""
    for code in (0, (1 << bits) - 1):
        largest = abs(int(arithmetic.decode(np.array(code, np.uint8), bits, encoding)))
        channels = (limit - 1) // (max(largest, 1) * ((1 << in_bits) - 1) * kernel * kernel)
        channels = min(channels, 20_000 // kernel)
        weight = Weight(np.full((2, channels, kernel, kernel), code, np.uint8), bits, encoding)
        worst = int(arithmetic.worst_sum(weight.integers, 0, in_bits)[0])
        assert worst < limit
        for width in (1, 8, 17) if kernel == 3 else (8,):
            pad = kernel // 2
            layer = make(
                weight,
                np.array([0, limit - 1 - worst]),
                np.full(2, 2.0**-17 * EXACT_LIMIT / limit),
                (channels, 2, width),
                in_bits=in_bits,
                out_zero=128,
                pads=(pad, pad, pad, pad),
            )
            compare(driver, layer, np.full(layer.x.shape, (1 << in_bits) - 1, np.uint8))


def test_ties_go_to_even(driver: Driver) -> None:
    for multiplier in (0.5, 0.25, 1.5, 2.0**-8):
        weight = Weight(np.array([1, 0], np.uint8).reshape(2, 1, 1, 1), 1, Encoding.ODD)
        bias, scale = np.array([0, 255]), np.full(2, multiplier)
        layer = make(weight, bias, scale, (1, 8, 32))
        compare(driver, layer, np.arange(256, dtype=np.uint8).reshape(1, 8, 32))


def test_extreme_multipliers_saturate(driver: Driver) -> None:
    rng = np.random.default_rng(0)
    for exponent in (124, 60, 31, 30, 6, 0, -60, -124):
        weight = Weight(rng.integers(0, 2, (5, 16, 3, 3)).astype(np.uint8), 1, Encoding.ODD)
        scale = np.full(5, np.ldexp(1.0, exponent))
        layer = make(weight, np.arange(5) * 100, scale, (16, 8, 16), in_zero=128, pads=(1, 1, 1, 1))
        compare(driver, layer, rng.integers(0, 256, layer.x.shape).astype(np.uint8))


def test_every_kernel_of_the_list_takes_some_layer(driver: Driver) -> None:
    """Otherwise the tests above say nothing about it."""
    listed = re.findall(r"^COC_KERNEL\((\w+)\)", (NATIVE / "kernel_list.h").read_text(), re.MULTILINE)
    expected = {name for name in listed if name.rsplit("_", 1)[1] in driver.levels()}
    rng, seen = np.random.default_rng(0), set()
    choices = itertools.product((1, 2, 4, 8), Encoding, (4, 8), ((16, 1), (16, 16), (64, 1), (32, 2)))
    for bits, encoding, in_bits, (channels, groups) in choices:
        shape = (channels, channels // groups, 3, 3)
        layer = make(
            Weight(rng.integers(0, 1 << bits, shape).astype(np.uint8), bits, encoding),
            np.zeros(channels),
            np.full(channels, 2.0**-8),
            (channels, 8, 16),
            in_bits=in_bits,
            pads=(1, 1, 1, 1),
            groups=groups,
        )
        codes = rng.integers(0, 1 << in_bits, layer.x.shape).astype(np.uint8)
        seen |= set(compare(driver, layer, codes))
    assert seen == expected
