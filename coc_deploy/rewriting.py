"""Rewriting a float graph into quantized units, one rule per pattern."""

from dataclasses import dataclass

from torch import fx, nn

from coc_runtime.errors import CocError

from . import qat
from .qat import ActQuant

SUPPORTED = "Conv2d + BatchNorm2d (+ ReLU), addition (+ ReLU), AdaptiveAvgPool2d(1) + flatten, Linear"


@dataclass(frozen=True)
class QuantSpec:
    """Weight and activation bits; `ends` are the weight bits of the stem and the linear layers."""

    weight_bits: int
    act_bits: int
    ends: int
    percentile: float = 99.9


@dataclass(frozen=True)
class _Match:
    """Nodes that one unit replaces, in order; the unit's name in the module; and the unit."""

    chain: list[fx.Node]
    target: str
    unit: nn.Module


class _Rewriter:
    def __init__(self, body: fx.GraphModule, spec: QuantSpec, source: ActQuant, stem: bool) -> None:
        self.body, self.spec, self.source, self.stem = body, spec, source, stem
        self.modules: dict[str, nn.Module] = dict(body.named_modules())
        self.acts: dict[fx.Node, ActQuant] = {}
        self.renamed: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        for node in list(self.body.graph.nodes):
            if node.op == "placeholder":
                self.acts[node] = self.source
            elif node.op != "output" and node.name not in self.renamed:
                self._replace(self._match(node), node.args)
        self.body.delete_all_unused_submodules()
        self.body.graph.lint()
        self.body.recompile()
        return self.renamed

    def _match(self, node: fx.Node) -> _Match:
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d):
            return self._conv(node, module)
        if isinstance(module, nn.AdaptiveAvgPool2d) and len(node.users) == 1:
            signed = self._act(node).signed
            pool = qat.QPool(ActQuant(8, signed, percentile=100.0))
            return _Match([node, next(iter(node.users))], str(node.target), pool)
        if isinstance(module, nn.Linear):
            unit = qat.QLinear(module, self.spec.ends, self._act(node))
            return _Match([node], str(node.target), unit)
        if node.op == "call_function" and getattr(node.target, "__name__", "") == "add":
            relu = self._sole_user(node, nn.ReLU)
            return _Match([node, relu] if relu else [node], node.name, qat.QAdd(self._output(relu)))
        kind = type(module).__name__ if module is not None else str(node.op)
        raise CocError(f"{node.target}: {kind} cannot be quantized; supported: {SUPPORTED}")

    def _conv(self, node: fx.Node, conv: nn.Conv2d) -> _Match:
        norm = self._sole_user(node, nn.BatchNorm2d)
        if norm is None:
            raise CocError(
                f"{node.target}: a convolution must be followed by batch-norm alone to be quantized"
            )
        relu = self._sole_user(norm, nn.ReLU)
        source = self._act(node)
        bits = self.spec.ends if self.stem and source is self.source else self.spec.weight_bits
        batch_norm = self.modules[str(norm.target)]
        assert isinstance(batch_norm, nn.BatchNorm2d)
        unit = qat.QConv(conv, batch_norm, bits, source, self._output(relu))
        return _Match([node, norm, relu] if relu else [node, norm], str(node.target), unit)

    def _output(self, relu: fx.Node | None) -> ActQuant:
        """Behind a ReLU the chain's activation bits; signed values, which no convolution reads, 8 bits."""
        bits = self.spec.act_bits if relu else 8
        return ActQuant(bits, signed=relu is None, percentile=self.spec.percentile)

    def _act(self, node: fx.Node) -> ActQuant:
        return self.acts[node.all_input_nodes[0]]

    def _sole_user(self, node: fx.Node, kind: type[nn.Module]) -> fx.Node | None:
        users = [user for user in node.users if user.op != "output"]
        if len(users) == 1 and isinstance(self.modules.get(str(users[0].target)), kind):
            return users[0]
        return None

    def _replace(self, match: _Match, args: tuple) -> None:
        self.body.add_submodule(match.target, match.unit)
        last = match.chain[-1]
        with self.body.graph.inserting_after(last):
            node = self.body.graph.call_module(match.target, args)
        last.replace_all_uses_with(node)
        for old in reversed(match.chain):
            self.renamed[old.name] = node.name
            self.body.graph.erase_node(old)
            if isinstance(self.modules.get(str(old.target)), nn.BatchNorm2d):
                self.body.delete_submodule(str(old.target))
        if isinstance(match.unit, qat.QConv | qat.QAdd | qat.QPool):
            self.acts[node] = match.unit.act


def quantize_graph(body: fx.GraphModule, spec: QuantSpec, source: ActQuant, stem: bool) -> dict[str, str]:
    """Rewrite a float graph into units, in place; returns old node name -> its unit's node name.

    source: the quantizer of the graph's input. stem: the convolutions that read it get the bits of
    the ends. Raises CocError, naming the module, for what has no quantized form.
    """
    return _Rewriter(body, spec, source, stem).run()
