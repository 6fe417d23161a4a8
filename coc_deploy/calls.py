"""What the calls in a traced graph are: names of functions and methods, and which modules are supported."""

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from coc_runtime.errors import CocError

from .shortcuts import ShortcutA

SUPPORTED = (
    "Conv2d, BatchNorm2d, ReLU, ReLU6, addition, concatenation of channels, max, average, adaptive and "
    "global pooling, zero padding, Flatten, Dropout, Linear"
)
SMOOTH = frozenset(
    ["hardswish", "silu", "gelu", "hardsigmoid", "sigmoid", "tanh", "hardtanh", "elu", "celu", "selu"]
    + ["leakyrelu", "leaky_relu", "prelu", "mish", "softplus"]
)
"""Activations in lower case, as modules and as functions."""
OWNERS = (nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.Linear)

HARDTANH = (functional.hardtanh, functional.hardtanh_)

FUNCTIONS: dict[Any, str] = {
    functional.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu_",
    functional.relu_: "relu_",
    functional.relu6: "relu6",
    functional.hardtanh: "clamp",
    functional.hardtanh_: "clamp_",
    torch.clamp: "clamp",
    torch.clamp_: "clamp_",
    functional.dropout: "dropout",
    functional.dropout2d: "dropout",
    functional.max_pool2d: "max_pool2d",
    torch.max_pool2d: "max_pool2d",
    functional.avg_pool2d: "avg_pool2d",
    functional.adaptive_avg_pool2d: "adaptive_avg_pool2d",
    functional.adaptive_max_pool2d: "adaptive_max_pool2d",
    torch.mean: "mean",
    torch.flatten: "reshape",
    torch.reshape: "reshape",
    torch.squeeze: "reshape",
    functional.pad: "pad",
    torch.cat: "cat",
    torch.concat: "cat",
    operator.add: "add",
    operator.iadd: "add_",
    torch.add: "add",
    functional.log_softmax: "softmax",
    functional.softmax: "softmax",
    torch.log_softmax: "softmax",
    torch.softmax: "softmax",
}
METHODS: dict[str, str] = {
    "relu": "relu",
    "relu_": "relu_",
    "clamp": "clamp",
    "clamp_": "clamp_",
    "mean": "mean",
    "flatten": "reshape",
    "view": "reshape",
    "reshape": "reshape",
    "squeeze": "reshape",
    "add": "add",
    "add_": "add_",
    "contiguous": "same",
    "clone": "same",
    "log_softmax": "softmax",
    "softmax": "softmax",
}
"""What functions and methods compute; an operation that ends in "_" leaves its result in its first input."""
POOLING = ("kernel_size", "stride", "padding")


def where(node: fx.Node) -> str:
    """The module that a node is, or that it lies in, as a name for messages."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack")
    outer = next(reversed(stack)) if stack else ""
    return outer or node.name


def operation(node: fx.Node) -> str | None:
    """What a call of a function or method computes, by the names of `FUNCTIONS`; None for a module."""
    if node.op == "call_method":
        return METHODS.get(str(node.target))
    return FUNCTIONS.get(node.target) if node.op == "call_function" else None


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of an int or a sequence of two."""
    return (int(value[0]), int(value[1])) if isinstance(value, tuple | list) else (int(value), int(value))


_MODULES = (
    nn.Linear,
    nn.ReLU,
    nn.ReLU6,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.ZeroPad2d,
    nn.ConstantPad2d,
    nn.Softmax,
    nn.LogSoftmax,
    ShortcutA,
)


def refuse(name: str, kind: str, why: str = "") -> CocError:
    return CocError(f"{name}: {kind} is not supported{why or f'; supported: {SUPPORTED}'}")


def unknown(name: str, kind: str) -> CocError:
    smooth = kind.lower() in SMOOTH
    return refuse(name, kind, ": it has no integer form here, use ReLU or ReLU6 instead" if smooth else "")


def check_module(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    check_tensors(name, module)
    if isinstance(module, nn.Conv2d):
        if pair(module.dilation) != (1, 1):
            raise refuse(name, f"dilation {pair(module.dilation)}", ": convolutions must have dilation 1")
        if module.padding_mode != "zeros":
            raise refuse(name, f"padding_mode '{module.padding_mode}'", ": use zeros")
        if len(set(module.stride)) != 1:
            raise refuse(name, f"stride {module.stride}", ": use one stride for both directions")
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        if not module.track_running_stats:
            raise refuse(name, f"{kind} without running statistics", "")
    elif isinstance(module, nn.ReLU6) and (module.min_val, module.max_val) != (0, 6):
        raise refuse(name, f"a ReLU6 that clamps to {(module.min_val, module.max_val)}", "")
    elif not isinstance(module, _MODULES):
        raise unknown(name, kind)


TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def check_tensors(name: str, module: nn.Module) -> None:
    """Raise CocError where a layer's weights are computed from others."""
    if not isinstance(module, OWNERS):
        return
    held = {n for n, _ in (*module.named_parameters(), *module.named_buffers())}
    others = sorted(held - TENSORS)
    if others or not {"weight", "bias"} <= module._parameters.keys():
        made_of = ", ".join(others) or "something else"
        raise refuse(
            name,
            f"a weight that is computed from {made_of}",
            ": make it a plain weight first (torch.nn.utils.parametrize.remove_parametrizations, "
            "remove_weight_norm, remove_spectral_norm, prune.remove)",
        )
