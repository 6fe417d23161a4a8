"""Each operator's reference against a slow definition in Python's integers and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coc_runtime import CocError
from coc_runtime.arithmetic import Encoding, exact_scale_and_bias, worst_sum
from coc_runtime.ops import Add, Conv, GlobalAveragePool, Linear, Tensor, Weight

CHANNELS = (1, 3, 4, 5, 15, 16, 17)
SIZES = (1, 2, 7, 8)


def clip_round(value: Fraction, output: Tensor) -> int:
    """Python rounds fractions half to even."""
    return min(max(round(value) + output.zero_point, 0), (1 << output.bits) - 1)


def slow_conv(x: Tensor, codes: np.ndarray, conv: Conv, output: Tensor) -> np.ndarray:
    values = codes.astype(np.int64) - x.zero_point
    top, left, bottom, right = conv.pads
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    weights = conv.weight.codes.astype(np.int64)
    if conv.weight.encoding is Encoding.ODD:
        weights = 2 * weights - ((1 << conv.weight.bits) - 1)
    else:
        weights = weights - (1 << (conv.weight.bits - 1))
    out, per_group, kernel_h, kernel_w = weights.shape
    result = np.empty((len(codes), *output.shape), np.uint8)
    for n, o, row, column in np.ndindex(result.shape):
        first = o // (out // conv.groups) * per_group
        top_row, left_column = row * conv.stride, column * conv.stride
        window = padded[
            n,
            first : first + per_group,
            top_row : top_row + kernel_h,
            left_column : left_column + kernel_w,
        ]
        acc = int((window * weights[o]).sum()) + int(conv.bias[o])
        multiplier = Fraction(float(conv.scale[o])) * Fraction(2) ** (x.exponent - output.exponent)
        result[n, o, row, column] = clip_round(acc * multiplier, output)
    return result


@st.composite
def conv_cases(draw: st.DrawFn, channels: int, size: int) -> tuple[Tensor, np.ndarray, Conv, Tensor]:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 5, channels) if channels % g == 0]))
    kernel = draw(st.sampled_from((1, 2, 3)))
    need = max(kernel - size, 0)
    top, left = draw(st.integers(need, need + 2)), draw(st.integers(need, need + 2))
    pads = (top, left, draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    bits = draw(st.sampled_from((1, 2, 4, 8)))
    act_bits = draw(st.sampled_from((2, 4, 8)))
    x = Tensor("x", (channels, size, size), act_bits, draw(st.sampled_from((0, 1 << act_bits - 1))), -5)
    out = groups * draw(st.sampled_from((1, 2)))
    encoding = Encoding.SYMMETRIC if bits == 8 else Encoding.ODD
    codes = rng.integers(bits == 8, 1 << bits, (out, channels // groups, kernel, kernel)).astype(np.uint8)
    weight = Weight(codes, bits, encoding)
    reach = 2.0 ** draw(st.integers(-2, 3)) * 2.0 ** (act_bits + bits - 5)
    scale, bias = exact_scale_and_bias(
        rng.uniform(0.5, 2, out) / reach,
        rng.uniform(-1, 1, out),
        x.exponent,
        worst_sum(weight.integers, x.zero_point, x.bits),
    )
    conv = Conv("c", "x", "y", weight, bias, scale, draw(st.sampled_from((1, 2))), pads, groups)
    out_bits = draw(st.sampled_from((4, 8)))
    output = Tensor("y", conv.output_shape(x), out_bits, draw(st.sampled_from((0, 1 << out_bits - 1))), -4)
    images = rng.integers(0, 1 << act_bits, (2, *x.shape)).astype(np.uint8)
    images[0] = (1 << act_bits) - 1 if draw(st.booleans()) else images[0]
    return x, images, conv, output


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", CHANNELS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_conv_equals_its_exact_definition(channels: int, size: int, data: st.DataObject) -> None:
    x, codes, conv, output = data.draw(conv_cases(channels, size))
    conv.check(x)
    found = conv.reference(x, codes, output)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, slow_conv(x, codes, conv, output))


def one_weight_conv(scale: float, bias: int) -> Conv:
    weight = Weight(np.ones((1, 1, 1, 1), np.uint8), 1, Encoding.ODD)
    return Conv("c", "x", "y", weight, np.array([bias], np.int32), np.array([scale], np.float32))


def test_conv_saturates_at_both_ends_and_ties_go_to_even() -> None:
    x = Tensor("x", (1, 1, 5), 8, 128, 0)
    codes = np.array([0, 127, 129, 131, 255], np.uint8).reshape(1, 1, 1, 5)
    signed, relu = Tensor("y", (1, 1, 5), 4, 8, 0), Tensor("y", (1, 1, 5), 4, 0, 0)
    conv = one_weight_conv(0.5, 0)
    assert conv.reference(x, codes, signed).ravel().tolist() == [0, 8, 8, 10, 15]
    assert conv.reference(x, codes, relu).ravel().tolist() == [0, 0, 0, 2, 15]
    assert one_weight_conv(0.5, 2).reference(x, codes, signed).ravel().tolist() == [0, 8, 10, 10, 15]


def test_conv_pads_with_the_value_zero_not_the_code_zero() -> None:
    weight = Weight(np.ones((1, 1, 3, 3), np.uint8), 1, Encoding.ODD)
    conv = Conv("c", "x", "y", weight, np.zeros(1, np.int32), np.ones(1, np.float32), pads=(1, 1, 1, 1))
    x, y = Tensor("x", (1, 1, 1), 8, 128, 0), Tensor("y", (1, 1, 1), 8, 128, 0)
    assert conv.reference(x, np.array([[[[131]]]], np.uint8), y).item() == 131


@pytest.mark.parametrize("channels", CHANNELS)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    a_exponent=st.integers(-7, 0),
    b_exponent=st.integers(-7, 0),
    out_exponent=st.integers(-7, 3),
    a_zero=st.sampled_from((0, 128)),
    out_bits=st.sampled_from((4, 8)),
    out_signed=st.booleans(),
)
def test_add_equals_its_exact_definition(
    channels: int,
    seed: int,
    a_exponent: int,
    b_exponent: int,
    out_exponent: int,
    a_zero: int,
    out_bits: int,
    out_signed: bool,
) -> None:
    shape = (channels, 2, 1)
    a, b = Tensor("a", shape, 8, a_zero, a_exponent), Tensor("b", shape, 8, 128, b_exponent)
    output = Tensor("y", shape, out_bits, (1 << out_bits - 1) * out_signed, out_exponent)
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 256, (2, 3, *shape)).astype(np.uint8)
    first.flat[0], second.flat[0], first.flat[1], second.flat[1] = 0, 0, 255, 255
    node = Add("add", ("a", "b"), "y")
    node.check(a, b)
    expected = [
        clip_round(
            ((p - a.zero_point) * Fraction(2) ** a_exponent + (q - 128) * Fraction(2) ** b_exponent)
            / Fraction(2) ** out_exponent,
            output,
        )
        for p, q in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)
    ]
    found = node.reference(a, first, b, second, output)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == expected


def test_add_ties_go_to_even() -> None:
    a, b = Tensor("a", (4,), 8, 128, -1), Tensor("b", (4,), 8, 128, 0)
    codes = np.array([[127, 129, 131, 133]], np.uint8)
    zero = np.full((1, 4), 128, np.uint8)
    found = Add("add", ("a", "b"), "y").reference(a, codes, b, zero, Tensor("y", (4,), 8, 128, 0))
    assert found.tolist() == [[128, 128, 130, 130]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("zero_point", [0, 128])
def test_average_pool_equals_its_definition(channels: int, size: int, zero_point: int) -> None:
    rng = np.random.default_rng(channels * size)
    x = Tensor("x", (channels, size, size), 8, zero_point, -5)
    codes = rng.integers(0, 256, (4, *x.shape)).astype(np.uint8)
    codes[0], codes[1] = 0, 255
    for bits, output_zero, exponent in ((8, 0, -5), (8, 128, -6), (8, 0, -8), (4, 8, -2)):
        output = Tensor("y", (channels,), bits, output_zero, exponent)
        found = GlobalAveragePool("pool", "x", "y").reference(x, codes, output)
        multiplier = np.float32(1) / np.float32(size * size) * np.float32(2.0 ** (-5 - exponent))
        for n, channel in np.ndindex(found.shape):
            total = sum(code - zero_point for code in codes[n, channel].ravel().tolist())
            scaled = float(np.float32(total) * multiplier)
            assert found[n, channel] == clip_round(Fraction(scaled), output)
        assert found.dtype == np.uint8


def test_average_pool_ties_go_to_even() -> None:
    x, y = Tensor("x", (1, 2, 1), 8, 0, 0), Tensor("y", (1,), 8, 0, 0)
    codes = np.array([[0, 1], [1, 2], [2, 3], [254, 255]], np.uint8).reshape(4, 1, 2, 1)
    assert GlobalAveragePool("p", "x", "y").reference(x, codes, y).ravel().tolist() == [0, 2, 2, 254]


@pytest.mark.parametrize("features", CHANNELS)
@pytest.mark.parametrize(
    ("bits", "encoding"), [(8, Encoding.SYMMETRIC), (1, Encoding.ODD), (4, Encoding.ODD)]
)
def test_linear_gives_exact_logits(features: int, bits: int, encoding: Encoding) -> None:
    rng = np.random.default_rng(features)
    weight = Weight(rng.integers(bits == 8, 1 << bits, (6, features)).astype(np.uint8), bits, encoding)
    bias = rng.integers(-(10**6), 10**6, 6).astype(np.int32)
    node = Linear("fc", "x", "y", weight, bias, -9)
    for zero_point in (0, 128):
        x, y = Tensor("x", (features,), 8, zero_point, -4), Tensor("y", (6,), 32, 0, -13)
        codes = rng.integers(0, 256, (3, features)).astype(np.uint8)
        found = node.reference(x, codes, y)
        assert found.dtype == np.int32
        for n, o in np.ndindex(3, 6):
            terms = zip(codes[n].tolist(), weight.integers[o].tolist(), strict=True)
            acc = sum((q - zero_point) * w for q, w in terms) + int(bias[o])
            assert found[n, o] == acc
            assert Fraction(float(y.values(found)[n, o])) == Fraction(acc, 1 << 13)


def test_layers_count_their_macs_weights_and_bits() -> None:
    weight = Weight(np.zeros((6, 2, 3, 3), np.uint8), 2, Encoding.ODD)
    conv = Conv("c", "x", "y", weight, np.zeros(6, np.int32), np.ones(6, np.float32), 2, (1, 1, 1, 1), 2)
    cost = conv.cost(Tensor("x", (4, 8, 7), 4, 0, 0))
    assert (cost.macs, cost.weights) == (6 * 2 * 9 * 4 * 4, 6 * 2 * 9)
    assert (cost.weight_bits, cost.activation_bits) == (2, 4)
    assert cost.bitops == cost.macs * 2 * 4
    assert cost.stored_bits == 108 * 2 + 32 * (6 + 6)
    linear = Linear(
        "fc", "x", "y", Weight(np.ones((10, 4), np.uint8), 8, Encoding.SYMMETRIC), np.zeros(10), 0
    )
    cost = linear.cost(Tensor("x", (4,), 8, 0, 0))
    assert (cost.macs, cost.bitops, cost.stored_bits) == (40, 40 * 64, 40 * 8 + 32 * 10)


def test_check_refuses_sums_that_32_bits_cannot_hold() -> None:
    x = Tensor("x", (1, 1, 1), 8, 0, 0)
    one_weight_conv(1.5, (1 << 31) - 256).check(x)
    with pytest.raises(CocError, match=r"c: .*2\*\*31"):
        one_weight_conv(1.0, (1 << 31) - 255).check(x)


def test_wide_layers_are_those_whose_scaled_sums_float32_cannot_hold() -> None:
    x = Tensor("x", (1, 1, 1), 8, 0, 0)
    assert not one_weight_conv(1.0, (1 << 24) - 256).is_wide(x)
    assert one_weight_conv(1.0, (1 << 24) - 255).is_wide(x)
    assert one_weight_conv(1.5, (1 << 24) // 3).is_wide(x)


def test_wide_sums_are_rounded_to_float32_first() -> None:
    """Of 64.5 and a bit that float32 does not hold, ties to even leave 64."""
    x, y = Tensor("x", (1, 1, 1), 8, 0, 0), Tensor("y", (1, 1, 1), 8, 0, 18)
    conv = one_weight_conv(1.0, 129 * 2**17 + 1)
    assert conv.reference(x, np.zeros((1, 1, 1, 1), np.uint8), y) == 64
    assert conv.reference(x, np.ones((1, 1, 1, 1), np.uint8), y) == 65
