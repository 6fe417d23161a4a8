"""Activation ranges: what the float network shows on held-out images sets every power-of-two step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import norms, qat
from .network import Network, batch_size, parts
from .qat import ActQuant, Mode


def calibrate(network: Network, images: Sequence[Tensor]) -> None:
    """Set every activation's step from a float pass over batches of images (values as `to_input` gives)."""
    network.eval()
    qat.set_mode(network, Mode.OBSERVE)
    observe(network, _acts(network), images)


def calibrate_heads(network: Network, images: Sequence[Tensor]) -> None:
    """The same for heads that have not seen data yet, on a body that is quantized already.

    Their batch-norm statistics are taken from the batches first.
    """
    network.eval()
    qat.set_mode(network.heads, Mode.OBSERVE)
    qat.set_mode(network.body, Mode.INTEGER)
    norms.renew(network, images, network.heads)
    observe(network, _acts(network.heads), images)


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
def observe(network: Network, acts: list[ActQuant], images: Sequence[Tensor]) -> None:
    """Set the steps of these activations, which are in OBSERVE mode, from what batches of images show; then
    all are in TRAIN mode. The steps do not depend on how many images the memory of a pass holds."""
    size, device = batch_size(network), next(network.parameters()).device
    for act in acts:
        act.peak = 0.0
    for x in images:
        for act in acts:
            act.begin(len(x))
        for part in parts(x, size, device):
            network(part)
        for act in acts:
            act.end()
    for act in acts:
        act.calibrate()
    align_additions(network, acts)
    qat.set_mode(network, Mode.TRAIN)
