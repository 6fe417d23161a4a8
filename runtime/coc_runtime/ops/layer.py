"""What convolutions and linear layers share: weights, a bias, sums that must be exact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import arithmetic
from ..arithmetic import EXACT_LIMIT
from ..errors import CocError
from ..limits import SUM_LIMIT, WEIGHT_BITS
from .base import Tensor, Unary
from .row import ENCODINGS
from .weight import Weight


@dataclass(frozen=True, eq=False)
class Layer(Unary):
    """Sums of weights times codes, and a bias for each output channel."""

    FIELDS = frozenset({"weight_bits", "encoding", "channels"})
    RANK: ClassVar[int]
    """the number of dimensions of the weights"""
    ONNX = frozenset({"Cast", "DequantizeLinear", "Gather", "Reshape", "Slice"})
    """Nodes that make numbers of packed weights."""

    weight: Weight
    bias: np.ndarray
    """int32 [O]"""

    @property
    def channel_scales(self) -> np.ndarray | None:
        """float32 [O]; None if the layer has one scale for all channels."""
        return None

    def check_parameters(self) -> None:
        weight = self.weight
        if weight.codes.ndim != self.RANK or weight.codes.dtype != np.uint8 or weight.codes.size == 0:
            raise CocError(f"{self.name}: weight codes must be uint8 of rank {self.RANK} and not empty")
        if weight.bits not in WEIGHT_BITS or weight.codes.max() >= 1 << weight.bits:
            raise CocError(f"{self.name}: weight codes do not fit {weight.bits} bits (1, 2, 4 or 8)")
        channels = len(weight.codes)
        if self.bias.shape != (channels,) or self.bias.dtype != np.int32:
            raise CocError(f"{self.name}: bias must be int32 [{channels}]")

    def check(self, x: Tensor) -> None:
        if self._largest(x).max() >= SUM_LIMIT:
            raise CocError(f"{self.name}: sums reach 2**31 and would not fit 32 bits")

    def is_wide(self, x: Tensor) -> bool:
        """Whether sums with their bias, times the odd part of a scale, pass what float32 holds exactly.

        Sums of such a layer are added as integers and rounded to float32 once (docs/adr/0017).
        """
        scales = self.channel_scales
        odd_part = 1 if scales is None else arithmetic.odd_part(scales)
        return bool((odd_part * self._largest(x)).max() >= EXACT_LIMIT)

    def _largest(self, x: Tensor) -> np.ndarray:
        """What sums with their bias can reach, int64 [O]."""
        worst = arithmetic.worst_sum(self.weight.integers, x.zero_point, x.bits)
        found: np.ndarray = worst + np.abs(self.bias.astype(np.int64))
        return found

    def row(self) -> Mapping[str, int]:
        weight = self.weight
        encoding = ENCODINGS.index(weight.encoding)
        return {"weight_bits": weight.bits, "encoding": encoding, "channels": len(weight.codes)}

    def stored(self) -> Mapping[str, bytes]:
        return {"biases": self.bias.astype("<i4").tobytes(), "weights": self.weight.packed.tobytes()}

    def entry(self) -> Mapping[str, Any]:
        shape, bits = self.weight.codes.shape, self.weight.bits
        return {"shape": shape, "bits": bits, "encoding": self.weight.encoding.value}
