"""Upper bounds on a mean loss that hold with a given confidence, whatever the distribution of images.

They are for losses of images that chose nothing: `coc_runtime.promise` chooses thresholds by them.

- Two answers to the same image differ in three ways: the second loses one that the first had right (loss
  1), wins one (-1), or neither (0). The counts of a sample are trinomial, so that a test of the mean loss
  can be exact: nothing is given away to distributions that cannot be. The statistic is the score of paired
  proportions (Tango 1998). Its tail depends on how often answers are won, too, which is not known: the
  largest tail counts among all rates in a confidence interval of it (Berger and Boos 1994).
- Real losses with an upper limit are bounded by betting against a mean of the bound or more (Waudby-Smith and
  Ramdas 2024): a wealth that starts at 1 exceeds 1 / (1 - confidence) that rarely.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np

SPARED = 0.01
"""The interval of the rate at which answers are won spends this share of the permitted error."""
HALVINGS = 6
"""That interval is halved so often; the tail of each part is bounded by its most favourable corner."""
NEGLIGIBLE = 1e-6
"""Probability of counts so unlikely that they are taken as favourable instead of being summed."""
BISECTIONS = 10
BETS = np.linspace(0.02, 0.98, 49)
"""Shares of the wealth that are laid on every image; the wealth is the mean over them."""


@lru_cache(maxsize=4096)
def rejects(lost: int, won: int, images: int, allowed: float, confidence: float) -> bool:
    """Whether counts rule out, with this confidence, that the mean loss is `allowed` or more.

    lost, won: images of 1 and of -1 among `images` independent ones; allowed: 0 to 1. If the mean is
    `allowed` or more, the answer is yes with a probability of at most 1 - confidence.
    """
    if images == 0 or lost - won >= allowed * images or not 0 <= allowed < 1:
        return False
    error = 1 - confidence
    limit = error * (1 - SPARED)
    low, high = _rate_interval(won, images, error * SPARED)
    most = _rejected(lost, won, images, allowed)

    def within(rare: float, often: float, halvings: int) -> bool:
        """Whether no rate between these has a larger tail than the limit."""
        # Few losses and many wins are favourable: a corner that no rate has bounds the tails of all of them.
        if _tail(most, images, allowed + rare, often) <= limit:
            return True
        middle = (rare + often) / 2
        if halvings == 0 or _tail(most, images, allowed + middle, middle) > limit:
            return False
        return within(middle, often, halvings - 1) and within(rare, middle, halvings - 1)

    return within(low, min(high, (1 - allowed) / 2), HALVINGS)


def loss_bound(lost: int, won: int, images: int, confidence: float) -> float:
    """The least mean loss that counts rule out (see `rejects`), from 0 to 1; 1 without images."""
    if rejects(lost, won, images, 0.0, confidence):
        return 0.0
    low, high = max(lost - won, 0) / max(images, 1), 1.0
    for _ in range(BISECTIONS):
        middle = (low + min(high, 2 * low + 8 / max(images, 1))) / 2
        if rejects(lost, won, images, middle, confidence):
            high = middle
        else:
            low = middle
    return high


def mean_rejects(losses: np.ndarray, most: float, confidence: float) -> bool:
    """Whether real losses, none above `most`, rule out with this confidence that their mean is 0 or more.

    losses: float [N] of independent images. If the mean is 0 or more, the answer is yes with a probability of
    at most 1 - confidence: the expected wealth of every bettor is then 1 or less.
    """
    if most <= 0 or len(losses) == 0:
        return bool(len(losses) and losses.max() < 0)
    assert losses.max() <= most
    logs = np.array([np.log1p(-bet * losses / most).sum() for bet in BETS])
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean())) >= math.log(1 / (1 - confidence))


def _rejected(lost: int, won: int, images: int, allowed: float) -> np.ndarray:
    """The region of counts that speak against the mean as clearly as these: for every number of answers won,
    0 to `images`, the largest number lost, or -1; ascending, as more wins never speak less clearly."""
    least = _score(np.array(lost), np.array(won), images, allowed)
    wins = np.arange(images + 1)
    low, high = np.full(images + 1, -1), images - wins
    while (low < high).any():
        middle = (low + high + 1) // 2
        inside = (middle < 0) | (_score(np.maximum(middle, 0), wins, images, allowed) >= least)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle - 1)
    low[won] = max(low[won], lost)
    most: np.ndarray = np.maximum.accumulate(low)
    return np.minimum(most, images - wins)


def _score(lost: np.ndarray, won: np.ndarray, images: int, allowed: float) -> np.ndarray:
    """How far counts are from a mean loss of `allowed`, in its standard errors there; large: below it."""
    # The most likely rate of wins among those with that mean solves 2 n q^2 - b q - c = 0.
    equal = images - lost - won
    b = (lost + won) * (1 - allowed) - 2 * allowed * (won + equal)
    c = won * allowed * (1 - allowed)
    rate = (b + np.sqrt(b * b + 8.0 * images * c)) / (4 * images)
    variance = images * np.maximum(allowed + 2 * rate - allowed**2, 1e-15)
    score: np.ndarray = (images * allowed - (lost - won)) / np.sqrt(variance)
    return score


def _tail(most: np.ndarray, images: int, losing: float, winning: float) -> float:
    """Probability that no more than most[wins] of the images lose, at these rates."""
    low, high = _span(winning, images)
    wins = np.arange(low, high + 1)
    first = _span(losing, images)[0]
    lost = np.arange(first, max(int(most[wins].max()), first) + 1)
    factorials, equal = _log_factorials(images), np.arange(images + 1)
    rest = max(1 - losing - winning, 0.0)
    of_equal = _times_log(equal, rest) - factorials[equal]
    of_lost = _times_log(lost, losing) - factorials[lost]
    of_wins = _times_log(wins, winning) - factorials[wins] + factorials[images]
    left = images - lost - wins[:, None]
    logs = of_equal[np.maximum(left, 0)] + of_lost + of_wins[:, None]
    chances = np.where(lost <= most[wins][:, None], np.exp(logs), 0)  # most[wins] + wins <= images
    return float(chances.sum()) + 2 * NEGLIGIBLE


def _span(rate: float, images: int) -> tuple[int, int]:
    """Counts that a binomial number leaves with a NEGLIGIBLE probability, by Bernstein's inequality."""
    log = math.log(2 / NEGLIGIBLE)
    away = math.sqrt(2 * images * rate * (1 - rate) * log) + 2 * log / 3
    middle = images * rate
    return max(math.floor(middle - away), 0), min(math.ceil(middle + away), images)


