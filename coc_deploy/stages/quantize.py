"""Q: quantization-aware training with DoReFa weights and power-of-two activation steps; with no epochs,
quantization without training."""

import copy

from .. import post_training
from ..calibration import calibrate
from ..dequantize import dequantized
from ..network import Network
from ..recipe import Recipe
from ..state import Context, State, finetune_loss
from .requantize import refresh


def transform(network: Network, recipe: Recipe) -> Network:
    """A quantized copy, heads included; what is quantized already gets the bits of this stage."""
    quantized = copy.deepcopy(network) if network.quant is None else dequantized(network)
    quantized.quantize(recipe.q.spec)
    return quantized


def run(state: State, context: Context) -> State:
    config = context.recipe.q
    network = transform(state.network, context.recipe)
    if config.epochs == 0:
        count = post_training.fit(network, context.calibration_batches())
        context.say(f"quantized without training: steps and biases from {count:,} held-out images")
    elif state.network.quant is None:
        calibrate(network, context.calibration_batches())
    else:
        refresh(network, context.calibration_batches(), renew_norms=True)
    loss = finetune_loss(network, state, config, context.task)
    context.fit(network, config, loss, context.modes(network, config))
    return State(network, state.original, state.history)
