"""BitOps and stored bits: one cost model for the trainer, the exporter and the benchmark.

BitOps of a layer = MACs * weight bits * activation bits, float = 32 x 32 (as in APoT, Li et al. 2019,
and Liu et al. 2021). Batch-norm, ReLU, pooling and additions cost nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

FLOAT_BITS = 32


@dataclass(frozen=True)
class LayerCost:
    """What one convolution or linear layer costs per image.

    `parameters` counts the numbers stored beside the weights, 32 bits each: biases and, in integer
    layers, a scale per channel; in float models batch-norm's weight and bias.
    """

    name: str
    macs: int
    weights: int
    weight_bits: int
    activation_bits: int
    parameters: int = 0

    @property
    def bitops(self) -> int:
        return self.macs * self.weight_bits * self.activation_bits

    @property
    def stored_bits(self) -> int:
        return self.weights * self.weight_bits + 32 * self.parameters


def bitops(layers: Iterable[LayerCost]) -> int:
    """Sum over layers, each at its own bits (the per-layer convention)."""
    return sum(layer.bitops for layer in layers)


def uniform_bitops(layers: Iterable[LayerCost], bits: tuple[int, int]) -> int:
    """Sum over layers with the chain's (weight bits, activation bits) for all (the uniform convention)."""
    return sum(layer.macs for layer in layers) * bits[0] * bits[1]


def stored_bits(layers: Iterable[LayerCost]) -> int:
    return sum(layer.stored_bits for layer in layers)


def exit_bitops(segments: Iterable[Iterable[LayerCost]]) -> list[int]:
    """BitOps of an image that leaves at each exit, the heads on the way included."""
    return list(accumulate(bitops(layers) for layers in segments))


def expected(per_segment: Sequence[int], exit_shares: Sequence[float]) -> float:
    """Mean cost of an image: sum_k share_k * (cost of segments 0..k).

    Segment k holds the body between exits k-1 and k and the head of exit k.
    """
    total, reached = 0.0, 1.0
    for cost, share in zip(per_segment, exit_shares, strict=True):
        total += reached * cost
        reached -= share
    return total
