"""Two chains on the same test images: which frontier is the better one, and by how much."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import frontier
from .bootstrap import FEWEST, LEVEL, Drawn, Estimate, draw, percentile, reflected, with_trainings
from .table import Sample, unique


@dataclass(frozen=True)
class SameSettings:
    """Two chains at the same hyper-parameters and seed, case by case."""

    accuracy: Estimate
    """points by which the first is more accurate, mean over the cases and their operating points"""
    ratio: Estimate
    """how many times more it compresses, geometric mean over the same"""
    wins: int
    """cases of which the first has the larger hypervolume"""
    contested: int
    """cases of which the hypervolumes differ"""

    @property
    def sign_test(self) -> float:
        """Two-sided probability of so lopsided a count of wins, were both chains equally good."""
        n, k = self.contested, max(self.wins, self.contested - self.wins)
        if not n:
            return 1.0
        return min(1.0, 2 * sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n)


@dataclass(frozen=True)
class Comparison:
    """`first` against `second`, over the cases that both have."""

    group: str
    first: str
    second: str
    points: tuple[int, int]
    """operating points of each that were compared"""
    trainings: int
    """seeds, or cases of each chain, that the intervals rest on"""
    left_out: int
    """operating points without a counterpart of the same setting and seed"""
    areas: tuple[Estimate, Estimate]
    difference: Estimate
    """of the hypervolumes, first less second"""
    factor: Estimate
    """how many times more the first compresses at the same accuracy, mean over the accuracies reached"""
    same: "SameSettings | None"
    """None where the chains' settings differ by design"""

    @property
    def few(self) -> bool:
        """Whether luck cannot be told from merit."""
        return self.trainings < FEWEST

    @property
    def better(self) -> str | None:
        """The chain with the larger hypervolume where the difference's interval excludes 0."""
        nothing = self.areas[0].value == self.areas[1].value == 0
        if self.few or nothing or not self.difference.excludes(0):
            return None
        return self.first if self.difference.value > 0 else self.second


def compare(
    samples: Sequence[Sample],
    first: str,
    second: str,
    *,
    matched: bool = True,
    depth: float | None = None,
    level: float = LEVEL,
) -> Comparison | None:
    """Two chains of a group; None where one was not measured or nothing can be compared.

    matched: only cases of a setting and seed that both chains have, so that a case which failed in one order
    does not count for the other. Not for chains whose settings differ by design.
    depth: points below the original down to which accuracies count; by default see frontier.reference.
    level: of the difference's interval.
    """
    own = [s for s in samples if s.chain in (first, second)]
    kept = _common(own, first, second, matched)
    if not kept:
        return None
    drawn, corner = draw(kept), frontier.reference(kept, depth)

    def gap(some: Drawn) -> np.ndarray:
        return frontier.area(some.of(first), corner) - frontier.area(some.of(second), corner)

    difference = reflected(with_trainings(drawn, gap), level)
    span = max(float(drawn.margin[:, 0].max()) + corner.depth, frontier.ROOM)
    one, other = drawn.of(first), drawn.of(second)
    return Comparison(
        kept[0].group,
        first,
        second,
        (len(one.samples), len(other.samples)),
        drawn.trainings,
        len(own) - len(kept),
        (reflected(frontier.area(one, corner)), reflected(frontier.area(other, corner))),
        difference,
        _factor(difference, span),
        _same_settings(drawn, first, second, corner) if matched else None,
    )


def _common(samples: Sequence[Sample], first: str, second: str, matched: bool) -> list[Sample]:
    """Samples whose seed, and setting if `matched`, both chains have."""

    def key(sample: Sample) -> tuple[int, str]:
        return sample.seed, sample.setting if matched else ""

    both = {key(s) for s in samples if s.chain == first} & {key(s) for s in samples if s.chain == second}
    return [s for s in samples if key(s) in both]


def _factor(difference: Estimate, span: float) -> Estimate:
    """A difference of areas as a ratio of BitOpsCR, constant over `span` points of accuracy."""
    return _power(difference, 1 / span)


def _power(logarithm: Estimate, times: float = 1.0) -> Estimate:
    return Estimate(*(10 ** (times * v) for v in (logarithm.value, logarithm.low, logarithm.high)))


def _same_settings(drawn: Drawn, first: str, second: str, corner: frontier.Reference) -> SameSettings:
    """drawn: cases that both chains have."""
    cases = unique((s.setting, s.seed) for s in drawn.samples)
    accuracy, ratio, signs = [], [], []
    for setting, seed in cases:
        case = drawn.where(lambda s, at=(setting, seed): (s.setting, s.seed) == at)  # type: ignore[misc]
        one, other = case.of(first), case.of(second)
        accuracy.append(one.margin.mean(axis=0) - other.margin.mean(axis=0))
        ratio.append(one.ratio.mean(axis=0) - other.ratio.mean(axis=0))
        areas = [float(frontier.hypervolume(each, corner)[0]) for each in (one, other)]
        signs.append(np.sign(round(areas[0] - areas[1], 9)))
    seeds = [seed for _, seed in cases]
    return SameSettings(
        percentile(_mean(np.array(accuracy), seeds)),
        _power(percentile(_mean(np.array(ratio), seeds))),
        signs.count(1),
        len(signs) - signs.count(0),
    )


def _mean(values: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """[1 + B]: mean of [cases, 1 + B], over seeds drawn again; over cases where there are few seeds."""
    if len(set(seeds)) >= FEWEST:
        values = np.stack([values[np.array(seeds) == seed].mean(axis=0) for seed in unique(seeds)])
    picks = np.random.default_rng(2).integers(len(values), size=values.shape)
    picks[:, 0] = np.arange(len(values))
    return np.asarray(np.take_along_axis(values, picks, axis=0).mean(axis=0))
