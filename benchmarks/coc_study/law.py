"""The order law: measured pairs as a directed graph, its cycles and its topological orders."""

import graphlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

TECHNIQUES = "DPQE"
"""Also the order in which equals are listed."""


@dataclass(frozen=True)
class Law:
    """What the better orders of the pairs imply together."""

    edges: tuple[str, ...]
    """better orders: "DP" for D before P"""
    open_pairs: tuple[str, ...]
    """pairs without a better order, or not measured, letters in the order of TECHNIQUES"""
    cycles: tuple[str, ...]
    """each once, from its first letter of TECHNIQUES on: "PQE" for P before Q before E before P"""
    orders: tuple[str, ...]
    """all topological orders; none where there is a cycle"""

    @property
    def order(self) -> str | None:
        """The topological order, if there is exactly one."""
        return self.orders[0] if len(self.orders) == 1 else None


def law(better: Iterable[str]) -> Law:
    """better: one string of two letters for each pair that has a better order."""
    edges = tuple(sorted(set(better), key=lambda pair: [TECHNIQUES.index(letter) for letter in pair]))
    settled = {frozenset(pair) for pair in edges}
    pairs = ("".join(pair) for pair in itertools.combinations(TECHNIQUES, 2))
    open_pairs = tuple(pair for pair in pairs if frozenset(pair) not in settled)
    return Law(edges, open_pairs, _cycles(edges), _orders(edges))


def _orders(edges: tuple[str, ...]) -> tuple[str, ...]:
    """Topological orders in the order of TECHNIQUES: one where every step leaves a single choice."""
    before: dict[str, set[str]] = {letter: set() for letter in TECHNIQUES}
    for pair in edges:
        before[pair[1]].add(pair[0])
    sorter = graphlib.TopologicalSorter(before)
    try:
        sorter.prepare()
    except graphlib.CycleError:
        return ()
    return tuple(sorted(_walk(before, ""), key=lambda order: [TECHNIQUES.index(letter) for letter in order]))


def _walk(before: dict[str, set[str]], done: str) -> list[str]:
    """All ways to go on after the techniques in `done`."""
    if len(done) == len(before):
        return [done]
    ready = [letter for letter in before if letter not in done and before[letter] <= set(done)]
    return [order for letter in ready for order in _walk(before, done + letter)]


def _cycles(edges: tuple[str, ...]) -> tuple[str, ...]:
    """Every simple cycle: four techniques have few enough arrangements to look at each."""
    found = []
    for length in (3, 4):
        for nodes in itertools.permutations(TECHNIQUES, length):
            closed = zip(nodes, (*nodes[1:], nodes[0]), strict=True)
            starts_first = min(nodes, key=TECHNIQUES.index) == nodes[0]
            if starts_first and all(f"{a}{b}" in edges for a, b in closed):
                found.append("".join(nodes))
    return tuple(found)
