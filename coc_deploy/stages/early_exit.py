"""E: heads behind inner blocks, trained while the body stays as it is; thresholds chosen on held-out data."""

import copy

import torch
from torch import Tensor

from coc_runtime.cost import bitops

from .. import qat, thresholds, train
from ..calibration import calibrate_heads
from ..counting import cumulative_share, segment_layers
from ..network import ExitSpec, Network, exit_logits
from ..qat import Mode
from ..recipe import Exit, Recipe
from ..state import Context, State


def place(network: Network, config: Exit) -> ExitSpec:
    """Positions as module names; a fraction takes the block whose share of the BitOps is nearest to it."""
    names = []
    for position in config.positions:
        if isinstance(position, str):
            names.append(position)
            continue
        shares = {name: share for name, share in cumulative_share(network).items() if name not in names}
        names.append(min(shares, key=lambda name: abs(shares[name] - position)))
    return ExitSpec(tuple(names), config.head, config.head_channels)


def transform(network: Network, recipe: Recipe) -> Network:
    with_exits = copy.deepcopy(network)
    with_exits.add_exits(place(network, recipe.e))
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

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            *taps, final = network.body(x)
        logits = [head(tap) for head, tap in zip(network.heads, taps, strict=True)]
        return train.distillation(logits, final, y, config.temperature, config.alpha)

    context.fit(network, config, loss, prepare, list(network.heads.parameters()))
    logits = exit_logits(network, context.calibration.images)
    segments = [bitops(layers) for layers in segment_layers(network)]
    cumulative = [sum(segments[: k + 1]) for k in range(len(segments))]
    network.thresholds = thresholds.choose(logits, context.calibration.labels, cumulative, config.max_drop)
    return State(network, state.original, state.history)
