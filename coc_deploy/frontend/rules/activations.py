"""Functions of single values."""

import math
from typing import Any

from torch import nn

from ..builder import Builder
from ..modules import FUNCTIONS, Activation, clamp
from ..program import Constant
from ..value import Call, Value


def relu(b: Builder, call: Call) -> Value:
    return b.each(call, nn.ReLU(), call.value("self"))


def relu6(b: Builder, call: Call) -> Value:
    return b.each(call, nn.ReLU6(), call.value("self"))


def plain(b: Builder, call: Call) -> Value:
    """One that takes no numbers."""
    return b.each(call, Activation(call.op), call.value("self"))


def hardtanh(b: Builder, call: Call) -> Value:
    return b.each(call, clamp(call["min_val"], call["max_val"]), call.value("self"))


def clamped(b: Builder, call: Call) -> Value:
    low, high = (_number(call, call.given.get(name)) for name in ("min", "max"))
    return b.each(call, clamp(low, high), call.value("self"))


def maximum(b: Builder, call: Call) -> Value:
    """The larger (or smaller) of a tensor and a constant."""
    value, limit = call["self"], call["other"]
    if not isinstance(value, Value):
        value, limit = limit, value
    if isinstance(limit, Value):
        raise call.refuse(f"{call.op} of two tensors")
    number = _number(call, limit)
    module = clamp(number, None) if call.op == "maximum" else clamp(None, number)
    return b.each(call, module, value)


def gelu(b: Builder, call: Call) -> Value:
    kind = "gelu_tanh" if call["approximate"] == "tanh" else "gelu"
    return b.each(call, Activation(kind), call.value("self"))


def leaky_relu(b: Builder, call: Call) -> Value:
    return b.each(call, Activation("leaky_relu", (call["negative_slope"],)), call.value("self"))


def prelu(b: Builder, call: Call) -> Value:
    weight = call.constant("weight")
    assert weight is not None
    module = nn.PReLU(weight.tensor.numel())
    module.weight = nn.Parameter(weight.tensor.detach().reshape(-1).clone())
    if weight.whole and isinstance(weight.tensor, nn.Parameter):
        module.weight = weight.tensor
    return b.apply(call, module, call.value("self"), weights=(weight,))


def elu(b: Builder, call: Call) -> Value:
    """ELU and, written with it, SELU and CELU: scale * alpha * (exp(input_scale * x) - 1) below 0."""
    alpha, scale, input_scale = 1.0, 1.0, 1.0
    if call.op == "selu":
        alpha, scale = 1.6732632423543772, 1.0507009873554805
    elif call.op == "celu":
        alpha, input_scale = call["alpha"], 1 / call["alpha"]
    else:
        alpha, scale, input_scale = (call[name] for name in ("alpha", "scale", "input_scale"))
    return b.each(call, Activation("elu", (alpha, scale, input_scale)), call.value("self"))


def softplus(b: Builder, call: Call) -> Value:
    return b.each(call, Activation("softplus", (call["beta"], call["threshold"])), call.value("self"))


def threshold(b: Builder, call: Call) -> Value:
    return b.each(call, Activation("threshold", (call["threshold"], call["value"])), call.value("self"))


def shrink(b: Builder, call: Call) -> Value:
    return b.each(call, Activation(call.op, (call["lambd"],)), call.value("self"))


def power(b: Builder, call: Call) -> Value:
    exponent = 2.0 if call.op == "square" else _number(call, call["exponent"])
    assert exponent is not None
    return b.each(call, Activation("pow", (exponent,)), call.value("self"))


def _number(call: Call, given: Any) -> float | None:
    """A limit as a number, also where it is a constant tensor with one value."""
    if given is None or isinstance(given, int | float):
        return given
    if isinstance(given, Constant) and given.tensor.numel() == 1 and math.isfinite(float(given.tensor)):
        return float(given.tensor)
    raise call.refuse(f"{call.kind} with limits that are tensors")


RULES = {
    **{kind: plain for kind, (_, numbers) in FUNCTIONS.items() if numbers == 0},
    "relu": relu,
    "relu6": relu6,
    "hardtanh": hardtanh,
    "clamp": clamped,
    "clip": clamped,
    "clamp_min": clamped,
    "clamp_max": clamped,
    "maximum": maximum,
    "minimum": maximum,
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "elu": elu,
    "selu": elu,
    "celu": elu,
    "softplus": softplus,
    "threshold": threshold,
    "hardshrink": shrink,
    "softshrink": shrink,
    "pow": power,
    "square": power,
}
