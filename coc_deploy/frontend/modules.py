"""Canonical modules that torch.nn does not have: what a traced body consists of beside torch.nn's own.

All of them are pure functions of their input, trained parameters aside, and are described by numbers, so that
`coc_deploy.body` can store them.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def _clamp(x: Tensor, low: float, high: float) -> Tensor:
    return torch.clamp(x, low, high)


def _tanh_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


FUNCTIONS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "abs": (torch.abs, 0),
    "clamp": (_clamp, 2),
    "elu": (torch.ops.aten.elu, 3),
    "erf": (torch.erf, 0),
    "exp": (torch.exp, 0),
    "gelu": (functional.gelu, 0),
    "gelu_tanh": (_tanh_gelu, 0),
    "hardshrink": (functional.hardshrink, 1),
    "hardsigmoid": (functional.hardsigmoid, 0),
    "hardswish": (functional.hardswish, 0),
    "leaky_relu": (functional.leaky_relu, 1),
    "log": (torch.log, 0),
    "log_sigmoid": (functional.logsigmoid, 0),
    "mish": (functional.mish, 0),
    "pow": (torch.pow, 1),
    "reciprocal": (torch.reciprocal, 0),
    "rsqrt": (torch.rsqrt, 0),
    "sigmoid": (torch.sigmoid, 0),
    "sign": (torch.sign, 0),
    "silu": (functional.silu, 0),
    "softplus": (functional.softplus, 2),
    "softshrink": (functional.softshrink, 1),
    "sqrt": (torch.sqrt, 0),
    "tanh": (torch.tanh, 0),
    "threshold": (functional.threshold, 2),
}
"""Kind -> the function of one tensor, and how many numbers it takes beside."""


class Activation(nn.Module):
    """A function of single values, one of `FUNCTIONS`: "hardswish", "silu", "clamp" with (low, high), ...

    arguments: numbers that the function takes behind the tensor; a clamp without a limit has an infinite one.
    """

    def __init__(self, function: str, arguments: Sequence[float] = ()) -> None:
        super().__init__()
        if function not in FUNCTIONS or len(arguments) != FUNCTIONS[function][1]:
            raise ValueError(f"no activation '{function}' with arguments {list(arguments)}")
        self.function, self.arguments = function, tuple(float(number) for number in arguments)

    def forward(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.function][0](x, *self.arguments)

    def extra_repr(self) -> str:
        return ", ".join([self.function, *(f"{number:g}" for number in self.arguments)])


class _Constant(nn.Module):
    """A constant for all values, for each channel, or for each value of an image.

    shape: broadcast against an image [C, H, W] or a vector [F]. learned: whether training changes it; then it
    is a parameter, otherwise `value` holds its numbers in order.
    """

    held = ""
    """Name of the tensor."""
    neutral = 0.0

    def __init__(self, shape: Sequence[int], learned: bool, value: Sequence[float] | None = None) -> None:
        super().__init__()
        self.shape, self.learned = tuple(shape), learned
        if value is None:
            constant = torch.full(self.shape, self.neutral)
        else:
            constant = torch.tensor(value, dtype=torch.float32).reshape(self.shape)
        if learned:
            self.register_parameter(self.held, nn.Parameter(constant))
        else:
            self.register_buffer(self.held, constant, persistent=False)

    @property
    def constant(self) -> Tensor:
        return getattr(self, self.held)

    @property
    def value(self) -> list[float] | None:
        return None if self.learned else self.constant.flatten().tolist()

    @classmethod
    def of(cls, constant: Tensor) -> "_Constant":
        """One that is not learned."""
        return cls(tuple(constant.shape), False, constant.detach().flatten().tolist())


class Scale(_Constant):
    """Multiplication by a constant."""

    held, neutral = "weight", 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constant


class Shift(_Constant):
    """Addition of a constant."""

    held = "bias"

    def forward(self, x: Tensor) -> Tensor:
        return x + self.constant


class Slice(nn.Module):
    """Channels [start, stop) of an image, or values of a vector."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.stop]

    def extra_repr(self) -> str:
        return f"{self.start}, {self.stop}"


class Select(nn.Module):
    """Channels of an image, or values of a vector, in any order; some may occur again."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.indices = tuple(int(index) for index in indices)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, list(self.indices)]


class PadChannels(nn.Module):
    """Channels of zeros in front and behind."""

    def __init__(self, front: int, behind: int) -> None:
        super().__init__()
        self.front, self.behind = front, behind

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, (0, 0, 0, 0, self.front, self.behind))


class Crop(nn.Module):
    """An image without some of its border: rows and columns to leave out on each side."""

    def __init__(self, top: int, left: int, bottom: int, right: int) -> None:
        super().__init__()
        self.top, self.left, self.bottom, self.right = top, left, bottom, right

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.top : x.shape[2] - self.bottom, self.left : x.shape[3] - self.right]


class AsImage(nn.Module):
    """A vector [N, C] as an image of one pixel, [N, C, 1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None, None]


class Reshape(nn.Module):
    """Values of an image or vector, in their order, as an image of another shape: channels, height, width."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)


class StochasticDepth(nn.Module):
    """Stochastic depth (Huang et al. 2016): training leaves a branch out with probability p.

    mode: "row" decides for each image, "batch" for all at once. rescaled: what stays is divided by 1 - p.
    Outside of training nothing happens.
    """

    def __init__(self, p: float, mode: str, rescaled: bool = True) -> None:
        super().__init__()
        if mode not in ("row", "batch"):
            raise ValueError(f"stochastic depth by '{mode}'")
        self.p, self.mode, self.rescaled = p, mode, rescaled

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        size = [x.shape[0] if self.mode == "row" else 1] + [1] * (x.dim() - 1)
        stays = torch.empty(size, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        if self.rescaled and self.p < 1:
            stays = stays / (1 - self.p)
        return x * stays

    def extra_repr(self) -> str:
        return f"{self.p:g}, {self.mode}"


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.PReLU, Activation)
"""Modules that are functions of single values."""

FIXED = (Slice, Select, PadChannels, Reshape, nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle)
"""Modules that know how many channels come in, so that channels cannot be removed in front of them."""


def clamp(low: float | None, high: float | None) -> nn.Module:
    """The canonical module that clamps: ReLU and ReLU6 where it is one of them."""
    limits = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    if limits == (0, math.inf):
        return nn.ReLU()
    if limits == (0, 6):
        return nn.ReLU6()
    return Activation("clamp", limits)
