"""The one table of how operators become ONNX nodes, each family in a file of its own."""

from collections.abc import Callable, Mapping
from typing import Any

from coc_runtime.graph import Graph
from coc_runtime.onnxfile import OPSET
from coc_runtime.ops import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
)

from . import add, concat, conv, flatten, linear, pool
from .constants import Constants
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
}
"""Writes the nodes of an operator, whose number in the graph is the last argument."""


def write_segment(
    graph: Graph,
    index: int,
    constants: Constants,
    aliases: Mapping[str, str],
    packed: bool = True,
    opset: int = OPSET,
) -> SegmentWriter:
    """The nodes and parameters of segment `index`; see `SegmentWriter`."""
    writer = SegmentWriter(graph, index, constants, aliases, packed, opset)
    first = sum(len(segment.nodes) for segment in graph.segments[:index])
    for number, node in enumerate(graph.segments[index].nodes, first):
        NODES[type(node)](writer, node, str(number))
    return writer
