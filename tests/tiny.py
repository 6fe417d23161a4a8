"""Tiny networks and runs on digits: what the tests of chain, export and command lines share."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from coc_deploy import qat, train
from coc_deploy.calibration import calibrate, calibrate_heads
from coc_deploy.keys import Identity
from coc_deploy.models import Architecture
from coc_deploy.network import ExitSpec, Network, to_input
from coc_deploy.qat import Mode
from coc_deploy.quantizers import QuantSpec
from coc_deploy.recipe import Recipe
from coc_runtime import datasets
from coc_runtime.datasets import Dataset

RECIPE = """\
chain = "DPQE"
data = "digits"
seed = 3
batch = 64

[original]
model = "resnet14"
width = 4
epochs = 5

[d]
model = "resnet8"
width = 8
epochs = 8

[p]
ratio = 0.5
epochs = 1

[q]
bits = "1x8"
epochs = 5

[e]
positions = [0.4, 0.7]
head_channels = 8
epochs = 2
max_drop = 5
"""
"""DPQE on the smallest networks, a few seconds on one core."""


@cache
def digits(split: str) -> Dataset:
    return datasets.load("digits", split)


def write_recipe(folder: Path, text: str = RECIPE, name: str = "recipe.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def float_network(
    *,
    name: str = "resnet8",
    width: int = 4,
    shortcut: str = "B",
    channels: int = 1,
    size: tuple[int, int] = (8, 8),
    seed: int = 0,
    steps: int = 0,
) -> Network:
    """A float network after `steps` batches of digits, in evaluation mode."""
    torch.manual_seed(seed)
    network = Network(Architecture(name, width, shortcut, channels, 10), size)
    network.to(memory_format=torch.channels_last)
    network.train()
    learn(network, steps)
    return network.eval()


def stage_key(chosen: Recipe, stages: str) -> str:
    """The key of the last stage of a prefix of the chain ("" is the original), with some data and code."""
    whole = dataclasses.replace(chosen, chain=stages or chosen.chain)
    return Identity("data", "code").path(whole)[len(stages)].key


def learn(network: Network, steps: int, rate: float = 0.05, batch: int = 64) -> None:
    """A few steps of SGD on digits, in whatever modes the network is."""
    data = digits("train")
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    for step in range(steps):
        at = slice(step * batch, (step + 1) * batch)
        loss = train.cross_entropy(network(to_input(data.images[at])), torch.from_numpy(data.labels[at]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def spoil_gammas(network: nn.Module) -> None:
    """Make a third of all batch-norm weights negative and every fifth zero, as training may."""
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight[::3] = -norm.weight[::3].abs()
                norm.weight[1::5] = 0


def quantized_network(
    bits: tuple[int, int] = (1, 8),
    first_last: str = "8",
    head: str | None = None,
    *,
    seed: int = 0,
    exits_first: bool = False,
    steps: int = 4,
) -> Network:
    """A network with awkward batch-norms after some steps of float training and of both kinds of QAT.

    head: kind of the two early exits; exits_first: they were there before quantization.
    """
    network = float_network(seed=seed, steps=steps)
    spoil_gammas(network)
    spec = QuantSpec(bits[0], bits[1], 8 if first_last == "8" else bits[0])
    exits = ExitSpec(("layer1.0", "layer2.0"), head, 6) if head else None
    images = [to_input(digits("held-out").images)]
    if exits and exits_first:
        network.add_exits(exits)
        network.train()
        learn(network, steps)
        network.eval()
    network.quantize(spec)
    calibrate(network, images)
    network.train()
    learn(network, steps, 0.01)
    network.eval()
    qat.set_mode(network, Mode.FOLDED)
    learn(network, 2, 0.01)
    if exits and not exits_first:
        network.add_exits(exits)
        calibrate_heads(network, images)
    spoil_gammas(network)
    network.thresholds = (0.3, 0.6) if exits else ()
    return network.eval()


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain_forward(network: Network, images: np.ndarray) -> np.ndarray:
    """Logits of a float network's last exit on uint8 images, batch-norm in evaluation mode."""
    with torch.no_grad():
        return np.asarray(network.eval()(to_input(images))[-1])