@lru_cache(maxsize=1024)
def _rate_interval(count: int, images: int, error: float) -> tuple[float, float]:
    """The interval of Clopper and Pearson for the rate of something seen `count` times."""
    low = 0.0 if count == 0 else _rate_where(lambda rate: 1 - at_most(count - 1, images, rate), error / 2)
    high = (
        1.0 if count == images else _rate_where(lambda rate: 1 - at_most(count, images, rate), 1 - error / 2)
    )
    return low, high


def _rate_where(rising: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return low if value < 0.5 else high


def at_most(count: int, images: int, rate: float) -> float:
    """Probability that a binomial number is at most `count`."""
    factorials, hits = _log_factorials(images), np.arange(count + 1)
    ways = factorials[images] - factorials[hits] - factorials[images - hits]
    logs = ways + _times_log(hits, rate) + _times_log(images - hits, 1 - rate)
    return min(float(np.exp(logs).sum()), 1.0)


def _times_log(count: np.ndarray, rate: float) -> np.ndarray:
    """count * log(rate), where nothing that is impossible happens no times."""
    return count * math.log(rate) if rate > 0 else np.where(count > 0, -np.inf, 0.0)


def _log_factorials(most: int) -> np.ndarray:
    """The logarithms of the factorials of 0 to `most`, or more."""
    return _factorial_table(1 << (most + 1).bit_length())


@cache
def _factorial_table(size: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size, dtype=np.float64)))])
