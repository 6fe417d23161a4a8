"""Thresholds with a promise: with a given confidence, early exits lose at most so much on new images.

Learn then test (Angelopoulos et al. 2021; for early exits Jazbec et al. 2024):

- A fifth of the held-out images shapes a path of thresholds from "never" to "always". Along it an exit's
  answer is, at its threshold, equally likely to be that of the last exit at every exit; how likely it is at
  a confidence is a logistic curve, which needs few images and no labels. For numbers the path is one
  tolerance for all exits.
- The other images test the path's points one after the other, the safest first, until one fails to rule out
  that it loses too much (`coc_runtime.guarantee`). The order of the tests is fixed beforehand, so that one
  error probability covers all of them, and every point before the first failure keeps the promise: the
  cheapest is taken.

Images must be independent of each other and of all that the network was trained on.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from . import guarantee, thresholds
from .arithmetic import Task, exit_confidence

SHAPING = 0.2
"""Share of the held-out images that shapes the path."""
SEED = 20240
ODDS = np.linspace(8.0, -4.0, 121)
"""Log odds that an exit's answer at its threshold is the last one's, along a path."""
SUREST = 1e-6
"""Below 1: the largest confidence that a logistic curve tells from others."""
TOLERANCES = 100
"""Points of a regression's path."""
WORTH_IT = 0.1
"""Share of images that have to leave early for exits to be any use: what `needed` counts for."""


@dataclass(frozen=True)
class Promise:
    """Wanted: with this confidence, a mean loss on new images of at most max_drop points of accuracy below
    the last exit; of a regression percent of mean absolute error above it."""

    max_drop: float
    confidence: float

    def __str__(self) -> str:
        return f"a loss of at most {self.max_drop:g} with {100 * self.confidence:g} % confidence"


@dataclass(frozen=True)
class Kept:
    """Thresholds that keep a promise.

    images: that tested it, of `held_out`. bound: what is not exceeded with the promise's confidence, in the
    units of max_drop; 0 where no image leaves early. needed: about how many held-out images would let a
    tenth of the images leave early, where these do not; None where that cannot be told.
    """

    thresholds: tuple[float, ...]
    promise: Promise
    held_out: int
    images: int
    bound: float
    early: bool
    needed: int | None = None

    def record(self) -> dict[str, Any]:
        """The promise as result.json and reports hold it."""
        values: dict[str, Any] = {
            "max_drop": self.promise.max_drop,
            "confidence": self.promise.confidence,
            "held_out": self.held_out,
            "images": self.images,
            "bound": self.bound,
        }
        return values if self.early else {**values, "images_needed": self.needed}

    def line(self) -> str | None:
        """What to tell people where exits are not used."""
        if self.early:
            return None
        if self.needed is None:
            more = "no number of such images would: allow more, or train the exits longer"
        else:
            more = f"about {self.needed:,} would"
        images = f"{self.held_out:,} held-out images"
        return f"no image leaves early: {images} do not guarantee {self.promise}; {more}"


def for_measured(confidence: float) -> float:
    """The confidence in the mean over all images that makes one in what as many new images show.

    Whoever checks a promise measures a mean that scatters as much as the one it was tested by, so that both
    together scatter by the square root of two more.
    """
    normal = NormalDist()
    return normal.cdf(math.sqrt(2) * normal.inv_cdf(confidence))


