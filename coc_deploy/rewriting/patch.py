"""A rewriting step: what it replaces by which units, its proof on random numbers, and carrying it out."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from coc_runtime.errors import CocError

from ..qat import Mode, Pads
from ..quantizers import ActQuant
from .context import Context

NOISE = 1e-4
"""Two ways of computing the same in float32 differ by less than this part of the largest number."""


@dataclass(frozen=True)
class Placed:
    """A quantized unit in the graph, in front of the node `at`.

    target: its name in the module. args: what it is called with: nodes and other placed units. covers: the
    float nodes that it computes, in order; what reads the last of them reads the unit. instead: where it
    covers none, the input of `at` that it stands for.
    """

    target: str
    unit: nn.Module
    args: tuple[Any, ...]
    at: fx.Node
    covers: tuple[fx.Node, ...] = ()
    instead: fx.Node | None = None


@dataclass(frozen=True)
class Patch:
    """Units for nodes, or a node that changes nothing and is left out.

    gone: nodes to erase, in order. pads: padding that readers of a node left out do themselves.
    """

    placed: tuple[Placed, ...]
    gone: tuple[fx.Node, ...]
    pads: Mapping[fx.Node, Pads] = field(default_factory=dict)


def unit_patch(target: str, unit: nn.Module, chain: tuple[fx.Node, ...]) -> Patch:
    """One unit, called as the first node of a chain is, for all of it."""
    return Patch((Placed(target, unit, chain[0].args, chain[-1], chain),), chain)


def without(node: fx.Node, pads: Mapping[fx.Node, Pads] | None = None) -> Patch:
    """A node whose readers read its input instead."""
    return Patch((), (node,), pads or {})


def apply(context: Context, patch: Patch, rule: str) -> None:
    """Carry a patch out, which must compute what its nodes do; `rule` names it in the error."""
    sizes = _proved(context, patch, rule)
    made: dict[int, fx.Node] = {}
    graph = context.body.graph
    for placed in patch.placed:
        context.body.add_submodule(placed.target, placed.unit)
        with graph.inserting_before(placed.at):
            args = map_aggregate(placed.args, lambda a: made[id(a)] if isinstance(a, Placed) else a)
            node = made[id(placed)] = graph.call_module(placed.target, args)
        if placed.instead is not None:
            placed.at.replace_input_with(placed.instead, node)
        if placed.covers:
            placed.covers[-1].replace_all_uses_with(node, lambda user: user not in patch.gone)
        for old in placed.covers:
            context.renamed.setdefault(old.name, node.name)
        context.modules[placed.target] = placed.unit
        context.images[node] = sizes[id(placed)]
        act = getattr(placed.unit, "act", None)
        if isinstance(act, ActQuant):
            context.acts[node] = act
    for node in reversed(patch.gone):
        if not patch.placed:
            source = node.all_input_nodes[0]
            node.replace_all_uses_with(source)
            context.renamed[node.name] = source.name
        graph.erase_node(node)
    context.pads.update(patch.pads)


@torch.no_grad()
def _proved(context: Context, patch: Patch, rule: str) -> dict[int, tuple[int, ...]]:
    """Sizes of what the units give for one image, after it was compared with what the nodes give.

    The units compute in float here, without rounding. What their quantizers cut off is cut off on both sides.
    """
    draw = torch.Generator().manual_seed(0)
    images: dict[Any, Tensor] = {}

    def image(node: fx.Node) -> Tensor:
        if node not in images:
            values = torch.randn(1, *context.images[node], generator=draw)
            images[node] = values if context.acts[node].signed else values.abs()
        return images[node]

    def given(argument: Any) -> Any:
        if isinstance(argument, Placed):
            return images[id(argument)]
        return image(argument) if isinstance(argument, fx.Node) else argument

    sizes = {}
    try:
        expected = _expected(context, patch, image)
        for placed in patch.placed:
            weights = {id(parameter): parameter for parameter in placed.unit.parameters()}
            unit = copy.deepcopy(placed.unit, weights).eval()
            unit.set_mode(Mode.OBSERVE)  # type: ignore[operator]
            found = images[id(placed)] = unit(*map_aggregate(placed.args, given))
            sizes[id(placed)] = tuple(found.shape[1:])
            if placed.covers:
                _compare(expected[placed.covers[-1]], found, unit)
            elif placed.instead is not None:
                _compare(image(placed.instead), found, unit)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        name = (patch.placed[-1].covers or patch.gone or (patch.placed[-1].at,))[0].name
        raise CocError(f"{name}: the rule '{rule}' does not fit it: {error}") from error
    return sizes


def _expected(context: Context, patch: Patch, image: Any) -> dict[fx.Node, Tensor]:
    """What the nodes give, as the float network has them: its padding done, its flattened images flat."""
    found: dict[fx.Node, Tensor] = {}
    for node in patch.gone if patch.placed else ():
        shapes = dict(zip(node.all_input_nodes, context.inputs[node], strict=False))
        pads = context.pads.get(node)

        def value(source: fx.Node, shapes: Any = shapes, pads: Any = pads) -> Tensor:
            if source in found:
                return found[source]
            x = image(source)
            if pads is not None:
                top, left, bottom, right = pads
                x = nn.functional.pad(x, (left, right, top, bottom))
            return x.reshape(1, *shapes[source])

        args, kwargs = fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)
        module = context.module(node)
        function = node.target if module is None else module
        found[node] = function(*args, **kwargs)  # type: ignore[operator]
    return found


def _compare(expected: Tensor, found: Tensor, unit: nn.Module) -> None:
    act = getattr(unit, "act", None)
    if isinstance(act, ActQuant) and not act.signed:
        expected = expected.clamp(0, act.ceiling)
    expected, found = expected.flatten(), found.flatten()
    if expected.shape != found.shape:
        raise ValueError(f"{len(found)} numbers instead of {len(expected)}")
    both = torch.isfinite(expected)
    off = float((expected - found)[both].abs().max()) if both.any() else 0.0
    largest = float(expected[both].abs().max()) if both.any() else 0.0
    if not off <= NOISE * max(largest, 1e-6):
        raise ValueError(f"it gives other numbers, by up to {off:.2g}")
