"""Writes .coc files: one graph has exactly one encoding. docs/format.md describes it byte by byte."""

import struct
from typing import Any

import numpy as np

from . import arithmetic, cocfile, coclayout
from .coclayout import HEADER, MAGIC, SEGMENT, TASKS
from .errors import CocError
from .graph import Graph, verify
from .limits import WEIGHT_ALIGNMENT
from .ops import Op, Tensor, version_of
from .ops.row import BEHIND, PER_CHANNEL, ROW, Row

CHECKSUM_AT = 12


def dump(graph: Graph) -> bytes:
    """The bytes of a graph's file.

    Tensors that no operator writes are left out, thresholds become float32 as back ends compare them.
    Raises CocError, naming the operator, if the graph is not legal or beyond the format's limits.
    """
    verify(graph)
    coclayout.check_graph(graph)
    nodes = [node for segment in graph.segments for node in segment.nodes]
    coclayout.check_counts(len(nodes), len(graph.segments))
    index = {graph.input: 0} | {node.output: j + 1 for j, node in enumerate(nodes)}
    for name in index:
        coclayout.check_tensor(graph.tensors[name])
    description = coclayout.describe([graph.input, *(_names(node) for node in nodes)], dict(graph.meta))
    sections = [_pack_row(node, graph.tensors, index) for node in nodes]
    for segment in graph.segments:
        carry = 0 if segment.carry is None else index[segment.carry]
        sections.append(_pack(SEGMENT, len(segment.nodes), index[segment.logits], carry, 0))
    thresholds = arithmetic.gate_thresholds(graph.thresholds, graph.task) + np.float32(0)
    sections.append(thresholds.astype("<f4").tobytes())
    stored = [node.stored() for node in nodes]
    sections += [parts[name] for name in PER_CHANNEL for parts in stored if name in parts]
    body = bytearray(HEADER.size) + b"".join(sections) + description
    for part in (parts[name] for parts in stored for name in BEHIND if name in parts):
        body += bytes(-len(body) % WEIGHT_ALIGNMENT) + part
    image, version = graph.tensors[graph.input], version_of(nodes)
    counts = (len(body), len(nodes), len(graph.segments), *image.shape, image.exponent)
    counts += (TASKS.index(graph.task),)
    body[: HEADER.size] = _pack(HEADER, MAGIC, version, 0, *counts, b"", len(description), b"")
    data = seal(bytes(body))
    cocfile.parse(data, "the graph as a .coc file")
    return data


def seal(data: bytes) -> bytes:
    """The same bytes with the checksum that fits them."""
    head = data[:CHECKSUM_AT] + struct.pack("<I", coclayout.checksum(data))
    return head + data[len(head) :]


def _names(node: Op) -> Any:
    return node.name if node.name == node.output else [node.name, node.output]


def _pack(layout: struct.Struct, *values: Any) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise CocError(f"beyond the limits of .coc files: {error}") from None


def _pack_row(node: Op, tensors: Any, index: dict[str, int]) -> bytes:
    try:
        row = _row(node, tensors[node.output], index)
        coclayout.check_row(row)
        return _pack(ROW, *row)
    except CocError as error:
        raise CocError(f"{node.name}: {error}") from None


def _row(node: Op, output: Tensor, index: dict[str, int]) -> Row:
    first, *second = (index[name] for name in node.inputs)
    written = {"bits": output.bits, "zero_point": output.zero_point, "exponent": output.exponent}
    row = Row(node.KIND, input=first, **written, **node.row())
    return row._replace(second=second[0]) if second else row
