"""What P, Q and D share when a network is quantized: back to float, changed, quantized again, ranges anew."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import norms, qat
from ..calibration import observe
from ..dequantize import dequantized
from ..network import Network
from ..qat import ActQuant, Mode

Change = Callable[[Network], Network]


def changed(network: Network, change: Change) -> Network:
    """What `change` makes of a float network, quantized as the given network is."""
    if network.quant is None:
        return change(network)
    result = change(dequantized(network))
    result.quantize(network.quant)
    return result


@torch.no_grad()
def refresh(network: Network, images: Sequence[Tensor], renew_norms: bool) -> None:
    """Set every activation's step from a pass over batches of images with quantized weights.

    renew_norms: batch-norm statistics are those of another network (one with channels that are gone, or an
    untrained one) and are taken from the batches first, as plain averages.
    """
    if renew_norms:
        _observing(network)
        norms.renew(network, images)
    observe(network, _observing(network), images)


def _observing(network: Network) -> list[ActQuant]:
    """Evaluation mode with quantized weights; activations pass unrounded and are recorded."""
    network.eval()
    qat.set_mode(network, Mode.TRAIN)
    acts = [m for m in network.modules() if isinstance(m, ActQuant) and m is not network.image]
    for act in acts:
        act.mode = Mode.OBSERVE
    return acts
