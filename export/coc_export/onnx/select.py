"""Choosing channels: Gather of the codes."""

from coc_runtime.ops import Select

from .segment import SegmentWriter


def write(writer: SegmentWriter, select: Select, key: str) -> None:
    inputs = [writer.name(select.input), writer.parameter(f"w{key}", select.indices)]
    writer.node("Gather", inputs, writer.name(select.output), select.name, axis=1)
