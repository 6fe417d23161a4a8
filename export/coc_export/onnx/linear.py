"""Linear layer: Gemm, whose results are the logits."""

from coc_runtime.ops import Linear

from .segment import SegmentWriter
from .weights import integers


def write(writer: SegmentWriter, linear: Linear, key: str) -> None:
    weight, signed = integers(writer, linear.weight, key)
    scale = writer.constants.power(linear.exponent)
    zero_point = writer.constants.weight_zero_point(signed, None)
    weight = writer.node("DequantizeLinear", [weight, scale, zero_point], f"w{key}f")
    unit = writer.constants.power(linear.exponent + writer.graph.tensors[linear.input].exponent)
    bias = writer.node("DequantizeLinear", [writer.parameter(f"b{key}", linear.bias), unit], f"b{key}f")
    inputs = [writer.value(linear.input), weight, bias]
    writer.node("Gemm", inputs, writer.name(linear.output), linear.name, transB=1)
