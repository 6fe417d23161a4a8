"""The canonical body as it grows: nodes named after the user's modules, made when something reads them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from ..kinds import KINDS, arguments
from . import rearrange
from .program import BATCH, Constant
from .refusal import Place
from .value import Call, Size, Value, image_size


class Builder:
    """Makes the nodes of a canonical body.

    A node's `meta` holds its "size" without the batch, its "place", and its "signature": what it computes
    apart from its inputs, the same in training and evaluation mode.
    """

    def __init__(self, module: nn.Module, image: str, size: Size, training: bool) -> None:
        self.module, self.training = module, training
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        node = self.graph.placeholder(image)
        node.meta.update(size=size, place=Place("", type(module).__name__), signature=("image",))
        self.image = Value(node, size, (BATCH, *size))
        self._above: set[str] = set()
        self._made: dict[int, tuple[Value, fx.Node]] = {}

    def apply(
        self,
        call: Call,
        module: nn.Module,
        source: Value | fx.Node,
        *,
        size: Size | None = None,
        weights: Sequence[Constant | None] = (),
        name: str = "",
        layer: bool = True,
    ) -> Value:
        """A call of the module on the source, as the result of an operation of the exported program.

        size: of the node's result, if it is not the operation's. weights: what the module's parameters and
        buffers come from. name: of a node beside the operation's own. layer: whether the module is the
        user's that owns the weights.
        """
        node = source if isinstance(source, fx.Node) else self.node(source, call)
        size = size or image_size(call.shape)
        assert size is not None
        owner = "" if name else _owner(weights, call.place, layer)
        result = self._create(call, (node,), owner, name)
        self.modules[str(result.target)] = module
        origins = tuple(_origin(weight) for weight in weights if weight is not None)
        result.meta.update(size=size, place=call.place, signature=(*_kind(module), origins))
        return self._value(result, size, call)

    def function(self, call: Call, function: Any, inputs: Sequence[fx.Node], size: Size) -> Value:
        """A sum or product of nodes (`operator.add`, `operator.mul`), or their channels (`torch.cat`)."""
        given = (list(inputs), 1) if function is torch.cat else tuple(inputs)
        node = self.graph.create_node("call_function", function, given, name=call.op)
        node.meta.update(size=size, place=call.place, signature=(function.__name__,))
        return self._value(node, size, call)

    @staticmethod
    def _value(node: fx.Node, size: Size, call: Call) -> Value:
        """With the operation's own shape if the node has its result."""
        same = math.prod(call.shape) == BATCH * math.prod(size)
        return Value(node, size, call.shape if same else (BATCH, *size))

    # Names

    def _create(self, call: Call, inputs: tuple[fx.Node, ...], owner: str, name: str) -> fx.Node:
        """A node whose target is free: the user's module if it is one of its own, else the node's name."""
        place = call.place
        if owner and owner in self.modules:
            if place.name not in ("", owner):
                raise call.refuse(f"sharing weights with {owner}", " (weights belong to one layer)")
            raise call.refuse(f"calling a {call.kind} twice", " (shared weights)")
        leaf = place.name if place.leaf and not place.holds and not name else ""
        own = owner or (leaf if leaf not in self.modules else "")
        if place.leaf and place.holds and not owner and not name:
            name = f"{place.name}_{call.op}"
        if own:
            node = self.graph.call_module(own, inputs)
            node.target = self._free(own)
        else:
            node = self.graph.create_node("call_module", leaf or name or call.op, inputs)
            target = node.name
            while hasattr(self.module, target):
                target += "_"
            node.target = self._free(target)
        return node

    def _free(self, target: str) -> str:
        """The target itself unless a module would come to lie inside of another one of the body."""
        parts = target.split(".")
        above = [".".join(parts[:end]) for end in range(1, len(parts))]
        if any(name in self.modules for name in above):
            return self._free(target.replace(".", "_"))
        while target in self._above or target in self.modules:
            target += "_"
        self._above.update(above)
        return target

    # Arrangements

    def node(self, value: Value, call: Call) -> fx.Node:
        """The node that computes the value as it is arranged; what rearranges is made at its first reader."""
        node = self.existing(value)
        if node is not None:
            return node
        steps = self.steps(value)
        origin = value.call or call
        if steps is None:
            before, after = list(value.size), list(value.shape[1:])
            raise origin.refuse(f"{origin.op} of {before} to {after}", ": channels and pixels get mixed")
        node = value.node
        for position, (module, size) in enumerate(steps, start=1):
            last = position == len(steps)
            label = value.name or ("" if last else f"{origin.op}_{type(module).__name__.lower()}")
            node = self.apply(origin, module, node, size=size, name=label).node
        self._made[id(value)] = (value, node)
        return node

    def existing(self, value: Value) -> fx.Node | None:
        """The node of a value that some reader needed as it is arranged, or that is none but its node's."""
        if value.index is None and image_size(value.shape) == value.size:
            return value.node
        return self._made[id(value)][1] if id(value) in self._made else None

    def shuffled(self, value: Value, call: Call) -> Value:
        """The value itself, or if it is a channel shuffle that node's, so that parts of it are slices."""
        steps = self.steps(value) if value.index is not None else None
        if steps is None or [type(module) for module, _ in steps] != [nn.ChannelShuffle]:
            return value
        return Value(self.node(value, call), value.size, value.shape)

    def steps(self, value: Value) -> list[tuple[nn.Module, Size]] | None:
        """Modules that arrange the node as the value is; None where none do."""
        size = image_size(value.shape)
        index = None if value.index is None else value.of_one_image()
        if size is None or (value.index is not None and index is None):
            return None
        return rearrange.modules(index, value.size, size)

    def each(
        self,
        call: Call,
        module: nn.Module,
        source: Value,
        weights: Sequence[Constant | None] = (),
    ) -> Value:
        """A function of single values, in whatever arrangement the source is."""
        if self.steps(source) is not None:
            return self.apply(call, module, source, weights=weights, layer=False)
        size = source.size
        node = self.apply(call, module, source.node, size=size, weights=weights, layer=False).node
        return Value(node, source.size, source.shape, source.index, source.call, source.name)


