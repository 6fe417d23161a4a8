"""Addition."""

from dataclasses import dataclass

import numpy as np

from .. import arithmetic
from ..errors import CocError
from ..limits import MAX_SHIFT
from .base import Binary, Tensor


@dataclass(frozen=True)
class Add(Binary):
    """Residual addition on the finer of the two operands' scales, then requantized; ties to even."""

    KIND = 2
    ONNX = frozenset({"Add", "Clip", "DequantizeLinear", "QuantizeLinear"})

    def output_shape(self, a: Tensor, b: Tensor) -> tuple[int, ...]:
        if a.shape != b.shape:
            raise CocError(f"{self.name}: operands of shape {a.shape} and {b.shape} differ")
        return a.shape

    def check(self, a: Tensor, b: Tensor) -> None:
        if abs(a.exponent - b.exponent) > MAX_SHIFT:
            raise CocError(f"{self.name}: operand scales differ by more than 2**{MAX_SHIFT}")

    def reference(
        self, a: Tensor, a_codes: np.ndarray, b: Tensor, b_codes: np.ndarray, output: Tensor
    ) -> np.ndarray:
        fine = min(a.exponent, b.exponent)
        acc = (a_codes.astype(np.int32) - a.zero_point) << (a.exponent - fine)
        acc = acc + ((b_codes.astype(np.int32) - b.zero_point) << (b.exponent - fine))
        return arithmetic.requantize(acc, 2.0 ** (fine - output.exponent), output.zero_point, output.bits)
