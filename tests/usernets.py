"""Networks as users write them, with odd channel counts, and networks of the zoo small enough for tests."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from coc_deploy.calibration import calibrate
from coc_deploy.models import Architecture
from coc_deploy.network import Network, to_input
from coc_deploy.quantizers import QuantSpec


class LeNet(nn.Module):
    """28x28x1; ReLU behind max-pooling, 7x7 adaptive pooling, two hidden linear layers, dropout."""

    def __init__(self, classes: int = 10, channels: int = 1, size: int = 7) -> None:
        super().__init__()
        self.size = size
        self.conv1 = nn.Conv2d(channels, 11, 5, padding=2)
        self.conv2 = nn.Conv2d(11, 13, 5, padding=2)
        self.bn2 = nn.BatchNorm2d(13)
        self.dropout = nn.Dropout(0.3)
        self.fc1 = nn.Linear(13 * size * size, 24)
        self.fc2 = nn.Linear(24, 16, bias=False)
        self.bn3 = nn.BatchNorm1d(16)
        self.fc3 = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = f.relu(f.max_pool2d(self.conv1(x), 2))
        x = f.adaptive_avg_pool2d(f.relu(self.bn2(self.conv2(x))), self.size)
        x = x.view(x.size(0), -1)
        x = self.dropout(f.relu(self.fc1(x)))
        x = f.relu(self.bn3(self.fc2(x)))
        return f.log_softmax(self.fc3(x), dim=1)


class DenseNet(nn.Module):
    """Batch-norm in front of convolutions, grouped convolutions, concatenations, average pooling."""

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 12, 3, 2, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.bn1 = nn.BatchNorm2d(12)
        self.conv1 = nn.Conv2d(12, 6, 3, padding=1, groups=3, bias=False)
        self.bn2 = nn.BatchNorm2d(18)
        self.conv2 = nn.Conv2d(18, 6, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(24)
        self.transition = nn.Conv2d(24, 13, 1)
        self.pool = nn.AvgPool2d(2)
        self.branch1 = nn.Conv2d(13, 4, 1)
        self.branch2 = nn.Conv2d(13, 1, 3, padding="same")
        self.branch3 = nn.Conv2d(13, 3, (2, 4), padding="same")
        self.fc = nn.Linear(4 + 1 + 3 + 13, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(f.relu(self.bn1(x)))], 1)
        x = torch.cat([x, self.conv2(f.relu(self.bn2(x)))], 1)
        x = self.pool(f.relu(self.transition(self.bn3(x))))
        x = f.relu(torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), x], dim=1))
        return self.fc(x.mean((2, 3)))


class Plain(nn.Module):
    """No batch-norm; ReLU6, a depthwise convolution, an in-place addition, a hidden layer after the mean."""

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.conv3 = nn.Conv2d(8, 8, 1)
        self.act = nn.ReLU6()
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 12),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(12, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        y = self.conv3(self.act(self.conv2(x)))
        y += x
        return self.head(f.relu(self.pool(y)))


class Blocks(nn.Module):
    """Plain blocks as modules of their own, so that exits can be named after them."""

    class Block(nn.Module):
        def __init__(self, channels_in: int, channels_out: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
            self.bn = nn.BatchNorm2d(channels_out)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(torch.relu(self.bn(self.conv(x))))

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.blocks = nn.Sequential(self.Block(channels, 3), self.Block(3, 11), self.Block(11, 13))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(13 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(self.blocks(x)))


class Mobile(nn.Module):
    """Smooth functions, by hand and with a slope for every channel, too; a squeeze-and-excitation gate."""

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.expand = nn.Sequential(nn.Conv2d(8, 13, 1, bias=False), nn.BatchNorm2d(13), nn.SiLU())
        self.depthwise = nn.Conv2d(13, 13, 3, padding=1, groups=13)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(13, 5, 1), nn.ReLU(), nn.Conv2d(5, 13, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(13, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.slopes = nn.PReLU(8)
        self.last = nn.Conv2d(8, 11, 3, padding=1)
        self.head = nn.Sequential(nn.Linear(11, 12), nn.GELU(), nn.Dropout(), nn.Linear(12, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        y = y * torch.clamp(y + 3, 0, 6) / 6
        x = self.slopes(x + self.project(y * self.squeeze(y)))
        x = self.last(x)
        return self.head((x * torch.sigmoid(x)).mean((2, 3)))


class Parts(nn.Module):
    """Two strides, halves, a shuffle, channels in another order; logits that averages of ReLU give."""

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 12, 3, (2, 1), bias=False), nn.BatchNorm2d(12), nn.ReLU()
        )
        self.pool = nn.MaxPool2d((2, 3), (1, 2))
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.quarter = nn.Conv2d(3, 5, 1)
        self.mix = nn.Conv2d(17, 9, 1)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(9, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        left, right = x.chunk(2, 1)
        x = torch.cat([left, f.relu(self.branch(right))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = torch.cat([self.quarter(x[:, [7, 0, 3]]), x], 1)
        return self.classifier(f.relu(self.mix(x)))


USER = {
    "lenet": (LeNet, (1, 28, 28)),
    "dense": (DenseNet, (3, 33, 30)),
    "plain": (Plain, (3, 24, 20)),
    "blocks": (Blocks, (3, 16, 16)),
    "mobile": (Mobile, (3, 14, 12)),
}
FIXED = {"parts": (Parts, (3, 15, 16))}
"""Those whose channels cannot be removed."""
ZOO = {
    "resnet8": (4, (8, 8)),
    "resnet8_mlperf": (3, (16, 16)),
    "resnet18": (3, (16, 16)),
    "resnet18_imagenet": (3, (32, 32)),
    "vgg11_bn": (3, (32, 32)),
    "mobilenet_v2": (8, (16, 16)),
}


def images(shape: tuple[int, ...], count: int = 8, seed: int = 0) -> np.ndarray:
    """uint8 [count, *shape] of varying brightness and contrast."""
    rng = np.random.default_rng(seed)
    brightness = rng.uniform(40, 215, (count, shape[0], 1, 1))
    contrast = rng.uniform(5, 90, (count, 1, 1, 1))
    return np.clip(np.rint(brightness + contrast * rng.standard_normal((count, *shape))), 0, 255).astype(
        np.uint8
    )


def network(name: str, seed: int = 0) -> Network:
    """A float network of `USER`, `FIXED` or `ZOO` with random weights and settled batch-norm statistics."""
    torch.manual_seed(seed)
    if name in USER or name in FIXED:
        cls, shape = (USER | FIXED)[name]
        result = Network.of(cls(), shape, 10, name)
    else:
        width, size = ZOO[name]
        result = Network(Architecture(name, width, "B", 3, 10), size)
    return settled(result.to(memory_format=torch.channels_last))


def settled(result: Network) -> Network:
    """The network with batch-norm statistics of two batches, in evaluation mode."""
    norms = [m for m in result.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    result.train()
    with torch.no_grad():
        for seed in (1, 2):
            result(to_input(images(result.input_shape, 16, seed)))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return result.eval()


def quantize(result: Network, bits: tuple[int, int]) -> Network:
    """The same network quantized after calibration only."""
    result.quantize(QuantSpec(bits[0], bits[1], 8))
    calibrate(result, [to_input(images(result.input_shape, 24, 3))])
    return result.eval()
