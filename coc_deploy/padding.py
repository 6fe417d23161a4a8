"""Zero padding as a layer, where what reads it cannot pad with zeros itself."""

import torch
from torch import nn

from .convolution import Conv2d
from .qat import ActQuant, Pads


def can_pad(reader: nn.Module | None, source: ActQuant) -> bool:
    """Whether a unit pads with zeros itself: max-pooling pads with the smallest number, 0 where none is
    negative."""
    if isinstance(reader, nn.MaxPool2d):
        return not source.signed
    return isinstance(reader, nn.Conv2d | nn.AvgPool2d | nn.ZeroPad2d)


def padding_convolution(channels: int, pads: Pads) -> Conv2d:
    """A depthwise convolution of a single one, whose own padding is less than its window.

    pads: top, left, bottom, right.
    """
    top, left, bottom, right = pads
    size, padding = (top + bottom + 1, left + right + 1), (top + bottom, left + right)
    conv = Conv2d(channels, channels, size, 1, padding, groups=channels, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, bottom, right] = 1
    conv.weight.requires_grad_(False)
    return conv
