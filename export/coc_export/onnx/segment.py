"""One segment of the integer graph as ONNX nodes, in the Q/DQ form that ONNX Runtime fuses.

Names: tensor i of the graph is `a{i}` (uint8 codes) and `f{i}` (its float values); operator j owns
`w{j}`, `b{j}`, `s{j}` (weights, bias, scale, as in coc_runtime.manifest) and what is derived from
them, `y{j}` and `p{j}`. Constants that several operators use are written once, into `Constants`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from coc_runtime.graph import Graph
from coc_runtime.onnxfile import OPSET
from coc_runtime.ops import Op

from .constants import Constants


class SegmentWriter:
    """Collects the nodes and parameters of segment `index` of a graph, which `nodes.NODES` make.

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

    def value(self, tensor: str) -> str:
        """Float values of a tensor's codes; dequantized once a segment."""
        if tensor not in self._floats:
            kind = self.graph.tensors[tensor]
            carried = self.index > 0 and tensor == self.graph.segment_input(self.index)
            output = f"f{self._numbers[tensor]}" + (f"_{self.index}" if carried else "")
            scale, zero_point = self.constants.power(kind.exponent), self.constants.code(kind.zero_point)
            codes = self.name(tensor)
            self._floats[tensor] = self.node("DequantizeLinear", [codes, scale, zero_point], output)
        return self._floats[tensor]

    def quantize(self, value: str, tensor: str, flatten: bool = False) -> None:
        """Codes of float values: QuantizeLinear saturates at 255, Clip at the largest of fewer bits."""
        kind = self.graph.tensors[tensor]
        scale, zero_point = self.constants.power(kind.exponent), self.constants.code(kind.zero_point)
        codes = self.node("QuantizeLinear", [value, scale, zero_point], self.codes(tensor, flatten))
        codes = self.clip(codes, tensor, flatten)
        if flatten:
            self.node("Flatten", [codes], self.name(tensor))

    def codes(self, tensor: str, flatten: bool = False) -> str:
        """What to call codes of a tensor that `clip` is to limit."""
        last = self.name(tensor)
        return f"q{last}" if self.graph.tensors[tensor].bits < 8 or flatten else last

    def clip(self, codes: str, tensor: str, flatten: bool = False) -> str:
        """Codes that saturated at 255, limited to the tensor's largest."""
        bits, last = self.graph.tensors[tensor].bits, self.name(tensor)
        if bits == 8:
            return codes
        largest = self.constants.code((1 << bits) - 1)
        return self.node("Clip", [codes, "", largest], f"c{last}" if flatten else last)

    def parameter(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def window(self, node: Op, inputs: list[str], output: str, kind: str | None = None) -> str:
        """The node with the attributes that the reader expects of an operator, perhaps of another kind."""
        found = node.onnx_window()
        assert found is not None
        stated, attributes = found
        single = ("group", "count_include_pad")
        values = {name: value[0] if name in single else value for name, value in attributes.items()}
        return self.node(kind or stated, inputs, output, node.name, **values)
