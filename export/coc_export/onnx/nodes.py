"""The one table of how operators become ONNX nodes, each family in a file of its own."""

from collections.abc import Callable
from typing import Any

from coc_runtime.ops import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    Logits,
    Lookup,
    MaxPool,
    Mul,
    Op,
    PixelAveragePool,
    Select,
)

from . import add, concat, conv, flatten, linear, logits, lookup, mul, pool, select, uneven
from .segment import SegmentWriter

NODES: dict[type[Op], Callable[[SegmentWriter, Any, str], None]] = {
    Conv: conv.write,
    Add: add.write,
    GlobalAveragePool: pool.write_global_average,
    Linear: linear.write,
    MaxPool: pool.write_max,
    AveragePool: pool.write_average,
    Concat: concat.write,
    Flatten: flatten.write,
    Lookup: lookup.write,
    Mul: mul.write,
    Select: select.write,
    Logits: logits.write,
    PixelAveragePool: uneven.write,
    AdaptiveAveragePool: uneven.write,
}
"""Writes the nodes of an operator, whose number in the graph is the last argument."""


def write_segment(writer: SegmentWriter) -> SegmentWriter:
    """The writer, with the nodes and parameters of its segment."""
    segments, index = writer.graph.segments, writer.index
    first = sum(len(segment.nodes) for segment in segments[:index])
    for number, node in enumerate(segments[index].nodes, first):
        NODES[type(node)](writer, node, str(number))
    return writer
