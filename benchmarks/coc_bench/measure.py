"""The measurements: predictions, latency, throughput, and what loading a model costs."""

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from coc_runtime.errors import CocError

from .subjects import Runner, Subject

PROBES = 3
"""Fresh processes per subject; medians are reported."""
PROBE_IMAGES = 16
"""Images that each of them runs, one at a time."""
WARM_UP_ROUNDS = 20
BATCH_ROUNDS = 10


def predict(runner: Runner, images: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Answer (see `Runner.run`) and exit of every image, computed `batch` images at a time."""
    parts = [runner.run(images[start : start + batch]) for start in range(0, len(images), batch)]
    labels, exits = zip(*parts, strict=True)
    return np.concatenate(labels), np.concatenate(exits)


def latencies(runners: Sequence[Runner], images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Nanoseconds at batch 1, int64 [runners, rounds]; round r gives image order[r] to every runner.

    Each round starts at another runner, so that none always follows the same neighbour.
    """
    count, rounds = len(runners), len(order)
    elapsed = np.zeros((count, rounds), dtype=np.int64)
    with _no_collection():
        for index in np.resize(order, min(WARM_UP_ROUNDS, rounds)):
            for runner in runners:
                runner.run(images[index : index + 1])
        for position, index in enumerate(order):
            image = np.ascontiguousarray(images[index : index + 1])
            for turn in range(count):
                which = (position + turn) % count
                start = time.perf_counter_ns()
                runners[which].run(image)
                elapsed[which, position] = time.perf_counter_ns() - start
    return elapsed


def throughput(runners: Sequence[Runner], images: np.ndarray, order: np.ndarray, batch: int) -> list[float]:
    """Images per second of each runner at `batch` images a call: median of interleaved rounds."""
    elapsed = np.zeros((len(runners), BATCH_ROUNDS))
    with _no_collection():
        for position in range(-1, BATCH_ROUNDS):
            block = images[np.resize(np.roll(order, -max(position, 0) * batch), batch)]
            for which, runner in enumerate(runners):
                start = time.perf_counter_ns()
                runner.run(block)
                if position >= 0:  # The round before the first is warm-up.
                    elapsed[which, position] = time.perf_counter_ns() - start
    return [float(batch / np.median(row) * 1e9) for row in elapsed]


@dataclass(frozen=True)
class Footprint:
    """What one subject costs a process that does nothing else.

    load_ms: from path to loaded, libraries already imported. peak_rss_mb: the whole process at its
    peak, interpreter and libraries included. imports_rss_mb: the part of it before loading.
    """

    load_ms: float
    peak_rss_mb: float
    imports_rss_mb: float


def footprint(subject: Subject, images: np.ndarray) -> Footprint:
    """Load the subject and run images, one at a time, in fresh processes; medians of what they report."""
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "images.npy"
        np.save(sample, images)
        probes = [_probe(subject, sample) for _ in range(PROBES)]
    return Footprint(
        load_ms=statistics.median(probe.load_ms for probe in probes),
        peak_rss_mb=statistics.median(probe.peak_rss_mb for probe in probes),
        imports_rss_mb=statistics.median(probe.imports_rss_mb for probe in probes),
    )


def _probe(subject: Subject, sample: Path) -> Footprint:
    request = asdict(subject)
    request |= {"path": str(subject.path), "kind": subject.kind.value, "task": subject.task.value}
    result = subprocess.run(
        [sys.executable, "-m", "coc_bench.probe", json.dumps(request), str(sample)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise CocError(f"{subject.name}: loading it in a fresh process failed: {reason}")
    return Footprint(**json.loads(result.stdout.splitlines()[-1]))


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside: it would hit one runner at random."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
