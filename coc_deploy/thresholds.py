"""Choosing the confidence at which an image leaves, on held-out data."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coc_runtime.arithmetic import confidence, exits_taken

NEVER = 2.0
"""A threshold that no confidence reaches."""
COMBINATIONS = 20_000


@dataclass(frozen=True)
class Gated:
    """What a set of thresholds does to a set of images."""

    accuracy: float
    """percent"""
    shares: tuple[float, ...]
    """share of images that leave at each exit, the last one included"""
    bitops: float
    """mean per image"""


def gate(
    logits: np.ndarray, labels: np.ndarray, thresholds: Sequence[float], exit_bitops: Sequence[int]
) -> Gated:
    """Send images through the exits: logits [exits, N, classes], exit_bitops cumulative per exit."""
    taken = exits_taken(logits, thresholds)
    chosen = logits[taken, np.arange(len(labels))]
    shares = np.bincount(taken, minlength=len(logits)) / len(labels)
    return Gated(
        float((chosen.argmax(axis=1) == labels).mean() * 100),
        tuple(float(share) for share in shares),
        float(np.asarray(exit_bitops)[taken].mean()),
    )


def choose(
    logits: np.ndarray, labels: np.ndarray, exit_bitops: Sequence[int], max_drop: float
) -> tuple[float, ...]:
    """The thresholds of least mean BitOps whose accuracy is at most `max_drop` points below the last exit's.

    logits [exits, N, classes] of held-out images. Each threshold lies in the middle of a gap between
    observed confidences, so that differences of an ulp between libraries do not flip an exit.
    """
    exits = len(logits) - 1
    right = logits.argmax(axis=2) == labels
    count = max(3, int(COMBINATIONS ** (1 / max(exits, 1))))
    scores = [confidence(logits[k]) for k in range(exits)]
    grids = [_candidates(score, min(count, 200)) for score in scores]
    floor = right[-1].mean() - max_drop / 100
    best, best_cost = (NEVER,) * exits, float(exit_bitops[-1])
    for combination in itertools.product(*grids):
        correct, cost = _evaluate(scores, right, combination, exit_bitops)
        if correct >= floor and cost < best_cost:
            best, best_cost = combination, cost
    return best


def _evaluate(
    scores: list[np.ndarray], right: np.ndarray, thresholds: Sequence[float], exit_bitops: Sequence[int]
) -> tuple[float, float]:
    staying = np.ones(right.shape[1], dtype=bool)
    correct = cost = 0
    for k, threshold in enumerate(thresholds):
        leaving = staying & (scores[k] >= threshold)
        correct += int(right[k][leaving].sum())
        cost += int(leaving.sum()) * exit_bitops[k]
        staying &= ~leaving
    correct += int(right[-1][staying].sum())
    cost += int(staying.sum()) * exit_bitops[-1]
    return correct / right.shape[1], cost / right.shape[1]


def _candidates(score: np.ndarray, count: int) -> list[float]:
    """Up to `count` thresholds spread over the observed confidences, each in the widest gap nearby."""
    ordered = np.unique(score.astype(np.float64))
    if len(ordered) < 2:
        return [NEVER]
    gaps = np.diff(ordered)
    chosen = {NEVER}
    for rank in np.linspace(0, len(gaps) - 1, count).astype(int):
        low, high = max(0, rank - 4), min(len(gaps), rank + 5)
        widest = low + int(np.argmax(gaps[low:high]))
        chosen.add(float(ordered[widest] + gaps[widest] / 2))
    return sorted(chosen)
