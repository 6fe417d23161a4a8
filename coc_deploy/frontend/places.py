"""Where early exits may sit in a canonical body."""

from torch import fx, nn

from .draft import Draft
from .modules import ACTIVATIONS


def places(
    draft: Draft, positions: dict[str, fx.Node], containers: set[str], own: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of blocks, or in plain networks activations, behind which one image goes on; names of all modules
    that end there, inner ones first.

    containers: the user's modules that hold others but are no plain sequence. own: all of the user's modules.
    """
    cut = [n for n in _single_cuts(draft.graph) if _separate(draft, n) and len(n.meta["size"]) == 3]
    names: dict[fx.Node, list[str]] = {node: [] for node in cut}
    for name, end in positions.items():
        if end in names:
            names[end].append(name)
    for ending in names.values():
        ending.sort(key=lambda name: (name not in own, -len(name)))
    blocks = [max((n for n in names[node] if n in containers), key=len, default=None) for node in cut]
    activations = [str(node.target) for node in cut if draft.is_a(node, *ACTIVATIONS)]
    chosen = [name for name in blocks if name is not None] or activations
    return tuple(chosen), tuple(name for node in cut for name in names[node])


def _single_cuts(graph: fx.Graph) -> list[fx.Node]:
    """Nodes behind which nothing reads anything before them."""
    nodes = list(graph.nodes)
    index = {node: i for i, node in enumerate(nodes)}
    result, latest = [], 0
    for i, node in enumerate(nodes):
        if node.op in ("call_module", "call_function") and latest <= i:
            result.append(node)
        readers = [index[user] for user in node.users if user.op != "output"]
        latest = max([latest, *readers])
    return result


def _separate(draft: Draft, node: fx.Node) -> bool:
    """Whether quantization keeps the node's value: it is not part of a unit that goes on behind it."""
    users = [user for user in node.users if user.op != "output"]
    if draft.is_a(node, nn.ZeroPad2d) or len(users) != 1:
        return len(users) > 1 and not draft.is_a(node, nn.ZeroPad2d)
    norm = draft.is_a(users[0], nn.BatchNorm2d) and draft.is_a(node, nn.Conv2d)
    return not (norm or draft.is_a(users[0], *ACTIVATIONS))
