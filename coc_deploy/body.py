"""A float body, which tracing makes of a network, as plain data and back: a model file holds that, no code.

Only modules of `kinds.KINDS` are built, from numbers that are checked against the stored weights first.
"""

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from coc_runtime.errors import CocError

from .convolution import Conv2d
from .frontend import modules as own
from .kinds import KINDS, arguments


@dataclass(frozen=True)
class Traced:
    """A float body and names in it.

    positions: module -> node that it ends with. places: names of blocks (leaf activations in plain
    networks) behind which one image goes on; cuts: all names of modules that end there. notes: a line for
    each thing that the user's network does and the body does not.
    """

    body: fx.GraphModule
    positions: dict[str, str]
    places: tuple[str, ...]
    cuts: tuple[str, ...]
    notes: tuple[str, ...] = ()


FUNCTIONS = {"add": operator.add, "mul": operator.mul, "concat": torch.cat}
"""Kind -> function of several tensors."""

WINDOWS = ("kernel_size", "stride", "padding", "output_size", "dilation", "output_padding", "scale_factor")
LARGEST = 255
"""Windows, steps and padding in a file are at most this large."""
MOST_NUMBERS = 1 << 20
"""A list in a file, of positions of chosen values or of a constant, holds at most so many numbers."""


def last_layers(body: fx.GraphModule) -> list[nn.Module]:
    """The layers whose channels are the logits, behind which nothing has weights."""
    found: list[nn.Module] = []
    pending = body.graph.output_node().all_input_nodes[-1:]
    while pending:
        node = pending.pop()
        module = body.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            found.append(module)
        else:
            pending += node.all_input_nodes
    return found


_FUNCTION_KINDS = {function: kind for kind, function in FUNCTIONS.items()}


def describe(traced: Traced) -> dict[str, Any]:
    """Nodes, module arguments and names of a float body: strings, numbers, lists and dictionaries."""
    modules, nodes = {}, []
    for node in traced.body.graph.nodes:
        kind = _FUNCTION_KINDS.get(node.target, node.op)
        target = str(node.target) if node.op == "call_module" else ""
        if target:
            modules[target] = arguments(traced.body.get_submodule(target))
        inputs = [source.name for source in node.all_input_nodes]
        if kind in ("add", "mul") and len(inputs) == 1:
            inputs *= 2
        elif kind == "concat":
            inputs = [source.name for source in node.args[0]]
        elif kind == "output":
            inputs = inputs[-1:]
        nodes.append({"name": node.name, "kind": kind, "target": target, "inputs": inputs})
    return {
        "nodes": nodes,
        "modules": modules,
        "positions": dict(traced.positions),
        "places": list(traced.places),
        "cuts": list(traced.cuts),
    }


def rebuild(data: dict[str, Any], state: dict[str, Tensor]) -> Traced:
    """The body that `describe` saw, with fresh weights; `state` bounds what is allocated.

    Raises CocError, LookupError, TypeError or ValueError if the data is not what `describe` gives.
    """
    root = nn.Module()
    for target, given in data["modules"].items():
        add_module(root, str(target), _module(str(target), dict(given), state))
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for entry in data["nodes"]:
        name, kind, target = entry["name"], entry["kind"], entry["target"]
        inputs = tuple(nodes[source] for source in entry["inputs"])
        if kind == "placeholder":
            node = graph.create_node("placeholder", name, name=name)
        elif kind == "call_module":
            if target not in data["modules"] or len(inputs) != 1:
                raise CocError(f"{name}: calls '{target}', which is not described")
            node = graph.create_node("call_module", target, inputs, name=name)
        elif kind == "concat":
            node = graph.create_node("call_function", torch.cat, (list(inputs), 1), name=name)
        elif kind in FUNCTIONS:
            a, b = inputs
            node = graph.create_node("call_function", FUNCTIONS[kind], (a, b), name=name)
        elif kind == "output":
            node = graph.create_node("output", "output", (inputs[-1],), name=name)
        else:
            raise CocError(f"{name}: unknown kind of node '{kind}'")
        if node.name != name:
            raise CocError(f"{name}: not a name that a node can have")
        nodes[name] = node
    graph.lint()
    positions = {str(name): str(node) for name, node in data["positions"].items()}
    if not set(positions.values()) <= set(nodes) or not set(data["cuts"]) <= set(positions):
        raise CocError("positions name nodes that do not exist")
    return Traced(fx.GraphModule(root, graph), positions, tuple(data["places"]), tuple(data["cuts"]))


