"""How much of a difference is chance: test images and trainings drawn again, the same ones for all chains.

Every statistic is computed for the data as they are (column 0) and for B draws (columns 1 to B) by the same
vectorised code. Two kinds of chance are drawn:

- Test images. All cases saw the same ones, so one draw serves every chain: what is hard about an image is
  hard for all of them and cancels in differences.
- Trainings. With three seeds or more: the seeds. With fewer, drawing images alone would take a training's
  luck for a property of its chain; then the cases (settings) of each seed are drawn.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .table import Sample, unique

DRAWS = 400
LEVEL = 0.95
FEWEST = 3
"""Trainings that must be there to tell merit from luck: seeds, or cases of each chain."""
Statistic = Callable[["Drawn"], np.ndarray]
"""A function that computes a figure from samples under all draws: float64 [1 + B]."""
Case = tuple[int, str]
"""(seed, setting)"""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the interval lies on one side of a value."""
        return self.low > value or self.high < value


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples of some chains under every draw of the images: column 0 as measured, then B draws."""

    samples: tuple[Sample, ...]
    margin: np.ndarray
    """float64 [samples, 1 + B]: accuracy less the original's, points; -inf where the case was not drawn"""
    ratio: np.ndarray
    """float64 [samples, 1 + B]: log10 of BitOpsCR"""
    seeds: tuple[int, ...]
    seed_draws: np.ndarray
    """int64 [seeds, 1 + B]: which seeds a draw holds"""

    def where(self, keep: Callable[[Sample], bool]) -> "Drawn":
        """The samples for which `keep` holds, under the same draws."""
        rows = [row for row, sample in enumerate(self.samples) if keep(sample)]
        samples = tuple(self.samples[row] for row in rows)
        return dataclasses.replace(self, samples=samples, margin=self.margin[rows], ratio=self.ratio[rows])

    def of(self, chain: str) -> "Drawn":
        """The samples of one chain."""
        return self.where(lambda sample: sample.chain == chain)

    def of_seed(self, seed: int) -> "Drawn":
        """The samples of one seed."""
        return self.where(lambda sample: sample.seed == seed)

    def per_seed(self, statistic: Statistic) -> np.ndarray:
        """[seeds of the draw, 1 + B]: a statistic of each seed's samples, in the order drawn."""
        each = np.stack([statistic(self.of_seed(seed)) for seed in self.seeds])
        return np.take_along_axis(each, self.seed_draws, axis=0)

    @property
    def by_seed(self) -> bool:
        """Whether there are seeds enough to draw from, rather than cases."""
        return len(self.seeds) >= FEWEST

    @property
    def trainings(self) -> int:
        """How many independent trainings `retrained` draws from."""
        return len(self.seeds) if self.by_seed else min(len(cases) for cases in self._strata())

    def retrained(self) -> "Drawn":
        """The same images with trainings drawn with replacement in columns 1 to B."""
        generator = np.random.default_rng(1)
        draws = self.margin.shape[1] - 1
        if self.by_seed:
            picks = generator.integers(len(self.seeds), size=(len(self.seeds), draws))
            return dataclasses.replace(self, seed_draws=np.hstack([self.seed_draws[:, :1], picks]))
        margin = self.margin.copy()
        for cases in self._strata():
            present = np.zeros((len(cases), draws), bool)
            picks = generator.integers(len(cases), size=(len(cases), draws))
            np.put_along_axis(present, picks, True, axis=0)
            for case, drawn in zip(cases, present, strict=True):
                rows = np.array([(s.seed, s.setting) == case for s in self.samples])
                margin[np.ix_(rows, np.append(False, ~drawn))] = -np.inf
        return dataclasses.replace(self, margin=margin)

    def _strata(self) -> list[list[Case]]:
        """Cases that are drawn among each other: of one seed, and of the same chains. What two chains have in
        common is drawn for both."""
        having: dict[Case, set[str]] = {}
        for sample in self.samples:
            having.setdefault((sample.seed, sample.setting), set()).add(sample.chain)
        strata: dict[tuple[int, frozenset[str]], list[Case]] = {}
        for case, chains in having.items():
            strata.setdefault((case[0], frozenset(chains)), []).append(case)
        return list(strata.values())


