"""D: a smaller student learns from the network so far, and inherits what was done to it."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from .. import losses, models
from ..counting import cumulative_share
from ..models import Architecture
from ..models.narrow import narrowed
from ..network import Network, traced
from ..recipe import Recipe
from ..sections import Model, Prune
from ..state import Context, State, frozen
from .early_exit import place
from .prune import pruned, ratio_of
from .requantize import refresh


def build(section: Model, channels: int, classes: int, size: tuple[int, int]) -> Network:
    """A float network as a recipe's section describes it, with its weights if it names a file, and with the
    normalisation that it names folded in."""
    arch = models.resolved(Architecture(section.model, section.width, section.shortcut, channels, classes))
    module = models.build(arch)
    if section.weights:
        models.load_state(module, Path(section.weights))
    network = Network(arch, size, traced(module, arch, size))
    usual = (section.mean, section.std) == (Model.mean, Model.std)
    if section.weights or models.is_trained(section.model) or not usual:
        mean, std = (values[:1] * channels if usual else values for values in (section.mean, section.std))
        models.fold_normalisation(network.body, mean, std)
    return network.to(memory_format=torch.channels_last)


def transform(network: Network, recipe: Recipe) -> Network:
    """An untrained student, pruned by the same ratio, quantized alike, with exits at the same fractions of
    its BitOps as the network."""
    if recipe.d.model:
        student = build(recipe.d, network.arch.channels, network.arch.classes, network.image_size)
        for config in recipe.pruned or _pruned_before(network, recipe):
            student = pruned(student, dataclasses.replace(config, scope="uniform"))
    else:
        student = narrowed(network, recipe.d.narrow)
    if network.quant is not None:
        student.quantize(network.quant)
    if network.exits is not None:
        shares = cumulative_share(network)
        fractions = [shares[name] for name in network.exits.positions]
        student.add_exits(dataclasses.replace(network.exits, positions=place(student, fractions)))
    return student.to(memory_format=torch.channels_last)


def _pruned_before(network: Network, recipe: Recipe) -> list[Prune]:
    """The pruning that a given checkpoint came with, by what is left of its model."""
    ratio = ratio_of(network) if recipe.original.checkpoint else 0.0
    # A hair less, so that a whole number of channels to keep is not rounded down.
    return [dataclasses.replace(recipe.p, ratio=ratio - 1e-6)] if ratio > 0 else []


def run(state: State, context: Context) -> State:
    config = context.recipe.d
    teacher = frozen(state.network)
    student = transform(state.network, context.recipe)
    if student.quant is not None:
        refresh(student, context.calibration_batches(), renew_norms=True)
    modes = context.modes(student, config)

    def prepare(epoch: int) -> bool:
        # An untrained student's ranges are a guess: they follow it for the first half of its training.
        if student.quant is not None and 0 < epoch <= config.epochs // 2:
            refresh(student, context.calibration_batches(), renew_norms=False)
        return modes(epoch)

    distilled = losses.OBJECTIVES[context.task].distilled

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            targets = teacher(x)
        return losses.exit_distillation(student(x), targets, y, config.temperature, config.alpha, distilled)

    if config.crd > 0:
        with losses.contrasting(student, teacher, loss, config) as contrastive:
            context.fit(student, config, contrastive, prepare)
    else:
        context.fit(student, config, loss, prepare)
    return State(student, state.original, state.history)
