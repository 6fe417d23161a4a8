"""The kinds of modules that a float body consists of, and what makes one of them anew."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .convolution import Conv2d
from .frontend import modules as own
from .shortcuts import ShortcutA


@dataclass(frozen=True)
class Kind:
    """A class of modules and the attributes that its constructor takes as keywords.

    more: attributes that a file holds only if they differ from these values.
    """

    cls: type[nn.Module]
    names: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "bias")
_UNDILATED = {"dilation": (1, 1)}

KINDS: dict[str, Kind] = {
    "Conv2d": Kind(Conv2d, _CONVOLUTION, _UNDILATED),
    "ConvTranspose2d": Kind(nn.ConvTranspose2d, (*_CONVOLUTION, "output_padding"), _UNDILATED),
    "BatchNorm2d": Kind(nn.BatchNorm2d, ("num_features", "eps", "momentum")),
    "BatchNorm1d": Kind(nn.BatchNorm1d, ("num_features", "eps", "momentum")),
    "Linear": Kind(nn.Linear, ("in_features", "out_features", "bias")),
    "ReLU": Kind(nn.ReLU),
    "ReLU6": Kind(nn.ReLU6),
    "PReLU": Kind(nn.PReLU, ("num_parameters",)),
    "Activation": Kind(own.Activation, ("function", "arguments")),
    "Scale": Kind(own.Scale, ("shape", "learned"), {"value": None}),
    "Shift": Kind(own.Shift, ("shape", "learned"), {"value": None}),
    "Dropout": Kind(nn.Dropout, ("p",)),
    "Dropout2d": Kind(nn.Dropout2d, ("p",)),
    "StochasticDepth": Kind(own.StochasticDepth, ("p", "mode", "rescaled")),
    "MaxPool2d": Kind(nn.MaxPool2d, ("kernel_size", "stride", "padding", "ceil_mode"), {"dilation": 1}),
    "AvgPool2d": Kind(
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding"),
        {"ceil_mode": False, "count_include_pad": True, "divisor_override": None},
    ),
    "AdaptiveAvgPool2d": Kind(nn.AdaptiveAvgPool2d, ("output_size",)),
    "AdaptiveMaxPool2d": Kind(nn.AdaptiveMaxPool2d, ("output_size",)),
    "ZeroPad2d": Kind(nn.ZeroPad2d, ("padding",)),
    "ConstantPad2d": Kind(nn.ConstantPad2d, ("padding", "value")),
    "ReflectionPad2d": Kind(nn.ReflectionPad2d, ("padding",)),
    "ReplicationPad2d": Kind(nn.ReplicationPad2d, ("padding",)),
    "Upsample": Kind(nn.Upsample, ("scale_factor", "mode")),
    "Flatten": Kind(nn.Flatten),
    "AsImage": Kind(own.AsImage),
    "Reshape": Kind(own.Reshape, ("shape",)),
    "Crop": Kind(own.Crop, ("top", "left", "bottom", "right")),
    "Slice": Kind(own.Slice, ("start", "stop")),
    "Select": Kind(own.Select, ("indices",)),
    "ChannelShuffle": Kind(nn.ChannelShuffle, ("groups",)),
    "PixelShuffle": Kind(nn.PixelShuffle, ("upscale_factor",)),
    "PixelUnshuffle": Kind(nn.PixelUnshuffle, ("downscale_factor",)),
    "PadChannels": Kind(own.PadChannels, ("front", "behind")),
    "ShortcutA": Kind(ShortcutA, ("channels_in", "channels_out", "stride")),
}
"""Kind -> class and its constructor's arguments."""


def arguments(module: nn.Module) -> dict[str, Any]:
    """The kind of a canonical module and its constructor's arguments, numbers, strings and lists."""
    name = type(module).__name__
    kind = KINDS[name]
    values = {argument: getattr(module, argument) for argument in (*kind.names, *kind.more)}
    if "bias" in values:
        values["bias"] = module.bias is not None
    if isinstance(module, nn.Conv2d):
        out, per_group = module.weight.shape[:2]
        values |= {"out_channels": out, "in_channels": per_group * module.groups}
    elif isinstance(module, nn.ConvTranspose2d):
        channels, per_group = module.weight.shape[:2]
        values |= {"in_channels": channels, "out_channels": per_group * module.groups}
    elif isinstance(module, nn.Linear):
        values |= {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        values |= {"num_features": len(module.weight)}
    usual = {argument for argument, value in kind.more.items() if values[argument] == value}
    return {"kind": name} | {n: _plain(value) for n, value in values.items() if n not in usual}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [float(v) if isinstance(v, float) else int(v) for v in value]
    return value
