"""Quantized units: train with straight-through estimators, evaluate in exactly the integers of coc_runtime.

A unit receives and returns real values; in INTEGER mode each value is (code - zero point) * 2**exponent
exactly, so that the float32 tensors carry the integers of `coc_runtime.ops` without rounding.
"""

import enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coc_runtime import arithmetic
from coc_runtime.arithmetic import Encoding


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


class ActQuant(nn.Module):
    """Rounds activations to `bits`-bit codes with a power-of-two step; signed or clipped at zero (ReLU)."""

    exponent: Tensor

    def __init__(self, bits: int, signed: bool, exponent: int = 0, percentile: float = 99.9) -> None:
        super().__init__()
        self.bits, self.signed, self.percentile = bits, signed, percentile
        self.zero_point = 1 << (bits - 1) if signed else 0
        self.mode = Mode.TRAIN
        self.peak = 0.0
        self.register_buffer("exponent", torch.tensor(exponent))

    def forward(self, y: Tensor) -> Tensor:
        if self.mode is Mode.OBSERVE:
            y = y if self.signed else functional.relu(y)
            self._observe(y.detach())
            return y
        high = (1 << self.bits) - 1 - self.zero_point
        return _FakeQuant.apply(y, 2.0 ** -int(self.exponent), -self.zero_point, high)

    def _observe(self, y: Tensor) -> None:
        flat = y.abs().flatten()
        rank = max(1, int(flat.numel() * self.percentile / 100))
        self.peak = max(self.peak, float(flat.kthvalue(rank).values))

    def calibrate(self) -> None:
        """Set the step to the smallest power of two whose codes cover the observed percentile."""
        levels = self.zero_point if self.signed else (1 << self.bits) - 1
        self.exponent.fill_(int(np.ceil(np.log2(max(self.peak, 1e-6) / levels))))


def image_quant() -> ActQuant:
    """The type of the network's input: (pixel - 128) / 128."""
    return ActQuant(8, signed=True, exponent=-7)


