"""ResNets of basic blocks: CIFAR's of depth 6n+2 and torchvision's 18 and 34 (He et al. 2015)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..shortcuts import ShortcutA

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; names as in torchvision."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = (
                ShortcutA(channels_in, channels_out, stride)
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """float32 [N, channels, H, W] in, logits [N, classes] out.

    blocks: per stage; stages double the width, all but the first halve the image. large: the stem is
    a 7x7 convolution of stride 2 and max-pooling instead of a 3x3 convolution.
    """

    def __init__(
        self, blocks: Sequence[int], width: int, shortcut: str, large: bool, channels: int, classes: int
    ) -> None:
        super().__init__()
        self.large = large
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        if large:
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = len(blocks)
        channels_in = width
        for stage, count in enumerate(blocks):
            channels_out = width << stage
            first = BasicBlock(channels_in, channels_out, 2 if stage else 1, shortcut)
            rest = (BasicBlock(channels_out, channels_out, 1, shortcut) for _ in range(count - 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            channels_in = channels_out
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if self.large:
            x = self.maxpool(x)
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def cifar(blocks: int, width: int, shortcut: str, channels: int, classes: int) -> nn.Module:
    """Depth 6 * blocks + 2: three stages."""
    return ResNet((blocks,) * 3, width, shortcut, False, channels, classes)


def basic(blocks: Sequence[int], width: int, large: bool, channels: int, classes: int) -> nn.Module:
    """torchvision's ResNet of basic blocks, four stages."""
    return ResNet(blocks, width, "B", large, channels, classes)
