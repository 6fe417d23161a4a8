"""Packing, encodings, rounding and the scales that keep float32 exact."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coc_runtime import CocError, arithmetic
from coc_runtime.arithmetic import EXACT_LIMIT, Encoding
from coc_runtime.ops import Conv, Tensor, Weight

BITS = st.sampled_from((1, 2, 4, 8))


@given(BITS, st.binary(max_size=70))
def test_unpack_returns_what_pack_took(bits: int, data: bytes) -> None:
    codes = np.frombuffer(data, np.uint8) & ((1 << bits) - 1)
    packed = arithmetic.pack(codes, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == -(-bits * len(codes) // 8)
    np.testing.assert_array_equal(arithmetic.unpack(packed, bits, len(codes)), codes)


def test_pack_puts_the_first_code_into_the_low_bits_in_c_order() -> None:
    assert arithmetic.pack(np.array([[1, 0, 0], [1, 0, 1]], np.uint8), 1).tolist() == [0b101001]
    assert arithmetic.pack(np.array([1, 2, 3, 0, 2], np.uint8), 2).tolist() == [0b00111001, 0b10]
    assert arithmetic.pack(np.array([0xA, 0x5, 0xF], np.uint8), 4).tolist() == [0x5A, 0x0F]
    assert arithmetic.pack(np.array([200, 3], np.uint8), 8).tolist() == [200, 3]


@pytest.mark.parametrize(
    ("bits", "encoding", "integers"),
    [
        (1, Encoding.ODD, [-1, 1]),
        (2, Encoding.ODD, [-3, -1, 1, 3]),
        (4, Encoding.ODD, list(range(-15, 16, 2))),
        (8, Encoding.SYMMETRIC, list(range(-128, 128))),
    ],
)
def test_codes_in_order_stand_for_these_integers(bits: int, encoding: Encoding, integers: list[int]) -> None:
    codes = np.arange(1 << bits, dtype=np.uint8)
    assert arithmetic.decode(codes, bits, encoding).tolist() == integers
    encoded = arithmetic.encode(np.array(integers), bits, encoding)
    assert encoded.dtype == np.uint8
    np.testing.assert_array_equal(encoded, codes)


@pytest.mark.parametrize(
    ("bits", "encoding", "integer"),
    [
        (1, Encoding.ODD, 0),
        (1, Encoding.ODD, 3),
        (2, Encoding.ODD, -5),
        (2, Encoding.ODD, 2),
        (8, Encoding.SYMMETRIC, 128),
        (8, Encoding.SYMMETRIC, -129),
    ],
)
def test_encode_refuses_integers_without_a_code(bits: int, encoding: Encoding, integer: int) -> None:
    with pytest.raises(CocError, match=f"{bits}"):
        arithmetic.encode(np.array([integer]), bits, encoding)


@given(
    st.integers(-(1 << 23), 1 << 23),
    st.sampled_from((1.0, 0.5, 0.25, 2.0**-10, 3 * 2.0**-4)),
    st.sampled_from((0, 8, 128)),
    st.sampled_from((4, 8)),
)
def test_requantize_rounds_half_to_even_and_saturates(
    acc: int, multiplier: float, zero_point: int, bits: int
) -> None:
    if 3 * abs(acc) >= EXACT_LIMIT:
        acc //= 3
    exact = round(acc * Fraction(multiplier)) + zero_point
    codes = arithmetic.requantize(np.array([acc], np.int32), multiplier, zero_point, bits)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [min(max(exact, 0), (1 << bits) - 1)]


def test_requantize_ties_go_to_even_before_the_zero_point_is_added() -> None:
    acc = np.array([-3, -1, 1, 3, 5], np.int32)
    assert arithmetic.requantize(acc, 0.5, 8, 4).tolist() == [6, 8, 8, 10, 10]
    assert arithmetic.requantize(acc, 0.5, 1, 4).tolist() == [0, 1, 1, 3, 3]


@given(st.integers(1, (1 << 24) - 1), st.integers(-80, 80))
def test_odd_part_is_the_odd_integer_of_a_float(integer: int, exponent: int) -> None:
    value = np.array([np.ldexp(np.float32(integer), exponent)], np.float32)
    odd = integer
    while odd % 2 == 0:
        odd //= 2
    assert arithmetic.odd_part(value).tolist() == [odd]


@given(st.data())
def test_worst_sum_is_reached_and_never_exceeded(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from((2, 4)))
    zero_point = data.draw(st.sampled_from((0, 1 << (bits - 1))))
    weights = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=1, max_size=4)))
    sums = {0}
    for weight in weights.tolist():
        sums |= {s + weight * (q - zero_point) for s in sums for q in range(1 << bits)}
    assert arithmetic.worst_sum(weights[None], zero_point, bits).tolist() == [max(map(abs, sums))]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    weight_bits=BITS,
    act_bits=st.sampled_from((2, 4, 8)),
    signed=st.booleans(),
    fan_in=st.sampled_from((1, 9, 27, 144, 260)),
    log_scale=st.floats(-20, 6),
    log_bias=st.floats(-30, 12),
    exponent=st.integers(-12, 4),
)
def test_chosen_scales_and_biases_make_a_legal_and_faithful_layer(
    seed: int,
    weight_bits: int,
    act_bits: int,
    signed: bool,
    fan_in: int,
    log_scale: float,
    log_bias: float,
    exponent: int,
) -> None:
    rng = np.random.default_rng(seed)
    encoding = Encoding.SYMMETRIC if weight_bits == 8 else Encoding.ODD
    codes = rng.integers(weight_bits == 8, 1 << weight_bits, (5, fan_in, 1, 1)).astype(np.uint8)
    weight = Weight(codes, weight_bits, encoding)
    x = Tensor("x", (fan_in, 1, 1), act_bits, (1 << act_bits - 1) * signed, exponent)
    worst = arithmetic.worst_sum(weight.integers, x.zero_point, x.bits)
    real_scale = 2.0**log_scale * rng.uniform(0.5, 2, 5)
    real_bias = 2.0**log_bias * rng.uniform(-1, 1, 5)
    scale, bias = arithmetic.exact_scale_and_bias(real_scale, real_bias, exponent, worst)
    assert scale.dtype == np.float32 and bias.dtype == np.int32
    Conv("c", "x", "y", weight, bias, scale).check(x)
    assert arithmetic.odd_part(scale).max() < 1 << arithmetic.MULTIPLIER_BITS
    unit = scale.astype(np.float64) * 2.0**exponent
    assert (np.abs(bias * unit - real_bias) <= unit / 2).all()
    roomy = (worst + np.abs(real_bias) / (real_scale * 2.0**exponent)) * 2**9 < EXACT_LIMIT
    assert (np.abs(scale / real_scale - 1)[roomy] <= 2.0**-8).all()


def test_a_scale_too_small_for_its_bias_is_raised_to_keep_the_bias() -> None:
    scale, bias = arithmetic.exact_scale_and_bias(np.array([1e-12]), np.array([-100.0]), -7, np.array([1000]))
    assert bias[0] * float(scale[0]) / 128 == pytest.approx(-100.0, rel=1e-6)
    assert abs(int(bias[0])) + 1000 < EXACT_LIMIT


def test_sums_beyond_32_bits_are_refused() -> None:
    with pytest.raises(CocError, match=r"beyond 2\*\*31"):
        arithmetic.exact_scale_and_bias(np.ones(1), np.zeros(1), 0, np.array([1 << 31]))


@pytest.mark.parametrize("worst", [1 << 23, 1 << 28, arithmetic.WIDEST_SUM - 1])
def test_wide_sums_keep_all_bits_of_their_scale_and_leave_room_for_a_bias(worst: int) -> None:
    for real in (1e-9, 0.3, 7.0):
        for bias in (0.0, 1e-6, -3e5, 1e9):
            scale, found = arithmetic.exact_scale_and_bias(
                np.array([real]), np.array([bias]), -3, np.array([worst])
            )
            assert worst + abs(int(found[0])) < 1 << 31
            assert abs(float(found[0]) * float(scale[0]) / 8 - bias) <= float(scale[0]) / 16
            assert arithmetic.odd_part(scale)[0] < 1 << 8
            if abs(bias) < real * 2.0**20:
                assert abs(float(scale[0]) / real - 1) < 2.0**-8


def test_confidence_is_the_largest_softmax_probability_without_overflow() -> None:
    logits = np.array([[0, 0, 0, 0], [1, 2, 3, -1], [1e4, -1e4, 0, 9999]], np.float32)
    wide = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    expected = 1 / np.exp(wide).sum(axis=1)
    found = arithmetic.confidence(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] == np.float32(0.25)
    assert arithmetic.confidence(np.empty((0, 4), np.float32)).shape == (0,)
