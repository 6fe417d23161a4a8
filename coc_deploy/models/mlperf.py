"""ResNet-8 of MLPerf Tiny's image classification, as its reference weights need it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-3
"""Keras's default."""


class ResNet8(nn.Module):
    """Convolutions with bias; those of stride 2 pad right and bottom only, as TensorFlow's "same" does.

    The reference weights take pixels of 0..255: mean 0 and std 1/255 in a recipe. Their zero padding is
    black; folded into coc-deploy's input it is mid-grey, which costs them accuracy until fine-tuned.
    """

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        w = (width, 2 * width, 4 * width)
        self.conv0 = nn.Conv2d(channels, w[0], 3, padding=1)
        self.conv1 = nn.Conv2d(w[0], w[0], 3, padding=1)
        self.conv2 = nn.Conv2d(w[0], w[0], 3, padding=1)
        self.conv3 = nn.Conv2d(w[0], w[1], 3, stride=2)
        self.conv4 = nn.Conv2d(w[1], w[1], 3, padding=1)
        self.conv5 = nn.Conv2d(w[0], w[1], 1, stride=2)
        self.conv6 = nn.Conv2d(w[1], w[2], 3, stride=2)
        self.conv7 = nn.Conv2d(w[2], w[2], 3, padding=1)
        self.conv8 = nn.Conv2d(w[1], w[2], 1, stride=2)
        self.bn0, self.bn1, self.bn2 = (nn.BatchNorm2d(w[0], EPS) for _ in range(3))
        self.bn3, self.bn4 = (nn.BatchNorm2d(w[1], EPS) for _ in range(2))
        self.bn5, self.bn6 = (nn.BatchNorm2d(w[2], EPS) for _ in range(2))
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        relu, uneven = self.relu, (0, 1, 0, 1)
        x = relu(self.bn0(self.conv0(x)))
        x = relu(x + self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))
        y = relu(self.bn3(self.conv3(functional.pad(x, uneven))))
        x = relu(self.conv5(x) + self.bn4(self.conv4(y)))
        y = relu(self.bn5(self.conv6(functional.pad(x, uneven))))
        x = relu(self.conv8(x) + self.bn6(self.conv7(y)))
        return self.fc(torch.flatten(self.avgpool(x), 1))
