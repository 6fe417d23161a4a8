"""Passes that leave what a canonical body computes: constants become part of layers, activations go in front
of pooling, logits come from a linear layer where that is possible."""

from torch import fx, nn

from coc_runtime.errors import CocError

from . import constants
from .draft import Draft
from .refusal import Place, refuse


def run(draft: Draft) -> None:
    """All passes, in place."""
    forwards = (constants.thaw, drop_softmax, constants.merge, constants.fold_behind, linear_logits)
    for simplify in forwards:
        for node in list(draft.graph.nodes):
            if not node._erased:
                simplify(draft, node)
    for node in reversed(list(draft.graph.nodes)):
        if not node._erased:
            constants.fold_in_front(draft, node)
    for node in list(draft.graph.nodes):
        activation_first(draft, node)


def drop_softmax(draft: Draft, node: fx.Node) -> None:
    """At the end it changes neither the class nor, once more inside the loss, the gradient."""
    if not draft.is_a(node, nn.Softmax, nn.LogSoftmax):
        return
    if not draft.is_last(node):
        place: Place = node.meta["place"]
        raise refuse(place, "softmax inside the network")
    draft.remove(node)


def linear_logits(draft: Draft, node: fx.Node) -> None:
    """A 1x1 convolution that gives the logits of an image, averaged or of one pixel, is a linear layer behind
    the averaging and flattening."""
    conv = draft.module(node)
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
        return
    if {*conv.kernel_size, *conv.stride} != {1} or any(map(int, conv.padding)):
        return
    first = draft.sole_user(node)
    last = first
    while last is not None and draft.is_a(last, nn.AdaptiveAvgPool2d, nn.Flatten) and not draft.is_last(last):
        last = draft.sole_user(last)
    if first is None or last is None or not draft.is_a(last, nn.Flatten):
        return
    pooled = first is not last
    whole = draft.source(last).meta["size"][1:] == (1, 1)
    if not draft.is_last(last) or not whole or (pooled and draft.source(last) is not first):
        return
    linear = nn.Linear(conv.in_channels, conv.out_channels, conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1).clone())
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    draft.modules[str(node.target)] = linear
    source = draft.source(node)
    first.replace_input_with(node, source)
    last.replace_all_uses_with(node)
    node.replace_input_with(source, last)
    last.append(node)
    channels, *size = source.meta["size"]
    for behind in {first, last}:
        behind.meta["size"] = (channels,) if behind is last else (channels, 1, 1)
    node.meta["size"] = (conv.out_channels,)
    draft.moved |= {last: node} | ({first: node} if pooled else {})


def activation_first(draft: Draft, node: fx.Node) -> None:
    """ReLU commutes with max-pooling, dropout and flattening: put it right behind what it clips."""
    if not draft.is_a(node, nn.ReLU, nn.ReLU6):
        return
    commuting = (nn.MaxPool2d, nn.Dropout, nn.Dropout2d, nn.Flatten)
    first = last = draft.source(node)
    path = []
    while draft.is_a(first, *commuting) and len(first.users) == 1:
        path.append(first)
        first = draft.source(first)
    if not path or len(last.users) != 1:
        return
    second = path[-1]
    node.replace_all_uses_with(last)
    second.replace_input_with(first, node)
    node.args = (first,)
    second.prepend(node)
    node.meta["size"] = first.meta["size"]
    draft.moved[node] = last


def check_classes(draft: Draft, last: fx.Node, classes: int | None) -> None:
    """Raise CocError unless the network gives one logit a class."""
    size = last.meta["size"]
    if classes is not None and size != (classes,):
        place: Place = last.meta["place"]
        name = str(last.target) if last.op == "call_module" else str(place)
        given = f"{size[0]} logits" if len(size) == 1 else f"an image of {list(size)}"
        raise CocError(f"{name}: gives {given}, the data has {classes} classes{place.at}")
