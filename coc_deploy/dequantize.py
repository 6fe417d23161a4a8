"""Makes a quantized network a float one again, unit by unit, to be pruned or quantized anew."""

import copy
import operator
from collections.abc import Callable

import torch
from torch import fx, nn

from coc_runtime.errors import CocError
from coc_runtime.ops.windows import down_and_across

from . import qat
from .convolution import Conv2d
from .frontend.modules import Shift
from .network import Network
from .qat import (
    ActQuant,
    Pads,
    QAdaptiveAvgPool,
    QAdd,
    QAvgPool,
    QConcat,
    QConv,
    QFlatten,
    QLinear,
    QLogits,
    QLookup,
    QMaxPool,
    QMul,
    QPixelAvgPool,
    QPool,
    QSelect,
)

Inputs = tuple[fx.Node, ...]


class _Floats:
    """The float graph as it grows: its nodes, and the modules that they call."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}

    def module(self, target: str, module: nn.Module, source: fx.Node) -> fx.Node:
        self.modules[target] = module
        return self.graph.call_module(target, (source,))

    def activation(self, target: str, source: fx.Node, act: ActQuant) -> fx.Node:
        """The ReLU that an unsigned activation stands for."""
        if act.signed:
            return source
        return self.module(f"{target}_relu", nn.ReLU() if act.ceiling is None else nn.ReLU6(), source)

    def padded(self, target: str, source: fx.Node, pads: Pads) -> fx.Node:
        top, left, bottom, right = pads
        return self.module(f"{target}_pad", nn.ZeroPad2d((left, right, top, bottom)), source)


# Each rule takes the graph, the unit, its name and its inputs, and gives the node of the unit's output.
# Modules and operations keep the unit's name, because quantizing again names units after them.


def _conv(floats: _Floats, unit: QConv, name: str, inputs: Inputs) -> fx.Node:
    source, (top, left, bottom, right) = inputs[0], unit.pads
    if unit.alone:
        module = Shift.of(unit.bn.bias[:, None, None]) if isinstance(unit.bn, qat.Bias) else unit.bn
        return floats.activation(name, floats.module(name, module, source), unit.act)
    if (top, left) != (bottom, right):
        source, top, left = floats.padded(name, source, unit.pads), 0, 0
    out, per_group, height, width = unit.weight.shape
    bias = isinstance(unit.bn, qat.Bias)
    conv = Conv2d(
        per_group * unit.groups,
        out,
        (height, width),
        down_and_across(unit.stride),
        (top, left),
        down_and_across(unit.dilation),
        groups=unit.groups,
        bias=bias,
    )
    conv.weight = unit.weight
    if bias:
        conv.bias = unit.bn.bias
        return floats.activation(name, floats.module(name, conv, source), unit.act)
    normed = floats.module(f"{name}_bn", unit.bn, floats.module(name, conv, source))
    return floats.activation(name, normed, unit.act)


def _add(floats: _Floats, unit: QAdd, name: str, inputs: Inputs) -> fx.Node:
    return _function(floats, unit.act, name, operator.add, inputs)


def _mul(floats: _Floats, unit: QMul, name: str, inputs: Inputs) -> fx.Node:
    return _function(floats, unit.act, name, operator.mul, inputs)


def _lookup(floats: _Floats, unit: QLookup, name: str, inputs: Inputs) -> fx.Node:
    """The nodes of the function under the names that they had, the last under the unit's."""
    assert isinstance(unit.function, fx.GraphModule)
    made: dict[fx.Node, fx.Node] = {}
    for node in unit.function.graph.nodes:
        if node.op == "placeholder":
            made[node] = inputs[0]
        elif node.op == "call_module":
            (source,) = node.all_input_nodes
            made[node] = floats.module(
                str(node.target), unit.function.get_submodule(str(node.target)), made[source]
            )
        elif node.op == "call_function":
            made[node] = floats.graph.node_copy(node, made.__getitem__)
        else:
            return made[node.all_input_nodes[0]]
    raise AssertionError(f"{name}: the function has no output")


def _concat(floats: _Floats, unit: QConcat, name: str, inputs: Inputs) -> fx.Node:
    return _function(floats, unit.act, name, torch.cat, inputs)


