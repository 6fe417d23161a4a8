"""The stages of a chain: one file each, one contract, one table.

A stage module has `transform(network, recipe) -> Network`, which changes the structure without
training (and so can be rehearsed), and `run(state, context) -> State`, which transforms and trains.
"""

from types import ModuleType

from . import distill, early_exit, prune, quantize

STAGES: dict[str, ModuleType] = {"D": distill, "P": prune, "Q": quantize, "E": early_exit}
NAMES = {"D": "distill", "P": "prune", "Q": "quantize", "E": "exit"}
