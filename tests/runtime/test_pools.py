"""Pools of windows, concatenation and Flatten by hand and against slow definitions."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coc_runtime import CocError
from coc_runtime.graph import verify
from coc_runtime.ops import AveragePool, Concat, Flatten, MaxPool, Op, Tensor
from contract.base import around

Window = dict[str, Any]
IMAGE = np.array([[[[1, 5, 2, 0], [7, 3, 9, 4], [6, 8, 0, 255]]]], np.uint8)


def tensor(
    name: str, shape: tuple[int, ...], zero_point: int = 0, exponent: int = 0, bits: int = 8
) -> Tensor:
    return Tensor(name, shape, bits, zero_point, exponent)


def run(node: Op, codes: np.ndarray, x: Tensor, y: Tensor) -> Any:
    shape = node.output_shape(x)  # type: ignore[call-arg]
    assert shape == y.shape
    found = node.reference(x, codes, y)  # type: ignore[call-arg, arg-type]
    assert found.dtype == np.uint8 and found.shape == (len(codes), *shape)
    return found[0].tolist()


def test_max_pool_by_hand() -> None:
    x = tensor("x", (1, 3, 4))
    found = run(MaxPool("m", "x", "y", (2, 2), 2), IMAGE, x, tensor("y", (1, 1, 2)))
    assert found == [[[7, 9]]]
    padded = MaxPool("m", "x", "y", (3, 2), 2, (1, 1, 1, 0))
    assert run(padded, IMAGE, x, tensor("y", (1, 2, 2))) == [[[7, 9], [7, 9]]]


def test_padding_never_wins_where_all_values_are_negative() -> None:
    x = tensor("x", (1, 1, 2), 128)
    codes = np.array([[[[3, 0]]]], np.uint8)
    node = MaxPool("m", "x", "y", (2, 2), 1, (1, 1, 1, 1))
    assert run(node, codes, x, tensor("y", (1, 2, 3), 128)) == [[[3, 3, 0], [3, 3, 0]]]


def test_average_pool_by_hand() -> None:
    x = tensor("x", (1, 3, 4))
    node = AveragePool("a", "x", "y", (2, 2), 2)
    assert run(node, IMAGE, x, tensor("y", (1, 1, 2))) == [[[4, 4]]]  # 16 / 4, 15 / 4
    assert run(node, IMAGE, x, tensor("y", (1, 1, 2), 0, -1)) == [[[8, 8]]]  # 8, 7.5 to even
    assert run(node, IMAGE, x, tensor("y", (1, 1, 2), 8, 0, 4)) == [[[12, 12]]]


def test_padding_of_an_average_is_the_value_zero_and_counts() -> None:
    x, y = tensor("x", (1, 2, 2), 128), tensor("y", (1, 1, 1), 128)
    codes = np.full((1, 1, 2, 2), 137, np.uint8)
    assert run(AveragePool("a", "x", "y", (3, 3), 1, (1, 0, 0, 1)), codes, x, y) == [[[132]]]  # 36 / 9


@st.composite
def windows(draw: st.DrawFn) -> Window:
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    limits = [kernel[0], kernel[1], kernel[0], kernel[1]]
    pads = tuple(draw(st.integers(0, limit - 1)) for limit in limits)
    return {"kernel": kernel, "stride": draw(st.integers(1, 4)), "pads": pads}


@settings(max_examples=60, deadline=None)
@given(window=windows(), seed=st.integers(0, 2**31), zero_point=st.sampled_from((0, 128)))
def test_pools_equal_their_definitions(window: Window, seed: int, zero_point: int) -> None:
    rng = np.random.default_rng(seed)
    x = tensor("x", (3, *rng.integers(4, 9, 2).tolist()), zero_point, -5)
    codes = rng.integers(0, 256, (2, *x.shape)).astype(np.uint8)
    largest, mean = MaxPool("m", "x", "y", **window), AveragePool("a", "x", "y", **window)
    same = tensor("y", largest.output_shape(x), zero_point, -5)
    other = tensor("y", same.shape, 8, -5 + int(rng.integers(-2, 3)), 4)
    maxima, means = largest.reference(x, codes, same), mean.reference(x, codes, other)
    top, left = window["pads"][:2]
    (height, width), stride = window["kernel"], window["stride"]
    multiplier = np.float32(1) / np.float32(height * width) * np.float32(2.0 ** (-5 - other.exponent))
    for n, c, row, column in np.ndindex(maxima.shape):
        inside = [
            int(codes[n, c, r, k])
            for r in range(row * stride - top, row * stride - top + height)
            for k in range(column * stride - left, column * stride - left + width)
            if 0 <= r < x.shape[1] and 0 <= k < x.shape[2]
        ]
        assert maxima[n, c, row, column] == max(inside)  # never of nothing
        total = sum(code - zero_point for code in inside)
        exact = Fraction(float(np.float32(total) * multiplier))
        assert means[n, c, row, column] == min(max(round(exact) + 8, 0), 15)


ILLEGAL: list[tuple[str, Window]] = [
    ("out of range", {"kernel": (0, 2)}),
    ("out of range", {"kernel": (2, 256)}),
    ("out of range", {"kernel": (2, 2), "stride": 0}),
    ("padding must be smaller", {"kernel": (2, 3), "pads": (2, 0, 0, 0)}),
    ("padding must be smaller", {"kernel": (2, 3), "pads": (0, 0, 0, 3)}),
    ("padding must be smaller", {"kernel": (2, 3), "pads": (0, -1, 0, 0)}),
    ("larger than input", {"kernel": (7, 1), "pads": (1, 0, 1, 0)}),
]


@pytest.mark.parametrize("kind", [MaxPool, AveragePool])
@pytest.mark.parametrize(("complaint", "window"), ILLEGAL)
def test_windows_without_meaning_are_refused(
    kind: type[MaxPool] | type[AveragePool], complaint: str, window: Window
) -> None:
    with pytest.raises(CocError, match=f"p: .*{complaint}"):
        kind("p", "x", "y", **window).output_shape(tensor("x", (1, 4, 4)))


@pytest.mark.parametrize("node", [MaxPool("p", "x", "y", (1, 1)), AveragePool("p", "x", "y", (1, 1))])
def test_pools_and_flatten_need_an_image(node: MaxPool | AveragePool) -> None:
    for op in (node, Flatten("p", "x", "y")):
        with pytest.raises(CocError, match="p: input .* is not channels"):
            op.output_shape(tensor("x", (4,)))


def test_concat_by_hand() -> None:
    a, b = tensor("a", (1, 1, 4), 128, -1), tensor("b", (2, 1, 4), 0, 1)
    first = np.array([[[[0, 127, 129, 131]]]], np.uint8)
    second = np.array([[[[0, 1, 63, 255]], [[2, 3, 4, 5]]]], np.uint8)
    y = tensor("y", (3, 1, 4), 128, 0)
    node = Concat("c", ("a", "b"), "y")
    assert node.output_shape(a, b) == y.shape
    found = node.reference(a, first, b, second, y)
    assert found.dtype == np.uint8
    # halves to even, doubles, saturates
    assert found[0].tolist() == [[[64, 128, 128, 130]], [[128, 130, 254, 255]], [[132, 134, 136, 138]]]


def test_concat_keeps_codes_of_the_output_s_type() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    for zero_point in (0, 128):
        x, y = tensor("a", (1, 16, 16), zero_point, -9), tensor("y", (2, 16, 16), zero_point, -9)
        found = Concat("c", ("a", "b"), "y").reference(x, codes, x, 255 - codes, y)
        np.testing.assert_array_equal(found, np.concatenate([codes, 255 - codes], axis=1))


@pytest.mark.parametrize("other", [(2, 3, 4), (2, 4, 3), (2,)])
def test_concat_needs_images_of_one_size(other: tuple[int, ...]) -> None:
    a, b = tensor("a", (1, 3, 3)), tensor("b", other)
    for pair in ((a, b), (b, a), (tensor("a", (2,)), tensor("b", (2,)))):
        with pytest.raises(CocError, match="c: images of shape .* do not join"):
            Concat("c", ("a", "b"), "y").output_shape(*pair)


def test_flatten_keeps_codes_in_the_order_of_the_image() -> None:
    codes = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    found = run(Flatten("f", "x", "y"), codes, tensor("x", (2, 3, 4)), tensor("y", (24,)))
    assert found == list(range(24))
    empty = Flatten("f", "x", "y").reference(tensor("x", (2, 3, 4)), codes[:0], tensor("y", (24,)))
    assert empty.shape == (0, 24)


@pytest.mark.parametrize("change", [{"bits": 4}, {"zero_point": 128}, {"exponent": -4}])
def test_the_type_of_a_maximum_is_that_of_its_codes(change: dict[str, int]) -> None:
    x = tensor("x", (2, 4, 4), 0, -5)
    same = {"bits": 8, "zero_point": 0, "exponent": -5}
    node = MaxPool("m", "x", "y", (2, 2), 2)
    verify(around(node, Tensor("y", (2, 2, 2), **same), [x]))
    with pytest.raises(CocError, match="m: output y must have the input's bits"):
        around(node, Tensor("y", (2, 2, 2), **(same | change)), [x])


def test_they_cost_nothing() -> None:
    x = tensor("x", (2, 4, 4))
    assert MaxPool("m", "x", "y", (2, 2)).cost(x) is AveragePool("a", "x", "y", (2, 2)).cost(x) is None
    assert Concat("c", ("x", "x"), "y").cost(x, x) is Flatten("f", "x", "y").cost(x) is None
