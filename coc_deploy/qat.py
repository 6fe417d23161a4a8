"""Quantized units: train with straight-through estimators, evaluate in exactly the integers of coc_runtime.

A unit receives and returns real values; in INTEGER mode each value is (code - zero point) * 2**exponent
exactly, so that the float32 tensors carry the integers of `coc_runtime.ops` without rounding.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coc_runtime import arithmetic
from coc_runtime.arithmetic import Encoding
from coc_runtime.errors import CocError
from coc_runtime.ops import windows
from coc_runtime.ops.windows import Stride, down_and_across, stride_of

from .convolution import convolve
from .lookup import QLookup
from .quantizers import ActQuant, Mode, dorefa, image_quant, symmetric

__all__ = ["ActQuant", "Mode", "QLookup", "dorefa", "image_quant", "symmetric"]


class Bias(nn.Module):
    """What stands for batch-norm behind a convolution that has none."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias[:, None, None]


Pads = tuple[int, int, int, int]
"""top, left, bottom, right"""


def _pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    top, left, bottom, right = pads
    return functional.pad(x, (left, right, top, bottom), value=value)


class QConv(nn.Module):
    """Convolution, folded batch-norm (or bias) and activation with `weight_bits`-bit weights."""

    def __init__(
        self,
        conv: nn.Conv2d,
        bn: nn.BatchNorm2d | Bias,
        weight_bits: int,
        source: ActQuant,
        act: ActQuant,
        extra: Pads = (0, 0, 0, 0),
        alone: bool = False,
        per_layer: bool = False,
    ) -> None:
        """extra: padding in front of the convolution beside its own. alone: the unit stands for batch-norm
        that no convolution precedes, so its weights, ones, are not trained. per_layer: one weight scale
        instead of one for each output channel, below 8 bits."""
        super().__init__()
        self.weight, self.alone = conv.weight, alone
        self.stride, self.groups = stride_of(*conv.stride), conv.groups
        rows, columns = conv.weight.shape[2:]
        self.dilation = windows.dilation_of((rows, columns), *conv.dilation)
        height, width = (int(p) for p in conv.padding)
        self.pads: Pads = (height + extra[0], width + extra[1], height + extra[2], width + extra[3])
        self.weight_bits, self.per_layer = weight_bits, per_layer
        self.bn, self.act = bn, act
        self.sources = (source,)  # a tuple: the unit before owns this module
        self.mode = Mode.TRAIN
        self._folded: tuple[Tensor, Tensor, Tensor] | None = None

    def set_mode(self, mode: Mode) -> None:
        self.mode = self.act.mode = mode
        self._folded = None

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        top, left, bottom, right = self.pads
        if (top, left) != (bottom, right):
            x, top, left = _pad(x, self.pads), 0, 0
        strides, dilation = down_and_across(self.stride), down_and_across(self.dilation)
        return convolve(x, weight, None, strides, (top, left), self.groups, dilation)

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
        exact_gain = torch.from_numpy(rounded_scale).to(x.device) / scale.flatten() * gain.sign()
        exact_shift = torch.from_numpy(bias * rounded_scale.astype(np.float64) * unit).float().to(x.device)
        gain = gain + (exact_gain - gain).detach()
        shift = shift + (exact_shift - shift).detach()
        y = self.convolve(x, quantized)
        return self.act(y * gain[:, None, None] + shift[:, None, None])

    def _batch_norm(self) -> tuple[Tensor, Tensor]:
        """Batch-norm as y = gain * x + shift, from the running statistics; gain is never exactly zero."""
        bn = self.bn
        if isinstance(bn, Bias):
            return torch.ones_like(bn.bias), bn.bias
        assert bn.running_var is not None and bn.running_mean is not None
        gamma = torch.where(bn.weight.abs() < 1e-8, torch.full_like(bn.weight, 1e-8), bn.weight)
        gain = gamma / torch.sqrt(bn.running_var + bn.eps)
        return gain, bn.bias - bn.running_mean * gain

    @torch.no_grad()
    def _quantize(self) -> tuple[Tensor, Tensor]:
        if self.weight_bits == 8:
            return symmetric(self.weight, self._batch_norm()[0].abs()[:, None, None, None])
        return dorefa(self.weight, self.weight_bits, self.per_layer)

    def integers(self) -> np.ndarray:
        """The weights as integers, int32 [O, I, KH, KW], before the signs of batch-norm."""
        return self._quantize()[0].cpu().numpy().astype(np.int32)

    @torch.no_grad()
    def fold(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the exported graph holds: integers int32 [O, I, KH, KW], scale float32 [O], bias int32 [O]."""
        integers, scale = self._quantize()
        gain, shift = self._batch_norm()
        if not (self.weight.isfinite().all() and gain.isfinite().all() and shift.isfinite().all()):
            raise CocError("weights or batch-norm are no longer finite: lower the learning rate")
        signed = (integers * gain.sign()[:, None, None, None]).cpu().numpy().astype(np.int32)
        real = (scale.flatten().double() * gain.abs().double()).cpu().numpy()
        source = self.sources[0]
        worst = arithmetic.worst_sum(signed, source.zero_point, source.bits)
        exact, bias = arithmetic.exact_scale_and_bias(
            real, shift.double().cpu().numpy(), int(source.exponent), worst
        )
        return signed, exact, bias

    @property
    def encoding(self) -> Encoding:
        return Encoding.SYMMETRIC if self.weight_bits == 8 else Encoding.ODD

    def _integer(self, x: Tensor) -> Tensor:
        """Sums in float32 where that holds all of them, else in float64, rounded to float32 once."""
        if self._folded is None:
            integers, scale, bias = self.fold()
            unit = 2.0 ** int(self.sources[0].exponent)
            dtype = _holding(integers, bias, self.sources[0])
            self._folded = (
                torch.from_numpy(integers).to(x.device, dtype),
                torch.from_numpy(bias * unit)[:, None, None].to(x.device, dtype),
                torch.from_numpy(scale)[:, None, None].to(x.device),
            )
        integers_, bias_, scale_ = self._folded
        sums = self.convolve(x.to(integers_.dtype), integers_) + bias_
        return self.act(sums.float() * scale_)


def _holding(integers: np.ndarray, bias: np.ndarray, source: ActQuant) -> torch.dtype:
    """The float type that holds every sum of a layer with its bias exactly."""
    worst = arithmetic.worst_sum(integers, source.zero_point, source.bits) + np.abs(bias.astype(np.int64))
    return torch.float32 if worst.max() < arithmetic.EXACT_LIMIT else torch.float64


class _Rounded(nn.Module):
    """A unit without weights, whose result the quantizer of its output rounds."""

    def __init__(self, act: ActQuant) -> None:
        super().__init__()
        self.act = act

    @property
    def mode(self) -> Mode:
        return self.act.mode

    def set_mode(self, mode: Mode) -> None:
        self.act.mode = mode


class QAdd(_Rounded):
    """Residual addition; the output's quantizer is the ReLU."""

    def __init__(self, act: ActQuant, sources: tuple[ActQuant, ...] = ()) -> None:
        super().__init__(act)
        self.sources = sources

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.act(a + b)


class QMul(_Rounded):
    """Product of two tensors of one shape, or of an image with a number for each channel."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.act(a * b)


class QPool(_Rounded):
    """Global average pooling to [N, C], as an exact sum times float32(1 / count)."""

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[2] * x.shape[3]
        return self.act(x.float().sum(dim=(2, 3)) * float(np.float32(1) / np.float32(count)))


class QAvgPool(_Rounded):
    """Average of windows, padding included as 0: an exact sum times float32(1 / count), then rounded.

    With a 1x1 window it only rounds to another type: a ReLU on its own.
    """

    def __init__(self, act: ActQuant, kernel: tuple[int, int], stride: Stride, pads: Pads) -> None:
        super().__init__(act)
        self.kernel, self.stride, self.pads = kernel, stride, pads

    def forward(self, x: Tensor) -> Tensor:
        padded = _pad(x.float(), self.pads) if any(self.pads) else x.float()
        total = functional.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)
        count = self.kernel[0] * self.kernel[1]
        return self.act(total * float(np.float32(1) / np.float32(count)))


class _Uneven(_Rounded):
    """Means of windows that hold different numbers of pixels: exact sums times float32(1 / pixels)."""

    def spans(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows' rows and columns, as `windows.inside` gives them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        sizes = x.shape[2], x.shape[3]
        sides = zip(self.spans(*sizes), sizes, strict=True)
        rows, columns = (torch.from_numpy(windows.members(*side)).to(x.device) for side in sides)
        counts = (rows.sum(1)[:, None] * columns.sum(1)).cpu().numpy()
        means = rows @ x.float() @ columns.T * torch.from_numpy(np.float32(1) / counts).to(x.device)
        return self.act(means)


class QPixelAvgPool(_Uneven):
    """Average of the pixels of windows; padding does not count. module: what it is in the float body."""

    def __init__(
        self, act: ActQuant, kernel: tuple[int, int], stride: Stride, pads: Pads, module: nn.Module
    ) -> None:
        super().__init__(act)
        self.kernel, self.stride, self.pads, self.module = kernel, stride, pads, module

    def spans(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        (top, left, bottom, right), (down, across) = self.pads, down_and_across(self.stride)
        rows = windows.inside(height, self.kernel[0], down, top, bottom)
        return rows, windows.inside(width, self.kernel[1], across, left, right)


class QAdaptiveAvgPool(_Uneven):
    """Averages of a grid of windows, down and across. module: what it is in the float body."""

    def __init__(self, act: ActQuant, size: tuple[int, int], module: nn.Module) -> None:
        super().__init__(act)
        self.size, self.module = size, module

    def spans(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return windows.grid(height, self.size[0]), windows.grid(width, self.size[1])


class _Codes(nn.Module):
    """A unit that moves codes without changing them: its type is its input's."""

    def __init__(self, source: ActQuant) -> None:
        super().__init__()
        self.sources = (source,)

    @property
    def act(self) -> ActQuant:
        return self.sources[0]

    @property
    def mode(self) -> Mode:
        return self.act.mode

    def set_mode(self, mode: Mode) -> None:
        """The unit that made the codes owns their quantizer."""


class QMaxPool(_Codes):
    """Maximum of windows; padding never wins."""

    def __init__(self, source: ActQuant, kernel: tuple[int, int], stride: Stride, pads: Pads) -> None:
        super().__init__(source)
        self.kernel, self.stride, self.pads = kernel, stride, pads

    def forward(self, x: Tensor) -> Tensor:
        padded = _pad(x, self.pads, -torch.inf) if any(self.pads) else x
        return functional.max_pool2d(padded, self.kernel, self.stride)


class QFlatten(_Codes):
    """[N, C, H, W] as [N, C * H * W]."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(x, 1)


class QSelect(_Codes):
    """Channels in another order, some left out or taken again, as a module of the float body chooses them."""

    def __init__(self, source: ActQuant, module: nn.Module) -> None:
        super().__init__(source)
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = self.module(x)
        return chosen

    def indices(self, channels: int) -> np.ndarray:
        """Which of so many channels it gives, int32."""
        numbers = torch.arange(channels, dtype=torch.float32).reshape(1, channels, 1, 1)
        return self.module(numbers).flatten().numpy().astype(np.int32)


class QLogits(_Codes):
    """Values as logits, where no linear layer gives them."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class QConcat(_Rounded):
    """Channels of all inputs, each rounded to the output's type."""

    def forward(self, parts: list[Tensor], dim: int = 1) -> Tensor:
        return self.act(torch.cat(parts, dim))


BIAS_UNITS = 1 << 23
"""A bias of logits is at most so many units of their sums."""


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

    def integers(self) -> np.ndarray:
        """The weights as integers, int32 [O, I]."""
        return self.fold()[0]

    @torch.no_grad()
    def fold(self) -> tuple[np.ndarray, int, np.ndarray]:
        """What the exported graph holds: integers int32 [O, I], exponent of their scale, bias int32 [O]."""
        flat = self.weight.reshape(1, -1)
        if self.weight_bits == 8:
            integers, scale = symmetric(flat, flat.new_ones(1, 1))
        else:
            integers, scale = dorefa(flat, self.weight_bits)
        exponent = int(torch.round(torch.log2(scale)))
        bias = np.zeros(len(self.weight)) if self.bias is None else self.bias.double().cpu().numpy()
        largest = max(float(np.abs(bias).max()), 1e-30)
        least = math.ceil(math.log2(largest / BIAS_UNITS)) - int(self.sources[0].exponent)
        if exponent < least:  # a scale too small for its bias is raised
            exponent = least
            if self.weight_bits == 8:
                integers = torch.round(flat * 2.0**-exponent)
        unit = 2.0 ** (int(self.sources[0].exponent) + exponent)
        return (
            integers.reshape(self.weight.shape).cpu().numpy().astype(np.int32),
            exponent,
            np.rint(bias / unit).astype(np.int32),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.mode is Mode.OBSERVE:
            return functional.linear(x, self.weight, self.bias)
        integers, exponent, bias = self.fold()
        unit = 2.0 ** (int(self.sources[0].exponent) + exponent)
        exact, exact_bias = torch.from_numpy(integers).to(x.device), torch.from_numpy(bias).to(x.device)
        if self.mode is Mode.INTEGER:
            dtype = _holding(integers, bias, self.sources[0])
            weight = exact.to(dtype) * 2.0**exponent
            return functional.linear(x.to(dtype), weight, exact_bias.to(dtype) * unit).float()
        exact, exact_bias = exact.float() * 2.0**exponent, exact_bias.float() * unit
        weight = self.weight + (exact - self.weight).detach()
        if self.bias is not None:
            exact_bias = self.bias + (exact_bias - self.bias).detach()
        return functional.linear(x, weight, exact_bias)


Unit = (
    QConv
    | QAdd
    | QMul
    | QLookup
    | QPool
    | QAvgPool
    | QPixelAvgPool
    | QAdaptiveAvgPool
    | QMaxPool
    | QFlatten
    | QSelect
    | QConcat
    | QLinear
    | QLogits
)
UNITS: tuple[type[nn.Module], ...] = Unit.__args__


def set_mode(module: nn.Module, mode: Mode) -> None:
    """Put every quantized unit inside `module` into `mode`."""
    for unit in module.modules():
        if isinstance(unit, UNITS):
            unit.set_mode(mode)  # type: ignore[operator]


def check_sums(network: nn.Module, wider: Sequence[int] = ()) -> None:
    """Raise CocError, naming the layer, where sums would not fit 32 bits, whatever training makes of weights.

    wider: bits that hidden layers have before the chain's.
    """
    for name, unit in network.named_modules():
        if not isinstance(unit, QConv | QLinear):
            continue
        inputs, source = unit.weight[0].numel(), unit.sources[0]
        bits = max([unit.weight_bits, *(int(each) for each in wider if isinstance(unit, QConv))])
        largest = np.full((1, inputs), 127 if bits == 8 else (1 << bits) - 1)
        worst = int(arithmetic.worst_sum(largest, source.zero_point, source.bits).max())
        if worst >= arithmetic.WIDEST_SUM:
            layer = name.removeprefix("body.")
            raise CocError(
                f"{layer}: sums of {inputs:,} inputs in {source.bits} bits at {bits}-bit weights "
                f"reach {worst:,} and would not fit 32 bits: use q.bits with fewer bits, or give the layer "
                "fewer inputs"
            )


@torch.no_grad()
def round_masters(module: nn.Module) -> None:
    """Round the float weights behind the integers to float16: a checkpoint holds them in half the bytes.

    Done when a stage's training ends and before anything is measured: what is saved is what was measured.
    """
    for unit in module.modules():
        if isinstance(unit, QConv | QLinear):
            unit.weight.copy_(unit.weight.half().float())
