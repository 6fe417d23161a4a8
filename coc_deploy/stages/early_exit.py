"""E: heads behind inner blocks, trained while the body stays as it is; thresholds chosen on held-out data."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from coc_runtime.errors import CocError

from .. import losses, qat
from ..calibration import calibrate_heads
from ..counting import cumulative_share
from ..network import ExitSpec, Network
from ..qat import Mode
from ..recipe import Recipe
from ..state import Context, State


def place(network: Network, positions: Sequence[float | str]) -> tuple[str, ...]:
    """Positions as module names; a fraction takes the block whose share of the BitOps is nearest to it."""
    free = cumulative_share(network)
    if len(positions) > len(free):
        raise CocError(
            f"{len(positions)} exits do not fit {network.arch.name}: its blocks are {', '.join(free)}"
        )
    shares, names = dict(free), []
    for position in positions:
        name = position if isinstance(position, str) else min(free, key=lambda n: abs(free[n] - position))
        free.pop(name, None)
        names.append(name)
    fractions = not any(isinstance(position, str) for position in positions)
    return tuple(sorted(names, key=shares.__getitem__) if fractions else names)


def transform(network: Network, recipe: Recipe) -> Network:
    with_exits = copy.deepcopy(network)
    config = recipe.e
    with_exits.add_exits(ExitSpec(place(network, config.positions), config.head, config.head_channels))
    return with_exits.to(memory_format=torch.channels_last)


def run(state: State, context: Context) -> State:
    config = context.recipe.e
    torch.manual_seed(context.seed)
    network = transform(state.network, context.recipe)
    if network.quant is not None:
        calibrate_heads(network, context.calibration_batches())

    def prepare(epoch: int) -> bool:
        network.eval()
        network.heads.train()
        qat.set_mode(network, Mode.TRAIN)
        qat.set_mode(network.body, Mode.INTEGER)
        return False

    distilled = losses.OBJECTIVES[context.task].distilled

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            *taps, final = network.body(x)
        logits = [head(tap) for head, tap in zip(network.heads, taps, strict=True)]
        return distilled(logits, final, y, config.temperature, config.alpha)

    context.fit(network, config, loss, prepare, list(network.heads.parameters()))
    return State(network, state.original, state.history)
