"""Linear layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..cost import LayerCost
from ..errors import CocError
from ..limits import LOGIT_BITS
from .base import Tensor
from .entry import Entry
from .layer import Layer
from .row import Stored


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """Linear layer whose integer sums are the logits: value = (acc + bias) * 2**(input exp + exponent)."""

    KIND = 4
    SECTIONS = ("biases",)
    GIVES_LOGITS = True
    RANK = 2
    ONNX = Layer.ONNX | {"Add", "Gemm", "MatMulInteger", "Mul", "Transpose"}

    exponent: int
    """real weight = integer weight * 2**exponent"""

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        out, features = self.weight.codes.shape
        if x.shape != (features,):
            raise CocError(f"{self.name}: weights {self.weight.codes.shape} do not fit input {x.shape}")
        return (out,)

    def cost(self, x: Tensor) -> LayerCost:
        out, features = self.weight.codes.shape
        return LayerCost(self.name, out * features, out * features, self.weight.bits, x.bits, out)

    def check_output(self, output: Tensor, *inputs: Tensor) -> None:
        expected = inputs[0].exponent + self.exponent
        if (output.bits, output.exponent) != (LOGIT_BITS, expected):
            raise CocError(f"{self.name}: output must have {LOGIT_BITS} bits and exponent {expected}")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        values = codes.astype(np.int32) - x.zero_point
        return (values @ self.weight.integers.T + self.bias).astype(np.int32)

    @classmethod
    def from_row(cls, stored: Stored) -> Self:
        row, (source,) = stored.row, stored.inputs
        if len(source.shape) != 1:
            raise CocError(f"input {source.shape} has no single dimension")
        weight = stored.weight((row.channels, source.shape[0]))
        bias, exponent = stored.per_channel("biases").astype(np.int32), row.exponent - source.exponent
        return cls(stored.name, source.name, stored.output, weight, bias, exponent)

    def entry(self) -> Mapping[str, Any]:
        return {**super().entry(), "exponent": self.exponent}

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        weight = entry.weight(cls.RANK)
        exponent = entry.get("exponent", int)
        bias = entry.array("b", "int32", weight.codes.shape[:1])
        return cls(entry.name, entry.inputs[0], entry.output, weight, bias, exponent)
