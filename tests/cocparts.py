"""A .coc file taken apart, so that tests can change any field and put it together again."""

import json
import re
import struct
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from coc_runtime import cocwrite
from coc_runtime.coclayout import HEADER, SEGMENT, Header
from coc_runtime.graph import Graph
from coc_runtime.limits import WEIGHT_ALIGNMENT
from coc_runtime.ops import (
    KINDS,
    AdaptiveAveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    Lookup,
    PixelAveragePool,
    Select,
)
from coc_runtime.ops.row import BEHIND, PER_CHANNEL, ROW, Row
from graphs import random_graph, random_inception, random_mobile

SCALE = PER_CHANNEL["scales"]


def word(kind: int) -> str:
    """A kind of operator in names of files: max_pool."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", KINDS[kind].__name__).lower()


def uses(row: Row, field: str) -> bool:
    """Whether the kind of a row uses a field that not all do."""
    return field in KINDS[row.kind].FIELDS


@dataclass
class Parts:
    """A file taken apart. Counts in the header follow from the rest unless `header` overrides them."""

    rows: list[Row]
    segments: list[list[int]]
    thresholds: list[float]
    biases: list[int]
    scales: list[tuple[int, int]]
    description: bytes
    weights: list[bytes]
    """and tables, which lie among them"""
    image: tuple[int, int, int, int] = (3, 8, 8, -7)
    """channels, height, width, exponent"""
    task: int = 0
    header: dict[str, Any] = field(default_factory=dict)
    padding: int = 0
    """the byte in front of weights"""

    def sections(self) -> list[bytes]:
        """Everything behind the header in the order of the file; each layer's weights with their padding."""
        parts = [ROW.pack(*row) for row in self.rows]
        parts += [SEGMENT.pack(*segment) for segment in self.segments]
        parts += [struct.pack("<f", threshold) for threshold in self.thresholds]
        parts.append(np.array(self.biases, "<i4").tobytes())
        parts.append(np.array(self.scales, SCALE).tobytes())
        parts.append(self.description)
        at = HEADER.size + sum(map(len, parts))
        for packed in self.weights:
            parts.append(bytes([self.padding]) * (-at % WEIGHT_ALIGNMENT) + packed)
            at += len(parts[-1])
        return parts

    def build(self) -> bytes:
        body = b"".join(self.sections())
        fields: dict[str, Any] = {
            "magic": b"\x89COC\r\n\x1a\n",
            "version": max(_since(row) for row in self.rows),
            "checksum": 0,
            "file_size": HEADER.size + len(body),
            "operators": len(self.rows),
            "segments": len(self.segments),
            "task": self.task,
            "zero": b"",
            "description": len(self.description),
            "zeros": b"",
        } | dict(zip(("channels", "height", "width", "exponent"), self.image, strict=True))
        return cocwrite.seal(HEADER.pack(*Header(**(fields | self.header))) + body)

    def row(self, index: int, **changes: int) -> bytes:
        """The file with other fields in one operator."""
        rows = list(self.rows)
        rows[index] = rows[index]._replace(**changes)
        return replace(self, rows=rows).build()

    def find(self, kind: int, last: bool = False) -> int:
        """Index of the first operator of a kind, or of the last."""
        found = [index for index, row in enumerate(self.rows) if row.kind == kind]
        return found[-1 if last else 0]

    def segment(self, index: int, **changes: int) -> bytes:
        """The file with other fields in one segment: count, logits, carry, zero."""
        segments = [list(segment) for segment in self.segments]
        for name, value in changes.items():
            segments[index][("count", "logits", "carry", "zero").index(name)] = value
        return replace(self, segments=segments).build()


def _since(row: Row) -> int:
    """The first version of files that has the row."""
    return max(KINDS[row.kind].SINCE if row.kind in KINDS else 1, 1 + (row.across > 0))


def base() -> Parts:
    """A legal file of three segments, residual blocks and weights that end within a byte."""
    return take_apart(random_graph(1, bits=1, act_bits=4, exits=2, channels=5))


def joined() -> Parts:
    """A legal file of two segments with the kinds of operators that `base` lacks."""
    return take_apart(random_inception(1, bits=1, act_bits=4, exits=1, channels=3, size=8))


def multiplied() -> Parts:
    """A legal file of two segments with tables and products."""
    return take_apart(random_mobile(1, bits=1, act_bits=4, exits=1, channels=3, size=7))


def uneven() -> Parts:
    """A legal file with means of windows of different sizes."""
    pixels = window(PixelAveragePool.KIND, stride=1, kernel_height=3, kernel_width=3, top=2, left=1)
    grid = window(AdaptiveAveragePool.KIND, input=1, stride=1, kernel_height=4, kernel_width=7)
    return flat((3, 6, 6, -7), pixels, grid)


