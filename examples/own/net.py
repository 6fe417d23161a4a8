"""A network that is not in the zoo: two branches, joined channels, max-pooling, two linear layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Branches(nn.Module):
    """A 3x3 and a 5x5 convolution of the same image, side by side."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.small = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.large = nn.Conv2d(channels_in, channels, 5, padding=2, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(torch.cat([self.small(x), self.large(x)], dim=1)))


class TwoSizes(nn.Module):
    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1)
        self.first = Branches(16, 16)
        self.second = Branches(32, 32)
        self.hidden = nn.Linear(64 * 2 * 2, 64)
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = functional.max_pool2d(self.first(x), 2)
        x = functional.max_pool2d(self.second(x), 2)
        x = functional.relu(self.hidden(torch.flatten(x, 1)))
        return self.out(self.dropout(x))


def two_sizes(classes: int, channels: int) -> nn.Module:
    """What the recipe names: coc-deploy passes the number of classes and of image channels."""
    return TwoSizes(classes, channels)
