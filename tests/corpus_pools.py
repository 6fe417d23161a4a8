"""Malformed .coc files around pools, concatenation and Flatten, and legal ones at their limits."""

from collections.abc import Iterator
from dataclasses import replace

from coc_runtime.ops import AveragePool, Concat, Flatten, MaxPool
from coc_runtime.ops.row import Row
from cocparts import Parts, flat, joined, window, word

Cases = Iterator[tuple[str, bytes]]

IMAGE = (2, 6, 6, -7)
CONCAT = Row(Concat.KIND, bits=8, zero_point=128, exponent=-7)


def at_the_limits() -> list[Parts]:
    """Legal files: 65,536 channels and features, the largest windows, nearly all of them padding."""
    largest = {
        "kernel_height": 255,
        "kernel_width": 255,
        "top": 254,
        "left": 254,
        "bottom": 254,
        "right": 254,
    }
    return [
        flat((2, 9, 300, -7), window(MaxPool.KIND, across=255), window(AveragePool.KIND, input=1, across=1)),
        flat((32768, 1, 1, -7), CONCAT),
        flat((1, 256, 256, -7)),
        flat((1, 2, 1, -7), window(MaxPool.KIND, **largest)),
        flat((1, 2, 1, -7), window(AveragePool.KIND, **largest)),
        flat((1, 255, 256, -7), window(AveragePool.KIND, kernel_height=255, kernel_width=255)),
        flat(IMAGE, window(AveragePool.KIND, bits=2, zero_point=0), CONCAT._replace(input=1, second=1)),
    ]


def pools(_: Parts) -> Cases:
    """Pools in a file that is legal with their kernels of 2x2."""
    for kind in (MaxPool.KIND, AveragePool.KIND):
        name = word(kind).replace("_", "-")
        changes: dict[str, dict[str, int]] = {
            "of-stride-0": {"stride": 0},
            "of-one-stride-twice": {"across": 2},
            "of-height-0": {"kernel_height": 0},
            "of-width-0": {"kernel_width": 0},
            "higher-than-the-image": {"kernel_height": 7},
            "wider-than-the-padded-image": {"kernel_width": 9, "left": 1, "right": 1},
            "of-the-zero-point-3": {"zero_point": 3},
            "with-logits": {"bits": 32, "zero_point": 0},
            "of-1-bit": {"bits": 1, "zero_point": 0},
            "of-itself": {"input": 1},
        }
        for side in ("top", "left", "bottom", "right"):
            changes[f"pad-{side}-of-kernel-size"] = {side: 2}  # legal but for that
            changes[f"pad-{side}-255"] = {side: 255}
        for problem, fields in changes.items():
            rest = flat(IMAGE, window(kind, **(fields if "pad" in problem else {})))
            yield f"{name}-{problem}", rest.row(0, **fields)
        yield f"{name}-of-a-vector", _of_flat(window(kind))
    for name, fields in {
        "bits": {"bits": 4, "zero_point": 8},
        "zero-point": {"zero_point": 0},
        "exponent": {"exponent": -6},
    }.items():
        yield f"max-pool-changes-{name}", flat(IMAGE, window(MaxPool.KIND, **fields)).build()


def joins(_: Parts) -> Cases:
    """Concatenation and Flatten of what does not fit, or to another type."""
    other, legal = joined(), flat(IMAGE, CONCAT)
    index = other.find(Concat.KIND)
    yield "concat-with-itself-ahead", other.row(index, second=index + 1)
    yield "concat-dangling", other.row(index, second=65535)
    yield "concat-of-logits", _concat_of_logits()
    halved = window(AveragePool.KIND)
    narrower = window(AveragePool.KIND, stride=1, kernel_height=1)
    yield "concat-of-two-sizes", flat(IMAGE, halved, CONCAT._replace(second=1)).build()
    yield "concat-of-two-sizes-turned", flat(IMAGE, halved, CONCAT._replace(input=1)).build()
    yield "concat-of-two-widths", flat(IMAGE, narrower, CONCAT._replace(second=1)).build()
    yield "concat-of-vectors", _of_flat(CONCAT._replace(second=1))
    yield "concat-of-image-and-vector", _of_flat(CONCAT)
    yield "concat-to-32-bits", legal.row(0, bits=32, zero_point=0)
    yield "concat-of-exponent-33", legal.row(0, exponent=33)
    for name, fields in {
        "bits": {"bits": 4, "zero_point": 8},
        "zero-point": {"zero_point": 0},
        "exponent": {"exponent": -6},
        "to-logits": {"bits": 32, "zero_point": 0},
    }.items():
        yield f"flatten-changes-{name}", legal.row(1, **fields)
    yield "flatten-of-a-vector", _of_flat(legal.rows[1])
    yield "flatten-is-concat", legal.row(1, kind=Concat.KIND)
    yield "concat-is-flatten", legal.row(0, kind=Flatten.KIND)
    yield "linear-of-what-is-not-flat", legal.row(2, input=1)


def _of_flat(row: Row) -> bytes:
    """A row that reads the flattened image (the first input always, the second as it says)."""
    parts = flat(IMAGE)
    flatten, linear = parts.rows
    names = b'{"meta":{},"names":["image","flat","again","logits"]}'
    rows = [flatten, row._replace(input=1), linear._replace(input=2)]
    return replace(parts, rows=rows, segments=[[3, 3, 0, 0]], description=names).build()


def _concat_of_logits() -> bytes:
    parts = flat(IMAGE)
    rows = [*parts.rows, CONCAT._replace(input=2, second=2)]
    names = b'{"meta":{},"names":["image","flat","logits","both"]}'
    return replace(parts, rows=rows, segments=[[3, 2, 0, 0]], description=names).build()
