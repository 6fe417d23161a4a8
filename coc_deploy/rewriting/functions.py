"""The rule for functions of single values: what reads one tensor becomes tables of its codes."""

import math
import operator

from torch import fx, nn

from .. import pointwise
from ..frontend.modules import Shift
from ..frontend.refusal import unquantized
from ..lookup import QLookup
from ..quantizers import ActQuant
from .context import Context
from .patch import Patch, Placed


def functions(context: Context, node: fx.Node, module: nn.Module | None) -> Patch | None:
    """All functions of single values of what the node reads, if it is one of them."""
    inputs = node.all_input_nodes
    if len(inputs) != 1 or not pointwise.is_pointwise(node, context.modules):
        return None
    nodes = pointwise.grown(inputs[0], context.modules)
    if nodes == [node] and _has_own_rule(context, node, module):
        return None
    placed = tuple(_function(context, inputs[0], output, nodes) for output in pointwise.outputs(nodes))
    return Patch(placed, tuple(nodes))


def _has_own_rule(context: Context, node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node alone is something else: a clip, an addition, the normalisation of the image."""
    if isinstance(module, Shift):
        return context.stem and node.all_input_nodes[0].op == "placeholder" and not module.learned
    return isinstance(module, nn.ReLU | nn.ReLU6) or node.target is operator.add


def _function(context: Context, source: fx.Node, output: fx.Node, nodes: list[fx.Node]) -> Placed:
    """The unit of one function, whose nodes others may need, too."""
    parts = pointwise.needed(output, nodes)
    channels = context.images[source][0]
    found = pointwise.function(source, parts, context.modules, channels)
    if not pointwise.fits(found, channels):
        raise unquantized(output, context.module(output), "a constant for every pixel")
    act = _type(context, output, nodes, found, source)
    target = str(output.target) if output.op == "call_module" else output.name
    unit = QLookup(found, context.acts[source], act, channels)
    return Placed(target, unit, (source,), output, tuple(parts))


def _type(
    context: Context, output: fx.Node, nodes: list[fx.Node], found: nn.Module, source: fx.Node
) -> ActQuant:
    """Signed if the function can be negative. What is read by products alone, a gate, has 8 bits."""
    spec = context.spec
    if pointwise.is_learned(found):
        return context.signed()
    low, high = pointwise.bounds(found, context.images[source][0], context.acts[source].signed)
    if low < 0:
        return context.signed()
    gates = all(user.target is operator.mul for user in output.users if user not in nodes)
    bits = 8 if gates else spec.act_bits
    ceiling = None if high == math.inf else high * (1 - 2.0**-bits)
    return ActQuant(bits, False, 0, spec.percentile, ceiling, spec.learned)
