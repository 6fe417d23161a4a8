"""Chains as a tree: those that begin alike share their first stages."""

import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Mapping

from coc_deploy.keys import Node


def unite(paths: Iterable[tuple[Node, ...]]) -> dict[str, Node]:
    """All nodes by their keys, each after its parent, the stages of a chain close to each other."""
    nodes: dict[str, Node] = {}
    children: dict[str | None, list[str]] = {None: []}
    for path in paths:
        for node in path:
            if node.key not in nodes:
                nodes[node.key] = node
                children.setdefault(node.parent, []).append(node.key)
    return {key: nodes[key] for root in children[None] for key in _below(root, children)}


def _below(key: str, children: Mapping[str | None, list[str]]) -> Iterator[str]:
    """A node and all that descend from it, depth first."""
    yield key
    for child in children.get(key, ()):
        yield from _below(child, children)


def versions() -> dict[str, str]:
    """The versions of the packages that results were computed with."""
    packages = ("torch", "torch-pruning", "numpy")
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}
