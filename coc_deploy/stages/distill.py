"""D: a smaller student learns from the network so far (Hinton et al. 2015)."""

from pathlib import Path

import torch
from torch import Tensor

from .. import models, train
from ..models import Architecture
from ..network import Network
from ..recipe import Model, Recipe
from ..state import Context, State, frozen


def build(section: Model, channels: int, classes: int, size: tuple[int, int]) -> Network:
    """A float network as a recipe's section describes it, with its weights if it names a file."""
    arch = Architecture(section.model, section.width, section.shortcut, channels, classes)
    network = Network(arch, size)
    if section.weights:
        models.load_weights(network.body, Path(section.weights), section.mean, section.std)
    return network.to(memory_format=torch.channels_last)


def transform(network: Network, recipe: Recipe) -> Network:
    return build(recipe.d, network.arch.channels, network.arch.classes, network.image_size)


def run(state: State, context: Context) -> State:
    config = context.recipe.d
    teacher = frozen(state.network)
    student = transform(state.network, context.recipe)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            *_, target = teacher(x)
        return train.distillation(student(x), target, y, config.temperature, config.alpha)

    context.fit(student, config, loss, context.float_mode(student))
    return State(student, state.original, state.history)
