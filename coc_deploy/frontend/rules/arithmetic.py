"""Additions and products, of two tensors and with constants."""

import operator
from typing import Any

import torch
from torch import Tensor

from ..builder import Builder, narrowed
from ..modules import Activation, Scale, Shift
from ..program import BATCH, Constant
from ..value import Call, Value, image_size
from .convolutions import parameter


def add(b: Builder, call: Call) -> Value | Constant:
    alpha = call.given.get("alpha", 1)
    if call.op == "rsub":
        return _sum(b, call, scaled(b, call, call["self"], -alpha), call["other"])
    factor = -alpha if call.op in ("sub", "subtract") else alpha
    return _sum(b, call, call["self"], scaled(b, call, call["other"], factor))


def _sum(b: Builder, call: Call, first: Any, second: Any) -> Value | Constant:
    if isinstance(first, Value) and isinstance(second, Value):
        return _joined(b, call, operator.add, first, second)
    value, constant = (first, second) if isinstance(first, Value) else (second, first)
    if isinstance(constant, Constant) and not constant.sources and not constant.tensor.any():
        constant = 0
    if isinstance(constant, int | float) and constant == 0 and value.shape == call.shape:
        return value
    return _with_constant(b, call, value, constant, Shift)


def multiply(b: Builder, call: Call) -> Value | Constant:
    first, second = call["self"], call["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        return _joined(b, call, operator.mul, first, second)
    return scaled(b, call, *((first, second) if isinstance(first, Value) else (second, first)))


def divide(b: Builder, call: Call) -> Value | Constant:
    first, second = call["self"], call["other"]
    if call.given.get("rounding_mode") is not None:
        raise call.refuse(f"division with rounding_mode '{call['rounding_mode']}'")
    if isinstance(second, Value):
        inverse = b.each(call, Activation("reciprocal"), second)
        if isinstance(first, Value):
            return _joined(b, call, operator.mul, first, inverse)
        return scaled(b, call, inverse, first)
    return scaled(b, call, first, _inverse(second))


def _inverse(constant: Any) -> Any:
    if isinstance(constant, Constant):
        return Constant(1 / constant.tensor.detach().double(), constant.sources, constant.learned)
    return 1 / constant


def negate(b: Builder, call: Call) -> Value | Constant:
    return scaled(b, call, call["self"], -1)


def scaled(b: Builder, call: Call, value: Any, factor: Any) -> Any:
    """The value times a constant; constants and numbers stay what they are."""
    if isinstance(value, int | float) and isinstance(factor, int | float):
        return value * factor
    if isinstance(value, Constant):
        other = factor.tensor if isinstance(factor, Constant) else factor
        if isinstance(other, int | float) and other == 1:
            return value
        return Constant(value.tensor.detach() * other, value.sources, value.learned)
    if isinstance(factor, int | float):
        if factor == 1:
            return value
        if factor == 0:
            return Constant(torch.zeros(value.shape))
    return _with_constant(b, call, value, factor, Scale)


def _joined(b: Builder, call: Call, function: Any, first: Value, second: Value) -> Value:
    """A sum or product of tensors that may broadcast over each other."""
    size = image_size(call.shape)
    if first.shape == second.shape and (b.steps(first) is None or size is None):
        alike = first.size == second.size and torch.equal(first.indices, second.indices)
        if alike:  # rearranged in the same way: that may as well come after
            node = b.function(call, function, (first.node, second.node), first.size).node
            return Value(node, first.size, first.shape, first.index, first.call, first.name)
    nodes = [b.node(_aligned(narrowed(value), call), call) for value in (first, second)]
    assert size is not None
    return b.function(call, function, nodes, size)


def _aligned(value: Value, call: Call) -> Value:
    """With as many dimensions as the result, so that it broadcasts as in the exported program."""
    missing = len(call.shape) - len(value.shape)
    if missing == 0:
        return value
    raise call.refuse(f"{call.op} of tensors with {len(value.shape)} and {len(call.shape)} dimensions")


def _with_constant(
    b: Builder, call: Call, value: Value, constant: Any, kind: type[Scale] | type[Shift]
) -> Value:
    if not isinstance(constant, Constant):
        constant = Constant(torch.tensor([float(constant)]))
    tensor = _of_image(call, value, constant.tensor)
    module = kind.of(tensor)
    if constant.learned:
        module = kind(tuple(tensor.shape), True)
        setattr(module, kind.held, parameter(constant, tuple(tensor.shape)))
    if tensor.numel() == 1:
        return b.each(call, module, value, (constant,))
    return b.apply(call, module, value, weights=(constant,), layer=False)


def _of_image(call: Call, value: Value, constant: Tensor) -> Tensor:
    """The constant in the shape that broadcasts against an image or vector of the canonical body."""
    if constant.numel() == 1:
        return constant.reshape(1)
    if torch.broadcast_shapes(constant.shape, value.shape) != value.shape:
        raise call.refuse(f"{call.op} with a constant of shape {list(constant.shape)}")
    full = constant.reshape((1,) * (len(value.shape) - constant.dim()) + tuple(constant.shape))
    if full.shape[0] == BATCH:
        if not torch.equal(full[0], full[1]):
            raise call.refuse(f"{call.op} with a constant that differs from image to image")
        full = full[:1]
    if len(value.shape) not in (2, 3, 4):
        raise call.refuse(f"{call.op} with a constant on {len(value.shape) - 1} dimensions")
    return full[0][:, None] if full.dim() == 3 else full[0]


RULES = {
    "add": add,
    "sub": add,
    "subtract": add,
    "rsub": add,
    "mul": multiply,
    "multiply": multiply,
    "div": divide,
    "divide": divide,
    "true_divide": divide,
    "neg": negate,
    "negative": negate,
}