def take_apart(graph: Graph) -> Parts:
    data = cocwrite.dump(graph)
    header = Header(*HEADER.unpack_from(data))
    nodes = [node for segment in graph.segments for node in segment.nodes]
    layers = [node for node in nodes if isinstance(node, Conv | Linear)]
    at = HEADER.size + ROW.size * header.operators
    rows = [Row(*fields) for fields in ROW.iter_unpack(data[HEADER.size : at])]
    segments = [list(found) for found in SEGMENT.iter_unpack(data[at : at + SEGMENT.size * header.segments])]
    at += SEGMENT.size * header.segments + 4 * len(graph.thresholds)
    at += 4 * sum(len(layer.bias) for layer in layers)
    channels = sum(len(layer.bias) for layer in layers if isinstance(layer, Conv))
    scales = np.frombuffer(data, SCALE, channels, at).tolist()
    at += SCALE.itemsize * channels
    parts = Parts(
        rows,
        segments,
        np.float32(graph.thresholds).tolist(),
        [value for layer in layers for value in layer.bias.tolist()],
        scales,
        data[at : at + header.description],
        [stored[name] for stored in (node.stored() for node in nodes) for name in BEHIND if name in stored],
        (header.channels, header.height, header.width, header.exponent),
        header.task,
    )
    assert parts.build() == data
    return parts


def plain(image: tuple[int, int, int, int] = (3, 8, 8, -7)) -> Parts:
    """The smallest kind of file: average pool and linear layer."""
    pool = Row(GlobalAveragePool.KIND, bits=8, exponent=-7)
    classes = 10
    linear = Row(Linear.KIND, 8, 1, input=1, channels=classes, bits=32, exponent=-13)
    names = json.dumps({"meta": {}, "names": ["image", "pool", "logits"]}, separators=(",", ":"))
    weights = [bytes([129]) * classes * min(image[0], 16)]
    return Parts([pool, linear], [[2, 2, 0, 0]], [], [0] * classes, [], names.encode(), weights, image)


def single(image: tuple[int, int, int, int], **changes: int) -> Parts:
    """`plain` behind a 1x1 convolution of 1-bit weights to as many channels."""
    parts = plain(image)
    fields = {"kernel_height": 1, "kernel_width": 1, "groups": 1, "stride": 1, "channels": image[0]}
    conv = Row(Conv.KIND, 1, bits=8, exponent=-7)._replace(**(fields | changes))
    rows = [conv, parts.rows[0]._replace(input=1), parts.rows[1]._replace(input=2)]
    count = conv.channels * image[0] * conv.kernel_height * conv.kernel_width
    names = b'{"meta":{},"names":["image","conv","pool","logits"]}'
    biases, scales = [0] * conv.channels + parts.biases, [(1, -6)] * conv.channels
    weights = [bytes(-(-count // 8)), *parts.weights]
    return replace(
        parts,
        rows=rows,
        segments=[[3, 3, 0, 0]],
        biases=biases,
        scales=scales,
        description=names,
        weights=weights,
    )


def flat(image: tuple[int, int, int, int], *rows: Row) -> Parts:
    """`rows` on an image, Flatten of what the last one writes, a linear layer of one class, all weights 1.

    Tables turn the codes of an input round, choices of channels the channels.
    """
    tensors = [image[:3]]
    for row in rows:
        channels, height, width = tensors[row.input]
        if row.kind == Concat.KIND:
            channels += tensors[row.second][0]
        if row.kind == Select.KIND:
            channels = row.channels
        if row.kind == AdaptiveAveragePool.KIND:
            height, width = row.kernel
        elif uses(row, "stride"):
            height = (height + row.top + row.bottom - row.kernel_height) // row.stride + 1
            width = (width + row.left + row.right - row.kernel_width) // (row.across or row.stride) + 1
        tensors.append((channels, height, width))
    count = len(rows)
    last = rows[-1] if rows else Row(0, bits=8, zero_point=128, exponent=-7)
    flatten = Row(
        Flatten.KIND, input=count, bits=last.bits, zero_point=last.zero_point, exponent=last.exponent
    )
    linear = Row(Linear.KIND, 8, 1, input=count + 1, channels=1, bits=32, exponent=-13)
    names = ["image", *(f"row{index}" for index in range(count)), "flat", "logits"]
    description = json.dumps({"meta": {}, "names": names}, separators=(",", ":")).encode()
    features = tensors[-1][0] * tensors[-1][1] * tensors[-1][2]
    bits = [8, *(row.bits for row in rows)]
    weights = [turned(bits[row.input], row) for row in rows if row.kind == Lookup.KIND]
    weights += [last_first(tensors[row.input][0], row) for row in rows if row.kind == Select.KIND]
    weights.append(bytes([129]) * min(features, 1 << 17))
    segments = [[count + 2, count + 2, 0, 0]]
    return Parts([*rows, flatten, linear], segments, [], [0], [], description, weights, image)


def last_first(channels: int, row: Row) -> bytes:
    """Indices of a row, from the last of so many channels on."""
    return (channels - 1 - np.arange(row.channels) % channels).astype("<u4").tobytes()


def turned(bits: int, row: Row) -> bytes:
    """Tables of a row that make the largest of its codes of the smallest of `bits` bits, and so on."""
    return bytes(code >> (8 - row.bits) for code in reversed(range(0, 256, 256 >> bits))) * row.channels


def window(kind: int, **changes: int) -> Row:
    """A 2x2 pool of stride 2 that keeps the image's type."""
    fields = {
        "kernel_height": 2,
        "kernel_width": 2,
        "stride": 2,
        "bits": 8,
        "zero_point": 128,
        "exponent": -7,
    }
    return Row(kind)._replace(**(fields | changes))


def refit(data: bytes) -> bytes:
    """The same bytes under a header that states their length and checksum."""
    return cocwrite.seal(data[:16] + struct.pack("<I", len(data)) + data[20:])
