"""Threads that share one session: how many calls they make, and how many results differ from one thread's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from coc_runtime import Result, Session

BATCHES = (1, 1, 1, 2, 7, 16)
"""Sizes that a thread goes through, most of them those of a request."""


@dataclass(frozen=True)
class Shared:
    """What threads did with one session."""

    calls: int
    images: int
    mismatches: int
    """calls whose logits, labels, exits, confidences or BitOps were not those of a single thread"""


def cut(images: np.ndarray, sizes: tuple[int, ...] = BATCHES) -> list[np.ndarray]:
    """All images in consecutive batches of these sizes, over and over; the last may be smaller."""
    batches, at = [], 0
    while at < len(images):
        size = sizes[len(batches) % len(sizes)]
        batches.append(images[at : at + size])
        at += size
    return batches


def share(session: Session, images: np.ndarray, threads: int, seconds: float) -> Shared:
    """Let threads run batches of the images in an order of their own for `seconds`, at least one each.

    What a batch must give is asked from the same session before, on this thread alone. An error in a
    thread is raised here.
    """
    batches = cut(images)
    expected = [session.run(batch) for batch in batches]
    together = threading.Barrier(threads)

    def work(seed: int) -> Shared:
        order = np.random.default_rng(seed).permutation(len(batches))
        calls = seen = wrong = 0
        together.wait()
        until = time.perf_counter() + seconds
        while calls == 0 or time.perf_counter() < until:
            index = order[calls % len(order)]
            wrong += not same(session.run(batches[index]), expected[index])
            seen += len(batches[index])
            calls += 1
        return Shared(calls, seen, wrong)

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(work, range(threads)))
    return Shared(*(sum(getattr(part, field.name) for part in done) for field in fields(Shared)))


def same(a: Result, b: Result) -> bool:
    """Every field, element for element."""
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Result))
