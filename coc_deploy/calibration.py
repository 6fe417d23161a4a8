"""Activation ranges: what the float network shows on held-out images sets every power-of-two step."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from . import norms, qat
from .network import Network
from .qat import ActQuant, Mode


def calibrate(network: Network, batches: Iterable[Tensor]) -> None:
    """Set every activation's step from a float pass over the batches (values as `to_input` gives)."""
    network.eval()
    qat.set_mode(network, Mode.OBSERVE)
    _observe(network, _acts(network), list(batches))


def calibrate_heads(network: Network, batches: Iterable[Tensor]) -> None:
    """The same for heads that have not seen data yet, on a body that is quantized already.

    Their batch-norm statistics are taken from the batches first.
    """
    images = list(batches)
    network.eval()
    qat.set_mode(network.heads, Mode.OBSERVE)
    qat.set_mode(network.body, Mode.INTEGER)
    norms.renew(network, images, network.heads)
    _observe(network, _acts(network.heads), images)


def _acts(module: nn.Module) -> list[ActQuant]:
    fixed = module.image if isinstance(module, Network) else None
    return [act for act in module.modules() if isinstance(act, ActQuant) and act is not fixed]


FARTHEST = 7
"""Powers of two that the steps of an addition's operands may lie apart: one operand's codes then shift by
up to 7 bits. A finer step would be below the coarser operand's rounding anyway."""


def align_additions(network: Network, acts: list[ActQuant]) -> None:
    free = {id(act) for act in acts}
    for unit in network.modules():
        if isinstance(unit, qat.QAdd):
            coarsest = max(int(act.exponent) for act in unit.sources)
            for act in unit.sources:
                if id(act) in free:
                    act.set_exponent(max(int(act.exponent), coarsest - FARTHEST))


@torch.no_grad()
def _observe(network: Network, acts: list[ActQuant], images: list[Tensor]) -> None:
    for act in acts:
        act.peak = 0.0
    for x in images:
        network(x)
    for act in acts:
        act.calibrate()
    align_additions(network, acts)
    qat.set_mode(network, Mode.TRAIN)