def dorefa(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """DoReFa integers and their scale per output channel: weight ~ integers * scale.

    bits = 1: sign(w) and E|w|; bits > 1: the odd integers 2 q - (2**bits - 1) with
    q = round((2**bits - 1) * (tanh w / (2 max|tanh w|) + 1/2)) (Zhou et al. 2016), the maximum and the
    scale taken per channel.
    """
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


class QConv(nn.Module):
    """Convolution, folded batch-norm and activation with `weight_bits`-bit weights."""

    def __init__(
        self, conv: nn.Conv2d, bn: nn.BatchNorm2d, weight_bits: int, source: ActQuant, act: ActQuant
    ) -> None:
        super().__init__()
        self.weight = conv.weight
        self.stride, self.padding, self.groups = conv.stride[0], conv.padding, conv.groups
        self.weight_bits = weight_bits
        self.bn, self.act = bn, act
        self.sources = (source,)  # a tuple: the unit before owns this module
        self.mode = Mode.TRAIN
        self._folded: tuple[Tensor, Tensor, Tensor] | None = None

    def set_mode(self, mode: Mode) -> None:
        self.mode = self.act.mode = mode
        self._folded = None

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(x, weight, None, self.stride, self.padding, 1, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode is Mode.OBSERVE:
            return self.act(self.bn(self.convolve(x, self.weight)))
        if self.mode is Mode.INTEGER:
            return self._integer(x)
        integers, scale = self._quantize()
        quantized = self.weight + (integers * scale - self.weight).detach()
        if self.mode is Mode.TRAIN:
            return self.act(self.bn(self.convolve(x, quantized)))
        gain, shift = self._batch_norm()
        _, rounded_scale, bias = self.fold()
        unit = 2.0 ** int(self.sources[0].exponent)
        exact_gain = torch.from_numpy(rounded_scale) / scale.flatten() * gain.sign()
        exact_shift = torch.from_numpy(bias * rounded_scale.astype(np.float64) * unit).float()
        gain = gain + (exact_gain - gain).detach()
        shift = shift + (exact_shift - shift).detach()
        y = self.convolve(x, quantized)
        return self.act(y * gain[:, None, None] + shift[:, None, None])

    def _batch_norm(self) -> tuple[Tensor, Tensor]:
        """Batch-norm as y = gain * x + shift, from the running statistics; gain is never exactly zero."""
        bn = self.bn
        assert bn.running_var is not None and bn.running_mean is not None
        gamma = torch.where(bn.weight.abs() < 1e-8, torch.full_like(bn.weight, 1e-8), bn.weight)
        gain = gamma / torch.sqrt(bn.running_var + bn.eps)
        return gain, bn.bias - bn.running_mean * gain

    @torch.no_grad()
    def _quantize(self) -> tuple[Tensor, Tensor]:
        if self.weight_bits == 8:
            return symmetric(self.weight, self._batch_norm()[0].abs()[:, None, None, None])
        return dorefa(self.weight, self.weight_bits)

    @torch.no_grad()
    def fold(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the exported graph holds: integers int32 [O, I, KH, KW], scale float32 [O], bias int32 [O]."""
        integers, scale = self._quantize()
        gain, shift = self._batch_norm()
        signed = (integers * gain.sign()[:, None, None, None]).numpy().astype(np.int32)
        real = (scale.flatten().double() * gain.abs().double()).numpy()
        source = self.sources[0]
        worst = arithmetic.worst_sum(signed, source.zero_point, source.bits)
        exact, bias = arithmetic.exact_scale_and_bias(
            real, shift.double().numpy(), int(source.exponent), worst
        )
        return signed, exact, bias

    @property
    def encoding(self) -> Encoding:
        return Encoding.SYMMETRIC if self.weight_bits == 8 else Encoding.ODD

    def _integer(self, x: Tensor) -> Tensor:
        if self._folded is None:
            integers, scale, bias = self.fold()
            unit = 2.0 ** int(self.sources[0].exponent)
            self._folded = (
                torch.from_numpy(integers).float(),
                torch.from_numpy(bias * unit).float()[:, None, None],
                torch.from_numpy(scale)[:, None, None],
            )
        integers_, bias_, scale_ = self._folded
        return self.act((self.convolve(x, integers_) + bias_) * scale_)


class QAdd(nn.Module):
    """Residual addition; the output's quantizer is the ReLU."""

    def __init__(self, act: ActQuant) -> None:
        super().__init__()
        self.act = act

    def set_mode(self, mode: Mode) -> None:
        self.act.mode = mode

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.act(a + b)


class QPool(nn.Module):
    """Global average pooling to [N, C], as an exact sum times float32(1 / count)."""

    def __init__(self, act: ActQuant) -> None:
        super().__init__()
        self.act = act

    def set_mode(self, mode: Mode) -> None:
        self.act.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[2] * x.shape[3]
        return self.act(x.float().sum(dim=(2, 3)) * float(np.float32(1) / np.float32(count)))


class QLinear(nn.Module):
    """Linear layer with one power-of-two weight scale; its exact sums are the logits."""

    def __init__(self, linear: nn.Linear, weight_bits: int, source: ActQuant) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.weight_bits = weight_bits
        self.sources = (source,)
        self.mode = Mode.TRAIN

    def set_mode(self, mode: Mode) -> None:
        self.mode = mode

    @property
    def encoding(self) -> Encoding:
        return Encoding.SYMMETRIC if self.weight_bits == 8 else Encoding.ODD

    @torch.no_grad()
    def fold(self) -> tuple[np.ndarray, int, np.ndarray]:
        """What the exported graph holds: integers int32 [O, I], exponent of their scale, bias int32 [O]."""
        flat = self.weight.reshape(1, -1)
        if self.weight_bits == 8:
            integers, scale = symmetric(flat, torch.ones(1, 1))
        else:
            integers, scale = dorefa(flat, self.weight_bits)
        exponent = int(torch.round(torch.log2(scale)))
        unit = 2.0 ** (int(self.sources[0].exponent) + exponent)
        bias = np.zeros(len(self.weight)) if self.bias is None else self.bias.double().numpy()
        return (
            integers.reshape(self.weight.shape).numpy().astype(np.int32),
            exponent,
            np.rint(bias / unit).astype(np.int32),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.mode is Mode.OBSERVE:
            return functional.linear(x, self.weight, self.bias)
        integers, exponent, bias = self.fold()
        exact = torch.from_numpy(integers).float() * 2.0**exponent
        exact_bias = torch.from_numpy(bias).float() * 2.0 ** (int(self.sources[0].exponent) + exponent)
        if self.mode is Mode.INTEGER:
            return functional.linear(x, exact, exact_bias)
        weight = self.weight + (exact - self.weight).detach()
        if self.bias is not None:
            exact_bias = self.bias + (exact_bias - self.bias).detach()
        return functional.linear(x, weight, exact_bias)


Unit = QConv | QAdd | QPool | QLinear
UNITS: tuple[type[nn.Module], ...] = (QConv, QAdd, QPool, QLinear)


def set_mode(module: nn.Module, mode: Mode) -> None:
    """Put every quantized unit inside `module` into `mode`."""
    for unit in module.modules():
        if isinstance(unit, UNITS):
            unit.set_mode(mode)  # type: ignore[operator]


@torch.no_grad()
def round_masters(module: nn.Module) -> None:
    """Round the float weights behind the integers to float16: a checkpoint holds them in half the bytes.

    Done when a stage's training ends and before anything is measured: what is saved is what was measured.
    """
    for unit in module.modules():
        if isinstance(unit, QConv | QLinear):
            unit.weight.copy_(unit.weight.half().float())
