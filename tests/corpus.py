"""Malformed .coc files, made by hand: what the Python reader and the C reader must both refuse.

    python tests/corpus.py DIR      writes DIR/<name>.coc

Every file but those named checksum-* has a checksum that fits. Those named description-* are malformed only
in the description, which a reader that does not use it may skip: such a reader may accept them.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime.coclayout import HEADER
from coc_runtime.ops import KINDS, Add, AveragePool, Conv, GlobalAveragePool, Linear, MaxPool
from coc_runtime.ops.row import EVERY, Row
from cocparts import Parts, base, flat, joined, multiplied, plain, refit, single, uneven, uses, window, word
from corpus_pools import CONCAT, joins, pools
from corpus_tables import choices, grids, products, tables, values

Cases = Iterator[tuple[str, bytes]]


def corpus() -> dict[str, bytes]:
    """Name -> file; every one is to be refused."""
    parts = base()
    cases: dict[str, bytes] = {}
    for group in (
        _envelope,
        _header,
        _cuts,
        _rows,
        pools,
        joins,
        tables,
        products,
        choices,
        grids,
        values,
        _graph,
        _segments,
        _numbers,
        _limits,
        _description,
    ):
        for name, data in group(parts):
            assert name not in cases and data != parts.build(), name
            cases[name] = data
    return cases


def _envelope(parts: Parts) -> Cases:
    data = parts.build()
    yield "magic-empty", b""
    yield "magic-first-bit", bytes([data[0] ^ 0x80]) + data[1:]
    yield "magic-line-ends", data.replace(b"\r\n", b"\n")
    yield "magic-onnx", b"\x08\x0a\x12\x0acoc-deploy" + data[14:]
    for version in (0, 2, 3, 0xFFFFFFFF):
        yield f"version-{version}", replace(parts, header={"version": version}).build()
    yield "version-1-of-tables", replace(multiplied(), header={"version": 1}).build()
    yield "checksum-zero", data[:12] + bytes(4) + data[16:]
    for at in (16, HEADER.size, len(data) // 2, len(data) - 1):
        yield f"checksum-flip-{at}", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    yield "longer-than-its-header-says", data + b"\0"
    yield "trailing-byte", refit(data + b"\0")
    yield "trailing-16-bytes", refit(data + bytes(16))
    for size in (0, 47, len(data) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1):
        yield f"file-size-{size}", replace(parts, header={"file_size": size}).build()


def _header(parts: Parts) -> Cases:
    numbers = {
        "operators": (0, 1, len(parts.rows) - 1, len(parts.rows) + 1, 4097, 65535),
        "segments": (0, 1, 2, 4, 17, 18, 65535),
        "channels": (0, 1, 65536, 65537, (1 << 32) - 1),
        "height": (0, 1, 65535),
        "width": (0, 1, 65535),
        "exponent": (-33, 33, -128, 127),
        "description": (0, 1, len(parts.description) - 1, 1 << 20, (1 << 20) + 1, (1 << 32) - 1),
    }
    for name, given in numbers.items():
        for value in given:
            yield f"header-{name}-{value}", replace(parts, header={name: value}).build()
    for task in (2, 255):
        yield f"header-task-{task}", replace(parts, task=task).build()
    for at in (*range(34, 36), *range(40, 48)):
        data = bytearray(parts.build())
        data[at] = 1
        yield f"reserved-header-{at}", refit(bytes(data))


def _cuts(parts: Parts) -> Cases:
    """Ends at every boundary of a structure and a byte before it, with the old header and a refitted one."""
    data, boundaries = parts.build(), {8, 12, 16, 20, 24, HEADER.size}
    at = HEADER.size
    for section in parts.sections():
        at += len(section)
        boundaries.add(at)
    for end in sorted({end - back for end in boundaries for back in (0, 1)} - {len(data)}):
        yield f"truncated-{end}", data[:end]
        if end >= HEADER.size:
            yield f"cut-{end}", refit(data[:end])


def _rows(parts: Parts) -> Cases:
    for kind in (0, max(KINDS) + 1, 255):
        yield f"kind-{kind}", parts.row(0, kind=kind)
    files = (parts, joined(), multiplied(), uneven())
    for kind, operator in KINDS.items():
        source = next(file for file in files if any(row.kind == kind for row in file.rows))
        for name in sorted(set(Row._fields) - EVERY - operator.FIELDS):
            yield f"reserved-{word(kind)}-{name}", source.row(source.find(kind), **{name: 1})
    conv, linear = parts.find(Conv.KIND), parts.find(Linear.KIND)
    for bits in (0, 3, 5, 16, 255):
        yield f"width-conv-weights-{bits}", parts.row(conv, weight_bits=bits)
        yield f"width-linear-weights-{bits}", parts.row(linear, weight_bits=bits)
    for bits in (0, 1, 9, 16, 31, 32, 255):
        yield f"width-conv-output-{bits}", parts.row(conv, bits=bits)
        yield f"width-pool-output-{bits}", parts.row(parts.find(GlobalAveragePool.KIND), bits=bits)
    for bits in (0, 8, 31, 33, 255):
        yield f"width-logits-{bits}", parts.row(linear, bits=bits)
    for encoding in (2, 255):
        yield f"encoding-{encoding}", parts.row(conv, encoding=encoding)
    for zero_point in (1, 127, 129, 255):
        yield f"zero-point-{zero_point}", parts.row(conv, zero_point=zero_point)
    yield "zero-point-of-other-bits", parts.row(conv, bits=4, zero_point=128)
    yield "zero-point-of-logits", parts.row(linear, zero_point=128)
    for exponent in (-128, -33, 33, 127):
        yield f"exponent-conv-{exponent}", parts.row(conv, exponent=exponent)
        yield f"exponent-logits-{exponent}", parts.row(linear, exponent=exponent)
    for name in ("stride", "kernel_height", "kernel_width", "groups", "channels"):
        yield f"zero-{name}", parts.row(conv, **{name: 0})
    yield "zero-linear-channels", parts.row(linear, channels=0)
    for side in ("top", "left", "bottom", "right"):
        yield f"pad-{side}-of-kernel-size", parts.row(conv, **{side: 3})
        yield f"pad-{side}-255", parts.row(conv, **{side: 255})
        yield f"pad-{side}-of-dilated-size", parts.row(conv, second=0x0101, **{side: 5})
    for name, second in {"down": 0x0003, "across": 0x0300, "most": 0xFFFF}.items():
        yield f"dilation-{name}-beyond-the-image", parts.row(conv, second=second)
    for name, changes in {"down": {"kernel_height": 1}, "across": {"kernel_width": 1}}.items():
        sides = dict.fromkeys(("top", "bottom") if name == "down" else ("left", "right"), 0)
        second = 1 if name == "down" else 256
        yield f"dilation-{name}-of-one-weight", parts.row(conv, second=second, **changes, **sides)


def _graph(parts: Parts) -> Cases:
    add, linear = parts.find(Add.KIND), parts.find(Linear.KIND)
    later = sum(segment[0] for segment in parts.segments[:2])
    tensors = len(parts.rows) + 1
    yield "cycle-self", parts.row(0, input=1)
    yield "cycle-add-self", parts.row(add, second=add + 1)
    yield "forward-reference", parts.row(1, input=3)
    yield "forward-reference-to-the-end", parts.row(0, input=tensors - 1)
    yield "dangling-input", parts.row(0, input=tensors)
    yield "dangling-input-65535", parts.row(0, input=65535)
    yield "dangling-second-input", parts.row(add, second=65535)
    yield "reads-image-in-later-segment", parts.row(later, input=0)
    yield "reads-other-segment", parts.row(later, input=parts.segments[0][2])
    yield "reads-logits", parts.row(parts.find(Add.KIND, last=True), second=parts.segments[1][1])
    yield "reads-own-logits", _logits_read()
    yield "add-of-different-shapes", parts.row(add, second=0)
    yield "add-of-distant-exponents", _distant()
    yield "groups-do-not-divide-inputs", parts.row(0, groups=2)
    yield "groups-65535", parts.row(0, groups=65535)
    yield "kernel-larger-than-image", parts.row(0, kernel_height=255)
    yield "kernel-larger-than-padded-image", single((1, 3, 3, -7), kernel_height=4).build()
    yield "conv-channels-off-by-one", parts.row(0, channels=6)
    yield "conv-channels-65536", parts.row(0, channels=65536)
    yield "linear-channels-off-by-one", parts.row(linear, channels=11)
    yield "linear-of-image", parts.row(linear, input=linear - 1)
    yield "conv-of-pooled", _conv_of_pooled()
    yield "pool-of-pooled", _pool_of_pooled()
    yield "linear-is-conv", parts.row(linear, kind=Conv.KIND)


def _logits_read() -> bytes:
    parts = plain()
    rows = [*parts.rows, Row(Add.KIND, input=2, second=2, bits=8, exponent=-13)]
    description = b'{"meta":{},"names":["image","pool","logits","sum"]}'
    return replace(parts, rows=rows, segments=[[3, 2, 0, 0]], description=description).build()


def _distant() -> bytes:
    """image + pool-free convolution whose scale is 2**8 coarser."""
    parts = single((3, 8, 8, -7))
    conv = parts.rows[0]._replace(exponent=1)
    add = Row(Add.KIND, input=0, second=1, bits=8, exponent=-7)
    rows = [conv, add, parts.rows[1]._replace(input=2), parts.rows[2]._replace(input=3)]
    names = b'{"meta":{},"names":["image","conv","sum","pool","logits"]}'
    return replace(parts, rows=rows, segments=[[4, 4, 0, 0]], description=names).build()


def _conv_of_pooled() -> bytes:
    parts = single((3, 8, 8, -7))
    conv, pool, linear = parts.rows
    rows = [pool._replace(input=0), conv._replace(input=1), linear._replace(input=2)]
    return replace(parts, rows=rows).build()


def _pool_of_pooled() -> bytes:
    parts = plain()
    pool, linear = parts.rows
    names = b'{"meta":{},"names":["image","pool","again","logits"]}'
    rows = [pool, pool._replace(input=1), linear._replace(input=2)]
    return replace(parts, rows=rows, segments=[[3, 3, 0, 0]], description=names).build()


def _segments(parts: Parts) -> Cases:
    first, second, last = parts.segments
    tensors = len(parts.rows) + 1
    for count in (0, first[0] - 1, first[0] + 1, 65535):
        yield f"segment-operators-{count}", parts.segment(0, count=count)
    for count in (0, last[0] - 1, last[0] + 1):
        yield f"segment-last-operators-{count}", parts.segment(2, count=count)
    moved = [[first[0] + second[0], *first[1:]], [0, *second[1:]], last]
    yield "segment-empty", replace(parts, segments=moved).build()
    for logits in (0, 1, first[1] - 1, second[1], tensors, 65535):
        yield f"segment-logits-{logits}", parts.segment(0, logits=logits)
    yield "segment-last-logits-of-the-first", parts.segment(2, logits=first[1])
    for carry in (0, first[1], first[2] - 1, second[2], tensors, 65535):
        yield f"segment-carry-{carry}", parts.segment(0, carry=carry)
    yield "segment-last-carries", parts.segment(2, carry=last[1] - 2)
    yield "segment-carries-logits-into-nothing", _carried_logits()
    yield "reserved-segment", parts.segment(1, zero=1)
    yield "segment-classes-differ", _eleven_classes(parts)
    many = plain()
    rows = many.rows + [many.rows[1]] * 17
    names = ["image", "pool", *(f"l{k}" for k in range(18))]
    text = json.dumps({"meta": {}, "names": names}, separators=(",", ":")).encode()
    segments = [[2, 2, 1, 0]] + [[1, k + 3, 1 if k < 16 else 0, 0] for k in range(17)]
    yield (
        "segments-18-legal-otherwise",
        replace(
            many,
            rows=rows,
            segments=segments,
            thresholds=[0.5] * 17,
            biases=many.biases * 18,
            weights=many.weights * 18,
            description=text,
        ).build(),
    )


def _carried_logits() -> bytes:
    """A second segment without operators whose logits are those of the first, carried on."""
    parts = plain()
    return replace(parts, segments=[[2, 2, 2, 0], [0, 2, 0, 0]], thresholds=[0.5]).build()


def _eleven_classes(parts: Parts) -> bytes:
    """The first exit with a class more than the others, its parameters in place."""
    index = parts.find(Linear.KIND)
    layers = [row for row in parts.rows[: index + 1] if uses(row, "weight_bits")]
    at, layer = sum(row.channels for row in layers), len(layers) - 1
    rows = list(parts.rows)
    rows[index] = rows[index]._replace(channels=11)
    biases = [*parts.biases[:at], 0, *parts.biases[at:]]
    weights = list(parts.weights)
    weights[layer] += weights[layer][: len(weights[layer]) // 10]
    return replace(parts, rows=rows, biases=biases, weights=weights).build()


def _numbers(parts: Parts) -> Cases:
    for name, value in {
        "nan": np.nan,
        "-inf": -np.inf,
        "inf": np.inf,
        "-1": -1,
        "-0": -0.0,
        "2.1": 2.1,
    }.items():
        yield f"threshold-{name}", replace(parts, thresholds=[0.5, float(value)]).build()
    for value in (float("inf"), float("nan"), -0.0):
        yield f"tolerance-{value}", replace(parts, task=1, thresholds=[0.5, value]).build()
    for odd, exponent in (
        (0, 0),
        (2, -3),
        (254, -8),
        (1, 61),
        (3, 59),
        (255, 60),
        (1, -61),
        (1, -128),
        (1, 127),
    ):
        scales = [*parts.scales[:-1], (odd, exponent)]
        yield f"scale-{odd}e{exponent}", replace(parts, scales=scales).build()
    for bias in ((1 << 31) - 1, -(1 << 31)):
        yield f"sum-bias-{bias}-linear", replace(parts, biases=[*parts.biases[:-1], bias]).build()
        yield f"sum-bias-{bias}-conv", replace(parts, biases=[bias, *parts.biases[1:]]).build()
    yield "sum-of-exactly-2-31-linear", linear_reaching(1 << 31)
    yield "sum-of-exactly-2-31-conv", conv_reaching(1 << 31)
    yield "reserved-padding", replace(parts, padding=1).build()
    weights = list(parts.weights)
    index = next(i for i, row in enumerate(_layers(parts)) if row.weight_bits == 1)
    weights[index] = weights[index][:-1] + bytes([weights[index][-1] | 0x80])
    yield "reserved-bits-behind-weights", replace(parts, weights=weights).build()


def _layers(parts: Parts) -> list[Row]:
    return [row for row in parts.rows if uses(row, "weight_bits")]


def linear_reaching(total: int) -> bytes:
    """A linear layer whose worst sum is `total`; legal below 2**31."""
    parts = plain()
    return replace(parts, biases=[total - 3 * 255] + [0] * 9).build()


def conv_reaching(total: int) -> bytes:
    """A convolution of three weights -1, input zero point 128, whose worst sum is `total`."""
    parts = single((3, 8, 8, -7))
    return replace(parts, biases=[-(total - 3 * 128), *parts.biases[1:]]).build()


def _limits(parts: Parts) -> Cases:
    """Sizes whose products overflow 32 or 64 bits or the limits, in files that are whole otherwise."""
    yield "limit-image-elements", plain((1, 65535, 65535, -7)).build()
    yield "limit-image-2-28-and-a-row", plain((1, 16384, 16385, -7)).build()
    yield "limit-image-channels", plain((65537, 1, 1, -7)).build()
    yield "limit-image-of-2-32-channels", plain(((1 << 32) - 1, 65535, 65535, -7)).build()
    yield "limit-output-elements", single((1, 16384, 16384, -7), channels=2).build()
    grown = {"kernel_height": 2, "kernel_width": 1, "top": 1, "bottom": 1}
    yield "limit-output-height", single((1, 65535, 1, -7), **grown).build()
    yield "limit-pool", plain((3, 257, 256, -7)).build()
    for kind in (MaxPool.KIND, AveragePool.KIND):
        higher = window(kind, stride=1, kernel_width=1, top=1, bottom=1)
        yield f"limit-{word(kind)}-height", flat((1, 65535, 1, -7), higher).build()
    yield "limit-concat-channels", flat((32769, 1, 1, -7), CONCAT).build()
    yield "limit-concat-of-most-channels", flat((65536, 1, 1, -7), CONCAT).build()
    yield "limit-concat-elements", flat((1, 16384, 16384, -7), CONCAT).build()
    yield "limit-flatten-features", flat((1, 257, 256, -7)).build()
    yield "limit-flatten-of-2-28-features", flat((1, 16384, 16384, -7)).build()
    big = single((16, 8, 8, -7)).rows
    for name, changes in {
        "limit-weights": {"channels": 65536, "kernel_height": 255, "kernel_width": 255},
        "limit-weights-of-8-bits": {"channels": 65536, "weight_bits": 8},
        "limit-channels": {"channels": 65537},
        "limit-channels-2-32": {"channels": (1 << 32) - 1},
    }.items():
        changed = replace(single((16, 8, 8, -7)), rows=[big[0]._replace(**changes), *big[1:]])
        yield name, changed.build()
    wide = single((16, 255, 255, -7))
    conv = wide.rows[0]._replace(channels=65536, kernel_height=255, kernel_width=255)
    biases, scales = [0] * (65536 + 10), [(1, -6)] * 65536
    yield (
        "limit-weights-2-36",
        replace(wide, rows=[conv, *wide.rows[1:]], biases=biases, scales=scales).build(),
    )


def _description(parts: Parts) -> Cases:
    whole = json.loads(parts.description)
    names, meta = whole["names"], whole["meta"]

    def text(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()

    def named(index: int, name: Any) -> bytes:
        return text({"meta": meta, "names": [*names[:index], name, *names[index + 1 :]]})

    texts = {
        "not-json": b"{" * 30,
        "nested": b"[" * 200_000,
        "not-ascii": parts.description.replace(b"stem", b"st\xc3\xa4"),
        "utf-16": parts.description.decode().encode("utf-16"),
        "list": text([names, meta]),
        "space": parts.description.replace(b":", b": ", 1),
        "trailing": parts.description + b" ",
        "unsorted": text({"a": 0})[:-1] + b"," + parts.description[1:],
        "twice": parts.description[:-1] + b"," + parts.description[1:],
        "third-key": text(whole | {"x": 1}),
        "nan": b'{"meta":{"x":NaN},"names":' + text(names) + b"}",
        "infinity": b'{"meta":{"x":1e999},"names":' + text(names) + b"}",
        "long-number": b'{"meta":{"x":' + b"1" * 10_000 + b'},"names":' + text(names) + b"}",
        "meta-list": text({"meta": [], "names": names}),
        "no-meta": text({"names": names}),
        "names-object": text({"meta": meta, "names": {}}),
        "names-too-few": text({"meta": meta, "names": names[:-1]}),
        "names-too-many": text({"meta": meta, "names": [*names, "more"]}),
        "name-twice": named(2, names[1]),
        "name-of-image-twice": named(2, "image"),
        "name-empty": named(1, ""),
        "name-control": named(1, "a\nb"),
        "name-surrogate": named(1, "\ud800"),
        "name-long": named(1, "x" * 1001),
        "name-number": named(1, 7),
        "name-null": named(1, None),
        "name-pair-of-equals": named(1, ["x", "x"]),
        "name-three": named(1, ["x", "y", "z"]),
        "name-nested": named(1, [["x"], "y"]),
        "name-pair-of-image": named(0, ["image", "x"]),
    }
    for name, description in texts.items():
        yield f"description-{name}", replace(parts, description=description).build()


def main(folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, data in corpus().items():
        Path(folder, f"{name}.coc").write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1])
