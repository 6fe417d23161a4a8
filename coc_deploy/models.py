"""The networks that a recipe can name: CIFAR ResNets (He et al. 2015, section 4.2), depth 6n+2."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from coc_runtime.errors import CocError

SHORTCUTS = ("A", "B")
DEEPEST = 1202
"""The deepest network of He et al. 2015."""


@dataclass(frozen=True)
class Architecture:
    """Everything that builds a network: name ("resnet20"), width of the first stage, shortcut, sizes."""

    name: str
    width: int
    shortcut: str
    channels: int
    classes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ShortcutA(nn.Module):
    """Every second pixel, zero channels in front and behind; has no parameters."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.front = (channels_out - channels_in) // 2
        self.behind = channels_out - channels_in - self.front

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.front, self.behind))


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
    """CIFAR ResNet: float32 [N, channels, H, W] in, logits [N, classes] out; H and W at least 8."""

    def __init__(self, blocks: int, arch: Architecture) -> None:
        super().__init__()
        widths = (arch.width, 2 * arch.width, 4 * arch.width)
        self.conv1 = nn.Conv2d(arch.channels, arch.width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(arch.width)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(blocks, arch.width, widths[0], 1, arch.shortcut)
        self.layer2 = self._stage(blocks, widths[0], widths[1], 2, arch.shortcut)
        self.layer3 = self._stage(blocks, widths[1], widths[2], 2, arch.shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], arch.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(blocks: int, channels_in: int, channels: int, stride: int, shortcut: str) -> nn.Sequential:
        first = BasicBlock(channels_in, channels, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def depth(name: str) -> int | None:
    """n of "resnet<6n+2>" up to resnet1202, or None when that is not what the name says."""
    match = re.fullmatch(r"resnet(\d+)", name)
    number = int(match.group(1)) if match else 0
    return (number - 2) // 6 if 8 <= number <= DEEPEST and (number - 2) % 6 == 0 else None


def build(arch: Architecture) -> nn.Module:
    """A freshly initialised float network; raises CocError for an unknown architecture."""
    blocks = depth(arch.name)
    if blocks is None:
        raise CocError(f"model '{arch.name}' is not known: use resnet8, resnet14, resnet20 ... (6n+2)")
    return ResNet(blocks, arch)


def load_weights(model: nn.Module, path: Path, mean: Sequence[float], std: Sequence[float]) -> None:
    """Load a plain state dict trained on (pixel / 255 - mean) / std and fold that into the first layer.

    coc-deploy feeds (pixel - 128) / 128, so the first convolution's weights are scaled and the
    constant goes into its batch-norm's mean. Borders differ a little: padding is now mid-grey.
    Raises CocError when the file does not fit the model.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise CocError(f"{path}: no such weights file") from error
    except Exception as error:
        raise CocError(f"{path}: not a PyTorch state dict") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CocError(f"{path}: not a plain state dict (name -> tensor)")
    names = {name.removeprefix("module.").replace("linear.", "fc."): value for name, value in state.items()}
    try:
        model.load_state_dict(names)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise CocError(f"{path}: does not fit the model: {detail}") from error
    _fold_normalisation(model.conv1, model.bn1, mean, std)  # type: ignore[arg-type]


@torch.no_grad()
def _fold_normalisation(
    conv: nn.Conv2d, bn: nn.BatchNorm2d, mean: Sequence[float], std: Sequence[float]
) -> None:
    if len(mean) != conv.in_channels or len(std) != conv.in_channels:
        raise CocError(f"mean and std must have {conv.in_channels} numbers, one per image channel")
    grey = torch.tensor([(128 / 255 - m) / s for m, s in zip(mean, std, strict=True)])
    gain = torch.tensor([128 / 255 / s for s in std])
    assert bn.running_mean is not None
    bn.running_mean -= (conv.weight * grey[None, :, None, None]).sum(dim=(1, 2, 3))
    conv.weight *= gain[None, :, None, None]
