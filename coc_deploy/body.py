"""A float body as plain data and back: what a model file holds instead of code.

Only modules of `kinds.KINDS` are built, from numbers that are checked against the stored weights first.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from coc_runtime.errors import CocError

from .convolution import Conv2d
from .kinds import KINDS, arguments
from .tracing import Traced

LARGEST = 255
"""Windows, steps and padding in a file are at most this large."""


def describe(traced: Traced) -> dict[str, Any]:
    """Nodes, module arguments and names of a float body: strings, numbers, lists and dictionaries."""
    modules, nodes = {}, []
    for node in traced.body.graph.nodes:
        kind = {operator.add: "add", torch.cat: "concat"}.get(node.target, node.op)
        target = str(node.target) if node.op == "call_module" else ""
        if target:
            modules[target] = arguments(traced.body.get_submodule(target))
        inputs = [source.name for source in node.all_input_nodes]
        if kind == "add" and len(inputs) == 1:
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
    for target, described in data["modules"].items():
        _add(root, str(target), _module(str(target), dict(described), state))
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
        elif kind == "add":
            a, b = inputs
            node = graph.create_node("call_function", operator.add, (a, b), name=name)
        elif kind == "concat":
            node = graph.create_node("call_function", torch.cat, (list(inputs), 1), name=name)
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


def _add(root: nn.Module, target: str, module: nn.Module) -> None:
    *parents, name = target.split(".")
    owner = root
    for parent in parents:
        if not hasattr(owner, parent):
            owner.add_module(parent, nn.Module())
        owner = owner.get_submodule(parent)
    owner.add_module(name, module)


def _module(target: str, given: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    cls, names = KINDS[given.pop("kind")]
    if set(given) != set(names):
        raise CocError(f"{target}: arguments {sorted(given)} instead of {sorted(names)}")
    for name, value in given.items():
        _check(target, name, value)
        if isinstance(value, list):
            given[name] = tuple(value)
    _check_size(target, cls, given, state)
    return cls(**given)


def _check(target: str, name: str, value: Any) -> None:
    numbers = value if isinstance(value, list) else [value]
    most = LARGEST if name in ("kernel_size", "stride", "padding", "output_size") else 2**31
    valid = all(n is None or (isinstance(n, int | float) and 0 <= n <= most) for n in numbers)
    if len(numbers) > 4 or not valid:
        raise CocError(f"{target}: {name} = {value!r} is out of range")


def _check_size(target: str, cls: type, given: dict[str, Any], state: dict[str, Tensor]) -> None:
    """A module is as large as its stored weights, whatever the arguments say."""
    if cls is Conv2d:
        height, width = given["kernel_size"]
        count = given["out_channels"] * (given["in_channels"] // max(given["groups"], 1)) * height * width
    elif cls is nn.Linear:
        count = given["in_features"] * given["out_features"]
    elif cls in (nn.BatchNorm2d, nn.BatchNorm1d):
        if given["num_features"] > max(tensor.numel() for tensor in state.values()):
            raise CocError(f"{target}: {given['num_features']} channels are not stored")
        return
    else:
        return
    if state[f"body.{target}.weight"].numel() != count:
        raise CocError(f"{target}: weights of shape {list(state[f'body.{target}.weight'].shape)} do not fit")
