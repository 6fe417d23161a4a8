"""What .coc files consist of: records, limits, and the checks that reader and writer share.

docs/format.md describes the file byte by byte.
"""

import json
import struct
import zlib
from typing import Any, NamedTuple

from . import cost
from .errors import CocError
from .graph import Graph, Task
from .limits import (
    LOGIT_BITS,
    MAX_BITOPS,
    MAX_CHANNELS,
    MAX_CONFIDENCE,
    MAX_ELEMENTS,
    MAX_OPERATORS,
    MAX_SEGMENTS,
    MAX_SIZE,
    MAX_TOLERANCE,
    WEIGHT_BITS,
)
from .ops import KINDS, Tensor
from .ops.row import ENCODINGS, EVERY, Row
from .ops.windows import extent

MAGIC = b"\x89COC\r\n\x1a\n"
VERSION = 2
"""The newest; a file has the oldest version that holds all of its operators."""
CHECKED_FROM = 16
"""The checksum covers the bytes from here to the end of the file."""
LARGEST_THRESHOLD = {Task.CLASSIFICATION: MAX_CONFIDENCE, Task.REGRESSION: MAX_TOLERANCE}
"""The largest threshold of confidences (above 1 an image never leaves), and of tolerances."""

TASKS = (Task.CLASSIFICATION, Task.REGRESSION)
SEGMENT = struct.Struct("<4H")


class Header(NamedTuple):
    """The first 48 bytes."""

    magic: bytes
    version: int
    checksum: int
    file_size: int
    operators: int
    segments: int
    channels: int
    height: int
    width: int
    exponent: int
    task: int
    zero: bytes
    description: int
    zeros: bytes


HEADER = struct.Struct("<8sIIIHHIHHbB2sI8s")


def checksum(data: bytes) -> int:
    """CRC-32 (zlib's) of all that follows the checksum itself."""
    return zlib.crc32(memoryview(data)[CHECKED_FROM:])


def check_row(row: Row) -> None:
    """Raise CocError unless every field of an operator is in its range, whatever the operator reads."""
    if row.kind not in KINDS:
        raise CocError(f"operator kind {row.kind} is not known")
    used = EVERY | KINDS[row.kind].FIELDS
    for field, value in zip(Row._fields, row, strict=True):
        if value and field not in used:
            raise CocError(f"{field} is {value}, must be 0 for kind {row.kind}")
    if "weight_bits" in used and row.weight_bits not in WEIGHT_BITS:
        raise CocError(f"{row.weight_bits} weight bits are not supported (1, 2, 4 or 8)")
    if row.encoding >= len(ENCODINGS):
        raise CocError(f"weight encoding {row.encoding} is not known")
    if "channels" in used and not 1 <= row.channels <= MAX_CHANNELS:
        raise CocError(f"{row.channels} output channels, not 1 to {MAX_CHANNELS}")
    if "groups" in used and row.groups == 0:
        raise CocError("groups are 0")
    if "stride" in used:
        if 0 in (row.stride, *row.kernel):
            raise CocError("stride or kernel size is 0")
        if row.across == row.stride:
            raise CocError(f"stride {row.stride} is stated twice")
        dilation = row.dilation if KINDS[row.kind].INPUTS == 1 else 1
        height, width = extent(row.kernel, dilation)
        if max(row.top, row.bottom) >= height or max(row.left, row.right) >= width:
            raise CocError(f"padding must be smaller than the {height}x{width} kernel")


def check_counts(operators: int, segments: int) -> None:
    """Raise CocError for more of them than the format allows."""
    if not 1 <= operators <= MAX_OPERATORS:
        raise CocError(f"{operators} operators, not 1 to {MAX_OPERATORS}")
    most = min(MAX_SEGMENTS, operators)
    if not 1 <= segments <= most:
        raise CocError(f"{segments} segments, not 1 to {most}")


def check_tensor(tensor: Tensor) -> None:
    """Raise CocError if a tensor is larger than the format's limits."""
    size, elements = max((0, *tensor.shape[1:])), 1
    for length in tensor.shape:
        elements *= length
    if tensor.shape[0] > MAX_CHANNELS or size > MAX_SIZE or elements > MAX_ELEMENTS:
        raise CocError(f"tensor {tensor.name}: shape {tensor.shape} exceeds the limits of .coc files")


def check_graph(graph: Graph) -> None:
    """Raise CocError unless a verified graph also obeys what the format adds to `verify`."""
    for index, segment in enumerate(graph.segments):
        if not segment.nodes:
            raise CocError(f"segment {index} has no operators")
        if segment.carry is not None and graph.tensors[segment.carry].bits == LOGIT_BITS:
            raise CocError(f"segment {index} carries logits on")
    if cost.bitops(graph.layers()) > MAX_BITOPS:
        raise CocError("the BitOps of the graph reach 2**63")


def describe(names: list[Any], meta: dict[str, Any]) -> bytes:
    """The description: names and meta in the one form that is written and read."""
    try:
        text = json.dumps(
            {"meta": meta, "names": names}, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise CocError(f"names and meta cannot be written as JSON: {error}") from None
    return text.encode("ascii")
