"""Q: quantization-aware training with DoReFa weights and power-of-two activation steps."""

import copy

from .. import qat
from ..calibration import calibrate
from ..network import Network
from ..qat import Mode
from ..recipe import Recipe
from ..state import Context, State, finetune_loss


def transform(network: Network, recipe: Recipe) -> Network:
    quantized = copy.deepcopy(network)
    quantized.quantize(recipe.q.spec)
    return quantized


def run(state: State, context: Context) -> State:
    config = context.recipe.q
    network = transform(state.network, context.recipe)
    calibrate(network, context.calibration_batches())

    def prepare(epoch: int) -> bool:
        folded = epoch >= config.epochs - config.folded_epochs
        network.train(not folded)
        qat.set_mode(network, Mode.FOLDED if folded else Mode.TRAIN)
        return context.low_precision and not folded

    context.fit(network, config, finetune_loss(network, state.original, config), prepare)
    return State(network, state.original, state.history)