def add_module(root: nn.Module, target: str, module: nn.Module) -> None:
    """Put a module into the tree at a dotted name."""
    *parents, name = target.split(".")
    owner = root
    for parent in parents:
        if not hasattr(owner, parent):
            owner.add_module(parent, nn.Module())
        owner = owner.get_submodule(parent)
    owner.add_module(name, module)


def _module(target: str, given: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    kind = KINDS[given.pop("kind")]
    if not set(kind.names) <= set(given) <= {*kind.names, *kind.more}:
        raise CocError(f"{target}: arguments {sorted(given)} instead of {sorted(kind.names)}")
    for name, value in given.items():
        _check(target, name, value)
        if isinstance(value, list):
            given[name] = tuple(value)
    _check_size(target, kind.cls, given, state)
    return kind.cls(**given)


def _check(target: str, name: str, value: Any) -> None:
    """Numbers of layers are in a range; what a function of single values takes may be any number."""
    numbers = value if isinstance(value, list) else [value]
    if name in ("function", "mode"):
        valid = isinstance(value, str)
    elif name in ("arguments", "value"):
        valid = len(numbers) <= MOST_NUMBERS and all(isinstance(n, int | float) for n in numbers)
    else:
        most = LARGEST if name in WINDOWS else 2**31
        valid = all(n is None or (isinstance(n, int | float) and 0 <= n <= most) for n in numbers)
        valid = valid and len(numbers) <= (MOST_NUMBERS if name == "indices" else 4)
    if not valid:
        raise CocError(f"{target}: {name} = {value!r} is out of range")


def _check_size(target: str, cls: type, given: dict[str, Any], state: dict[str, Tensor]) -> None:
    """A module is as large as its stored weights, whatever its arguments say."""
    if cls in (nn.BatchNorm2d, nn.BatchNorm1d):
        if given["num_features"] > max(tensor.numel() for tensor in state.values()):
            raise CocError(f"{target}: {given['num_features']} channels are not stored")
        return
    count = _count(cls, given)
    if cls in (own.Scale, own.Shift) and not given["learned"]:
        if len(given["value"]) != count:
            raise CocError(f"{target}: {len(given['value'])} numbers for a constant of {count}")
        return
    if count is None:
        return
    weight = _stored(f"{target}.{'bias' if cls is own.Shift else 'weight'}", state)
    if weight.numel() != count:
        raise CocError(f"{target}: weights of shape {list(weight.shape)} do not fit")


def _stored(name: str, state: dict[str, Tensor]) -> Tensor:
    """A tensor of the body; of a quantized one perhaps inside of the function that a unit computes."""
    if f"body.{name}" not in state:
        inside = [key for key in state if key.endswith(f".function.{name}")]
        return state[inside[0] if inside else f"body.{name}"]
    return state[f"body.{name}"]


def _count(cls: type, given: dict[str, Any]) -> int | None:
    """How many weights a module's arguments ask for; None of one that has none."""
    if cls in (Conv2d, nn.ConvTranspose2d):
        channels = given["in_channels"] * given["out_channels"]
        return channels // max(given["groups"], 1) * math.prod(given["kernel_size"])
    if cls is nn.Linear:
        return given["in_features"] * given["out_features"]
    if cls is nn.PReLU:
        return given["num_parameters"]
    return math.prod(given["shape"]) if cls in (own.Scale, own.Shift) else None
