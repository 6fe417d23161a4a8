"""Batch-norm statistics anew: plain averages over images, for the weights as they are now."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .network import Network, batch_size, parts


@torch.no_grad()
def renew(network: Network, images: Iterable[Tensor], part: nn.Module | None = None) -> None:
    """Replace the running statistics by those of the images; the network's other modes stay as they are.

    Each batch, or each part of it that the memory of a pass holds, is normalised by itself and counts alike.
    part: of the network, to do so only there.
    """
    size, device = batch_size(network), next(network.parameters()).device
    norms = [module for module in (part or network).modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    for x in images:
        for some in parts(x, size, device):
            network(some)
    for norm, (momentum, training) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.train(training)


def at_rest(network: Network) -> bool:
    """Whether no batch-norm follows the batches it sees."""
    return not any(module.training for module in network.modules() if isinstance(module, nn.BatchNorm2d))
