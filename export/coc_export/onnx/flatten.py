"""An image as a vector: Flatten on the codes."""

from coc_runtime.ops import Flatten

from .segment import SegmentWriter


def write(writer: SegmentWriter, flatten: Flatten, key: str) -> None:
    writer.node("Flatten", [writer.name(flatten.input)], writer.name(flatten.output), flatten.name)
