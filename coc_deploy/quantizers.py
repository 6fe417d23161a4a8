"""Quantizers: activations with power-of-two steps, DoReFa and symmetric weights; the modes of training."""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coc_runtime.limits import MAX_EXPONENT

from . import layer_bits


class Mode(enum.Enum):
    OBSERVE = "observe"
    """float weights and activations; every ActQuant records the range it sees"""
    TRAIN = "train"
    """fake quantization, batch-norm in the module's own train or eval mode"""
    FOLDED = "folded"
    """fake quantization with batch-norm folded and every scale and bias rounded; gradients flow"""
    INTEGER = "integer"
    """exactly the integers of the exported graph; no gradients"""


class _FakeQuant(torch.autograd.Function):
    """clamp(round(y / step), low, high) * step; the gradient passes where y / step is between the bounds."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, inverse: float, low: int, high: int) -> Tensor:
        scaled = y * inverse
        ctx.save_for_backward(scaled)
        ctx.bounds = low, high
        return torch.round(scaled).clamp_(low, high).mul_(1 / inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (scaled,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, scaled, *ctx.bounds), None, None, None


class _LearnedQuant(torch.autograd.Function):
    """The same with step 2**round(log_step), which moves as LSQ moves a step size (Esser et al. 2020).

    LSQ's gradient of the step is the sum of grad * (code - y / step inside the bounds, code outside) over
    sqrt(numbers * high). A change of the step by d is one of its logarithm by d / (step ln 2), so divided by
    that: as the gradient of the logarithm itself, step ln 2 times it, a small step would never move.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, log_step: Tensor, low: int, high: int) -> Tensor:
        step = 2.0 ** int(torch.round(log_step))
        scaled = y / step
        codes = torch.round(scaled).clamp_(low, high)
        ctx.save_for_backward(scaled, codes)
        ctx.step, ctx.bounds = step, (low, high)
        return codes * step

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        scaled, codes = ctx.saved_tensors
        passed = torch.ops.aten.hardtanh_backward(grad, scaled, *ctx.bounds)
        slope = (grad * codes).sum(dtype=torch.float32) - (passed * scaled).sum(dtype=torch.float32)
        weight = 1 / (ctx.step * math.log(2) * math.sqrt(grad.numel() * ctx.bounds[1]))
        return passed, slope * weight, None, None


@dataclass(frozen=True)
class QuantSpec:
    """Weight and activation bits; `ends` are the weight bits of the stem and the linear layers.

    learned: activation ranges move in training. per_layer: one weight scale for a layer. layers: names or
    patterns of the body's layers that have other bits (`coc_deploy.layer_bits`).
    """

    weight_bits: int
    act_bits: int
    ends: int
    percentile: float = 99.9
    learned: bool = False
    per_layer: bool = False
    layers: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str, is_end: bool) -> tuple[int, int]:
        """Bits of a layer's weights and of what it gives, where that is not signed."""
        weights, activations = layer_bits.of(self.layers, name)
        return weights or (self.ends if is_end else self.weight_bits), activations or self.act_bits

    @property
    def for_heads(self) -> "QuantSpec":
        """The chain's bits alone."""
        return replace(self, layers={})


