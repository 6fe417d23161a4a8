"""Choosing the confidence at which an image leaves, or the tolerance of a regression, on held-out data."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coc_runtime import quality
from coc_runtime.arithmetic import Task, exit_confidence, exits_taken

NEVER = 2.0
"""A threshold that no confidence reaches."""
COMBINATIONS = 20_000


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


def choose(
    logits: np.ndarray,
    labels: np.ndarray,
    exit_bitops: Sequence[int],
    max_drop: float,
    task: Task = Task.CLASSIFICATION,
) -> tuple[float, ...]:
    """The thresholds of least mean BitOps whose accuracy is at most `max_drop` points below the last exit's,
    less one standard error: what few images say about a drop is worth little.

    logits [exits, N, classes] of held-out images. Each threshold lies in the middle of a gap between
    observed confidences, so that differences of an ulp between libraries do not flip an exit.

    Of a regression: the tolerances whose mean absolute error is at most `max_drop` percent above the last
    exit's. Exit 0, at which nothing leaves, gets 0; 0 elsewhere asks for equal outputs.
    """
    exits = len(logits) - 1
    if task is Task.CLASSIFICATION:
        gain, never = (logits.argmax(axis=2) == labels).astype(np.int64), NEVER
        allowed = max_drop / 100
    else:
        gain, never = -np.abs(logits.astype(np.float64) - labels).mean(axis=2), 0.0
        allowed = -gain[-1].mean() * max_drop / 100
    count = max(3, int(COMBINATIONS ** (1 / max(exits, 1))))
    scores = [exit_confidence(logits[k], logits[k - 1] if k else None, task) for k in range(exits)]
    grids = [_candidates(score, min(count, 200), never) for score in scores]
    best, best_cost = (never,) * exits, float(exit_bitops[-1])
    for combination in itertools.product(*grids):
        lost, cost = _evaluate(scores, gain, combination, exit_bitops)
        if lost <= allowed and cost < best_cost:
            best, best_cost = combination, cost
    return best if task is Task.CLASSIFICATION else tuple(abs(least) for least in best)


def _evaluate(
    scores: list[np.ndarray], gain: np.ndarray, thresholds: Sequence[float], exit_bitops: Sequence[int]
) -> tuple[float, float]:
    """What is lost of the last exit's mean gain [exits, N] when images leave at confidences of at least
    these, plus its standard error; and the mean BitOps."""
    staying = np.ones(gain.shape[1], dtype=bool)
    lost, squares, cost = 0.0, 0.0, 0
    for k, threshold in enumerate(thresholds):
        leaving = staying & (scores[k] >= threshold)
        differences = (gain[-1] - gain[k])[leaving]
        lost += float(differences.sum())
        squares += float((differences**2).sum())
        cost += int(leaving.sum()) * exit_bitops[k]
        staying &= ~leaving
    cost += int(staying.sum()) * exit_bitops[-1]
    images = gain.shape[1]
    mean = lost / images
    error = max(squares / images - mean**2, 0.0) ** 0.5 / images**0.5
    return mean + error, cost / images


def _candidates(score: np.ndarray, count: int, never: float) -> list[float]:
    """Up to `count` thresholds spread over the observed confidences, each in the widest gap nearby."""
    ordered = np.unique(score.astype(np.float64))
    if len(ordered) < 2:
        return [never]
    gaps = np.diff(ordered)
    chosen = {never}
    for rank in np.linspace(0, len(gaps) - 1, count).astype(int):
        low, high = max(0, rank - 4), min(len(gaps), rank + 5)
        widest = low + int(np.argmax(gaps[low:high]))
        chosen.add(float(ordered[widest] + gaps[widest] / 2))
    return sorted(chosen)
