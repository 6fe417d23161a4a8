"""Convolution: Conv on dequantized codes and weights; QLinearConv where float32 does not hold the sums."""

from coc_runtime.ops import Conv

from .segment import SegmentWriter
from .weights import integers


def write(writer: SegmentWriter, conv: Conv, key: str) -> None:
    source, constants = writer.graph.tensors[conv.input], writer.constants
    weight, signed = integers(writer, conv.weight, key)
    zero_point = constants.weight_zero_point(signed, len(conv.bias))
    scale = writer.parameter(f"s{key}", conv.scale)
    if conv.is_wide(source):
        bias = writer.parameter(f"b{key}", conv.bias)
        x = [writer.name(conv.input), constants.power(source.exponent), constants.code(source.zero_point)]
        output = writer.graph.tensors[conv.output]
        y = [constants.power(output.exponent), constants.code(output.zero_point)]
        inputs = [*x, weight, scale, zero_point, *y, bias]
        codes = writer.window(conv, inputs, writer.codes(conv.output), "QLinearConv")
        writer.clip(codes, conv.output)
        return
    weight = writer.node("DequantizeLinear", [weight, scale, zero_point], f"w{key}f", axis=0)
    unit = writer.node("Mul", [scale, constants.power(source.exponent)], f"s{key}b")
    bias = writer.parameter(f"b{key}", conv.bias)
    bias = writer.node("DequantizeLinear", [bias, unit], f"b{key}f", axis=0)
    value = writer.window(conv, [writer.value(conv.input), weight, bias], f"y{key}")
    writer.quantize(value, conv.output)
