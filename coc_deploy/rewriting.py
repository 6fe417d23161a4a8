"""Rewriting a canonical float graph into quantized units, one rule per kind of node.

Inside, every value but the logits is an image: a vector is a 1x1 image, so that hidden linear layers
are convolutions (over the whole image where they follow a flattening), and flattening is only
written out in front of the final linear layer.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn

from coc_runtime.errors import CocError
from coc_runtime.ops.windows import Stride, stride_of

from . import qat
from .frontend.modules import AsImage, Select, Shift, Slice, StochasticDepth
from .frontend.refusal import unquantized
from .function_rules import FunctionRules
from .padding import can_pad, padding_convolution
from .qat import ActQuant, Pads
from .quantizers import QuantSpec
from .shapes import pair, shapes

NO_PADS: Pads = (0, 0, 0, 0)


@dataclass(frozen=True)
class _Match:
    """Nodes that one unit replaces, in order; the unit's name in the module; and the unit."""

    chain: list[fx.Node]
    target: str
    unit: nn.Module


class _Rewriter(FunctionRules):
    def __init__(
        self,
        body: fx.GraphModule,
        spec: QuantSpec,
        source: ActQuant,
        stem: bool,
        shape: tuple[int, ...],
    ) -> None:
        self.body, self.spec, self.source, self.stem = body, spec, source, stem
        self.modules: dict[str, nn.Module] = dict(body.named_modules())
        self.shapes = shapes(body, shape)
        self.inputs = {n: [self.shapes[i.name] for i in n.all_input_nodes] for n in body.graph.nodes}
        self.acts: dict[fx.Node, ActQuant] = {}
        self.images: dict[fx.Node, tuple[int, ...]] = {}
        self.pads: dict[fx.Node, Pads] = {}
        self.renamed: dict[str, str] = {}
        self.rules: list[tuple[tuple[type[nn.Module], ...], Callable[[fx.Node, nn.Module], _Match]]] = [
            ((nn.Conv2d,), self._conv),
            ((nn.BatchNorm2d, nn.BatchNorm1d), self._norm),
            ((nn.ReLU, nn.ReLU6), self._clip),
            ((Shift,), self._shift),
            ((nn.MaxPool2d,), self._max_pool),
            ((nn.AvgPool2d,), self._average_pool),
            ((nn.AdaptiveAvgPool2d,), self._global_pool),
            ((nn.Linear,), self._linear),
            ((Slice, Select, nn.ChannelShuffle), self._select),
        ]

    def run(self) -> dict[str, str]:
        for node in list(self.body.graph.nodes):
            module = self._module(node)
            if node.op == "placeholder":
                self.acts[node], self.images[node] = self.source, self.shapes[node.name]
            elif isinstance(module, nn.Dropout | nn.Dropout2d | StochasticDepth | nn.Flatten | AsImage):
                self._drop(node, node.name)
            elif isinstance(module, nn.ZeroPad2d):
                self._pad(node, module)
            elif node.op != "output" and node.name not in self.renamed and not self.functions(node, module):
                self._replace(self._match(node, module))
        self._end()
        self.body.delete_all_unused_submodules()
        self.body.graph.lint()
        self.body.recompile()
        return self.renamed

    def _match(self, node: fx.Node, module: nn.Module | None) -> _Match:
        for kinds, rule in self.rules:
            if module is not None and isinstance(module, kinds):
                return rule(node, module)
        if node.op == "call_function" and node.target is operator.add:
            return self._add(node)
        if node.op == "call_function" and node.target is torch.cat:
            return self._concat(node)
        if node.op == "call_function" and node.target is operator.mul:
            return self._mul(node)
        raise unquantized(node, module)

    def _end(self) -> None:
        """Codes become logits where no linear layer gives them."""
        output = self.body.graph.output_node()
        last = output.all_input_nodes[-1]
        if isinstance(self._module(last), qat.QLinear):
            return
        read = self._flattened(last, output) if len(self.images[last]) == 3 else last
        target = f"{last.name}_logits"
        self.body.add_submodule(target, qat.QLogits(self.acts[last]))
        with self.body.graph.inserting_before(output):
            node = self.body.graph.call_module(target, (read,))
        last.replace_all_uses_with(node, lambda user: user is output)

    # Rules

    def _conv(self, node: fx.Node, conv: nn.Module) -> _Match:
        assert isinstance(conv, nn.Conv2d)
        if conv.dilation != (1, 1):
            raise unquantized(node, conv, f"dilation {conv.dilation}", "convolutions must have dilation 1")
        norm = self._sole_user(node, nn.BatchNorm2d)
        unit_norm: nn.BatchNorm2d | qat.Bias
        if norm is None:
            unit_norm = qat.Bias(conv.weight.new_zeros(len(conv.weight)) if conv.bias is None else conv.bias)
        else:
            unit_norm = self._module(norm)  # type: ignore[assignment]
            if conv.bias is not None:
                unit_norm.running_mean -= conv.bias.detach()  # type: ignore[operator]
        return self._convolution(node, norm, conv, unit_norm)

    def _convolution(
        self,
        node: fx.Node,
        norm: fx.Node | None,
        conv: nn.Conv2d,
        unit_norm: nn.BatchNorm2d | qat.Bias,
        alone: bool = False,
    ) -> _Match:
        relu = self._relu(norm or node)
        source = self._act(node)
        bits = self.spec.ends if self.stem and source is self.source else self.spec.weight_bits
        bits = 8 if alone else bits
        extra = self.pads.get(node, NO_PADS)
        act = self._output(norm or node, relu)
        unit = qat.QConv(conv, unit_norm, bits, source, act, extra, alone, self.spec.per_layer)
        chain = [part for part in (node, norm, relu) if part is not None]
        return _Match(chain, str(node.target), unit)

    def _norm(self, node: fx.Node, norm: nn.Module) -> _Match:
        """Batch-norm on its own: a depthwise 1x1 convolution of ones with 8-bit weights."""
        assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d)
        channels, *size = self.images[self._input(node)]
        if isinstance(norm, nn.BatchNorm1d) and size != [1, 1]:
            raise CocError(f"{node.target}: BatchNorm1d behind a flattened image cannot be quantized")
        return self._convolution(node, None, _ones(channels), _norm2d(norm), alone=True)

    def _shift(self, node: fx.Node, shift: nn.Module) -> _Match:
        """Of the image, in front of zero padding: a depthwise 1x1 convolution of ones with a bias."""
        assert isinstance(shift, Shift)
        channels = self.images[self._input(node)][0]
        bias = shift.constant.detach().reshape(-1).expand(channels)
        return self._convolution(node, None, _ones(channels), qat.Bias(bias), alone=True)

    def _clip(self, node: fx.Node, relu: nn.Module) -> _Match:
        """A ReLU on its own."""
        unit = qat.QAvgPool(self._output(node, node), (1, 1), 1, NO_PADS)
        return _Match([node], str(node.target), unit)

    def _max_pool(self, node: fx.Node, pool: nn.Module) -> _Match:
        assert isinstance(pool, nn.MaxPool2d)
        if pair(pool.dilation) != (1, 1):
            raise unquantized(node, pool, "dilated pooling", "use dilation 1")
        source = self._act(node)
        extra = self.pads.get(node, NO_PADS)
        kernel, (down, across) = pair(pool.kernel_size), pair(pool.stride)
        top, left = (p + e for p, e in zip(pair(pool.padding), extra[:2], strict=True))
        bottom, right = (p + e for p, e in zip(pair(pool.padding), extra[2:], strict=True))
        _, height, width = self.images[self._input(node)]
        _, out_height, out_width = self.shapes[node.name]  # of ceil_mode, where windows reach over the border
        bottom = max(bottom, (out_height - 1) * down + kernel[0] - height - top)
        right = max(right, (out_width - 1) * across + kernel[1] - width - left)
        pads = (top, left, bottom, right)
        return _Match([node], str(node.target), qat.QMaxPool(source, kernel, stride_of(down, across), pads))

    def _average_pool(self, node: fx.Node, pool: nn.Module) -> _Match:
        assert isinstance(pool, nn.AvgPool2d)
        if not pool.count_include_pad:
            raise unquantized(node, pool, "average pooling without count_include_pad", "set it to True")
        if pool.ceil_mode:
            raise unquantized(node, pool, "average pooling with ceil_mode", "its border windows differ")
        if pool.divisor_override:
            raise unquantized(node, pool, "average pooling with divisor_override", "leave it out")
        padding, extra = pair(pool.padding), self.pads.get(node, NO_PADS)
        pads = (padding[0] + extra[0], padding[1] + extra[1], padding[0] + extra[2], padding[1] + extra[3])
        return self._average(node, pair(pool.kernel_size), stride_of(*pair(pool.stride)), pads)

    def _average(self, node: fx.Node, kernel: tuple[int, int], stride: Stride, pads: Pads) -> _Match:
        relu = self._relu(node)
        act = self._output(node, relu) if relu or self._act(node).signed else self._unsigned()
        chain = [node, relu] if relu else [node]
        return _Match(chain, str(node.target), qat.QAvgPool(act, kernel, stride, pads))

    def _global_pool(self, node: fx.Node, pool: nn.Module) -> _Match:
        assert isinstance(pool, nn.AdaptiveAvgPool2d)
        if pair(pool.output_size) != (1, 1):
            _, height, width = self.images[self._input(node)]
            to = "x".join(map(str, pair(pool.output_size)))
            what = f"adaptive pooling of {height}x{width} to {to}"
            raise unquantized(node, pool, what, "windows differ in size, choose a size that divides")
        chain = [node]
        while len(chain[-1].users) == 1:
            user = next(iter(chain[-1].users))
            module = self._module(user)
            logits = user.op == "output" and len(self.shapes[chain[-1].name]) == 1
            if logits or (isinstance(module, nn.Linear) and self._final(user)):
                signed = self._act(node).signed
                unit = qat.QPool(ActQuant(8, signed, percentile=100.0))
                return _Match(chain, str(node.target), unit)
            if not isinstance(module, nn.Dropout | nn.Dropout2d | nn.Flatten):
                break
            chain.append(user)
        _, height, width = self.images[self._input(node)]
        return self._average(node, (height, width), 1, NO_PADS)

    def _linear(self, node: fx.Node, linear: nn.Module) -> _Match:
        assert isinstance(linear, nn.Linear)
        source = self._input(node)
        if self._final(node):
            if len(self.images[source]) == 3:
                node.args = (self._flattened(source, node),)
            unit = qat.QLinear(linear, self.spec.ends, self._act(node))
            return _Match([node], str(node.target), unit)
        channels, *size = self.images[source]
        conv = nn.Conv2d(channels, linear.out_features, (size[0], size[1]), bias=False)
        conv.weight = nn.Parameter(linear.weight.detach().reshape(-1, channels, *size))
        norm = self._sole_user(node, nn.BatchNorm1d)
        zeros = linear.weight.new_zeros(linear.out_features)
        bias = zeros if linear.bias is None else linear.bias.detach()
        if norm is None:
            return self._convolution(node, None, conv, qat.Bias(bias))
        unit_norm = _norm2d(self._module(norm))  # type: ignore[arg-type]
        unit_norm.running_mean -= bias  # type: ignore[operator]
        return self._convolution(node, norm, conv, unit_norm)

    def _flattened(self, source: fx.Node, reader: fx.Node) -> fx.Node:
        """A vector of an image, for a reader."""
        target = f"{reader.name}_flatten" if reader.op != "output" else f"{source.name}_flatten"
        self.body.add_submodule(target, qat.QFlatten(self.acts[source]))
        with self.body.graph.inserting_before(reader):
            flat = self.body.graph.call_module(target, (source,))
        self.acts[flat] = self.acts[source]
        return flat

    def _select(self, node: fx.Node, module: nn.Module) -> _Match:
        if self.images[self._input(node)][0] != self.inputs[node][0][0]:
            raise unquantized(
                node, module, f"{type(module).__name__} behind a flattened image", "choose channels"
            )
        return _Match([node], str(node.target), qat.QSelect(self._act(node), module))

    def _add(self, node: fx.Node) -> _Match:
        inputs = [a for a in node.args if isinstance(a, fx.Node)]
        if len(set(self.inputs[node])) != 1:
            given = " and ".join(str(list(size)) for size in self.inputs[node])
            raise unquantized(node, None, f"addition of shapes {given}", "they must be equal")
        if len({self.images[a] for a in inputs}) != 1:
            raise CocError(f"{node.name}: addition behind different flattenings cannot be quantized")
        relu = self._relu(node)
        unit = qat.QAdd(self._output(node, relu), tuple(self.acts[a] for a in inputs))
        return _Match([node, relu] if relu else [node], node.name, unit)

    def _concat(self, node: fx.Node) -> _Match:
        inputs = node.all_input_nodes
        if len({self.images[a][1:] for a in inputs}) != 1:
            raise CocError(f"{node.name}: concatenation behind different flattenings cannot be quantized")
        relu = self._relu(node)
        signed = any(self.acts[a].signed for a in inputs)
        act = self._output(node, relu) if relu or signed else self._unsigned()
        return _Match([node, relu] if relu else [node], node.name, qat.QConcat(act))

    def _mul(self, node: fx.Node) -> _Match:
        """The image comes first, a number for each of its channels second."""
        first, second = (a for a in node.args if isinstance(a, fx.Node))
        if self.images[first][1:] == (1, 1):
            first, second = second, first
        sizes = self.images[first], self.images[second]
        if sizes[1] not in (sizes[0], (sizes[0][0], 1, 1)):
            given = " and ".join(str(list(size)) for size in sizes)
            advice = "they must be equal, or one of them a number for each channel"
            raise unquantized(node, None, f"product of shapes {given}", advice)
        node.args = (first, second)
        relu = self._relu(node)
        signed = self.acts[first].signed or self.acts[second].signed
        act = self._output(node, relu) if relu or signed else self._unsigned()
        return _Match([node, relu] if relu else [node], node.name, qat.QMul(act))

    # Types

    def _output(self, node: fx.Node, relu: fx.Node | None) -> ActQuant:
        """The quantizer of an output: the chain's activation bits behind a ReLU, 8 bits for signed values.

        Where functions of single values alone read the node, its range is theirs.
        """
        if relu is None:
            spec, (low, high) = self.spec, self.limits(node)
            return ActQuant(8, True, 0, spec.percentile, high, spec.learned, low)
        return self._unsigned(6.0 if isinstance(self._module(relu), nn.ReLU6) else None)

    def _unsigned(self, ceiling: float | None = None) -> ActQuant:
        spec = self.spec
        return ActQuant(spec.act_bits, False, 0, spec.percentile, ceiling, spec.learned)

    def _act(self, node: fx.Node) -> ActQuant:
        return self.acts[self._input(node)]

    # Graph

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    @staticmethod
    def _input(node: fx.Node) -> fx.Node:
        return node.all_input_nodes[0]

    @staticmethod
    def _final(node: fx.Node) -> bool:
        return all(user.op == "output" for user in node.users)

    def _relu(self, node: fx.Node) -> fx.Node | None:
        return self._sole_user(node, nn.ReLU, nn.ReLU6)

    def _sole_user(self, node: fx.Node, *kinds: type[nn.Module]) -> fx.Node | None:
        users = [user for user in node.users if user.op != "output"]
        if len(users) == 1 and isinstance(self._module(users[0]), kinds):
            return users[0]
        return None

    def _drop(self, node: fx.Node, name: str) -> None:
        """Remove a node that changes nothing here; what read it reads its input."""
        if name in self.renamed:
            return
        source = self._input(node)
        node.replace_all_uses_with(source)
        self.renamed[name] = source.name
        self.body.graph.erase_node(node)

    def _pad(self, node: fx.Node, pad: nn.ZeroPad2d) -> None:
        """Let every reader of the padded image pad itself, or else a layer do it."""
        left, right, top, bottom = pad.padding
        before, source = self.pads.get(node, NO_PADS), self._act(node)
        total = (before[0] + top, before[1] + left, before[2] + bottom, before[3] + right)
        if all(can_pad(self._module(user), source) for user in node.users):
            self.pads |= dict.fromkeys(node.users, total)
            self._drop(node, node.name)
            return
        channels = self.images[self._input(node)][0]
        bias, act = qat.Bias(torch.zeros(channels)), self._output(node, None)
        unit = qat.QConv(padding_convolution(channels, total), bias, 8, source, act)
        self._replace(_Match([node], str(node.target), unit))

    def _replace(self, match: _Match) -> None:
        first, last = match.chain[0], match.chain[-1]
        self.body.add_submodule(match.target, match.unit)
        with self.body.graph.inserting_after(last):
            node = self.body.graph.call_module(match.target, first.args)
        last.replace_all_uses_with(node)
        size = self.shapes[last.name]
        for old in reversed(match.chain):
            self.renamed[old.name] = node.name
            self.body.graph.erase_node(old)
            norm = isinstance(self._module(old), nn.BatchNorm2d | nn.BatchNorm1d)
            if norm and old.target != match.target:
                self.body.delete_submodule(str(old.target))
        if not isinstance(match.unit, qat.QLinear):
            self.acts[node] = match.unit.act  # type: ignore[assignment]
            vector = len(size) == 1 and not isinstance(match.unit, qat.QPool)
            self.images[node] = (*size, 1, 1) if vector else size
        self.modules[match.target] = match.unit


def _ones(channels: int) -> nn.Conv2d:
    """A depthwise 1x1 convolution that changes nothing, and does not learn to."""
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    nn.init.ones_(conv.weight).requires_grad_(False)
    return conv


def _norm2d(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> nn.BatchNorm2d:
    """The same batch-norm for images."""
    if isinstance(norm, nn.BatchNorm2d):
        return norm
    result = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum)
    result.load_state_dict(norm.state_dict())
    return result


def quantize_graph(
    body: fx.GraphModule, spec: QuantSpec, source: ActQuant, stem: bool, shape: tuple[int, ...]
) -> dict[str, str]:
    """Rewrite a float graph into units, in place; returns old node name -> its unit's node name.

    source: the quantizer of the graph's input, whose shape without batch is `shape`. stem: the
    convolutions that read it get the bits of the ends. Raises CocError, naming the module, for what
    has no quantized form.
    """
    return _Rewriter(body, spec, source, stem, shape).run()
