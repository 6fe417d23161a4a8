"""Random numbers in training mode: which of them are stochastic depth or dropout, written out."""

from typing import Any

from torch import nn

from .builder import Builder
from .modules import Scale, StochasticDepth
from .program import BATCH, Constant
from .value import Call, Noise, Value

SOURCES = frozenset(["rand", "rand_like", "bernoulli", "uniform"])
"""Operators that draw."""
_KEPT = frozenset(
    ["view", "reshape", "expand", "unsqueeze", "to", "_to_copy", "clone", "contiguous", "type_as"]
)


def rule(b: Builder, call: Call) -> Any:
    """What an operation on random numbers gives: random numbers again, or a tensor with parts dropped."""
    if not b.training:
        raise call.refuse(f"random numbers outside of training ({call.op})")
    if call.op in SOURCES:
        return _drawn(call)
    noise, other = _sides(call)
    number = _number(other)
    if isinstance(other, Value) and call.op == "mul" and noise.rounded:
        return _dropped(b, call, other, noise)
    if call.op in _KEPT:
        return Noise(call.shape, noise.keep, noise.scale, noise.rounded)
    if call.op == "add" and number is not None and not noise.rounded:
        return Noise(call.shape, noise.keep + number)
    if call.op == "floor" and not noise.rounded:
        return Noise(call.shape, noise.keep, 1.0, True)
    if call.op in ("lt", "le", "ge", "gt") and number is not None and not noise.rounded and not noise.keep:
        return Noise(call.shape, number if call.op[0] == "l" else 1 - number, 1.0, True)
    if call.op in ("mul", "div") and number and noise.rounded and call["self"] is noise:
        return Noise(call.shape, noise.keep, noise.scale * (number if call.op == "mul" else 1 / number), True)
    raise call.refuse(f"{call.op} of random numbers")


def _drawn(call: Call) -> Noise:
    if call.op in ("rand", "rand_like"):
        return Noise(call.shape)
    if call.op == "uniform" and (call["from"], call["to"]) == (0, 1):
        return Noise(call.shape)
    if call.op == "bernoulli":
        keep, source = call.given.get("p"), call["self"]
        if keep is None and isinstance(source, Constant):
            values = source.tensor.unique()
            keep = float(values) if len(values) == 1 else None
        if isinstance(keep, int | float):
            return Noise(call.shape, float(keep), 1.0, True)
    raise call.refuse(f"random numbers ({call.op})")


def _sides(call: Call) -> tuple[Noise, Any]:
    """The random numbers among an operation's arguments, and what it combines them with."""
    first, second = call.given.get("self"), call.given.get("other")
    if isinstance(first, Noise) and not isinstance(second, Noise):
        return first, second
    if isinstance(second, Noise) and not isinstance(first, Noise):
        return second, first
    raise call.refuse(f"{call.op} of random numbers")


def _number(other: Any) -> float | None:
    if isinstance(other, Constant) and other.tensor.numel() == 1:
        return float(other.tensor)
    return float(other) if isinstance(other, int | float) else None


def _dropped(b: Builder, call: Call, value: Value, noise: Noise) -> Value:
    """The tensor times zeros and ones: whole images, whole channels or single values vanish."""
    p, scale = round(1 - noise.keep, 9), noise.scale
    value, before = _unscaled(b, value, noise.keep)
    scale *= before
    rescaled = abs(scale * noise.keep - 1) < 1e-6
    if noise.keep <= 0 or not (rescaled or scale == 1):
        raise call.refuse(f"dropping with probability {p:g} and a factor of {scale:g}")
    shape = (1,) * (len(value.shape) - len(noise.shape)) + noise.shape
    if all(size == 1 for size in shape[1:]):
        mode = "row" if shape[0] == BATCH else "batch"
        return b.apply(call, StochasticDepth(p, mode, rescaled), value)
    if shape == value.shape and rescaled:
        return b.each(call, nn.Dropout(p), value)
    if shape[:2] == value.shape[:2] and shape[2:] == (1, 1) and rescaled:
        return b.apply(call, nn.Dropout2d(p), value)
    raise call.refuse(f"dropping parts of shape {list(shape[1:])}", ": use Dropout, Dropout2d or drop path")


def _unscaled(b: Builder, value: Value, keep: float) -> tuple[Value, float]:
    """The tensor before it was divided by the probability to stay, if that was done last."""
    module = b.modules.get(str(value.node.target)) if value.node.op == "call_module" else None
    if isinstance(module, Scale) and module.constant.numel() == 1 and value.index is None:
        factor = float(module.constant.detach())
        if abs(factor * keep - 1) < 1e-6:
            source = value.node.all_input_nodes[0]
            return Value(source, source.meta["size"], value.shape, None, value.call), factor
    return value, 1.0
