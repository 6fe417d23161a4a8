"""Writes .coc files: one graph has exactly one encoding. docs/format.md describes it byte by byte."""

import struct
from typing import Any

import numpy as np

from . import arithmetic, cocfile, coclayout
from .coclayout import ENCODINGS, HEADER, MAGIC, ROW, SCALE, SEGMENT, TASKS, VERSION, Kind, Row
from .errors import CocError
from .graph import Graph, verify
from .limits import MULTIPLIER_BITS, WEIGHT_ALIGNMENT
from .ops import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
    Tensor,
)

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
    layers = [node for node in nodes if isinstance(node, Conv | Linear)]
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
    sections += [layer.bias.astype("<i4").tobytes() for layer in layers]
    sections += [_scales(layer) for layer in layers if isinstance(layer, Conv)]
    body = bytearray(HEADER.size) + b"".join(sections) + description
    for layer in layers:
        body += bytes(-len(body) % WEIGHT_ALIGNMENT) + layer.weight.packed.tobytes()
    image = graph.tensors[graph.input]
    counts = (len(body), len(nodes), len(graph.segments), *image.shape, image.exponent)
    counts += (TASKS.index(graph.task),)
    body[: HEADER.size] = _pack(HEADER, MAGIC, VERSION, 0, *counts, b"", len(description), b"")
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
    row = Row(
        kind=_KINDS[type(node)],
        input=index[node.inputs[0]],
        bits=output.bits,
        zero_point=output.zero_point,
        exponent=output.exponent,
    )
    if isinstance(node, Add | Concat):
        row = row._replace(second=index[node.inputs[1]])
    if isinstance(node, Conv | Linear):
        weight = node.weight
        encoding = ENCODINGS.index(weight.encoding)
        row = row._replace(weight_bits=weight.bits, encoding=encoding, channels=len(weight.codes))
    if isinstance(node, Conv):
        row = row._replace(groups=node.groups)
    if isinstance(node, Conv | MaxPool | AveragePool):
        height, width = node.weight.codes.shape[2:] if isinstance(node, Conv) else node.kernel
        top, left, bottom, right = node.pads
        row = row._replace(kernel_height=height, kernel_width=width, stride=node.stride)
        row = row._replace(top=top, left=left, bottom=bottom, right=right)
    return row


_KINDS: dict[type, Kind] = {
    Conv: Kind.CONV,
    Add: Kind.ADD,
    GlobalAveragePool: Kind.GLOBAL_AVERAGE_POOL,
    Linear: Kind.LINEAR,
    MaxPool: Kind.MAX_POOL,
    AveragePool: Kind.AVERAGE_POOL,
    Concat: Kind.CONCAT,
    Flatten: Kind.FLATTEN,
}


def _scales(conv: Conv) -> bytes:
    """Odd parts and exponents of a convolution's scales."""
    odd = arithmetic.odd_part(conv.scale)
    if odd.max() >= 1 << MULTIPLIER_BITS:
        raise CocError(f"{conv.name}: a scale has more than {MULTIPLIER_BITS} significant bits")
    stored = np.empty(len(odd), SCALE)
    stored["odd"], stored["exponent"] = odd, np.frexp(conv.scale / odd)[1] - 1
    return stored.tobytes()
