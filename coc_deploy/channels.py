"""Removing channels over the dependency graph: torch-pruning, Fang et al. 2023.

Importing torch-pruning takes a second, so only what removes channels imports this module.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch_pruning
from torch import nn

from coc_runtime.errors import CocError

from .body import last_layers
from .network import Network
from .sections import Prune


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Without torch-pruning's warnings; what it raises is a CocError that begins with `what`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (RuntimeError, ValueError, AttributeError, KeyError, IndexError) as error:
            raise CocError(f"{what}: {error}") from error


def remove_channels(network: Network, ratio: float, **options: Any) -> None:
    """Remove this share of every layer's channels but the logits', whole groups of dependent ones at once.

    options: torch-pruning's, `importance` and `round_to` for example.
    """
    body = network.body.eval()
    options.setdefault("importance", torch_pruning.importance.MagnitudeImportance(p=2))
    with _refusing(f"torch-pruning cannot narrow {network.arch.name}"):
        torch_pruning.pruner.BasePruner(
            body,
            torch.zeros(1, *network.input_shape),
            pruning_ratio=ratio,
            ignored_layers=last_layers(body),
            **options,
        ).step()
    for parameter in body.parameters():
        parameter.requires_grad_(True)


def _importance(config: Prune) -> object:
    if config.importance == "bn":
        return torch_pruning.importance.BNScaleImportance()
    return torch_pruning.importance.GroupMagnitudeImportance(p=1 if config.importance == "l1" else 2)


class _Pruner(torch_pruning.pruner.BasePruner):
    """Leaves every layer one group at least; torch-pruning leaves one that rounds to nothing unpruned."""

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        left = current_channels - n_pruned
        return current_channels - max(left - left % round_to, min(round_to, current_channels))


def prune(network: Network, config: Prune) -> None:
    """Remove the least important channels of body and heads, which are one dependency graph."""
    outputs = [layer for body in (network.body, *network.heads) for layer in last_layers(body)]
    heads = [m for m in network.heads.modules() if isinstance(m, nn.Conv2d)]
    with _refusing(f"pruning: torch-pruning cannot prune {network.arch.name}"):
        _Pruner(
            network,
            torch.zeros(1, *network.input_shape),
            importance=_importance(config),
            global_pruning=config.scope == "global",
            pruning_ratio=config.ratio,
            pruning_ratio_dict=dict.fromkeys(heads, config.ratio),
            ignored_layers=outputs,
            round_to=config.round_to,
        ).step()
