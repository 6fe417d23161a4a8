"""A canonical body while passes change it."""

from dataclasses import dataclass, field

from torch import fx, nn

from .value import Size

Moved = dict[fx.Node, fx.Node]


@dataclass
class Draft:
    """The graph, its modules by target, and what passes moved.

    moved: node that is gone, or that computes something else now -> the node that has its value.
    """

    graph: fx.Graph
    modules: dict[str, nn.Module]
    moved: Moved = field(default_factory=dict)

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def is_a(self, node: fx.Node, *kinds: type[nn.Module]) -> bool:
        return isinstance(self.module(node), kinds)

    def source(self, node: fx.Node) -> fx.Node:
        return node.all_input_nodes[0]

    def sole_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def is_last(self, node: fx.Node) -> bool:
        """Whether the node gives the logits."""
        user = self.sole_user(node)
        return user is not None and user.op == "output"

    def remove(self, node: fx.Node) -> None:
        """Let the readers of a node read its input."""
        source = self.source(node)
        node.replace_all_uses_with(source)
        self.moved[node] = source
        self.graph.erase_node(node)

    def insert_behind(self, node: fx.Node, module: nn.Module, name: str, size: Size) -> fx.Node:
        """A call of a new module that all readers of the node read instead."""
        while name in self.modules:
            name += "_"
        self.modules[name] = module
        with self.graph.inserting_after(node):
            new = self.graph.create_node("call_module", name, (node,), name=name.replace(".", "_"))
        node.replace_all_uses_with(new, lambda user: user is not new)
        new.meta.update(node.meta, size=size)
        return new

    def final(self, node: fx.Node) -> fx.Node:
        """The node that has the value of a node now."""
        while node in self.moved:
            node = self.moved[node]
        return node
