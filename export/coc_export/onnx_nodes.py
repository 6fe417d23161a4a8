"""One segment of the integer graph as ONNX nodes, in the Q/DQ form that ONNX Runtime fuses.

Names: tensor i of the graph is `a{i}` (uint8 codes) and `f{i}` (its float values); operator j owns
`w{j}`, `b{j}`, `s{j}` (weights, bias, scale, as in coc_runtime.manifest) and what is derived from
them. Constants that several operators use are written once, into `Constants`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from coc_runtime import arithmetic
from coc_runtime.arithmetic import Encoding
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from coc_runtime.onnxfile import OPSET
from coc_runtime.onnxlevels import divides_exactly, window
from coc_runtime.ops import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
    Weight,
)

MAX_EXPONENT = 100
"""Powers of two up to this, and their products with a scale, are normal float32 numbers."""


class Constants:
    """Initializers shared by operators, keyed by their name; a name states the value."""

    def __init__(self) -> None:
        self.tensors: dict[str, onnx.TensorProto] = {}

    def _add(self, name: str, array: np.ndarray) -> str:
        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def power(self, exponent: int) -> str:
        """2**exponent, float32 scalar."""
        if abs(exponent) > MAX_EXPONENT:
            raise CocError(f"scale 2**{exponent} is outside 2**-{MAX_EXPONENT} to 2**{MAX_EXPONENT}")
        return self._add(f"e{exponent}", np.array(2.0**exponent, np.float32))

    def code(self, value: int) -> str:
        """A uint8 scalar: a zero point or the largest code."""
        return self._add(f"z{value}", np.array(value, np.uint8))

    def weight_zero_point(self, signed: bool, channels: int | None) -> str:
        """0 (int8) or 128 (uint8), a scalar or a vector of one value per channel."""
        shape = () if channels is None else (channels,)
        array = np.zeros(shape, np.int8) if signed else np.full(shape, 128, np.uint8)
        return self._add(f"{'i' if signed else 'u'}{channels or ''}", array)

    def sizes(self, values: Iterable[int]) -> str:
        """An int64 vector: a shape, axes or a position."""
        values = list(values)
        return self._add("n" + "x".join(map(str, values)), np.array(values, np.int64))

    def reciprocal(self, count: int) -> str:
        """float32(1 / count) as every back end computes it."""
        return self._add(f"r{count}", np.float32(1) / np.array(count, np.float32))

    def ones(self, kernel: tuple[int, int]) -> str:
        """float32 [1, 1, *kernel]: a filter that sums windows."""
        return self._add(f"o{kernel[0]}x{kernel[1]}", np.ones((1, 1, *kernel), np.float32))

    def infinity(self) -> str:
        """float32 scalar."""
        return self._add("inf", np.array(np.inf, np.float32))

    def table(self, bits: int, encoding: Encoding) -> str:
        """int8 [256, 8 / bits]: the integers that each packed byte holds."""
        codes = arithmetic.unpack(np.arange(256, dtype=np.uint8), bits, 256 * 8 // bits)
        integers = arithmetic.decode(codes.reshape(256, -1), bits, encoding)
        return self._add(f"t{bits}{encoding.value[0]}", integers.astype(np.int8))


class SegmentWriter:
    """Collects the nodes and parameters of segment `index` of a graph.

    aliases: ONNX names for some tensors of the graph instead of `a{i}`. packed=False stores weights
    below 8 bits as int8 integers instead of packed codes.
    """

    def __init__(
        self,
        graph: Graph,
        index: int,
        constants: Constants,
        aliases: Mapping[str, str],
        packed: bool = True,
        opset: int = OPSET,
    ) -> None:
        self.graph, self.index, self.constants, self.packed = graph, index, constants, packed
        self.aliases, self.opset = aliases, opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._numbers = {name: i for i, name in enumerate(graph.tensors)}
        self._floats: dict[str, str] = {}
        first = sum(len(segment.nodes) for segment in graph.segments[:index])
        for number, node in enumerate(graph.segments[index].nodes, first):
            self._write(node, str(number))

    def name(self, tensor: str) -> str:
        """ONNX name of a tensor's codes (or of logits)."""
        return self.aliases.get(tensor, f"a{self._numbers[tensor]}")

    def node(
        self, op: str, inputs: list[str], output: str, name: str | None = None, **attributes: Any
    ) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def largest(self, values: str, output: str, keep: bool = False) -> str:
        """The largest of each row of [N, classes], [N], or [N, 1] to keep; before opset 18 axes were an
        attribute."""
        if self.opset < 18:
            return self.node("ReduceMax", [values], output, axes=[1], keepdims=int(keep))
        return self.node("ReduceMax", [values, self.constants.sizes([1])], output, keepdims=int(keep))

    def _write(self, node: Op, key: str) -> None:
        if isinstance(node, Conv):
            self._conv(node, key)
        elif isinstance(node, Add):
            value = self.node("Add", [self._float(name) for name in node.inputs], f"y{key}", node.name)
            self._quantize(value, node.output)
        elif isinstance(node, Concat):
            parts = [self._float(name) for name in node.inputs]
            value = self.node("Concat", parts, f"y{key}", node.name, axis=1)
            self._quantize(value, node.output)
        elif isinstance(node, GlobalAveragePool):
            self._global_average(node, key)
        elif isinstance(node, AveragePool):
            self._average(node, key)
        elif isinstance(node, MaxPool):
            self._window(node, [self.name(node.input)], self.name(node.output))
        elif isinstance(node, Flatten):
            self.node("Flatten", [self.name(node.input)], self.name(node.output), node.name)
        else:
            self._linear(node, key)

    def _float(self, tensor: str) -> str:
        """Float values of a tensor's codes; dequantized once a segment."""
        if tensor not in self._floats:
            kind = self.graph.tensors[tensor]
            carried = self.index > 0 and tensor == self.graph.segment_input(self.index)
            output = f"f{self._numbers[tensor]}" + (f"_{self.index}" if carried else "")
            scale, zero_point = self.constants.power(kind.exponent), self.constants.code(kind.zero_point)
            codes = self.name(tensor)
            self._floats[tensor] = self.node("DequantizeLinear", [codes, scale, zero_point], output)
        return self._floats[tensor]

    def _quantize(self, value: str, tensor: str, flatten: bool = False) -> None:
        """Codes of float values: QuantizeLinear saturates at 255, Clip at the largest of fewer bits."""
        kind = self.graph.tensors[tensor]
        last = self.name(tensor)
        scale, zero_point = self.constants.power(kind.exponent), self.constants.code(kind.zero_point)
        clip = kind.bits < 8
        output = f"q{last}" if clip or flatten else last
        codes = self.node("QuantizeLinear", [value, scale, zero_point], output)
        if clip:
            largest = self.constants.code((1 << kind.bits) - 1)
            codes = self.node("Clip", [codes, "", largest], f"c{last}" if flatten else last)
        if flatten:
            self.node("Flatten", [codes], last)

    def _parameter(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _weight(self, weight: Weight, key: str) -> tuple[str, bool]:
        """Name of the integer weights and whether they are int8 (else uint8 with zero point 128).

        Integers beyond +-63 must be uint8: ONNX Runtime's int8 kernels for AVX2 without VNNI add pairs
        of products in saturating 16 bits.
        """
        if weight.bits == 8:
            if weight.encoding is not Encoding.SYMMETRIC:
                raise CocError("8-bit weights must have symmetric encoding to fit 8-bit integers")
            return self._parameter(f"w{key}", weight.codes), False
        if not self.packed:
            return self._parameter(f"w{key}", weight.integers.astype(np.int8)), True
        count = weight.codes.size
        packed = self._parameter(f"w{key}", weight.packed)
        wide = self.node("Cast", [packed], f"w{key}c", to=onnx.TensorProto.INT32)
        table = self.constants.table(weight.bits, weight.encoding)
        integers = self.node("Gather", [table, wide], f"w{key}g")
        if count * weight.bits % 8:
            integers = self.node("Reshape", [integers, self.constants.sizes([-1])], f"w{key}p")
            bounds = [self.constants.sizes([0]), self.constants.sizes([count])]
            integers = self.node("Slice", [integers, *bounds], f"w{key}s")
        shape = self.constants.sizes(weight.codes.shape)
        return self.node("Reshape", [integers, shape], f"w{key}i"), True

    def _conv(self, conv: Conv, key: str) -> None:
        integers, signed = self._weight(conv.weight, key)
        zero_point = self.constants.weight_zero_point(signed, len(conv.bias))
        scale = self._parameter(f"s{key}", conv.scale)
        weight = self.node("DequantizeLinear", [integers, scale, zero_point], f"w{key}f", axis=0)
        source = self.graph.tensors[conv.input]
        unit = self.node("Mul", [scale, self.constants.power(source.exponent)], f"s{key}b")
        bias = self._parameter(f"b{key}", conv.bias)
        bias = self.node("DequantizeLinear", [bias, unit], f"b{key}f", axis=0)
        value = self._window(conv, [self._float(conv.input), weight, bias], f"y{key}")
        self._quantize(value, conv.output)

    def _window(self, node: Conv | MaxPool | AveragePool, inputs: list[str], output: str) -> str:
        op, found = window(node)
        single = ("group", "count_include_pad")
        attributes = {name: value[0] if name in single else value for name, value in found.items()}
        return self.node(op, inputs, output, node.name, **attributes)

    def _average(self, pool: AveragePool, key: str) -> None:
        """A power-of-two count divides exactly; others multiply sums as the definition says.

        A convolution of ones sums, over the images of one channel each. A Mul that followed it directly
        would be fused into its weights; the Reshape between them prevents that.
        """
        count, value = pool.kernel[0] * pool.kernel[1], self._float(pool.input)
        if divides_exactly(count):
            self._quantize(self._window(pool, [value], f"y{key}"), pool.output)
            return
        x, y = (self.graph.tensors[name].shape for name in (pool.input, pool.output))
        flat = self.node("Reshape", [value, self.constants.sizes([-1, 1, *x[1:]])], f"p{key}f")
        total = self._window(pool, [flat, self.constants.ones(pool.kernel)], f"p{key}s")
        total = self.node("Reshape", [total, self.constants.sizes([-1, *y])], f"p{key}")
        value = self.node("Mul", [total, self.constants.reciprocal(count)], f"y{key}")
        self._quantize(value, pool.output)

    def _global_average(self, pool: GlobalAveragePool, key: str) -> None:
        """A power-of-two count divides exactly; others multiply sums as the definition says."""
        x = self.graph.tensors[pool.input]
        count = x.shape[1] * x.shape[2]
        value = self._float(pool.input)
        if divides_exactly(count):
            value = self.node("GlobalAveragePool", [value], f"y{key}", pool.name)
            self._quantize(value, pool.output, flatten=True)
            return
        axes = self.constants.sizes([2, 3])
        total = self.node("ReduceSum", [value, axes], f"p{key}", pool.name, keepdims=0)
        value = self.node("Mul", [total, self.constants.reciprocal(count)], f"y{key}")
        self._quantize(value, pool.output)

    def _linear(self, linear: Linear, key: str) -> None:
        integers, signed = self._weight(linear.weight, key)
        scale = self.constants.power(linear.exponent)
        zero_point = self.constants.weight_zero_point(signed, None)
        weight = self.node("DequantizeLinear", [integers, scale, zero_point], f"w{key}f")
        unit = self.constants.power(linear.exponent + self.graph.tensors[linear.input].exponent)
        bias = self.node("DequantizeLinear", [self._parameter(f"b{key}", linear.bias), unit], f"b{key}f")
        inputs = [self._float(linear.input), weight, bias]
        self.node("Gemm", inputs, self.name(linear.output), linear.name, transB=1)
