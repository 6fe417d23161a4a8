"""The networks that a recipe can name, and the user's own.

A family is one file; `FAMILIES` lists them. Parameter names are those of torchvision or of the
literature, so that public state dicts load.
"""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from coc_runtime.errors import CocError

from ..shortcuts import ShortcutA
from . import mlperf, mobilenet, resnet, user, vgg
from .resnet import BasicBlock
from .user import display, is_user
from .weights import fold_normalisation, load_state, load_weights

__all__ = [
    "BasicBlock",
    "ShortcutA",
    "display",
    "fold_normalisation",
    "is_user",
    "load_state",
    "load_weights",
]

SHORTCUTS = ("A", "B")
DEEPEST = 1202
"""The deepest network of He et al. 2015."""


@dataclass(frozen=True)
class Architecture:
    """Everything that builds a network: name, width, shortcut, sizes.

    name: of `FAMILIES` ("resnet20"), "path/to/file.py:factory" or "path/to/net.onnx". width: channels of the
    first convolution, which all others scale with; 0 is the family's own. shortcut: of CIFAR ResNets.
    """

    name: str
    width: int
    shortcut: str
    channels: int
    classes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Family:
    """Names as shown and as a pattern, a line of description, the usual width, and the builder."""

    names: str
    pattern: str
    description: str
    width: int
    build: Callable[[Architecture], nn.Module]


def depth(name: str) -> int | None:
    """n of "resnet<6n+2>" up to resnet1202, or None when that is not what the name says."""
    match = re.fullmatch(r"resnet(\d+)", name)
    number = int(match.group(1)) if match else 0
    return (number - 2) // 6 if 8 <= number <= DEEPEST and (number - 2) % 6 == 0 else None


def _cifar_resnet(arch: Architecture) -> nn.Module:
    blocks = depth(arch.name)
    assert blocks is not None
    return resnet.cifar(blocks, arch.width, arch.shortcut, arch.channels, arch.classes)


def _resnet(arch: Architecture) -> nn.Module:
    name, _, stem = arch.name.partition("_")
    return resnet.basic(resnet.BLOCKS[name], arch.width, stem == "imagenet", arch.channels, arch.classes)


def _vgg(arch: Architecture) -> nn.Module:
    return vgg.VGG(arch.name.removesuffix("_bn"), arch.width, arch.channels, arch.classes)


def _mobilenet(arch: Architecture) -> nn.Module:
    return mobilenet.build(arch.name == "mobilenet_v2", arch.width, arch.channels, arch.classes)


def _mlperf(arch: Architecture) -> nn.Module:
    return mlperf.ResNet8(arch.width, arch.channels, arch.classes)


FAMILIES: tuple[Family, ...] = (
    Family(
        "resnet8, resnet14, resnet20 ... resnet1202 (6n+2)",
        r"resnet\d+",
        "CIFAR ResNet of He et al. 2015, section 4.2; shortcut B (1x1 convolutions) or A (zero channels)",
        16,
        _cifar_resnet,
    ),
    Family("resnet18, resnet34", "resnet(18|34)", "ResNet of torchvision with a 3x3 stem", 64, _resnet),
    Family(
        "resnet18_imagenet, resnet34_imagenet",
        "resnet(18|34)_imagenet",
        "ResNet of torchvision: 7x7 stem of stride 2 and max-pooling",
        64,
        _resnet,
    ),
    Family(
        "vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn",
        "vgg(11|13|16|19)_bn",
        "VGG with batch-norm, convolutions named as in torchvision, and one linear layer",
        64,
        _vgg,
    ),
    Family("mobilenet_v2", "mobilenet_v2", "MobileNetV2, first two strides 1 (CIFAR)", 32, _mobilenet),
    Family("mobilenet_v2_imagenet", "mobilenet_v2_imagenet", "MobileNetV2 of torchvision", 32, _mobilenet),
    Family(
        "resnet8_mlperf",
        "resnet8_mlperf",
        "MLPerf Tiny's ResNet-8: stride 2 pads right and bottom only",
        16,
        _mlperf,
    ),
)
NAMES = ", ".join(family.names for family in FAMILIES) + ", path/to/file.py:factory, or path/to/net.onnx"


def family(name: str) -> Family | None:
    """The family of a zoo name, or None."""
    if re.fullmatch(r"resnet\d+", name) and depth(name) is not None:
        return FAMILIES[0]
    return next((entry for entry in FAMILIES[1:] if re.fullmatch(entry.pattern, name)), None)


def known(name: str) -> bool:
    """Whether a recipe may name this: of the zoo, or a user's file (which is not opened)."""
    return is_user(name) or family(name) is not None


def is_trained(name: str) -> bool:
    """Whether a model comes with its weights, as far as its name tells."""
    return user.is_onnx(name)


def listing() -> list[tuple[str, str]]:
    """(names, description) of every family, for `coc-compress --list`."""
    return [(entry.names, entry.description) for entry in FAMILIES]


def resolved(arch: Architecture) -> Architecture:
    """The same with the family's own width instead of 0; raises CocError for an unknown name."""
    found = family(arch.name)
    if found is None:
        if is_user(arch.name):
            return arch
        raise CocError(f"model '{arch.name}' is not known: use {NAMES}")
    return dataclasses.replace(arch, width=arch.width or found.width)


def build(arch: Architecture) -> nn.Module:
    """A freshly initialised float network; raises CocError for an unknown architecture."""
    arch = resolved(arch)
    found = family(arch.name)
    return user.build(arch.name, arch.channels, arch.classes) if found is None else found.build(arch)
