"""Thresholds from a budget: what keeps a promise, or the frontier of the held-out images, latency as it
is measured here."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime import environment, promise, quality, thresholds
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Task
from coc_runtime.promise import Kept, Promise
from coc_runtime.session import Session
from coc_runtime.thresholds import Frontier

from . import latency, parity
from .latency import Timing
from .options import Budget, BudgetKind, Choosing

CHOOSING = 0.5
"""Share of the images whose labels choose the frontier; those of the others bound what its points lose."""
POINTS = 25
"""The report holds at most so many points of the frontier."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Thresholds, and for each artifact what the report says about them."""

    thresholds: tuple[float, ...]
    sections: tuple[dict[str, Any], ...]
    told: str | None
    """a line where images are too few to let any leave early"""


@dataclass(frozen=True, eq=False)
class _Held:
    """A model on the held-out images."""

    graph: Graph
    data: Dataset
    logits: np.ndarray
    """float32 [exits, N, classes]"""

    def point(self, limits: Sequence[float], timing: Timing) -> dict[str, Any]:
        """What a set of thresholds does: quality, shares, BitOps and latency."""
        spent = self.graph.exit_bitops()
        gated = thresholds.gate(self.logits, self.data.labels, limits, spent, self.graph.task)
        deepest = _deepest(limits, self.graph.task)
        reached = np.cumsum(gated.shares)
        at = [int(np.searchsorted(reached, q * reached[-1])) for q in (0.5, 0.99)]
        return {
            "thresholds": list(limits),
            **gated.quality,
            "drop": self._drop(gated.quality),
            "exit_share": list(gated.shares),
            "bitops": {
                "mean": gated.bitops,
                "p50": spent[at[0]],
                "p99": spent[at[1]],
                "worst": spent[deepest],
            },
            "latency_us": timing.mixture(gated.shares, deepest),
        }

    def _drop(self, found: dict[str, float | None]) -> float:
        """Points below the last exit; of a regression percent of error above it."""
        last = quality.measure(self.logits[-1], self.data.labels, self.graph.task)
        before, now = ((found_["accuracy"], found_.get("mae")) for found_ in (last, found))
        if before[0] is not None and now[0] is not None:
            return before[0] - now[0]
        assert before[1] is not None and now[1] is not None
        return 100 * (now[1] / before[1] - 1) if before[1] else 0.0


def choose(graph: Graph, files: Sequence[tuple[str, bytes]], data: Dataset, wanted: Choosing) -> Chosen:
    """Choose thresholds for a model within a budget.

    files: (name, content) of its artifacts, with any thresholds; latency is that of each of them, and where
    it is the budget, all must keep it. data: the held-out images. Raises CocError where the budget cannot
    be met, with what is reachable.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name, _ in files]
        for path, (_, content) in zip(paths, files, strict=True):
            path.write_bytes(content)
        session = Session(paths[0])
        logits = parity.all_logits(session, data.images)
        timings = [latency.measure(path, data.images) for path in paths]
    held = _Held(graph, data, logits)
    costs: Sequence[float] = graph.exit_bitops()
    if wanted.budget.kind is BudgetKind.MAX_LATENCY:
        costs = np.max([timing.means for timing in timings], axis=0).tolist()
    choosing, bounding = promise.split(len(data.images), CHOOSING)
    found = thresholds.frontier(held.logits[:, choosing], data.labels[choosing], costs, graph.task)
    frontier = found.priced(held.logits, graph.task)
    kept: Kept | None = None
    if wanted.budget.kind is BudgetKind.MAX_DROP:
        asked = Promise(wanted.budget.value, wanted.confidence)
        kept = promise.choose(held.logits, data.labels, costs, asked, graph.task)
        limits, guarantee = kept.thresholds, kept.record()
    else:
        limits = _within(held, frontier, wanted.budget, timings)
        rest = held.logits[:, bounding], data.labels[bounding]
        bound = promise.bound(*rest, limits, wanted.confidence, graph.task)
        guarantee = {"confidence": wanted.confidence, "images": len(bounding), "bound": bound}
    sections = tuple(_section(held, frontier, limits, wanted.budget, timing) for timing in timings)
    told = None if kept is None else kept.line()
    return Chosen(limits, tuple({**section, "guarantee": guarantee} for section in sections), told)


def _within(held: _Held, frontier: Frontier, budget: Budget, timings: Sequence[Timing]) -> tuple[float, ...]:
    """The frontier's thresholds for a budget; CocError with what is reachable where there are none."""
    point = frontier.at_cost(budget.value)
    if point is not None:
        return tuple(frontier.thresholds[point].tolist())
    cheapest = held.point(frontier.thresholds[0].tolist(), timings[0])
    least, answers = frontier.cost[0], quality.text(cheapest)
    if budget.kind is BudgetKind.BITOPS:
        raise CocError(
            f"{budget}: cannot be met, thresholds reach {least:,.0f} BitOps an image at best (then {answers})"
        )
    backends = ", ".join(timing.backend for timing in timings)
    raise CocError(
        f"{budget}: cannot be met here, thresholds reach {least:.1f} us on average at best (then {answers}; "
        f"{backends} on {environment.cpu()})"
    )


def _section(
    held: _Held, frontier: Frontier, limits: Sequence[float], budget: Budget, timing: Timing
) -> dict[str, Any]:
    """The `threshold_choice` of a report, but for what it guarantees."""

    def at(index: int | None) -> dict[str, Any] | None:
        return None if index is None else held.point(frontier.thresholds[index].tolist(), timing)

    choice = held.point(limits, timing)
    cheaper, dearer = frontier.neighbours(frontier.price(held.logits, limits, held.graph.task))
    early = len(held.graph.segments) - 1
    return {
        "data": held.data.name,
        "split": "held-out",
        "images": len(held.data.labels),
        **parity.image_digests(held.data.images, held.data.labels),
        "budget": {"option": budget.kind.value, "text": budget.text, "value": budget.value},
        "search": "every combination" if frontier.exact else "grid, then one exit at a time",
        "frontier_points": len(frontier),
        "cpu": environment.cpu(),
        "backend": timing.backend,
        "threads": 1,
        "rounds": max(len(sample) for sample in timing.samples),
        "means": "of the runs up to p99",
        "exit_latency_us": timing.exits(),
        "choice": choice,
        "cheaper": at(cheaper),
        "dearer": at(dearer),
        "last_exit": held.point((thresholds.NEVER[held.graph.task],) * early, timing),
        "frontier": [at(index) for index in frontier.spread(POINTS)],
    }


def _deepest(limits: Sequence[float], task: Task) -> int:
    """The last exit that an image can reach: confidences are above 0."""
    always = [k for k, limit in enumerate(limits) if task is Task.CLASSIFICATION and limit == 0]
    return always[0] if always else len(limits)
