"""Choosing where images leave: the frontier of cost against what leaving early loses, on held-out images.

A set of thresholds, one an early exit, sends every held-out image to one exit; that gives a mean cost
(BitOps, or microseconds) and a mean loss against the last exit. `frontier` finds the sets that no other
beats in both; a budget then picks one of them.

- Only thresholds in gaps between observed confidences differ in what they do, so each exit has at most
  as many candidates as there are images, plus "never" and "all".
- For given thresholds of the other exits all candidates of one exit cost a histogram and a sum over it.
  So the last early exit is always searched in full, and up to COMBINATIONS settings of those in front of
  it: every one for one and two exits, and for more where the images are few.
- Beyond that the exits in front get evenly spaced candidates, and points of the frontier are improved one
  exit at a time with all its candidates until that finds nothing new, ROUNDS times at most.

A loss is counted with one standard error on top: what few images say about a small loss is worth little,
and the best of many combinations looks better than it is. That is a rule of thumb and promises nothing: where
a loss must be kept, `coc_runtime.promise` chooses.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from . import quality
from .arithmetic import Task, confidence_error, exit_confidence, exits_taken, gate_thresholds, leaves

COMBINATIONS = 10_000
"""Settings of the exits before the last early one that are tried in full."""
ROUNDS = 3
SEEDS = 40
"""Points of the frontier that a round improves."""
STEP = 0.05
"""A neighbour on the frontier is told where it is this share of the frontier's span of cost away."""


NEVER = {Task.CLASSIFICATION: 2.0, Task.REGRESSION: 0.0}
"""A threshold that no confidence reaches; the tolerance that only equal outputs meet."""


@dataclass(frozen=True)
class Gated:
    """What a set of thresholds does to a set of images."""

    accuracy: float
    """percent; NaN of a regression"""
    shares: tuple[float, ...]
    """share of images that leave at each exit, the last one included"""
    bitops: float
    """mean per image"""
    quality: dict[str, float | None]
    """`quality.measure` of the answers"""


def gate(
    logits: np.ndarray,
    labels: np.ndarray,
    thresholds: Sequence[float],
    exit_bitops: Sequence[int],
    task: Task = Task.CLASSIFICATION,
) -> Gated:
    """Send images through the exits: logits [exits, N, classes], exit_bitops cumulative per exit."""
    taken = exits_taken(logits, thresholds, task)
    chosen = logits[taken, np.arange(len(labels))]
    shares = np.bincount(taken, minlength=len(logits)) / len(labels)
    found = quality.measure(chosen, labels, task)
    percent = found["accuracy"]
    return Gated(
        float("nan") if percent is None else percent,
        tuple(float(share) for share in shares),
        float(np.asarray(exit_bitops)[taken].mean()),
        found,
    )


def forcing(exit_: int, exits: int, task: Task) -> tuple[float, ...] | None:
    """Thresholds with which every image leaves at an exit: those before it never let go, it always does.

    None where there are none: a regression's first of several exits has nothing before it to agree with.
    """
    early = exits - 1
    if task is Task.REGRESSION and exit_ == 0 and early:
        return None
    always = 0.0 if task is Task.CLASSIFICATION else float(np.finfo(np.float32).max)
    return (*(NEVER[task],) * exit_, *(always,) * (early - exit_))


