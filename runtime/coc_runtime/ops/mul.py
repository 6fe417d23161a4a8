"""Products of tensors."""

from dataclasses import dataclass

import numpy as np

from .. import arithmetic
from ..errors import CocError
from .base import Binary, Tensor


@dataclass(frozen=True)
class Mul(Binary):
    """Products of two tensors of one shape, or of an image's channels with a number each; ties to even."""

    KIND = 10
    SINCE = 2
    ONNX = frozenset({"Clip", "DequantizeLinear", "Mul", "QuantizeLinear"})

    def output_shape(self, a: Tensor, b: Tensor) -> tuple[int, ...]:
        gate = (a.shape[0], 1, 1) if len(a.shape) == 3 else a.shape
        if b.shape not in (a.shape, gate):
            raise CocError(f"{self.name}: factors of shape {a.shape} and {b.shape} do not fit")
        return a.shape

    def reference(
        self, a: Tensor, a_codes: np.ndarray, b: Tensor, b_codes: np.ndarray, output: Tensor
    ) -> np.ndarray:
        acc = (a_codes.astype(np.int32) - a.zero_point) * (b_codes.astype(np.int32) - b.zero_point)
        multiplier = 2.0 ** (a.exponent + b.exponent - output.exponent)
        return arithmetic.requantize(acc, multiplier, output.zero_point, output.bits)
