"""Functions of single values in a canonical body: which nodes make one up, and what is known of it.

`x * relu6(x + 3) / 6` is four nodes and one function of x. Whatever is computed from one tensor alone, value
by value, becomes one table, however many nodes it was.
"""

import copy
import math
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from .frontend.modules import Activation, Scale, Shift

KINDS = (nn.ReLU, nn.ReLU6, nn.PReLU, Activation, Scale, Shift)
"""Modules that are functions of single values, perhaps of each channel another one."""
FUNCTIONS = (operator.add, operator.mul)
"""Functions of two values of one place."""

FARTHEST = 64.0
"""Where a function is taken to have saturated if it ever does."""
NEAR = 8.0
"""Values up to this show how far a function spreads."""
SATURATED = 2.0**-11
"""A function that differs from its end by less than this part of its spread has saturated."""


def is_pointwise(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node computes each value from the values of its inputs at the same place."""
    if node.op == "call_function":
        return node.target in FUNCTIONS
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, Scale | Shift):
        return math.prod(module.shape[1:]) == 1  # of a channel, or of a value of a vector
    return isinstance(module, KINDS)


def grown(source: fx.Node, modules: Mapping[str, nn.Module]) -> list[fx.Node]:
    """All nodes that compute functions of single values of `source`, in order."""
    found: dict[fx.Node, None] = {}
    for node in source.graph.nodes:
        inputs = node.all_input_nodes
        if inputs and all(i is source or i in found for i in inputs) and is_pointwise(node, modules):
            found[node] = None
    return list(found)


def outputs(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the nodes that others read."""
    return [node for node in nodes if not set(nodes).issuperset(node.users)]


def needed(output: fx.Node, nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the nodes that `output` is computed from, itself included, in order."""
    found = {output}
    for node in reversed(nodes):
        if node in found:
            found.update(set(node.all_input_nodes) & set(nodes))
    return [node for node in nodes if node in found]


def function(
    source: fx.Node, parts: Sequence[fx.Node], modules: Mapping[str, nn.Module], channels: int
) -> fx.GraphModule:
    """The function of `source` that the last of the nodes computes, for images of so many channels."""
    graph = fx.Graph()
    made = {source: graph.placeholder("x")}
    for node in parts:
        made[node] = graph.node_copy(node, made.__getitem__)
    graph.output(made[parts[-1]])
    targets = [str(node.target) for node in parts if node.op == "call_module"]
    return fx.GraphModule({target: _for_images(modules[target], channels) for target in targets}, graph)


def _for_images(module: nn.Module, channels: int) -> nn.Module:
    """The module, a vector's constant in the shape of an image's."""
    if not isinstance(module, Scale | Shift) or len(module.shape) > 1 or module.constant.numel() == 1:
        return module
    constant = module.constant.detach().reshape(-1, 1, 1)
    if not module.learned:
        return type(module).of(constant)
    result = type(module)(tuple(constant.shape), True)
    setattr(result, module.held, nn.Parameter(constant))
    return result


def fits(found: nn.Module, channels: int) -> bool:
    """Whether the constants of a function are of as many channels, or of all."""
    return set(_counts(found)) <= {1, channels}


def _counts(found: nn.Module) -> list[int]:
    """Of how many channels the constants of a function are."""
    counts = [len(m.constant) for m in found.modules() if isinstance(m, Scale | Shift)]
    return counts + [m.num_parameters for m in found.modules() if isinstance(m, nn.PReLU)]


def is_learned(found: nn.Module) -> bool:
    """Whether training changes the function."""
    return next(found.parameters(), None) is not None


@torch.no_grad()
def values(found: nn.Module, x: Tensor, channels: int) -> Tensor:
    """What the function gives for numbers x [N]: [N, channels, or 1 if all are alike]; 0 for none."""
    channels = channels if any(count > 1 for count in _counts(found)) else 1
    y: Tensor = copy.deepcopy(found).cpu()(x[:, None, None, None].expand(-1, channels, 1, 1))[:, :, 0, 0]
    return torch.nan_to_num(y, nan=0.0)


def limits(found: nn.Module, channels: int) -> tuple[float, float]:
    """Powers of two beyond which the function stays as it is, to the left and to the right, or infinities."""
    x = torch.linspace(-FARTHEST, FARTHEST, 4097)
    y = values(found, x, channels)
    near = y[x.abs() <= NEAR]
    slack = SATURATED * (near.amax(0) - near.amin(0))
    reached = []
    for side, end in ((x < 0, y[0]), (x > 0, y[-1])):
        moving = ((y - end).abs() > slack).any(1) & side
        far = float(x[moving].abs().max()) if moving.any() else 0.0
        reached.append(2.0 ** math.ceil(math.log2(max(far, 1 / NEAR))) if far < FARTHEST / 2 else math.inf)
    return -reached[0], reached[1]


def bounds(found: nn.Module, channels: int, signed: bool) -> tuple[float, float]:
    """The function's least and largest value, for signed numbers or others; infinite where it grows."""
    x = torch.linspace(-FARTHEST if signed else 0.0, FARTHEST, 4097)
    y, far = values(found, x, channels), values(found, 16 * x[[0, -1]], channels)
    low, high = float(y.min()), float(y.max())
    slack = SATURATED * (high - low)
    return (
        min(low, float(far.min())) if far.min() >= low - slack else -math.inf,
        max(high, float(far.max())) if far.max() <= high + slack else math.inf,
    )
