"""Rewriting a canonical float graph into quantized units, one rule per kind of node.

Inside, every value but the logits is an image: a vector is a 1x1 image, so that hidden linear layers
are convolutions (over the whole image where they follow a flattening), and flattening is only
written out in front of the final linear layer.

A rule is a pure function of the graph's context and a node that returns a patch. Each patch is proved on
random numbers before it is carried out: its units, in float, compute what the nodes did.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from ..frontend.modules import AsImage, Select, Shift, Slice, StochasticDepth
from ..frontend.refusal import unquantized
from ..quantizers import ActQuant, QuantSpec
from ..restored import modes_restored
from . import joins, layers, windows
from .context import Context
from .functions import functions
from .patch import Patch, apply, without

Rule = Callable[[Context, fx.Node, Any], Patch]
"""The module is None for functions."""


def left_out(context: Context, node: fx.Node, module: nn.Module) -> Patch:
    """What changes nothing in integers, or only the shape of what is an image here anyway."""
    return without(node)


MODULES: tuple[tuple[tuple[type[nn.Module], ...], Rule], ...] = (
    ((nn.Dropout, nn.Dropout2d, StochasticDepth, nn.Flatten, AsImage), left_out),
    ((nn.ZeroPad2d,), layers.padding),
    ((nn.Conv2d,), layers.convolution),
    ((nn.BatchNorm2d, nn.BatchNorm1d), layers.norm),
    ((nn.ReLU, nn.ReLU6), windows.clip),
    ((Shift,), layers.shift),
    ((nn.MaxPool2d,), windows.max_pool),
    ((nn.AvgPool2d,), windows.average_pool),
    ((nn.AdaptiveAvgPool2d,), windows.adaptive_pool),
    ((nn.Linear,), layers.linear),
    ((Slice, Select, nn.ChannelShuffle), joins.selection),
)
"""Kinds of modules and the rule for each."""

FUNCTIONS: dict[Callable[..., object], Rule] = {
    operator.add: joins.addition,
    operator.mul: joins.product,
    torch.cat: joins.concatenation,
}
"""Functions of several images and the rule for each."""


def quantize_graph(
    body: fx.GraphModule, spec: QuantSpec, source: ActQuant, stem: bool, shape: tuple[int, ...]
) -> dict[str, str]:
    """Rewrite a float graph into units, in place; returns old node name -> its unit's node name.

    source: the quantizer of the graph's input, whose shape without batch is `shape`. stem: the
    convolutions that read it get the bits of the ends. Raises CocError, naming the module, for what
    has no quantized form.
    """
    context = Context(body, spec, source, stem, shape)
    with modes_restored(body):
        body.eval()
        for node in list(body.graph.nodes):
            if node.op == "placeholder":
                context.acts[node], context.images[node] = source, context.shapes[node.name]
            elif node.name not in context.renamed:
                apply(context, *_rewritten(context, node))
    _delete_unused(body)
    body.graph.lint()
    body.recompile()
    return context.renamed


def _rewritten(context: Context, node: fx.Node) -> tuple[Patch, str]:
    """The patch of the first rule that takes the node, and the rule's name."""
    if node.op == "output":
        return layers.logits(context, node, None), "logits"
    module = context.module(node)
    patch = functions(context, node, module)
    if patch is not None:
        return patch, "functions"
    if module is not None:
        for kinds, rule in MODULES:
            if isinstance(module, kinds):
                return rule(context, node, module), rule.__name__
    elif callable(node.target) and node.target in FUNCTIONS:
        rule = FUNCTIONS[node.target]
        return rule(context, node, None), rule.__name__
    raise unquantized(node, module)


def _delete_unused(body: fx.GraphModule) -> None:
    """Also those that a unit holds, too, which fx's own cleaning keeps."""
    used = {str(node.target) for node in body.graph.nodes if node.op == "call_module"}
    parents = {name[:i] for name in used for i, sign in enumerate(name) if sign == "."}
    for name in [name for name, _ in body.named_modules(remove_duplicate=False)]:
        inside = any(name == known or name.startswith(f"{known}.") for known in used)
        if name and not inside and name not in parents:
            body.delete_submodule(name)