def split(images: int, share: float = SHAPING) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the held-out images that choose candidates, a share of them, and of those that test them."""
    # RandomState's stream is frozen for ever; default_rng's may change with NumPy's version.
    order = np.random.RandomState(SEED).permutation(images)
    count = int(share * images)
    return np.sort(order[:count]), np.sort(order[count:])


def choose(
    logits: np.ndarray,
    labels: np.ndarray,
    exit_costs: Sequence[float],
    promise: Promise,
    task: Task = Task.CLASSIFICATION,
) -> Kept:
    """The thresholds of least mean cost among those found to keep a promise. logits: of held-out images,
    float32 [exits, N, classes]; exit_costs: of an image that leaves at each exit."""
    shaping, testing = split(logits.shape[1])
    test = Test(logits[:, testing], labels[testing], task, largest_error(logits[:, shaping], labels[shaping]))
    never = (thresholds.NEVER[task],) * (len(logits) - 1)
    passed, best = [never], never
    for limits in path(logits, logits[:, shaping], task) if len(never) and len(testing) else ():
        if not test.keeps(limits, promise):
            break
        passed.append(limits)
    costs = np.asarray(exit_costs)
    scores = thresholds.exit_scores(logits, task)
    best = min(passed, key=lambda limits: float(costs[thresholds.taken(scores, limits, task)].mean()))
    early = bool((thresholds.taken(scores, best, task) < len(never)).any())
    return Kept(
        thresholds=best if early else never,
        promise=promise,
        held_out=logits.shape[1],
        images=len(testing),
        bound=test.bound(best, promise.confidence, promise.max_drop) if early else 0.0,
        early=early,
        needed=None if early else _needed(test, path(logits, logits[:, shaping], task), promise, logits),
    )


def bound(
    logits: np.ndarray, labels: np.ndarray, limits: Sequence[float], confidence: float, task: Task
) -> float:
    """What the loss of thresholds does not exceed with this confidence, in points (of a regression percent),
    by images that did not choose them."""
    return Test(logits, labels, task, largest_error(logits, labels)).bound(limits, confidence)


def largest_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """The largest error of the last exit, for numbers, which bounds the loss of any image; 1 for answers."""
    if labels.dtype.kind != "f" or logits.shape[1] == 0:
        return 1.0
    return float(np.abs(logits[-1].astype(np.float64) - labels).mean(axis=1).max())


class Test:
    """Images that test thresholds."""

    def __init__(self, logits: np.ndarray, labels: np.ndarray, task: Task, most: float) -> None:
        self.task, self.most = task, most
        self.gain = thresholds.gains(logits, labels, task)
        self.scores = thresholds.exit_scores(logits, task)

    def lost(self, limits: Sequence[float]) -> np.ndarray:
        """What each image loses against the last exit, [N]: 1, 0 or -1 answers; for numbers absolute error,
        at most `most` of it."""
        taken = thresholds.taken(self.scores, limits, self.task)
        lost: np.ndarray = self.gain[-1] - self.gain[taken, np.arange(len(taken))]
        return np.minimum(lost, self.most)

    def keeps(self, limits: Sequence[float], promise: Promise) -> bool:
        """Whether the images show that thresholds keep a promise."""
        return self._rules_out(self.lost(limits), promise.max_drop / 100, promise.confidence)

    def bound(self, limits: Sequence[float], confidence: float, kept: float = 100.0) -> float:
        """The least loss that the images rule out; kept: one that they are known to, in points or percent."""
        lost = self.lost(limits)
        if self.task is Task.CLASSIFICATION:
            won, images = int((lost < 0).sum()), len(lost)
            return min(
                kept, 100 * guarantee.loss_bound(int((lost > 0).sum()), won, images, for_measured(confidence))
            )
        low, high = 0.0, kept / 100
        while not self._rules_out(lost, high, confidence) and high < 1e3:
            low, high = high, 2 * high + 0.01
        for _ in range(guarantee.BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._rules_out(lost, middle, confidence) else (middle, high)
        return 100 * high

    def _rules_out(self, lost: np.ndarray, allowed: float, confidence: float) -> bool:
        if self.task is Task.CLASSIFICATION:
            counts = int((lost > 0).sum()), int((lost < 0).sum()), len(lost)
            return allowed >= 1 or guarantee.rejects(*counts, allowed, for_measured(confidence))
        return guarantee.mean_rejects(lost + allowed * self.gain[-1], self.most, confidence)


def path(logits: np.ndarray, shaping: np.ndarray, task: Task) -> Iterator[tuple[float, ...]]:
    """Thresholds from the safest to the cheapest.

    shaping: logits that they depend on. logits: of all images to keep clear of, so that differences of a
    softmax between engines flip no exit; they move a threshold by no more than these differences.
    """
    early = len(logits) - 1
    if task is Task.REGRESSION:
        found = [
            -score[np.isfinite(score)].astype(np.float64) for score in thresholds.exit_scores(shaping, task)
        ]
        apart = np.concatenate([np.zeros(1), *found])
        for tolerance in np.unique(np.quantile(apart, np.linspace(0, 1, TOLERANCES + 1)[1:])):
            yield (0.0, *(float(np.float32(tolerance)),) * (early - 1))
        return
    curves = [agreement_curve(shaping, k) for k in range(early)]
    ordered = [np.unique(score).astype(np.float64) for score in thresholds.exit_scores(logits, task)]
    gap = thresholds.least_gap(logits, task)
    for odds in ODDS:
        limits = [confidence_at(curve, float(odds)) for curve in curves]
        yield tuple(_clear(limit, score, gap) for limit, score in zip(limits, ordered, strict=True))


def agreement_curve(logits: np.ndarray, exit_: int) -> tuple[float, float]:
    """Slope and offset of a logistic curve: how likely an exit's answer is the last one's at the log odds of
    its confidence. A curve through these itself, slope 1 and offset 0, is what no image speaks against."""
    agrees = logits[exit_].argmax(axis=1) == logits[-1].argmax(axis=1)
    sure = exit_confidence(logits[exit_], None, Task.CLASSIFICATION).astype(np.float64)
    sure = np.clip(sure, SUREST, 1 - SUREST)
    inputs = np.stack([np.log(sure / (1 - sure)), np.ones(len(sure))])
    start = np.array([1.0, 0.0])
    curve = start.copy()
    for _ in range(30):  # Newton's method; the penalty keeps it where images are few or all agree
        chance = 1 / (1 + np.exp(-np.clip(curve @ inputs, -30, 30)))
        slope = inputs @ (agrees - chance) - (curve - start)
        curvature = (inputs * (chance * (1 - chance))) @ inputs.T + np.eye(2)
        step = np.linalg.solve(curvature, slope)
        curve += step * min(1.0, 2 / max(float(np.abs(step).max()), 1e-12))
    return float(curve[0]), float(curve[1])


def confidence_at(curve: tuple[float, float], odds: float) -> float:
    """The confidence at which an exit agrees with these log odds; "never" where none does."""
    slope, offset = curve
    never = thresholds.NEVER[Task.CLASSIFICATION]
    if slope <= 0:
        return never
    found = 1 / (1 + math.exp(-min(max((odds - offset) / slope, -30.0), 30.0)))
    return never if found > 1 - SUREST else found


def _clear(limit: float, ordered: np.ndarray, gap: float) -> float:
    """A threshold, raised until no confidence lies nearer than engines differ."""
    if limit > 1:
        return limit
    for score in ordered[np.searchsorted(ordered, limit - gap) :]:
        if score - limit >= gap:
            break
        limit = score + gap
    return float(np.float32(limit)) if limit <= 1 else thresholds.NEVER[Task.CLASSIFICATION]


def _needed(
    test: Test, points: Iterator[tuple[float, ...]], promise: Promise, logits: np.ndarray
) -> int | None:
    """About how many held-out images would keep a promise with a tenth of the images leaving early, if they
    lost what these lose with the same variance."""
    allowed, images = promise.max_drop / 100, test.gain.shape[1]
    if images == 0 or allowed <= 0:
        return None
    whole = 1.0 if test.task is Task.CLASSIFICATION else -float(test.gain[-1].mean())
    confidence = for_measured(promise.confidence)
    spread = NormalDist().inv_cdf(confidence)
    least = math.log(1 - confidence) / math.log1p(-min(allowed, 0.5))
    found = []
    for limits in points:
        early = len(logits) - 1
        share = (thresholds.taken(test.scores, limits, test.task) < early).mean()
        lost = test.lost(limits)
        room = allowed * whole - lost.mean()
        if share < WORTH_IT or room <= 0:
            continue
        variance = lost.var() + 1 / images * test.most**2
        found.append(max(spread**2 * variance / room**2, least))
    if not found:
        return None
    wanted = max(min(found), images + 1) / (1 - SHAPING)
    digits = 10 ** max(len(str(int(wanted))) - 2, 0)
    return math.ceil(wanted / digits) * digits