class ActQuant(nn.Module):
    """Rounds activations to `bits`-bit codes with a power-of-two step; signed or clipped at zero (ReLU).

    ceiling: where the float activation saturates (6 for ReLU6), so that ranges need not cover more;
    codes saturate at the largest one (docs/adr/0006). floor: the same to the left; of signed activations
    both are where the function that reads them saturates (docs/adr/0016). learned: the step moves in
    training, from the calibrated one, to another power of two where that lowers the loss.
    """

    exponent: Tensor

    def __init__(
        self,
        bits: int,
        signed: bool,
        exponent: int = 0,
        percentile: float = 99.9,
        ceiling: float | None = None,
        learned: bool = False,
        floor: float | None = None,
    ) -> None:
        super().__init__()
        self.bits, self.signed, self.percentile = bits, signed, percentile
        self.floor, self.ceiling = floor, ceiling
        self.zero_point = 1 << (bits - 1) if signed else 0
        self.mode = Mode.TRAIN
        self.peak = 0.0
        self._images, self._top = 0, np.zeros(0, np.float32)
        self.register_buffer("exponent", torch.tensor(exponent))
        self.log_step = nn.Parameter(torch.tensor(float(exponent))) if learned else None

    def forward(self, y: Tensor) -> Tensor:
        if self.mode is Mode.OBSERVE:
            y = y if self.signed else y.clamp(0, self.ceiling)
            limited = (self.floor, self.ceiling) != (None, None) and self.signed
            self._observe(y.detach().clamp(self.floor, self.ceiling) if limited else y.detach())
            return y
        high = (1 << self.bits) - 1 - self.zero_point
        if self.log_step is not None and self.mode is Mode.TRAIN:
            self.exponent.fill_(int(torch.round(self.log_step.detach())))
            learned: Tensor = _LearnedQuant.apply(y, self.log_step, -self.zero_point, high)
            return learned
        return _FakeQuant.apply(y, 2.0 ** -int(self.exponent), -self.zero_point, high)

    def begin(self, images: int) -> None:
        """The next passes in OBSERVE mode see parts of one group of so many images, until `end`."""
        self._images, self._top = images, np.zeros(0, np.float32)

    def end(self) -> None:
        """Take the group's percentile into the range; it does not depend on how the group was cut."""
        if len(self._top):
            self.peak = max(self.peak, float(np.fmin.reduce(self._top)))
        self._images, self._top = 0, np.zeros(0, np.float32)

    def _observe(self, y: Tensor) -> None:
        """Keep the group's largest values, as many as its percentile needs. Alone, y is a group."""
        if not self._images:
            self.begin(len(y))
            self._observe(y)
            self.end()
            return
        values = y.abs().flatten().numpy(force=True)
        numbers = values.size // len(y) * self._images
        kept = numbers - max(1, int(numbers * self.percentile / 100)) + 1
        self._top = np.concatenate([self._top, _largest(values, kept)])
        self._top = _largest(self._top, kept)

    def calibrate(self) -> None:
        """Set the step to the smallest power of two whose codes cover the observed percentile."""
        levels = self.zero_point if self.signed else (1 << self.bits) - 1
        exponent = int(np.ceil(np.log2(max(self.peak, 1e-6) / levels)))
        self.set_exponent(max(-MAX_EXPONENT, min(exponent, MAX_EXPONENT)))

    @torch.no_grad()
    def set_exponent(self, exponent: int) -> None:
        self.exponent.fill_(exponent)
        if self.log_step is not None:
            self.log_step.fill_(float(exponent))


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The largest of the values, which may change places."""
    if len(values) <= count:
        return values
    values.partition(len(values) - count)
    return values[-count:].copy()


def image_quant() -> ActQuant:
    """The type of the network's input: (pixel - 128) / 128."""
    return ActQuant(8, signed=True, exponent=-7)


def dorefa(weight: Tensor, bits: int, per_layer: bool = False) -> tuple[Tensor, Tensor]:
    """DoReFa integers and their scale per output channel, or one for the layer: weight ~ integers * scale.

    bits = 1: sign(w) and E|w|; bits > 1: the odd integers 2 q - (2**bits - 1) with
    q = round((2**bits - 1) * (tanh w / (2 max|tanh w|) + 1/2)) (Zhou et al. 2016), the maximum and the
    scale taken per channel or layer.
    """
    if per_layer:
        integers, scale = dorefa(weight.reshape(1, -1), bits)
        ones = weight.new_ones(len(weight), *[1] * (weight.dim() - 1))
        return integers.reshape(weight.shape), scale.flatten() * ones
    dims = tuple(range(1, weight.dim()))
    if bits == 1:
        integers = torch.where(weight >= 0, 1.0, -1.0)
        return integers, weight.abs().mean(dim=dims, keepdim=True).clamp_min(1e-12)
    levels = (1 << bits) - 1
    bounded = torch.tanh(weight)
    peak = bounded.abs().amax(dim=dims, keepdim=True).clamp_min(1e-12)
    codes = torch.round(levels * (bounded / (2 * peak) + 0.5)).clamp(0, levels)
    return 2 * codes - levels, peak / levels


def symmetric(weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit symmetric integers with scale * gain a power of two, so that the folded scale is one exactly."""
    peak = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).clamp_min(1e-12)
    scale = torch.exp2(torch.ceil(torch.log2(gain * peak / 127))) / gain
    return torch.round(weight / scale).clamp(-127, 127), scale
