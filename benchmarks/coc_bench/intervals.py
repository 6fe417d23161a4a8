"""Confidence intervals of mean latencies and of their ratios, by the bootstrap."""

import enum
import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
CHUNK = 100


class Verdict(enum.Enum):
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no difference"


@dataclass(frozen=True)
class Ratio:
    """A ratio of mean latencies; below 1, the first is the faster one."""

    value: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """No difference where the interval holds 1."""
        low, high = self.interval
        if high < 1:
            return Verdict.FASTER
        return Verdict.SLOWER if low > 1 else Verdict.SAME


def resampled_means(elapsed: np.ndarray) -> np.ndarray:
    """Mean latencies of resampled rounds, float64 [RESAMPLES, runs], of nanoseconds [runs, rounds].

    Each resample draws the same rounds for all runs, so that a ratio compares the same images at the same
    time. Rounds are drawn in blocks of rounds ** (1/3) neighbours, since neighbours resemble each other
    (the circular block bootstrap: Politis and Romano, 1992).
    """
    rounds = elapsed.shape[1]
    length = max(1, round(rounds ** (1 / 3)))
    random = np.random.default_rng(SEED)
    parts = []
    for start in range(0, RESAMPLES, CHUNK):
        count = min(CHUNK, RESAMPLES - start)
        starts = random.integers(rounds, size=(count, math.ceil(rounds / length), 1))
        chosen = ((starts + np.arange(length)) % rounds).reshape(count, -1)[:, :rounds]
        flat = (chosen + np.arange(count)[:, None] * rounds).ravel()
        weights = np.bincount(flat, minlength=count * rounds).reshape(count, rounds)
        parts.append(weights @ elapsed.T.astype(np.float64) / rounds)
    return np.concatenate(parts)


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The middle CONFIDENCE of resampled values."""
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(samples, [outside, 100 - outside])
    return float(low), float(high)


def paired_ratio(elapsed: np.ndarray, means: np.ndarray, of: int, to: int) -> Ratio:
    """Mean latency of run `of` over that of run `to`, of one call of coc-bench; means: `resampled_means`."""
    value = float(elapsed[of].mean() / elapsed[to].mean())
    return Ratio(value, interval(means[:, of] / means[:, to]))


def independent_ratio(
    new: float, new_interval: tuple[float, float], old: float, old_interval: tuple[float, float]
) -> Ratio:
    """Ratio new / old of means measured apart, from their intervals.

    The distances to the bounds are added in quadrature on the scale of logarithms (method of variance
    estimates recovery: Zou and Donner, 2008).
    """
    ratio = math.log(new / old)
    below = math.hypot(math.log(new / new_interval[0]), math.log(old_interval[1] / old))
    above = math.hypot(math.log(new_interval[1] / new), math.log(old / old_interval[0]))
    return Ratio(new / old, (math.exp(ratio - below), math.exp(ratio + above)))