def draw(samples: Sequence[Sample], draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Draw the test images with replacement.

    The draw depends on `seed` and the number of images alone: any two groups of cases on the same test set
    see the same draws.
    """
    weights = _image_weights(len(samples[0].correct), draws, seed)
    gains = np.stack([s.correct for s in samples]).astype(np.float32) @ weights
    margin = 100 * gains.astype(np.float64) / len(weights) - _originals(samples, weights)
    margin[:, 0] = [-s.loss for s in samples]
    ratio = -np.log10(_costs(samples, weights))
    seeds = tuple(sorted(unique(s.seed for s in samples)))
    every = np.repeat(np.arange(len(seeds))[:, None], 1 + draws, axis=1)
    return Drawn(tuple(samples), margin, ratio, seeds, every)


def _originals(samples: Sequence[Sample], weights: np.ndarray) -> np.ndarray:
    """Percent [samples, 1 + B]: accuracy of each sample's original on the images drawn; where its answers are
    not known, its accuracy on all."""
    found: dict[tuple[int, float], np.ndarray] = {}
    for sample in samples:
        key = (sample.seed, sample.original_accuracy)
        if key not in found:
            known = sample.original_correct
            found[key] = np.full(weights.shape[1], sample.original_accuracy)
            if known is not None:
                right = known.astype(np.float32) @ weights
                found[key] = 100 * right.astype(np.float64) / len(weights)
    return np.stack([found[sample.seed, sample.original_accuracy] for sample in samples])


def _costs(samples: Sequence[Sample], weights: np.ndarray) -> np.ndarray:
    """[samples, 1 + B]: mean BitOps of the images drawn, as a share of the original's."""
    last = max(len(s.exit_bitops) for s in samples) - 1
    exits = np.stack([s.exits for s in samples])
    costs = np.stack([np.pad(s.exit_bitops, (0, last + 1 - len(s.exit_bitops)), "edge") for s in samples])
    left = np.full((len(samples), weights.shape[1]), float(len(weights)))
    total = np.zeros_like(left)
    for k in range(last):
        leaving = ((exits == k).astype(np.float32) @ weights).astype(np.float64)
        total += leaving * costs[:, k, None]
        left -= leaving
    total += left * costs[:, last, None]
    originals = np.array([s.original_bitops for s in samples])[:, None]
    return np.asarray(total / len(weights) / originals)


@functools.lru_cache(maxsize=2)
def _image_weights(images: int, draws: int, seed: int) -> np.ndarray:
    """float32 [images, 1 + B]: how often a draw holds each image; column 0 each once. Sums of these whole
    numbers are exact, so that equal answers give equal figures."""
    generator = np.random.default_rng(seed)
    weights = np.ones((images, 1 + draws), np.float32)
    for column in range(1, draws + 1):
        weights[:, column] = np.bincount(generator.integers(images, size=images), minlength=images)
    return weights


def percentile(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """values [1 + B]: the middle `level` of what the draws gave; for means and for figures that jump."""
    tail = 100 * (1 - level) / 2
    drawn = values[1:] if len(values) > 1 else values
    low, high = np.percentile(drawn, [tail, 100 - tail], method="inverted_cdf")
    return Estimate(float(values[0]), float(low), float(high))


def reflected(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """values [1 + B]: the draws' errors, turned round (the basic bootstrap).

    A frontier picks the best of many points and so profits from chance, once in the data and once more in
    every draw; turning the errors round takes that profit out, which plain percentiles would double.
    """
    plain = percentile(values, level)
    return Estimate(plain.value, 2 * plain.value - plain.high, 2 * plain.value - plain.low)


def with_trainings(drawn: Drawn, statistic: Statistic) -> np.ndarray:
    """[1 + B]: a statistic under draws of images and trainings.

    What drawing the trainings adds is centred, because drawing n of n leaves out a third of them, and every
    frontier would lose by it; and it is widened by sqrt(n / (n - 1)), as n drawn from few vary too little.
    """
    plain = statistic(drawn)
    count = drawn.trainings
    if count < 2 or len(plain) < 2:
        return plain
    added = statistic(drawn.retrained()) - plain
    added -= added[1:].mean()
    added[0] = 0
    return np.asarray(plain + math.sqrt(count / (count - 1)) * added)
