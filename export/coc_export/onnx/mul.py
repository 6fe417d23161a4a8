"""Products: Mul of dequantized codes."""

from coc_runtime.ops import Mul

from .segment import SegmentWriter


def write(writer: SegmentWriter, mul: Mul, key: str) -> None:
    value = writer.node("Mul", [writer.value(name) for name in mul.inputs], f"y{key}", mul.name)
    writer.quantize(value, mul.output)
