"""Functions of single values as float ONNX nodes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx, nn

from coc_deploy.frontend.modules import Activation, Scale, Shift
from coc_runtime.errors import CocError

from .float_writer import FloatWriter

PLAIN = {
    "abs": "Abs",
    "erf": "Erf",
    "exp": "Exp",
    "hardswish": "HardSwish",
    "log": "Log",
    "mish": "Mish",
    "reciprocal": "Reciprocal",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
"""Those that are one node without attributes."""


class _Steps:
    """The nodes of one function, each on what the one before gives; the last gives the output."""

    def __init__(self, writer: FloatWriter, node: fx.Node) -> None:
        self.writer, self.node, self.source = writer, node, str(node.args[0])
        self.count = 0

    def __call__(self, op: str, *inputs: str | float, last: bool = False, **attributes: Any) -> str:
        self.count += 1
        output = self.node.name if last else f"{self.node.name}.{self.count}"
        names = [name if isinstance(name, str) else self.number(name) for name in inputs]
        return self.writer.node(op, names, output, **attributes)

    def number(self, value: float) -> str:
        self.count += 1
        return self.writer.constant(f"{self.node.name}.{self.count}", np.array(value, np.float32))


def _silu(do: _Steps) -> None:
    do("Mul", do.source, do("Sigmoid", do.source), last=True)


def _rsqrt(do: _Steps) -> None:
    do("Reciprocal", do("Sqrt", do.source), last=True)


def _log_sigmoid(do: _Steps) -> None:
    do("Neg", do("Softplus", do("Neg", do.source)), last=True)


def _softplus(do: _Steps, beta: float, threshold: float) -> None:
    """Beyond the threshold torch's is linear, as this one is within rounding."""
    do("Mul", do("Softplus", do("Mul", do.source, beta)), 1 / beta, last=True)


def _elu(do: _Steps, alpha: float, scale: float, input_scale: float) -> None:
    """scale * (max(x, 0) + alpha * (exp(input_scale * min(x, 0)) - 1))"""
    negative = do("Neg", do("Relu", do("Mul", do.source, -input_scale)))
    both = do("Add", do("Relu", do.source), do("Elu", negative, alpha=alpha))
    do("Mul", both, scale, last=True)


def _clamp(do: _Steps, low: float, high: float) -> None:
    limits = ["" if math.isinf(limit) else do.number(limit) for limit in (low, high)]
    do("Clip", do.source, *limits, last=True)


def _threshold(do: _Steps, threshold: float, value: float) -> None:
    do("Where", do("Greater", do.source, threshold), do.source, value, last=True)


OTHERS: dict[str, Callable[..., object]] = {
    "clamp": _clamp,
    "elu": _elu,
    "gelu": lambda do: do("Gelu", do.source, last=True),
    "gelu_tanh": lambda do: do("Gelu", do.source, last=True, approximate="tanh"),
    "hardshrink": lambda do, limit: do("Shrink", do.source, last=True, lambd=limit),
    "hardsigmoid": lambda do: do("HardSigmoid", do.source, last=True, alpha=1 / 6, beta=0.5),
    "leaky_relu": lambda do, slope: do("LeakyRelu", do.source, last=True, alpha=slope),
    "log_sigmoid": _log_sigmoid,
    "pow": lambda do, exponent: do("Pow", do.source, exponent, last=True),
    "rsqrt": _rsqrt,
    "silu": _silu,
    "softplus": _softplus,
    "softshrink": lambda do, limit: do("Shrink", do.source, last=True, lambd=limit, bias=limit),
    "threshold": _threshold,
}
"""The nodes of the others, of their arguments."""


def write_activation(writer: FloatWriter, node: fx.Node, module: Activation) -> None:
    do = _Steps(writer, node)
    if module.function in PLAIN:
        do(PLAIN[module.function], do.source, last=True)
    elif module.function in OTHERS:
        OTHERS[module.function](do, *module.arguments)
    else:
        raise CocError(f"{node.name}: {module.function} cannot be exported to float ONNX")


def write_prelu(writer: FloatWriter, node: fx.Node, prelu: nn.PReLU) -> None:
    """A slope for each channel broadcasts over the pixels of images."""
    slopes = prelu.weight.detach().numpy()
    if len(slopes) > 1 and len(writer.shapes[node.name]) == 3:
        slopes = slopes[:, None, None]
    writer.node("PRelu", [str(node.args[0]), writer.constant(f"{node.name}.weight", slopes)], node.name)


def write_constant(writer: FloatWriter, node: fx.Node, module: Scale | Shift) -> None:
    value = writer.constant(f"{node.name}.{module.held}", module.constant.detach().numpy())
    writer.node("Mul" if isinstance(module, Scale) else "Add", [str(node.args[0]), value], node.name)
