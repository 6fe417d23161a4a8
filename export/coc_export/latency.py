"""How long an image takes that leaves at each exit: measured here, one image at a time, on one thread."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coc_runtime import batches
from coc_runtime.session import Session
from coc_runtime.thresholds import forcing

ROUNDS = 300
"""Every exit is timed so many times, interleaved; fewer times where SECONDS are over, but FEWEST."""
FEWEST = 20
SECONDS = 10.0
WARM_UP = 10
IMAGES = 64


@dataclass(frozen=True, eq=False)
class Timing:
    """The times of one artifact, exit by exit."""

    backend: str
    """with the level of its kernels, e.g. "native avx2" """
    samples: tuple[np.ndarray, ...]
    """microseconds, float64 [rounds] per exit; empty where no image could be made to leave there"""

    @property
    def means(self) -> np.ndarray:
        """float64 [exits], of the runs up to p99: one interrupt of a millisecond would otherwise decide which
        of two exits is the faster. 0 for an exit at which nothing leaves."""
        return np.array([_usual(sample).mean() if len(sample) else 0.0 for sample in self.samples])

    def exits(self) -> list[dict[str, float] | None]:
        """Mean (see `means`), p50, p99 and the slowest run of every exit; None where nothing leaves."""
        found: list[dict[str, float] | None] = []
        for sample, mean in zip(self.samples, self.means.tolist(), strict=True):
            p50, p99 = np.percentile(sample, (50, 99)).tolist() if len(sample) else (0.0, 0.0)
            whole = {"mean": mean, "p50": p50, "p99": p99, "max": float(max(sample, default=0))}
            found.append(whole if len(sample) else None)
        return found

    def mixture(self, shares: Sequence[float], deepest: int) -> dict[str, float]:
        """Mean (see `means`), p50 and p99 of images that leave in these shares; worst: the slowest run of all
        exits up to the deepest that an image can reach."""
        left = [k for k, share in enumerate(shares) if share and len(self.samples[k])]
        values = np.concatenate([self.samples[k] for k in left])
        weights = np.concatenate(
            [np.full(len(self.samples[k]), shares[k] / len(self.samples[k])) for k in left]
        )
        order = np.argsort(values)
        reached = np.cumsum(weights[order])
        at = [min(int(np.searchsorted(reached, q * reached[-1])), len(order) - 1) for q in (0.5, 0.99)]
        return {
            "mean": float(np.dot(self.means, shares)),
            "p50": float(values[order[at[0]]]),
            "p99": float(values[order[at[1]]]),
            "worst": float(max(sample.max() for sample in self.samples[: deepest + 1] if len(sample))),
        }


def _usual(sample: np.ndarray) -> np.ndarray:
    usual: np.ndarray = sample[sample <= np.percentile(sample, 99)]
    return usual


def measure(path: Path, images: np.ndarray) -> Timing:
    """Time an artifact: every exit is forced by thresholds, and a round takes one image to each of them.

    images: uint8 [N, C, H, W], of which a few are used. At the first exit of a regression no image leaves.
    """
    info = Session(path).info
    forced = {k: forcing(k, info.exits, info.task) for k in range(info.exits)}
    sessions = {k: Session(path, thresholds=limits) for k, limits in forced.items() if limits is not None}
    usable = {k: _leaving(session, images, k) for k, session in sessions.items()}
    timed = [k for k in usable if len(usable[k])]
    elapsed: list[list[float]] = []
    begun = time.perf_counter()
    while len(elapsed) < ROUNDS + WARM_UP:
        if len(elapsed) >= FEWEST + WARM_UP and time.perf_counter() - begun > SECONDS:
            break
        row = []
        for k in timed:
            image = usable[k][len(elapsed) % len(usable[k])][None]
            start = time.perf_counter_ns()
            sessions[k].run(image)
            row.append((time.perf_counter_ns() - start) / 1e3)
        elapsed.append(row)
    columns = dict(zip(timed, np.array(elapsed[WARM_UP:]).T, strict=True))
    backend = " ".join(filter(None, (info.backend, info.cpu_level)))
    return Timing(backend, tuple(columns.get(k, np.zeros(0)) for k in range(info.exits)))


def _leaving(session: Session, images: np.ndarray, exit_: int) -> np.ndarray:
    """Up to IMAGES of the images that leave at this exit."""
    found = images[:0]
    for some in batches.cut(images, batches.fitting(IMAGES, batches.largest(session.graph))):
        found = some[session.run(some).exit == exit_]
        if len(found):
            break
    return np.ascontiguousarray(found)
