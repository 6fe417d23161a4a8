"""Quantization without training: steps of least error, and biases that make up for what rounding shifts.

From a few hundred images in float and quantized form: each activation gets the power-of-two step whose
rounding and clipping err least (instead of one that covers almost all values), and each layer's bias is
corrected front to back by how much the mean of every channel moved (Nagel et al. 2019, section 4.2).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from coc_runtime.limits import MAX_EXPONENT

from . import qat
from .calibration import align_additions, calibrate
from .network import Network, batch_size, parts
from .qat import ActQuant, Mode

IMAGES = 256
"""Biases are corrected on so many images at most."""
COARSER, FINER = 1, 3
"""Steps that are tried beside the calibrated one, in powers of two."""


def fit(network: Network, batches: Sequence[Tensor]) -> int:
    """Set steps and biases of a quantized network from batches of images; how many corrected biases."""
    qat.round_masters(network)
    calibrate(network, batches)
    choose_steps(network, batches)
    images = _first(batches, max(batch_size(network), 1))
    correct_biases(network, images)
    qat.set_mode(network, Mode.TRAIN)
    return len(images)


@torch.no_grad()
def choose_steps(network: Network, batches: Sequence[Tensor]) -> None:
    """Give every activation the step with the least squared error over all images, of steps near its own."""
    acts = [m for m in network.modules() if isinstance(m, ActQuant) and m is not network.image]
    shifts = range(-FINER, COARSER + 1)
    errors = {act: torch.zeros(len(shifts), dtype=torch.float64) for act in acts}

    def measure(act: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(act, ActQuant)
        y = given[0] if act.signed else given[0].clamp(0, act.ceiling)
        if act.signed and (act.floor, act.ceiling) != (None, None):
            y = y.clamp(act.floor, act.ceiling)
        high = (1 << act.bits) - 1 - act.zero_point
        for i, shift in enumerate(shifts):
            step = 2.0 ** (int(act.exponent) + shift)
            rounded = torch.round(y / step).clamp_(-act.zero_point, high).mul_(step)
            errors[act][i] += rounded.sub_(y).square_().sum(dtype=torch.float64)

    size, device = batch_size(network), next(network.parameters()).device
    network.eval()
    qat.set_mode(network, Mode.OBSERVE)
    with _hooked([act.register_forward_pre_hook(measure) for act in acts]):
        for x in batches:
            for part in parts(x, size, device):
                network(part)
    for act in acts:
        best = int(act.exponent) + shifts[int(errors[act].argmin())]
        act.set_exponent(max(-MAX_EXPONENT, min(best, MAX_EXPONENT)))
    align_additions(network, acts)
    qat.set_mode(network, Mode.TRAIN)


@torch.no_grad()
def correct_biases(network: Network, images: Tensor) -> None:
    """Move every layer's bias by how much rounding moved the means of its channels, front to back.

    images: float32 [N, C, H, W]. Each layer is corrected behind those in front of it.
    """
    network.eval()
    images = images.to(next(network.parameters()).device)
    qat.set_mode(network, Mode.OBSERVE)
    expected = _walk(network, images, [None] * (1 + len(network.heads)))
    qat.set_mode(network, Mode.INTEGER)
    _walk(network, images, expected)


def _walk(
    network: Network, images: Tensor, expected: Sequence[dict[str, Tensor] | None]
) -> list[dict[str, Tensor]]:
    """Through the body and then each head; the means of their layers."""
    body = _Walk(network.body, expected[0])
    *taps, _ = body.run(images)
    means = [body.means]
    for head, known, tap in zip(network.heads, expected[1:], taps, strict=True):
        walk = _Walk(head, known)
        walk.run(tap)
        means.append(walk.means)
    return means


class _Walk(fx.Interpreter):
    """Runs a graph of units; keeps the means of layers, or corrects their biases to the means given."""

    def __init__(self, graph: nn.Module, expected: dict[str, Tensor] | None) -> None:
        assert isinstance(graph, fx.GraphModule)
        super().__init__(graph)
        self.expected = expected
        self.means: dict[str, Tensor] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        unit = self.fetch_attr(str(target))
        if not isinstance(unit, qat.QConv | qat.QLinear):
            given: Tensor = unit(*args, **kwargs)
            return given
        mean = self.means[str(target)] = _mean(unit, args[0])
        if self.expected is not None:
            bias = unit.bn.bias if isinstance(unit, qat.QConv) else unit.bias
            if bias is not None:
                bias.add_((self.expected[str(target)] - mean).to(bias.dtype))
                unit.set_mode(unit.mode)  # what was folded has another bias now
        found: Tensor = unit(*args, **kwargs)
        return found


def _mean(unit: qat.QConv | qat.QLinear, x: Tensor) -> Tensor:
    """Of each channel, in front of the activation's rounding; float64."""
    if isinstance(unit, qat.QLinear):
        logits: Tensor = unit(x)
        return logits.mean(0, dtype=torch.float64)
    seen: list[Tensor] = []
    with _hooked([unit.act.register_forward_pre_hook(lambda _, given: seen.append(given[0]))]):
        unit(x)
    return seen[0].mean((0, 2, 3), dtype=torch.float64)


@contextmanager
def _hooked(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(batches: Sequence[Tensor], size: int) -> Tensor:
    """Images from the beginning, at most IMAGES, and at most four passes of the network's memory."""
    found: list[Tensor] = []
    left = min(IMAGES, 4 * size)
    for x in batches:
        found.append(x[:left])
        left -= len(found[-1])
        if left == 0:
            break
    return torch.cat(found)
