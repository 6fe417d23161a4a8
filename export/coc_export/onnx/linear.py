"""Linear layer: Gemm, whose results are the logits; MatMulInteger where float32 does not hold the sums."""

import onnx

from coc_runtime.ops import Linear

from .segment import SegmentWriter
from .weights import integers


def write(writer: SegmentWriter, linear: Linear, key: str) -> None:
    source, constants = writer.graph.tensors[linear.input], writer.constants
    weight, signed = integers(writer, linear.weight, key)
    scale = constants.power(linear.exponent)
    zero_point = constants.weight_zero_point(signed, None)
    unit = constants.power(linear.exponent + source.exponent)
    bias = writer.parameter(f"b{key}", linear.bias)
    if linear.is_wide(source):
        turned = writer.node("Transpose", [weight], f"w{key}t", perm=[1, 0])
        inputs = [writer.name(linear.input), turned, constants.code(source.zero_point), zero_point]
        sums = writer.node("MatMulInteger", inputs, f"p{key}m", linear.name)
        sums = writer.node("Add", [sums, bias], f"p{key}")
        value = writer.node("Cast", [sums], f"y{key}", to=onnx.TensorProto.FLOAT)
        writer.node("Mul", [value, unit], writer.name(linear.output))
        return
    weight = writer.node("DequantizeLinear", [weight, scale, zero_point], f"w{key}f")
    bias = writer.node("DequantizeLinear", [bias, unit], f"b{key}f")
    inputs = [writer.value(linear.input), weight, bias]
    writer.node("Gemm", inputs, writer.name(linear.output), linear.name, transB=1)
