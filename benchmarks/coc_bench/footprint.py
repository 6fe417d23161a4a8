"""Predictions, throughput, and what loading a model costs; latency is in `rounds`."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coc_runtime import batches
from coc_runtime.errors import CocError

from .convert import module_environment
from .rounds import no_collection
from .subjects import Runner, Subject

PROBES = 3
"""Fresh processes per subject; medians are reported."""
PROBE_IMAGES = 16
"""Images that each of them runs, one at a time."""
BATCH_ROUNDS = 10
MOST_IMAGES = 64
"""A batch whose answers are looked at holds at most so many images."""


def predict(runner: Runner, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answer (see `Runner.run`) and exit of every image, in batches that memory holds."""
    graph = runner.graph
    largest = batches.guessed(runner.image_shape) if graph is None else batches.largest(graph)
    parts = [runner.run(some) for some in batches.cut(images, batches.fitting(MOST_IMAGES, largest))]
    labels, exits = zip(*parts, strict=True)
    return np.concatenate(labels), np.concatenate(exits)


def throughput(runners: Sequence[Runner], images: np.ndarray, order: np.ndarray, batch: int) -> list[float]:
    """Images per second of each runner at `batch` images a call: median of interleaved rounds."""
    elapsed = np.zeros((len(runners), BATCH_ROUNDS))
    with no_collection():
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


def try_out(subject: Subject, images: np.ndarray) -> None:
    """Load the subject and run images in a fresh process; CocError where that fails or crashes."""
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "images.npy"
        np.save(sample, images)
        _probe(subject, sample)


def _probe(subject: Subject, sample: Path) -> Footprint:
    result = subprocess.run(
        [sys.executable, "-m", "coc_bench.probe", json.dumps(subject.to_json()), str(sample)],
        capture_output=True,
        text=True,
        env=module_environment(),
        check=False,
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise CocError(f"{subject.name}: loading it in a fresh process failed: {reason}")
    # Engines print, too, and their buffers are written when the process ends.
    (line,) = [line for line in result.stdout.splitlines() if line.startswith('{"load_ms"')]
    return Footprint(**json.loads(line))
