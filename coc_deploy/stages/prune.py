"""P: structured channel pruning over the dependency graph (torch-pruning, Fang et al. 2023)."""

import copy
import warnings

import torch
import torch_pruning
from torch import nn

from coc_runtime.errors import CocError

from ..models import ShortcutA
from ..network import Network
from ..recipe import Prune, Recipe
from ..state import Context, State, finetune_loss


def _importance(config: Prune) -> object:
    if config.importance == "bn":
        return torch_pruning.importance.BNScaleImportance()
    return torch_pruning.importance.GroupMagnitudeImportance(p=1 if config.importance == "l1" else 2)


def _channels(network: Network) -> int:
    return sum(m.out_channels for m in network.body.modules() if isinstance(m, nn.Conv2d))


def transform(network: Network, recipe: Recipe) -> Network:
    """A copy with the same share of channels removed everywhere, kept channels a multiple of round_to."""
    config = recipe.p
    pruned = copy.deepcopy(network)
    if config.ratio == 0:
        return pruned
    body = pruned.body.eval()
    for name, module in body.named_modules():
        if isinstance(module, ShortcutA):
            raise CocError(
                f"{name}: shortcut A has a fixed number of channels; prune a model with shortcut B"
            )
    outputs = [module for module in body.modules() if isinstance(module, nn.Linear)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pruner = torch_pruning.pruner.BasePruner(
                body,
                torch.zeros(1, *pruned.input_shape),
                importance=_importance(config),
                pruning_ratio=config.ratio,
                ignored_layers=outputs,
                round_to=config.round_to,
            )
            pruner.step()
        except (RuntimeError, ValueError, AttributeError, KeyError) as error:
            raise CocError(f"pruning: torch-pruning cannot prune {network.arch.name}: {error}") from error
    if _channels(pruned) == _channels(network):
        raise CocError(
            f"p.ratio = {config.ratio} with p.round_to = {config.round_to} removes no channels of "
            f"{network.arch.name}; lower p.round_to or change p.ratio"
        )
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)
    return pruned.to(memory_format=torch.channels_last)


def run(state: State, context: Context) -> State:
    config = context.recipe.p
    network = transform(state.network, context.recipe)
    loss = finetune_loss(network, state.original, config)
    context.fit(network, config, loss, context.float_mode(network))
    return State(network, state.original, state.history)
