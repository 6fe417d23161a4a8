"""Training mode beside evaluation mode: what it drops at random, and a refusal of everything else it does."""

from typing import Any

from torch import fx, nn

from coc_runtime.errors import CocError

from .builder import Builder
from .modules import StochasticDepth
from .program import needed_for
from .refusal import Place

DROPS = (nn.Dropout, nn.Dropout2d, StochasticDepth)


def insert_drops(
    evaluated: Builder,
    logits: fx.Node,
    trained: Builder,
    trained_logits: fx.Node,
    ends: dict[str, fx.Node | None],
) -> None:
    """Put the dropout and stochastic depth of training mode into the body of evaluation mode.

    ends: nodes that modules end with; of a module that ends with a drop it becomes that. Batch-norms that
    training mode leaves alone get "frozen" in their meta. Raises CocError, naming module and line, where
    training mode computes anything else.
    """
    aligned = _Aligned(evaluated, trained)
    aligned.run(logits, trained_logits)
    for drop, new in aligned.dropped.items():
        place: Place = drop.meta["place"]
        source = new.all_input_nodes[0]
        for name, end in ends.items():
            if end is source and f"{place.name}.".startswith(f"{name}."):
                ends[name] = new


class _Aligned:
    """Pairs of nodes that compute the same in both modes, found from the image on.

    first: node of evaluation mode -> the first that computes the same. same: node of training mode -> that.
    """

    def __init__(self, evaluated: Builder, trained: Builder) -> None:
        self.evaluated, self.trained = evaluated, trained
        self.same: dict[fx.Node, fx.Node] = {}
        self.dropped: dict[fx.Node, fx.Node] = {}
        self.waiting: list[fx.Node] = []
        self.by_key: dict[Any, fx.Node] = {}
        self.first: dict[fx.Node, fx.Node] = {}
        for node in evaluated.graph.nodes:
            key = _key(node, [self.first[source] for source in node.all_input_nodes])
            self.first[node] = self.by_key.setdefault(key, node)
        self.alike: dict[fx.Node, list[fx.Node]] = {}
        for node, first in self.first.items():
            self.alike.setdefault(first, []).append(node)

    def run(self, logits: fx.Node, trained_logits: fx.Node) -> None:
        needed = needed_for([trained_logits])
        for node in self.trained.graph.nodes:
            if node in needed:
                self._visit(node)
        if self.same[trained_logits] is not self.first[logits]:
            raise self._differs(trained_logits)
        if trained_logits in self.dropped:
            raise CocError(f"{trained_logits.meta['place']}: drops logits in training mode")

    def _visit(self, node: fx.Node) -> None:
        sources = node.all_input_nodes
        if self._is_drop(node):
            self.same[node] = self.same[sources[0]]
            self._insert(node)
            return
        partner = self.by_key.get(_key(node, [self.same[source] for source in sources]))
        if partner is None:
            raise self._differs(node)
        self._place(partner)
        self.same[node] = partner
        if node.meta.get("frozen"):
            partner.meta["frozen"] = True
        for source in sources:
            if source in self.dropped:
                for read in self.alike[self.same[source]]:
                    partner.replace_input_with(read, self.dropped[source])

    def _differs(self, node: fx.Node) -> CocError:
        return _differs(node, self.trained.modules.get(str(node.target)))

    def _is_drop(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(self.trained.modules[str(node.target)], DROPS)

    def _insert(self, node: fx.Node) -> None:
        """Behind what is dropped, or behind an earlier drop of it."""
        source = node.all_input_nodes[0]
        before = self.dropped.get(source, self.same[source])
        target = str(node.target)
        while target in self.evaluated.modules:
            target += "_"
        self.evaluated.modules[target] = self.trained.modules[str(node.target)]
        graph = self.evaluated.graph
        with graph.inserting_after(before):
            new = graph.create_node("call_module", target, (before,), name=node.name)
        new.meta.update(node.meta)
        self.dropped[node] = new
        self.waiting.append(new)

    def _place(self, node: fx.Node) -> None:
        """Put the drops that came up in front of the next node of both modes: they draw in that order."""
        for drop in self.waiting:
            if drop.all_input_nodes[0] < node:
                node.prepend(drop)
        self.waiting.clear()


def _key(node: fx.Node, sources: list[fx.Node]) -> Any:
    several = node.args[0] if node.args and isinstance(node.args[0], list | tuple) else node.args
    order = [node.all_input_nodes.index(source) for source in several if isinstance(source, fx.Node)]
    return node.meta["signature"], tuple(sources), tuple(order)


def _differs(node: fx.Node, module: nn.Module | None) -> CocError:
    place: Place = node.meta["place"]
    kind = type(module).__name__ if module is not None else getattr(node.target, "__name__", node.name)
    return CocError(
        f"{place}: {kind} computes something in training mode that evaluation mode does not; only dropout, "
        f"stochastic depth and batch-norm may differ{place.at}"
    )
