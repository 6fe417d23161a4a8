"""Concatenation of channels."""

from dataclasses import dataclass

import numpy as np

from .. import arithmetic
from ..errors import CocError
from .base import Binary, Tensor


@dataclass(frozen=True)
class Concat(Binary):
    """Channels of both inputs, each requantized to the output's scale; ties to even."""

    KIND = 7
    ONNX = frozenset({"Clip", "Concat", "DequantizeLinear", "QuantizeLinear"})

    def output_shape(self, a: Tensor, b: Tensor) -> tuple[int, ...]:
        if len(a.shape) != 3 or a.shape[1:] != b.shape[1:]:
            raise CocError(f"{self.name}: images of shape {a.shape} and {b.shape} do not join")
        return (a.shape[0] + b.shape[0], *a.shape[1:])

    def reference(
        self, a: Tensor, a_codes: np.ndarray, b: Tensor, b_codes: np.ndarray, output: Tensor
    ) -> np.ndarray:
        parts = [
            arithmetic.requantize(
                codes.astype(np.int32) - x.zero_point,
                2.0 ** (x.exponent - output.exponent),
                output.zero_point,
                output.bits,
            )
            for x, codes in ((a, a_codes), (b, b_codes))
        ]
        return np.concatenate(parts, axis=1)
