"""An image as a vector."""

from dataclasses import dataclass

import numpy as np

from ..errors import CocError
from .base import Tensor, Unary


@dataclass(frozen=True)
class Flatten(Unary):
    """(C, H, W) as (C * H * W,); the codes and their type stay."""

    KIND = 8
    KEEPS_TYPE = True
    ONNX = frozenset({"Flatten"})

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        if len(x.shape) != 3:
            raise CocError(f"{self.name}: input {x.shape} is not channels, height, width")
        return (x.shape[0] * x.shape[1] * x.shape[2],)

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        return codes.reshape(len(codes), *output.shape)
