"""Codes as logits."""

from dataclasses import dataclass

import numpy as np

from ..errors import CocError
from ..limits import LOGIT_BITS
from .base import Tensor, Unary


@dataclass(frozen=True)
class Logits(Unary):
    """A vector as logits: its codes without the zero point, on the input's step."""

    KIND = 12
    SINCE = 2
    GIVES_LOGITS = True
    ONNX = frozenset({"DequantizeLinear"})

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if len(x.shape) != 1:
            raise CocError(f"{self.name}: input {x.shape} is no vector")
        return x.shape

    def check_output(self, output: Tensor, *inputs: Tensor) -> None:
        if (output.bits, output.exponent) != (LOGIT_BITS, inputs[0].exponent):
            raise CocError(
                f"{self.name}: output must have {LOGIT_BITS} bits and exponent {inputs[0].exponent}"
            )

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        return codes.astype(np.int32) - x.zero_point
