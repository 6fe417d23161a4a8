"""VGG with batch-norm (Simonyan & Zisserman 2014); convolutions named as in torchvision."""

import torch
from torch import Tensor, nn

STAGES = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""3x3 convolutions of each stage; stages end with max-pooling, widths are 1, 2, 4, 8, 8 times the first."""


class VGG(nn.Module):
    """float32 [N, channels, H, W] in, logits [N, classes] out; H and W at least 32.

    `features` is torchvision's. One linear layer follows the global average (at 32x32 a single pixel), as
    is usual for CIFAR, instead of ImageNet's three of 4096.
    """

    def __init__(self, name: str, width: int, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage, count in enumerate(STAGES[name]):
            out = width << min(stage, 3)
            for _ in range(count):
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
