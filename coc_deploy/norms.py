"""Batch-norm statistics anew: plain averages over images, for the weights as they are now."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .network import Network


@torch.no_grad()
def renew(network: Network, images: Iterable[Tensor], part: nn.Module | None = None) -> None:
    """Replace the running statistics by those of the images; the network's other modes stay as they are.

    part: of the network, to do so only there.
    """
    norms = [module for module in (part or network).modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    device = next(network.parameters()).device
    for x in images:
        network(x.to(device))
    for norm, (momentum, training) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.train(training)


def at_rest(network: Network) -> bool:
    """Whether no batch-norm follows the batches it sees."""
    return not any(module.training for module in network.modules() if isinstance(module, nn.BatchNorm2d))
