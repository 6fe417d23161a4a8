"""Malformed .coc files around operators that version 2 brought, and legal ones at their limits."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coc_runtime.ops import AdaptiveAveragePool, AveragePool, Logits, Lookup, Mul, Select
from coc_runtime.ops.row import Row
from cocparts import Parts, flat, plain, uneven, window

Cases = Iterator[tuple[str, bytes]]

IMAGE = (3, 6, 6, -7)
LOOKUP = Row(Lookup.KIND, channels=1, bits=8, zero_point=128, exponent=-7)
SELECT = Row(Select.KIND, channels=2, bits=8, zero_point=128, exponent=-7)
MUL = Row(Mul.KIND, bits=8, zero_point=128, exponent=-7)


def at_the_limits() -> list[Parts]:
    """Legal files: tables of the fewest and of the most codes, many of them, products that saturate."""
    few = window(AveragePool.KIND, bits=2, zero_point=0)
    gate = window(AveragePool.KIND, stride=1, kernel_height=6, kernel_width=6)
    return [
        flat((4096, 1, 1, -7), LOOKUP._replace(channels=4096)),
        flat(IMAGE, few, LOOKUP._replace(input=1, channels=3, bits=2, zero_point=0)),
        flat((65536, 1, 1, -7), SELECT._replace(channels=65536)),
        flat(IMAGE, MUL._replace(exponent=-32)),
        flat(IMAGE, MUL._replace(exponent=32)),
        flat((1, 256, 256, -7), window(AdaptiveAveragePool.KIND, stride=1, kernel_height=1, kernel_width=1)),
        flat((1, 6, 6, -7), window(AdaptiveAveragePool.KIND, stride=1, kernel_height=255, kernel_width=255)),
        flat(IMAGE, gate, MUL._replace(second=1, bits=2, zero_point=2)),
    ]


def tables(_: Parts) -> Cases:
    legal = flat(IMAGE, LOOKUP)
    for count in (2, 4, 65536):
        yield f"lookup-of-{count}-tables", flat(IMAGE, LOOKUP._replace(channels=count)).build()
    yield "lookup-of-no-table", legal.row(0, channels=0)
    yield "limit-lookup-of-65537-tables", legal.row(0, channels=65537)
    yield "lookup-of-itself", legal.row(0, input=1)
    yield "lookup-to-32-bits", legal.row(0, bits=32, zero_point=0)
    yield "lookup-of-1-bit", legal.row(0, bits=1, zero_point=0)
    yield "lookup-of-the-zero-point-3", legal.row(0, zero_point=3)
    yield "lookup-of-exponent-33", legal.row(0, exponent=33)
    yield "lookup-of-logits", _of_logits(LOOKUP._replace(input=2))
    table, weights = legal.weights
    for code in (128, 255):
        beyond = replace(legal, weights=[bytes([code]) + bytes(255), weights])
        yield f"lookup-of-code-{code}-in-7-bits", beyond.row(0, bits=7, zero_point=64)
    for length in (0, 128, 240, 272):  # weights begin at multiples of 16
        other = (table + bytes(16))[:length]
        yield f"cut-table-of-{length}-codes", replace(legal, weights=[other, weights]).build()


def products(_: Parts) -> Cases:
    legal, halved = flat(IMAGE, MUL), window(AveragePool.KIND)
    flatter = window(AveragePool.KIND, stride=1, kernel_height=6, kernel_width=1)
    gate = window(AveragePool.KIND, stride=1, kernel_height=6, kernel_width=6)
    yield "mul-with-itself-ahead", legal.row(0, second=1)
    yield "mul-dangling", legal.row(0, second=65535)
    yield "mul-of-two-sizes", flat(IMAGE, halved, MUL._replace(second=1)).build()
    yield "mul-of-two-sizes-turned", flat(IMAGE, halved, MUL._replace(input=1)).build()
    yield "mul-of-rows", flat(IMAGE, flatter, MUL._replace(second=1)).build()
    yield "mul-of-a-gate-with-an-image", flat(IMAGE, gate, MUL._replace(input=1)).build()
    yield "mul-of-an-image-and-a-vector", _behind_flatten(MUL)
    yield "mul-of-logits", _of_logits(MUL._replace(input=2, second=2))
    yield "mul-to-32-bits", legal.row(0, bits=32, zero_point=0)
    yield "mul-of-exponent-33", legal.row(0, exponent=33)


def choices(_: Parts) -> Cases:
    legal = flat(IMAGE, SELECT)
    yield "select-changes-bits", legal.row(0, bits=4, zero_point=8)
    yield "select-changes-exponent", legal.row(0, exponent=-6)
    yield "select-of-no-channel", legal.row(0, channels=0)
    yield "limit-select-of-65537-channels", legal.row(0, channels=65537)
    yield "select-of-itself", legal.row(0, input=1)
    for channel in (3, 255, 65536, (1 << 32) - 1):
        chosen = [_indices(0, channel), legal.weights[1]]
        yield f"select-of-channel-{channel}", replace(legal, weights=chosen).build()
    for length in (0, 32):  # weights begin at multiples of 16
        chosen = [(legal.weights[0] + bytes(32))[:length], legal.weights[1]]
        yield f"cut-select-of-{length}-bytes", replace(legal, weights=chosen).build()


def _indices(*channels: int) -> bytes:
    return np.array(channels, "<u4").tobytes()


def grids(_: Parts) -> Cases:
    """Means of windows of different sizes."""
    parts = uneven()
    for field, value in {"stride": 2, "across": 2, "top": 1, "left": 1, "bottom": 1, "right": 1}.items():
        yield f"grid-with-{field}", parts.row(1, **{field: value})
    for field in ("kernel_height", "kernel_width", "stride"):
        yield f"grid-of-{field}-0", parts.row(1, **{field: 0})
    yield "grid-of-logits", _of_logits(parts.rows[1]._replace(input=2))
    single = window(AdaptiveAveragePool.KIND, stride=1, kernel_height=1, kernel_width=1)
    yield "grid-of-windows-too-large-to-sum", flat((1, 256, 257, -7), single).build()
    for field in ("top", "left", "bottom", "right"):
        yield f"pixels-padded-by-a-whole-window-at-the-{field}", parts.row(0, **{field: 3})
    yield "pixels-of-a-larger-window", parts.row(0, kernel_height=9)


def values(_: Parts) -> Cases:
    """Logits that are codes, in a file that is legal with them."""
    parts = plain()
    row = Row(Logits.KIND, input=1, bits=32, exponent=-7)
    legal = replace(parts, rows=[parts.rows[0], row], biases=[], weights=[])
    yield "logits-of-another-exponent", legal.row(1, exponent=-6)
    yield "logits-of-8-bits", legal.row(1, bits=8)
    yield "logits-with-a-zero-point", legal.row(1, zero_point=128)
    yield "logits-of-an-image", legal.row(1, input=0)
    yield "logits-of-channels", legal.row(1, channels=3)
    yield "logits-of-weights", replace(legal, weights=[bytes(16)]).build()


def _of_logits(row: Row) -> bytes:
    parts = flat(IMAGE)
    names = b'{"meta":{},"names":["image","flat","logits","more"]}'
    weights = [*parts.weights, bytes(range(256))] if row.kind == Lookup.KIND else parts.weights
    whole = replace(parts, rows=[*parts.rows, row], weights=weights, description=names)
    return replace(whole, segments=[[3, 2, 0, 0]]).build()


def _behind_flatten(row: Row) -> bytes:
    """A row that reads the image and the flattened image."""
    parts = flat(IMAGE)
    flatten, linear = parts.rows
    names = b'{"meta":{},"names":["image","flat","again","logits"]}'
    rows = [flatten, row._replace(input=0, second=1), linear._replace(input=2)]
    return replace(parts, rows=rows, segments=[[3, 3, 0, 0]], description=names).build()
