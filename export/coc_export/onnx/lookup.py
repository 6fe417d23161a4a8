"""Tables of codes: Gather from the table; of several tables, behind one another, the channel's own."""

import numpy as np
import onnx

from coc_runtime.ops import Lookup

from .segment import SegmentWriter


def write(writer: SegmentWriter, lookup: Lookup, key: str) -> None:
    count, codes = lookup.tables.shape
    table = writer.parameter(f"w{key}", lookup.tables.reshape(-1))
    index = writer.node("Cast", [writer.name(lookup.input)], f"p{key}", to=onnx.TensorProto.INT32)
    if count > 1:
        ones = [1] * (len(writer.graph.tensors[lookup.input].shape) - 1)
        first = (codes * np.arange(count, dtype=np.int32)).reshape(-1, *ones)
        index = writer.node("Add", [index, writer.parameter(f"s{key}", first)], f"y{key}")
    writer.node("Gather", [table, index], writer.name(lookup.output), lookup.name)
