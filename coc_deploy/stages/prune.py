"""P: structured channel pruning over the dependency graph (torch-pruning, Fang et al. 2023)."""

import copy
import dataclasses

import torch
from torch import nn

from coc_runtime.errors import CocError

from ..models import is_user
from ..models.narrow import check_removable
from ..network import Network
from ..qat import QConv
from ..recipe import Recipe
from ..sections import Prune
from ..state import Context, State, finetune_loss
from .requantize import changed, refresh


def _convolutions(network: Network) -> list[nn.Conv2d]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


def transform(network: Network, recipe: Recipe) -> Network:
    """A copy with channels of body and heads removed, quantized as the network is."""
    return changed(network, lambda floats: pruned(floats, recipe.p))


def pruned(network: Network, config: Prune) -> Network:
    """A copy of a float network without its least important channels, what is left a multiple of round_to.

    Body and heads are one dependency graph; heads are always pruned by `ratio`, so that they stay alike.
    """
    result = copy.deepcopy(network)
    if config.ratio == 0:
        return result
    from .. import channels  # see there

    check_removable(result, "prune")
    channels.prune(result.eval(), config)
    before, after = (sum(m.out_channels for m in _convolutions(n)) for n in (network, result))
    if before == after:
        raise CocError(
            f"p.ratio = {config.ratio:g} with p.round_to = {config.round_to} removes no channels of "
            f"{network.arch.name}; lower p.round_to or change p.ratio"
        )
    if result.exits is not None and result.exits.head == "conv":
        width = result.heads[0].get_submodule("conv").out_channels
        result.exits = dataclasses.replace(result.exits, head_channels=int(width))  # type: ignore[arg-type]
    for parameter in result.parameters():
        parameter.requires_grad_(True)
    return result.to(memory_format=torch.channels_last)


def ratio_of(network: Network) -> float:
    """The share of the body's channels that pruning has removed, from those that its model is built with.

    0 for a user's model: a checkpoint does not hold the code that builds it.
    """
    if is_user(network.arch.name):
        return 0.0
    whole = Network(network.arch, network.image_size)
    now, before = (_width(net) for net in (network, whole))
    return 1 - now / before


def _width(network: Network) -> int:
    return sum(m.weight.shape[0] for m in network.body.modules() if isinstance(m, nn.Conv2d | QConv))


def run(state: State, context: Context) -> State:
    config = context.recipe.p
    network = transform(state.network, context.recipe)
    if network.quant is not None:
        refresh(network, context.calibration_batches(), renew_norms=True)
    loss = finetune_loss(network, state, config, context.task)
    context.fit(network, config, loss, context.modes(network, config))
    return State(network, state.original, state.history)
