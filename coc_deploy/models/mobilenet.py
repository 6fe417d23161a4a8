"""MobileNetV2 (Sandler et al. 2018): torchvision's, with a width, any image channels, CIFAR's strides."""

from torch import nn

WIDTH = 32
"""Channels of the stem at width multiplier 1."""

# expansion, channels, blocks, stride
SETTING = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


def build(small: bool, width: int, channels: int, classes: int) -> nn.Module:
    """small: images of about 32x32, so the first two strides of 2 are 1. width: 32 times the multiplier;
    torchvision rounds channels to multiples of 8."""
    from torchvision.models import MobileNetV2  # slow to import, and only this family needs it

    setting = [[*row[:3], 1 if small and row[1] == 24 else row[3]] for row in SETTING]
    model: nn.Module = MobileNetV2(classes, width / WIDTH, setting)
    stem = model.get_submodule("features.0.0")
    assert isinstance(stem, nn.Conv2d)
    conv = nn.Conv2d(channels, stem.out_channels, 3, 1 if small else 2, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    model.set_submodule("features.0.0", conv)
    return model
