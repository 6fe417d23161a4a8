"""Concatenation: Concat of dequantized codes."""

from coc_runtime.ops import Concat

from .segment import SegmentWriter


def write(writer: SegmentWriter, concat: Concat, key: str) -> None:
    parts = [writer.value(name) for name in concat.inputs]
    value = writer.node("Concat", parts, f"y{key}", concat.name, axis=1)
    writer.quantize(value, concat.output)
