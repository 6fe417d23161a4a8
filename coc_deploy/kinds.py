"""The kinds of modules that a float body consists of, and what makes one of them anew."""

from typing import Any

import torch
from torch import nn

from .convolution import Conv2d
from .shortcuts import ShortcutA

KINDS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "Conv2d": (
        Conv2d,
        ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "bias"),
    ),
    "BatchNorm2d": (nn.BatchNorm2d, ("num_features", "eps", "momentum")),
    "BatchNorm1d": (nn.BatchNorm1d, ("num_features", "eps", "momentum")),
    "Linear": (nn.Linear, ("in_features", "out_features", "bias")),
    "ReLU": (nn.ReLU, ()),
    "ReLU6": (nn.ReLU6, ()),
    "Dropout": (nn.Dropout, ("p",)),
    "Dropout2d": (nn.Dropout2d, ("p",)),
    "MaxPool2d": (nn.MaxPool2d, ("kernel_size", "stride", "padding", "ceil_mode")),
    "AvgPool2d": (nn.AvgPool2d, ("kernel_size", "stride", "padding")),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "ZeroPad2d": (nn.ZeroPad2d, ("padding",)),
    "Flatten": (nn.Flatten, ()),
    "ShortcutA": (ShortcutA, ("channels_in", "channels_out", "stride")),
}
"""Kind -> class and the attributes that its constructor takes as keywords."""

PACKAGES = ("torch", "coc_deploy")
"""Whose classes name kinds: a subclass of theirs is a user's that computes the same."""


def arguments(module: nn.Module) -> dict[str, Any]:
    """The module's kind, and what its constructor takes, as plain data."""
    names = (cls.__name__ for cls in type(module).__mro__ if cls.__module__.split(".")[0] in PACKAGES)
    kind = next(name for name in names if name in KINDS)
    values = {name: getattr(module, name) for name in KINDS[kind][1]}
    if "bias" in values:
        values["bias"] = module.bias is not None
    if isinstance(module, nn.Conv2d):
        out, per_group = module.weight.shape[:2]
        values |= {"out_channels": out, "in_channels": per_group * module.groups}
    elif isinstance(module, nn.Linear):
        values |= {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        values |= {"num_features": len(module.weight)}
    return {"kind": kind} | {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    return [int(v) for v in value] if isinstance(value, tuple | list) else value


def plain(module: nn.Module) -> nn.Module:
    """A module of its kind with the same parameters and buffers, and nothing else: no hooks, no methods of a
    subclass. What a model file gives when it is loaded."""
    described = arguments(module)
    cls, _ = KINDS[described.pop("kind")]
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in described.items()}
    with torch.device("meta"):  # where initial values draw no random numbers
        result = cls(**given)
    for name in result._parameters:
        result._parameters[name] = module._parameters[name]
    for name in result._buffers:
        result._buffers[name] = module._buffers[name]
    return result.train(module.training)
