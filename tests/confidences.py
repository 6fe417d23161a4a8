"""Logits of an early exit whose confidences engines compute differently, and thresholds chosen on them."""

from functools import cache

import numpy as np

from coc_runtime import thresholds

CLASSES = (2, 10, 1000, 4096)


@cache
def logits_of(classes: int, count: int = 600) -> np.ndarray:
    """float32 [count, classes], whole multiples of powers of two: one half as networks give them, from unsure
    to sure; in the other all classes but one are so far off that their exponentials vanish beside 1 one by
    one, but not together, so that the order of the sum matters most."""
    rng = np.random.default_rng(classes)
    grid = 2.0 ** -rng.integers(3, 14, (count, 1))
    logits = rng.standard_normal((count, classes)) * rng.uniform(0.5, 6, (count, 1))
    best = rng.integers(0, classes, count)
    logits[np.arange(count), best] += rng.exponential(6, count)
    far = rng.uniform(15, 19, (count // 2, 1)) + rng.standard_normal((count // 2, classes)) / 2
    logits[: count // 2] = -far
    logits[np.arange(count // 2), best[: count // 2]] = 0
    return (np.rint(logits / grid) * grid).astype(np.float32)


@cache
def chosen(classes: int) -> np.ndarray:
    """float32 [points]: every threshold of these images' frontier; the exit gets some of them right."""
    early = logits_of(classes)
    rng = np.random.default_rng(0)
    labels = np.where(
        rng.random(len(early)) < 0.7, early.argmax(axis=1), rng.integers(0, classes, len(early))
    )
    last = np.zeros_like(early)
    last[np.arange(len(early)), np.where(rng.random(len(early)) < 0.9, labels, 0)] = 1
    found = thresholds.frontier(np.stack([early, last]), labels, (1, 2))
    assert len(found) > 20
    return np.float32(found.thresholds[:, 0])
