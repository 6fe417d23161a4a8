"""Addition: Add of dequantized codes."""

from coc_runtime.ops import Add

from .segment import SegmentWriter


def write(writer: SegmentWriter, add: Add, key: str) -> None:
    value = writer.node("Add", [writer.value(name) for name in add.inputs], f"y{key}", add.name)
    writer.quantize(value, add.output)