def narrowed(value: Value) -> Value:
    """The value without the repetitions that `expand` made, for operations that broadcast."""
    if value.index is None or value.call is None:
        return value
    index = value.index
    for axis in range(1, index.dim()):
        first = index.narrow(axis, 0, 1)
        if index.shape[axis] > 1 and bool((index == first).all()):
            index = first
    return value if index is value.index else value.arranged(index.contiguous(), value.call, value.name)


def _owner(weights: Sequence[Constant | None], place: Place, layer: bool) -> str:
    """The user's module that owns a layer's weights, by their name; a constant has its parameter's name."""
    present = [weight for weight in weights if weight is not None]
    for weight in present if layer else ():
        for source in weight.sources:
            owner, _, name = source.rpartition(".")
            if owner and name in ("weight", "running_mean") and (weight.whole or owner == place.name):
                return owner
    if present and layer and place.leaf and place.holds:
        return place.name
    return present[0].sources[0] if present and present[0].whole else ""


def _origin(weight: Constant) -> tuple[Any, ...]:
    """What tells one constant from another: where it comes from, or else its values."""
    if weight.sources:
        return tuple(sorted(weight.sources))
    return tuple(weight.tensor.flatten().tolist())


def _kind(module: nn.Module) -> tuple[Any, ...]:
    """Class and arguments; of what simplifying removes again, the class."""
    name = type(module).__name__
    if name not in KINDS:
        return (name,)
    plain = {n: tuple(value) if isinstance(value, list) else value for n, value in arguments(module).items()}
    plain.pop("momentum", None)  # training mode alone knows it
    return tuple(sorted(plain.items()))