def spread(logits: np.ndarray, task: Task) -> tuple[float, ...]:
    """Thresholds at which about as many of the images leave at each exit: logits [exits, N, classes].

    They lie in gaps between confidences. At exit 0 of a regression, and where confidences leave no gap,
    nothing leaves.
    """
    staying, found = np.ones(logits.shape[1], bool), []
    for k in range(len(logits) - 1):
        score = exit_confidence(logits[k], logits[k - 1] if k else None, task).astype(np.float64)
        middles = _candidates(score[staying], task, least_gap(logits, task))[1:-1]
        wanted = staying.sum() / (len(logits) - k)
        leaving = [int((score[staying] >= middle).sum()) for middle in middles]
        if not leaving:
            found.append(NEVER[task])
            continue
        middle = middles[int(np.abs(np.array(leaving) - wanted).argmin())]
        staying &= score < middle
        found.append(float(np.float32(middle if task is Task.CLASSIFICATION else -middle)))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Frontier:
    """Sets of thresholds from the cheapest to the one that loses least; each costs more and loses less than
    the one before."""

    thresholds: np.ndarray
    """float64 [points, early exits]"""
    cost: np.ndarray
    """float64 [points], mean per image, ascending"""
    loss: np.ndarray
    """float64 [points], descending: mean loss against the last exit plus one standard error. A share of the
    images, 0.01 is one point of accuracy; of a regression in units of its mean absolute error"""
    exact: bool
    """whether every combination was tried"""
    exit_costs: tuple[float, ...]
    """of an image that leaves at each exit"""

    def __len__(self) -> int:
        return len(self.cost)

    def at_cost(self, limit: float) -> int | None:
        """The point that loses least at no more than this cost."""
        within = np.flatnonzero(self.cost <= limit)
        return int(within[-1]) if len(within) else None

    def price(self, logits: np.ndarray, limits: Sequence[float], task: Task) -> float:
        """The mean cost of these images with these thresholds."""
        return float(np.asarray(self.exit_costs)[exits_taken(logits, limits, task)].mean())

    def priced(self, logits: np.ndarray, task: Task) -> "Frontier":
        """The points with the cost that they have for these images; those that others then beat are out."""
        scores = exit_scores(logits, task)
        costs = np.asarray(self.exit_costs)
        cost = np.array([costs[taken(scores, limits, task)].mean() for limits in self.thresholds.tolist()])
        kept = _undominated(cost, self.loss)
        return Frontier(self.thresholds[kept], cost[kept], self.loss[kept], self.exact, self.exit_costs)

    def neighbours(self, cost: float) -> tuple[int | None, int | None]:
        """The nearest points that are cheaper and dearer than this by at least STEP of the span."""
        step = STEP * (self.cost[-1] - self.cost[0])
        below = np.flatnonzero(self.cost < cost - step)
        above = np.flatnonzero(self.cost > cost + step)
        return (int(below[-1]) if len(below) else None), (int(above[0]) if len(above) else None)

    def spread(self, count: int) -> list[int]:
        """Up to `count` points, evenly spaced in cost, both ends included."""
        wanted = np.linspace(self.cost[0], self.cost[-1], count)
        nearest = np.abs(self.cost[:, None] - wanted).argmin(axis=0)
        return sorted({int(point) for point in nearest})


def frontier(
    logits: np.ndarray,
    labels: np.ndarray,
    exit_costs: Sequence[float],
    task: Task = Task.CLASSIFICATION,
    combinations: int = COMBINATIONS,
) -> Frontier:
    """The frontier of held-out images: logits float32 [exits, N, classes], exit_costs of an image that leaves
    at each exit. See the module's text for what is searched.

    Thresholds are float32 numbers in the middle of gaps among the confidences of the images that reach the
    exit. A gap is at least twice as wide as what an engine's float32 softmax may err (`confidence_error`),
    so that no back end sends one of these images elsewhere, whatever the number of classes.
    """
    search = _Search(logits, labels, exit_costs, task)
    exact = search.outer_size() <= combinations
    pool = _Pool(search.exits)
    if not search.exits:
        pool.add((), 0, search.costs[-1:], np.zeros(1))
    for prefix in search.prefixes(None if exact else combinations) if search.exits else ():
        search.scan(search.exits - 1, (*prefix, 0), pool)
    for _ in range(0 if exact else ROUNDS):
        before = pool.pruned()
        for seed in _spaced(before[0], SEEDS):
            for exit_ in range(search.exits):
                search.scan(exit_, seed, pool)
        if _same(before, pool.pruned()):
            break
    settings, cost, loss = pool.pruned()
    thresholds = np.array([search.settle(setting) for setting in settings], np.float64)
    found = thresholds.reshape(len(settings), search.exits)
    return Frontier(found, cost, loss, exact, tuple(search.costs.tolist()))


