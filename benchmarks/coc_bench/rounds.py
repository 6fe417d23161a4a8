"""Latency at batch 1 in interleaved rounds: warm-up, pinned threads, and disturbed rounds repeated."""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coc_runtime.errors import CocError

from .subjects import Runner

SCHEDSTAT = Path("/proc/thread-self/schedstat")

WARM_UP_ROUNDS = 20
DRIFT_LIMIT = 0.1
"""Share by which the beat loop may differ before and after a round that counts."""
STOLEN_LIMIT = 0.02
"""Share of its time that a round that counts may have lost to other processes."""
REPEATS = 3
"""A round runs an image so many times; the last time counts."""
LOOP = 300
TRIES = 3


@dataclass(frozen=True)
class Drift:
    """What disturbed the rounds: the clock moved, or another process got the CPU."""

    repeated_rounds: int
    """rounds that were measured again"""
    unsettled_rounds: int
    """rounds that were disturbed each time they were measured"""
    spread: float
    """(95th - 5th percentile) / median of the beat loop's time over all rounds"""


@dataclass(frozen=True, eq=False)
class Timing:
    elapsed: np.ndarray
    """int64 [runners, rounds], nanoseconds"""
    exits: np.ndarray
    """int64 [runners, rounds], taken"""
    drift: Drift


def beat_loop() -> int:
    """Nanoseconds of a fixed piece of work: the least of some tries, so that it tells the clock alone."""
    best = 0
    for _ in range(TRIES):
        start = time.perf_counter_ns()
        value = 1
        for step in range(LOOP):
            value = (value * 5 + step) & 1023
        elapsed = time.perf_counter_ns() - start
        best = min(best or elapsed, elapsed)
    return best


def waiting_time() -> int:
    """Nanoseconds that this thread could have run but another had the CPU; 0 where Linux does not tell."""
    try:
        return int(SCHEDSTAT.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def latencies(
    runners: Sequence[Runner],
    images: np.ndarray,
    order: np.ndarray,
    beat: Callable[[], int] = beat_loop,
    waited: Callable[[], int] = waiting_time,
) -> Timing:
    """Time every runner on one image a round; round r gives image order[r] to each.

    Each round starts at another runner, so that none always follows the same neighbour. beat: nanoseconds of
    fixed work; waited: nanoseconds lost to other processes so far. A round is repeated if beat differs by
    more than DRIFT_LIMIT before and after it, or if it lost more than STOLEN_LIMIT of its time: at most
    REPEATS times, and all together at most as often as there are rounds.
    """
    count, rounds = len(runners), len(order)
    elapsed, exits = np.zeros((2, count, rounds), dtype=np.int64)
    beats: list[int] = []
    repeats = repeated = unsettled = 0
    with no_collection():
        for index in np.resize(order, min(WARM_UP_ROUNDS, rounds)):
            for runner in runners:
                runner.run(images[index : index + 1])
        before = beat()
        for position, index in enumerate(order):
            image = np.ascontiguousarray(images[index : index + 1])
            for attempt in range(REPEATS + 1):
                lost, start = waited(), time.perf_counter_ns()
                _round(runners, image, position, elapsed, exits)
                took = time.perf_counter_ns() - start
                disturbed = waited() - lost > STOLEN_LIMIT * took
                after = beat()
                disturbed |= abs(after / before - 1) > DRIFT_LIMIT
                beats.append(after)
                before = after
                if not disturbed:
                    break
                if attempt == REPEATS or repeats == rounds:
                    unsettled += 1
                    break
                repeats += 1
                repeated += attempt == 0
    low, middle, high = np.percentile(beats, [5, 50, 95])
    return Timing(elapsed, exits, Drift(repeated, unsettled, float((high - low) / middle)))


def _round(
    runners: Sequence[Runner], image: np.ndarray, position: int, elapsed: np.ndarray, exits: np.ndarray
) -> None:
    """Every runner twice, the second time timed: it writes nanoseconds and exits into column `position`.

    The first call brings the model back into the caches, which the others emptied: latencies do not depend
    on which peers run beside.
    """
    for turn in range(len(runners)):
        which = (position + turn) % len(runners)
        runners[which].run(image)
        start = time.perf_counter_ns()
        _, taken = runners[which].run(image)
        elapsed[which, position] = time.perf_counter_ns() - start
        exits[which, position] = taken[0]


def parse_cpus(text: str) -> tuple[int, ...] | None:
    """CPU numbers of "2" or "0,2-3"; None for "any". Raises ValueError."""
    if text == "any":
        return None
    cpus: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        cpus += range(int(first), int(last if dash else first) + 1)
    if not cpus or min(cpus) < 0:
        raise ValueError(f"{text!r} names no CPU")
    return tuple(sorted(set(cpus)))


def choose_cpus(threads: int) -> tuple[int, ...] | None:
    """The last CPUs that this process may use, one a thread: the first ones serve interrupts."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return tuple(allowed[-threads:]) if len(allowed) >= threads else None


@contextmanager
def pinned(cpus: tuple[int, ...] | None) -> Iterator[None]:
    """Inside, this process, its later threads and its children run on these CPUs; None: as before."""
    if cpus is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise CocError("--cpu: this system cannot pin a process: leave it out")
    allowed = os.sched_getaffinity(0)
    if not set(cpus) <= allowed:
        choice = ", ".join(map(str, sorted(allowed)))
        raise CocError(f"--cpu: {', '.join(map(str, cpus))} are not all among this process's CPUs: {choice}")
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection inside: it would hit one runner at random."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
