"""Operations in place as operations that give a new tensor: later readers read the result."""

from dataclasses import dataclass, field

import torch
from torch import fx


@dataclass
class _Memory:
    """Nodes whose tensors share memory; in `whole` those that also have the same values in the same order."""

    whole: list[fx.Node] = field(default_factory=list)
    views: list[fx.Node] = field(default_factory=list)


def rename(graph: fx.Graph) -> bool:
    """Let the readers behind an operation in place read its result instead of what it changed.

    False, leaving the graph half changed, where a changed tensor is read again through a view of another
    shape: that takes full functionalization (`ExportedProgram.run_decompositions`).
    """
    _inline(graph)
    order = {node: index for index, node in enumerate(graph.nodes)}
    memories: dict[fx.Node, _Memory] = {}
    for node in list(graph.nodes):
        written, viewed = _written(node), _viewed(node)
        if written is not None:
            memory = memories.setdefault(written, _Memory([written]))
            changed, others = memory.whole, memory.views
            if written not in changed:
                changed, others = [written], [n for n in memory.whole + memory.views if n is not written]
            if any(order[user] > order[node] for other in others for user in other.users):
                return False
            for alias in changed:
                for user in [user for user in alias.users if order[user] > order[node]]:
                    user.replace_input_with(alias, node)
            (memory.whole if changed is memory.whole else memory.views).append(node)
            memories[node] = memory
        elif viewed is not None:
            memory = memories.setdefault(viewed, _Memory([viewed]))
            same = _gives_its_input(node) and viewed in memory.whole
            (memory.whole if same else memory.views).append(node)
            memories[node] = memory
    return True


def _written(node: fx.Node) -> fx.Node | None:
    """The tensor that an operation changes in place."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        written = argument.alias_info is not None and argument.alias_info.is_write
        if written and isinstance(value, fx.Node):
            return value
    return None


def _viewed(node: fx.Node) -> fx.Node | None:
    """The tensor whose memory an operation's result may share."""
    if (
        _gives_its_input(node)
        or node.op == "call_function"
        and not isinstance(node.target, torch._ops.OpOverload)
    ):
        source = node.args[0] if node.args else None
        return source if isinstance(source, fx.Node) else None
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema = node.target._schema
    if all(result.alias_info is None for result in schema.returns):
        return None
    return next((value for value in node.args if isinstance(value, fx.Node)), None)


def _gives_its_input(node: fx.Node) -> bool:
    """Whether the operation is a dropout that is switched off, which gives the very tensor it got."""
    name = getattr(node.target, "_overloadpacket", None)
    packet = getattr(name, "__name__", "")
    return packet.rstrip("_").endswith("dropout") and len(node.args) > 2 and node.args[2] is False


def _inline(graph: fx.Graph) -> None:
    """Put the operations of blocks with gradients or autocast switched in the place of the block."""
    for node in list(graph.nodes):
        inner, inputs = _block(node)
        if inner is None:
            continue
        assert graph.owning_module is not None
        block = graph.owning_module.get_submodule(str(inner.target))
        assert isinstance(block, fx.GraphModule)
        values = dict(zip(block.graph.find_nodes(op="placeholder"), inputs, strict=True))
        with graph.inserting_before(node):
            result = graph.graph_copy(block.graph, values)
        parts = result if isinstance(result, tuple | list) else (result,)
        for user in list(node.users):
            user.replace_all_uses_with(parts[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
        if not inner.users:
            graph.erase_node(inner)
        _inline(graph)
        return


def _block(node: fx.Node) -> tuple[fx.Node | None, tuple]:
    """The graph that a block is and what it gets; None for any other node."""
    name = str(node.target)
    if node.op != "call_function" or not name.startswith("wrap_with_"):
        return None, ()
    settings = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}.get(name)
    if settings is None or (name == "wrap_with_autocast" and node.args[2]):
        return None, ()
    inner = node.args[settings]
    return (inner, node.args[settings + 1 :]) if isinstance(inner, fx.Node) else (None, ())