def gains(logits: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:
    """What each exit's answer is worth, [exits, N]: 1 where it is right; of a regression minus its error."""
    if task is Task.CLASSIFICATION:
        return (logits.argmax(axis=2) == labels).astype(np.float64)
    worth: np.ndarray = -np.abs(logits.astype(np.float64) - labels).mean(axis=2)
    return worth


def exit_scores(logits: np.ndarray, task: Task) -> list[np.ndarray]:
    """What each early exit's threshold is compared with, float32 [N] each."""
    return [exit_confidence(logits[k], logits[k - 1] if k else None, task) for k in range(len(logits) - 1)]


def taken(scores: Sequence[np.ndarray], limits: Sequence[float], task: Task) -> np.ndarray:
    """The exits that images of these scores take, int64 [N]; `exits_taken` for many sets of thresholds."""
    found = np.full(len(scores[0]) if scores else 1, len(scores))
    for k, limit in reversed(list(enumerate(gate_thresholds(limits, task)))):
        found[leaves(scores[k], limit, task)] = k
    return found


class _Search:
    """Candidates, and what settings do: one candidate an exit, named by its number.

    Candidate j of exit k lets image i go where j < rank[k][i]; the last candidate of every exit is
    "never", the first "all" (but at exit 0 of a regression, where nothing can leave).
    """

    def __init__(
        self, logits: np.ndarray, labels: np.ndarray, exit_costs: Sequence[float], task: Task
    ) -> None:
        self.task, self.exits, self.images = task, len(logits) - 1, logits.shape[1]
        self.costs = np.asarray(exit_costs, np.float64)
        gain = gains(logits, labels, task)
        self.lost = gain[-1] - gain
        self.scores = [score.astype(np.float64) for score in exit_scores(logits, task)]
        gap = least_gap(logits, task)
        self.candidates = [_candidates(score, task, gap) for score in self.scores]
        self.rank = [
            np.searchsorted(limits, score, side="right")
            for limits, score in zip(self.candidates, self.scores, strict=True)
        ]

    def outer_size(self) -> int:
        """Settings of all early exits but the last."""
        size = 1
        for limits in self.candidates[:-1]:
            size *= len(limits)
        return size

    def prefixes(self, most: int | None) -> Iterator[tuple[int, ...]]:
        """Settings of all early exits but the last: all, or about `most` of them, evenly spaced."""
        each = None if most is None else max(int(most ** (1 / (self.exits - 1))), 2)
        grids = []
        for limits in self.candidates[:-1]:
            count = len(limits) if each is None else min(each, len(limits))
            grids.append(sorted({int(j) for j in np.linspace(0, len(limits) - 1, count)}))
        return itertools.product(*grids)

    def scan(self, exit_: int, setting: Sequence[int], pool: "_Pool") -> None:
        """Add to the pool what a setting does with every candidate of one exit in its place."""
        staying = np.ones(self.images, bool)
        lost, squares, cost = 0.0, 0.0, 0.0
        for k in range(exit_):
            leaving = staying & (setting[k] < self.rank[k])
            gone = self.lost[k][leaving]
            lost, squares = lost + float(gone.sum()), squares + float((gone**2).sum())
            cost += len(gone) * float(self.costs[k])
            staying &= ~leaving
        here = np.flatnonzero(staying)
        onward = self._onward(here, exit_, setting)
        later, now, spent = self.lost[onward, here], self.lost[exit_, here], self.costs[onward]
        ranks, count = self.rank[exit_][here], len(self.candidates[exit_])
        mean = (lost + later.sum() + _above(ranks, count, now - later)) / self.images
        square = (squares + (later**2).sum() + _above(ranks, count, now**2 - later**2)) / self.images
        error = np.sqrt(np.maximum(square - mean**2, 0) / self.images)
        costs = (cost + spent.sum() + _above(ranks, count, self.costs[exit_] - spent)) / self.images
        pool.add(setting, exit_, costs, mean + error)

    def _onward(self, here: np.ndarray, exit_: int, setting: Sequence[int]) -> np.ndarray:
        """The exits that images take which do not leave at `exit_`."""
        taken = np.full(len(here), self.exits)
        for k in reversed(range(exit_ + 1, self.exits)):
            taken[setting[k] < self.rank[k][here]] = k
        return taken

    def settle(self, setting: Sequence[int]) -> tuple[float, ...]:
        """The thresholds of a setting, each in the middle of its gap among the images that reach the exit.

        Where all of them leave it is half the lowest confidence, or twice the largest disagreement: an image
        that is less sure than any seen so far goes on.
        """
        staying, found = np.ones(self.images, bool), []
        for k in range(self.exits):
            leaving = staying & (setting[k] < self.rank[k])
            staying &= ~leaving
            found.append(self._between(self.scores[k][staying], self.scores[k][leaving]))
        return tuple(found)

    def _between(self, staying: np.ndarray, leaving: np.ndarray) -> float:
        """The threshold or tolerance that parts the scores of images that stay from those that leave."""
        if len(leaving) == 0:
            return NEVER[self.task]
        lowest = float(leaving.min())
        if len(staying):
            middle = (lowest + float(staying.max())) / 2
        else:
            middle = lowest / 2 if self.task is Task.CLASSIFICATION else 2 * lowest
        if self.task is Task.CLASSIFICATION:
            return float(np.float32(middle))
        tolerance = float(np.float32(-middle))
        return -lowest if len(staying) and tolerance >= -staying.max() else tolerance


def least_gap(logits: np.ndarray, task: Task) -> float:
    """The least distance, relative to the larger, of two scores between which a threshold may lie: twice what
    another engine's softmax of so many classes may err. Numbers do not differ between engines."""
    return 2 * confidence_error(logits.shape[2]) if task is Task.CLASSIFICATION else 0.0


def _candidates(score: np.ndarray, task: Task, gap: float) -> np.ndarray:
    """Ascending scores to compare with: the lowest, one in every gap that is wide enough, and "never".

    gap: as of `least_gap`: in the middle of less, an engine that sums in float32 could see the scores on the
    other side.
    """
    ordered = np.unique(score[np.isfinite(score)])
    wide = np.diff(ordered) >= gap * np.abs(ordered[1:])
    middles = ((ordered[:-1] + ordered[1:]) / 2)[wide]
    return np.unique([*ordered[:1], *middles, NEVER[task]])


def _above(ranks: np.ndarray, count: int, values: np.ndarray) -> np.ndarray:
    """Sums of the values whose rank is above j, for j = 0 .. count - 1."""
    per_rank = np.bincount(ranks, weights=values, minlength=count + 1)
    sums: np.ndarray = per_rank[::-1].cumsum()[::-1][1:]
    return sums


class _Pool:
    """Points found so far; those that others beat are dropped from time to time."""

    LIMIT = 1 << 20

    def __init__(self, exits: int) -> None:
        self.parts = [(np.zeros((0, exits), np.int32), np.zeros(0), np.zeros(0))]
        self.held = 0

    def add(self, setting: Sequence[int], exit_: int, cost: np.ndarray, loss: np.ndarray) -> None:
        """Points of a setting with every candidate of `exit_` in its place."""
        kept = _undominated(cost, loss)
        settings = np.tile(np.array(setting, np.int32), (len(kept), 1))
        if len(setting):
            settings[:, exit_] = kept
        self.parts.append((settings, cost[kept], loss[kept]))
        self.held += len(kept)
        if self.held > self.LIMIT:
            self.pruned()

    def pruned(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(settings, costs, losses) of the undominated points by ascending cost."""
        settings, cost, loss = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        kept = _undominated(cost, loss)
        self.parts, self.held = [(settings[kept], cost[kept], loss[kept])], len(kept)
        return self.parts[0]


def _undominated(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Indices of the points that no other beats or equals in both, by ascending cost."""
    order = np.lexsort((loss, cost))
    least = np.minimum.accumulate(loss[order])
    better = np.ones(len(order), bool)
    better[1:] = least[1:] < least[:-1]
    return order[better]


def _spaced(settings: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the settings, evenly spaced."""
    spaced: np.ndarray = settings[np.unique(np.linspace(0, len(settings) - 1, count).astype(int))]
    return spaced


def _same(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
