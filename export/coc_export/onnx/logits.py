"""Codes as logits: DequantizeLinear."""

from coc_runtime.ops import Logits

from .segment import SegmentWriter


def write(writer: SegmentWriter, logits: Logits, key: str) -> None:
    kind, constants = writer.graph.tensors[logits.input], writer.constants
    inputs = [writer.name(logits.input), constants.power(kind.exponent), constants.code(kind.zero_point)]
    writer.node("DequantizeLinear", inputs, writer.name(logits.output), logits.name)
