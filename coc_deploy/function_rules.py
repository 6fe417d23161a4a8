"""How the rewriting treats functions of single values: what reads one tensor becomes tables of its codes."""

import math
import operator

from torch import fx, nn

from . import pointwise
from .frontend.modules import Shift
from .frontend.refusal import unquantized
from .lookup import QLookup
from .quantizers import ActQuant, QuantSpec


class FunctionRules:
    """The part of the rewriter that makes `QLookup` units, with what it knows of the graph."""

    body: fx.GraphModule
    spec: QuantSpec
    stem: bool
    modules: dict[str, nn.Module]
    shapes: dict[str, tuple[int, ...]]
    acts: dict[fx.Node, ActQuant]
    images: dict[fx.Node, tuple[int, ...]]
    renamed: dict[str, str]

    def functions(self, node: fx.Node, module: nn.Module | None) -> bool:
        """Replace all functions of single values of what the node reads, if it is one, and say whether."""
        inputs = node.all_input_nodes
        if len(inputs) != 1 or not pointwise.is_pointwise(node, self.modules):
            return False
        nodes = pointwise.grown(inputs[0], self.modules)
        if nodes == [node] and self._has_own_rule(node, inputs[0], module):
            return False
        units = {}
        for output in pointwise.outputs(nodes):
            target, unit = self._function(inputs[0], output, nodes)
            units[target] = unit
        for old in reversed(nodes):
            self.body.graph.erase_node(old)
        self.modules.update(units)
        return True

    def _has_own_rule(self, node: fx.Node, source: fx.Node, module: nn.Module | None) -> bool:
        """Whether a node alone is something else: a clip, an addition, the normalisation of the image."""
        if isinstance(module, Shift):
            return self.stem and source.op == "placeholder" and not module.learned
        return isinstance(module, nn.ReLU | nn.ReLU6) or node.target is operator.add

    def _function(self, source: fx.Node, output: fx.Node, nodes: list[fx.Node]) -> tuple[str, QLookup]:
        """Put a unit in the place of one function, whose nodes stay; its name and the unit."""
        parts = pointwise.needed(output, nodes)
        channels = self.images[source][0]
        found = pointwise.function(source, parts, self.modules, channels)
        if not pointwise.fits(found, channels):
            raise unquantized(output, self.modules.get(str(output.target)), "a constant for every pixel")
        act = self._function_output(output, nodes, found, self.acts[source], channels)
        target = str(output.target) if output.op == "call_module" else output.name
        unit = QLookup(found, self.acts[source], act, channels)
        self.body.add_submodule(target, unit)
        with self.body.graph.inserting_before(output):
            node = self.body.graph.call_module(target, (source,))
        output.replace_all_uses_with(node, lambda user: user not in nodes)
        for old in parts:
            self.renamed.setdefault(old.name, node.name)
        self.acts[node], self.images[node] = act, self.images[source]
        return target, unit

    def _function_output(
        self, output: fx.Node, nodes: list[fx.Node], found: nn.Module, source: ActQuant, channels: int
    ) -> ActQuant:
        """Signed if the function can be negative. What is read by products alone, a gate, has 8 bits."""
        spec = self.spec
        if pointwise.is_learned(found):
            return ActQuant(8, True, 0, spec.percentile, None, spec.learned)
        low, high = pointwise.bounds(found, channels, source.signed)
        if low < 0:
            return ActQuant(8, True, 0, spec.percentile, None, spec.learned)
        gates = all(user.target is operator.mul for user in output.users if user not in nodes)
        bits = 8 if gates else spec.act_bits
        ceiling = None if high == math.inf else high * (1 - 2.0**-bits)
        return ActQuant(bits, False, 0, spec.percentile, ceiling, spec.learned)

    def limits(self, node: fx.Node) -> tuple[float | None, float | None]:
        """Beyond these values nothing that reads the node changes; None: it does everywhere."""
        nodes = pointwise.grown(node, self.modules)
        if not set(nodes).issuperset(node.users):
            return None, None
        channels = self.shapes[node.name][0]
        found = [
            pointwise.function(node, pointwise.needed(output, nodes), self.modules, channels)
            for output in pointwise.outputs(nodes)
        ]
        if any(pointwise.is_learned(each) or not pointwise.fits(each, channels) for each in found):
            return None, None
        sides = zip(*(pointwise.limits(each, channels) for each in found), strict=True)
        low, high = (max(side, key=abs) for side in sides)
        return (None if math.isinf(low) else low), (None if math.isinf(high) else high)
