"""A uniformly narrowed copy of any network: the student when a recipe names none."""

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from coc_runtime.errors import CocError

from .. import body as bodies
from ..frontend.modules import FIXED, Scale, Shift
from ..network import Network
from ..shortcuts import ShortcutA


def fresh(network: Network) -> Network:
    """A float network of the same structure and channels without exits, its weights initialised anew."""
    state: dict[str, Any] = {f"body.{name}": value for name, value in network.body.state_dict().items()}
    traced = bodies.rebuild(copy.deepcopy(network.describe()), state)
    result = Network(network.arch, network.image_size, traced)
    for module in result.body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d):
            module.reset_parameters()
    return result


def narrowed(network: Network, fraction: float) -> Network:
    """A freshly initialised float network with `fraction` of the channels of every layer, no exits.

    Raises CocError where channels cannot be removed evenly.
    """
    if not 0 < fraction <= 1:
        raise CocError(f"width {fraction}: a narrowed copy has a share of the channels above 0, at most 1")
    result = fresh(network)
    if fraction < 1:
        from ..channels import remove_channels  # see there

        check_removable(result, "use")
        remove_channels(result, 1 - fraction)
        width = result.arch.width and max(1, round(result.arch.width * fraction))
        result.arch = dataclasses.replace(result.arch, width=width)
        result = fresh(result)
    return result.to(memory_format=torch.channels_last)


def check_removable(network: Network, verb: str) -> None:
    """Raise CocError, naming the module, where channels of the body cannot be removed."""
    for name, module in network.body.named_modules():
        if isinstance(module, ShortcutA):
            raise CocError(
                f"{name}: shortcut A has a fixed number of channels; {verb} a model with shortcut B"
            )
        constant = isinstance(module, Scale | Shift) and max(module.shape) > 1
        if isinstance(module, FIXED) or constant:
            raise CocError(
                f"{name}: {type(module).__name__} has a fixed number of channels, none can be removed"
            )
