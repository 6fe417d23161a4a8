"""Convolution: Conv on dequantized codes and weights."""

from coc_runtime.ops import Conv

from .segment import SegmentWriter
from .weights import integers


def write(writer: SegmentWriter, conv: Conv, key: str) -> None:
    weight, signed = integers(writer, conv.weight, key)
    zero_point = writer.constants.weight_zero_point(signed, len(conv.bias))
    scale = writer.parameter(f"s{key}", conv.scale)
    weight = writer.node("DequantizeLinear", [weight, scale, zero_point], f"w{key}f", axis=0)
    source = writer.graph.tensors[conv.input]
    unit = writer.node("Mul", [scale, writer.constants.power(source.exponent)], f"s{key}b")
    bias = writer.parameter(f"b{key}", conv.bias)
    bias = writer.node("DequantizeLinear", [bias, unit], f"b{key}f", axis=0)
    value = writer.window(conv, [writer.value(conv.input), weight, bias], f"y{key}")
    writer.quantize(value, conv.output)
