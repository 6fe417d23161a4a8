"""What an order achieves: most compression for a tolerated loss, and the area under its frontier."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import Drawn, Estimate, percentile
from .table import Sample, chains, unique

LOSSES = (0.2, 0.6, 1.0, 2.0)
"""Tolerated losses, in percentage points against the original."""
DEPTH = 10.0
"""Points of accuracy that a hypervolume counts at most: below the original, or below the best point if that
is less accurate."""
ROOM = 0.5
"""Points that the most compressed point of a frontier stands above the reference point at least."""
ROUNDING = 1e-3
"""Points by which sums of fractions may miss a limit; one image in ten thousand weighs ten times that."""
NOT_REACHED = 0.0
"""log10 of BitOpsCR where no point keeps the loss: the original itself does, at 1x."""


@dataclass(frozen=True)
class Reference:
    """The corner from which a hypervolume is measured."""

    ratio: float
    """log10 of BitOpsCR"""
    depth: float
    """points below the original"""


def reference(samples: Sequence[Sample], depth: float | None = None) -> Reference:
    """A little below what the chains of the samples tried, so that nothing counts that they did not.

    BitOpsCR: half of the least among the points. Accuracy: ROOM below the end of the frontier that ends
    lowest, so that it does not count how far another might have gone on; but not lower than DEPTH says.
    depth: this many points below the original instead.
    """
    ratio = math.log10(min(s.bitops_cr for s in samples) / 2)
    if depth is not None:
        return Reference(ratio, depth)
    ends = max(_end([s for s in samples if s.chain == chain]) for chain in chains(samples))
    return Reference(ratio, min(DEPTH + max(0.0, min(s.loss for s in samples)), ends + ROOM))


def _end(samples: Sequence[Sample]) -> float:
    """Loss of the most compressed point, (lower) median over the seeds."""
    ends = []
    for seed in unique(s.seed for s in samples):
        last = max((s for s in samples if s.seed == seed), key=lambda s: (s.bitops_cr, s.accuracy))
        ends.append(last.loss)
    return sorted(ends)[(len(ends) - 1) // 2]


def hypervolume(drawn: Drawn, corner: Reference) -> np.ndarray:
    """[1 + B]: the area that the points dominate above the corner, log10 BitOpsCR times percentage points.
    0 without points."""
    if not drawn.samples:
        return np.zeros(drawn.seed_draws.shape[1])
    order = np.argsort(-drawn.ratio, axis=0, kind="stable")
    ratio = np.maximum(np.take_along_axis(drawn.ratio, order, axis=0) - corner.ratio, 0)
    margin = np.maximum.accumulate(np.take_along_axis(drawn.margin, order, axis=0), axis=0)
    widths = ratio - np.concatenate([ratio[1:], np.zeros((1, ratio.shape[1]))])
    return np.asarray((widths * np.maximum(margin + corner.depth, 0)).sum(axis=0))


def most_compression(drawn: Drawn, loss: float) -> np.ndarray:
    """[1 + B]: log10 of the largest BitOpsCR among the points that lose at most `loss` points; NOT_REACHED
    where none does."""
    if not drawn.samples:
        return np.full(drawn.seed_draws.shape[1], NOT_REACHED)
    kept = np.where(drawn.margin >= -loss - ROUNDING, drawn.ratio, NOT_REACHED)
    return np.asarray(np.maximum(kept.max(axis=0), NOT_REACHED))


def area(drawn: Drawn, corner: Reference) -> np.ndarray:
    """[1 + B]: hypervolume, mean over the seeds."""
    return drawn.per_seed(lambda one: hypervolume(one, corner)).mean(axis=0)


def at_loss(drawn: Drawn, loss: float) -> np.ndarray:
    """[1 + B]: `most_compression`, (lower) median over the seeds, of which some may not reach the loss."""
    each = np.sort(drawn.per_seed(lambda one: most_compression(one, loss)), axis=0)
    return np.asarray(each[(len(each) - 1) // 2])


def ratio_estimate(drawn: Drawn, loss: float) -> Estimate:
    """BitOpsCR under a tolerated loss with its interval; 1.0 stands for "not reached"."""
    found = percentile(at_loss(drawn, loss))
    return Estimate(*(10**value for value in (found.value, found.low, found.high)))


def curve(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """(BitOpsCR, accuracy) along the frontier, from the least compressed on: at each accuracy that a sample
    has, the most compression that keeps it, (lower) median over the seeds. With one seed: its best points."""
    seeds = unique(s.seed for s in samples)
    own = [np.array([(s.accuracy, s.bitops_cr) for s in samples if s.seed == seed]) for seed in seeds]
    found: list[tuple[float, float]] = []
    for level in sorted({s.accuracy for s in samples}):
        each = sorted(float((one[:, 1] * (one[:, 0] >= level)).max()) for one in own)
        ratio = each[(len(each) - 1) // 2]
        while found and found[-1][0] <= ratio:
            found.pop()
        if ratio > 0:
            found.append((ratio, level))
    return found[::-1]


def best_point(samples: Sequence[Sample], loss: float) -> Sample | None:
    """The point with most compression among those that lose at most `loss` points."""
    kept = [s for s in samples if s.loss <= loss + ROUNDING]
    return max(kept, key=lambda s: s.bitops_cr, default=None)
