"""Changes in place, and the names that a tensor has: a graph of values has neither."""

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from .calls import operation, refuse, where

VIEWS = ("reshape", "same")
"""Operations whose result is their input's memory, under another name or shape."""

INPLACE: dict[Any, int] = {
    functional.relu: 1,
    functional.relu6: 1,
    functional.hardtanh: 3,
    functional.dropout: 3,
    functional.dropout2d: 3,
}
"""Functions with an argument `inplace`, and its position."""


def without_changes_in_place(body: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Let what reads a changed tensor later, by whichever of its names, read the result of the change.

    values: shapes of the tensors. Raises CocError, naming the module, where that name has another shape.
    """
    names: dict[fx.Node, list[fx.Node]] = {}  # node -> all nodes of its memory, one list for each memory
    order = {node: index for index, node in enumerate(body.graph.nodes)}
    for node in body.graph.nodes:
        names[node] = [node]
        if not isinstance(values.get(node), torch.Size) or not node.all_input_nodes:
            continue
        changes = changes_its_input(node, body)
        if changes or _is_view(node, body):
            names[node] = names[node.all_input_nodes[0]]
            names[node].append(node)
        if changes:
            for name in names[node][:-1]:
                for reader in [user for user in name.users if order[user] > order[node]]:
                    if values[name] != values[node]:
                        what = "a change in place of a tensor that is read in another shape"
                        raise refuse(where(node), what, ": write x = x + y instead of x += y")
                    reader.replace_input_with(name, node)


def changes_its_input(node: fx.Node, body: fx.GraphModule) -> bool:
    """Whether a node of the body leaves its result in its input."""
    if node.op == "call_module":
        return bool(getattr(body.get_submodule(str(node.target)), "inplace", False))
    position = INPLACE.get(node.target)
    if position is not None:
        given = node.args[position] if len(node.args) > position else node.kwargs.get("inplace")
        return bool(given)
    return (operation(node) or "").endswith("_")


def _is_view(node: fx.Node, body: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(body.get_submodule(str(node.target)), nn.Identity | nn.Flatten)
    return operation(node) in VIEWS and node.target != "clone"