def _function(
    floats: _Floats, act: ActQuant, name: str, function: Callable[..., object], inputs: Inputs
) -> fx.Node:
    node = floats.graph.create_node("call_function", function, inputs, name=name)
    assert node.name == name
    return floats.activation(name, node, act)


def _average_pool(floats: _Floats, unit: QAvgPool, name: str, inputs: Inputs) -> fx.Node:
    source = floats.padded(name, inputs[0], unit.pads) if any(unit.pads) else inputs[0]
    pool = nn.AvgPool2d(unit.kernel, unit.stride)
    return floats.activation(name, floats.module(name, pool, source), unit.act)


def _uneven_pool(
    floats: _Floats, unit: QPixelAvgPool | QAdaptiveAvgPool, name: str, inputs: Inputs
) -> fx.Node:
    return floats.activation(name, floats.module(name, unit.module, inputs[0]), unit.act)


def _max_pool(floats: _Floats, unit: QMaxPool, name: str, inputs: Inputs) -> fx.Node:
    source, (top, left, bottom, right) = inputs[0], unit.pads
    ceil = (top, left) != (bottom, right)
    if ceil and not unit.act.signed:  # zeros never win either
        source, top, left, ceil = floats.padded(name, source, unit.pads), 0, 0, False
    return floats.module(name, nn.MaxPool2d(unit.kernel, unit.stride, (top, left), ceil_mode=ceil), source)


def _flatten(floats: _Floats, unit: QFlatten, name: str, inputs: Inputs) -> fx.Node:
    return floats.module(name, nn.Flatten(), inputs[0])


def _select(floats: _Floats, unit: QSelect, name: str, inputs: Inputs) -> fx.Node:
    return floats.module(name, unit.module, inputs[0])


def _logits(floats: _Floats, unit: QLogits, name: str, inputs: Inputs) -> fx.Node:
    return inputs[0]


def _pool(floats: _Floats, unit: QPool, name: str, inputs: Inputs) -> fx.Node:
    pooled = floats.module(name, nn.AdaptiveAvgPool2d(1), inputs[0])
    return floats.module(f"{name}_flatten", nn.Flatten(), pooled)


def _linear(floats: _Floats, unit: QLinear, name: str, inputs: Inputs) -> fx.Node:
    linear = nn.Linear(unit.weight.shape[1], unit.weight.shape[0], bias=unit.bias is not None)
    linear.weight, linear.bias = unit.weight, unit.bias
    return floats.module(name, linear, inputs[0])


RULES: dict[type[nn.Module], Callable[..., fx.Node]] = {
    QConv: _conv,
    QAdd: _add,
    QMul: _mul,
    QLookup: _lookup,
    QConcat: _concat,
    QAvgPool: _average_pool,
    QPixelAvgPool: _uneven_pool,
    QAdaptiveAvgPool: _uneven_pool,
    QMaxPool: _max_pool,
    QFlatten: _flatten,
    QSelect: _select,
    QLogits: _logits,
    QPool: _pool,
    QLinear: _linear,
}


def dequantized(network: Network) -> Network:
    """A float copy with the same names, parameters and batch-norm statistics (those that QAT left).

    Hidden linear layers stay the convolutions that they became.
    """
    result = copy.deepcopy(network)
    result.body, renamed = _dequantize(result.body)
    positions = {name: renamed.get(node, node) for name, node in result.positions.items()}
    result.heads = nn.ModuleList(_dequantize(head)[0] for head in result.heads)  # type: ignore[arg-type]
    result.make_float(positions)
    return result.to(memory_format=torch.channels_last)


def _dequantize(module: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, str]]:
    """The float graph of a graph of units, and the node that each unit's output became."""
    floats = _Floats()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "call_module":
            unit = module.get_submodule(str(node.target))
            inputs = fx.map_arg(node.args, nodes.__getitem__)
            rule = RULES.get(type(unit))
            if rule is None:
                raise CocError(f"{node.target}: {type(unit).__name__} cannot be made float again")
            nodes[node] = rule(floats, unit, str(node.target), inputs)
        else:
            nodes[node] = floats.graph.node_copy(node, nodes.__getitem__)
    floats.graph.lint()
    result = fx.GraphModule(floats.modules, floats.graph)
    return result, {old.name: new.name for old, new in nodes.items()}
