"""Early exits as they are: what each one costs, how good it is, and what other thresholds would give."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime import arithmetic, batches, cost, quality
from coc_runtime.arithmetic import Task
from coc_runtime.graph import Graph
from coc_runtime.thresholds import NEVER, forcing

from .data import Images
from .footprint import MOST_IMAGES
from .pictures import base64_png, can_show
from .rounds import latencies
from .subjects import ArtifactRunner, Runner, Subject, answers_of

FORCED_ROUNDS = 200
"""Each exit is timed on its own in at most so many rounds."""
SWEEP = 21
"""Points of the curve over thresholds."""
BINS = 40
SHOWN_IMAGES = 8
"""A page shows at most so many images for each exit."""


@dataclass(frozen=True, eq=False)
class ExitStudy:
    """What is known of an artifact's exits beside its own run."""

    logits: np.ndarray
    """float32 [exits, N, classes], of every exit for every test image"""
    latency_us: tuple[float | None, ...]
    """mean of images that are made to leave there; None where a regression cannot be made to"""


def study(
    subjects: Sequence[Subject], runners: Sequence[Runner], data: Images, order: np.ndarray
) -> list[ExitStudy | None]:
    """One for each subject; None for peers.

    Logits are computed once for each file: all back ends give the same integers. Each exit is timed by a
    session whose thresholds send every image there, all of them interleaved.
    """
    logits: dict[Path, np.ndarray] = {}
    forced: list[tuple[int, int, Runner]] = []
    for index, (subject, runner) in enumerate(zip(subjects, runners, strict=True)):
        if not isinstance(runner, ArtifactRunner):
            continue
        session = runner.session
        if subject.path not in logits:
            size = batches.fitting(MOST_IMAGES, batches.largest(session.graph))
            parts = [session.logits_per_exit(some) for some in batches.cut(data.images, size)]
            logits[subject.path] = np.concatenate(parts, axis=1)
        for exit_ in range(session.info.exits):
            thresholds = forcing(exit_, session.info.exits, runner.task)
            if thresholds is not None:
                one = replace(subject, backend=runner.backend, thresholds=thresholds)
                forced.append((index, exit_, ArtifactRunner(one)))
    timed: dict[int, dict[int, float]] = {}
    if forced:
        timing = latencies([runner for *_, runner in forced], data.images, order[:FORCED_ROUNDS])
        for (index, exit_, _), row, taken in zip(forced, timing.elapsed, timing.exits, strict=True):
            if (taken == exit_).any():
                timed.setdefault(index, {})[exit_] = float(row[taken == exit_].mean() / 1e3)
    return [
        ExitStudy(
            logits[subject.path],
            tuple(timed.get(index, {}).get(exit_) for exit_ in range(runner.session.info.exits)),
        )
        if isinstance(runner, ArtifactRunner)
        else None
        for index, (subject, runner) in enumerate(zip(subjects, runners, strict=True))
    ]


def describe_exits(
    found: ExitStudy, graph: Graph, thresholds: tuple[float, ...], taken: np.ndarray, data: Images
) -> dict[str, Any]:
    """The report's keys on exits. thresholds: those of the run; taken: exits of its images, int64 [N]."""
    answers = [answers_of(logits, graph.task) for logits in found.logits]
    mine = np.stack(answers)[taken, np.arange(len(taken))]
    sweep = [(point, False) for point in sweep_thresholds(found.logits, graph.task)]
    curve = [
        _point(found, graph, point, data) | {"chosen": own} for point, own in [*sweep, (thresholds, True)]
    ]
    errors = {
        "mae_by_exit": [_error(answers[k], data, taken == k) for k in range(len(answers))],
        "exit_mae": [_error(one, data) for one in answers],
    }
    return {
        "thresholds": list(thresholds),
        "accuracy_by_exit": [_accuracy(answers[k], data, taken == k) for k in range(len(answers))],
        "exit_accuracy": [_accuracy(one, data) for one in answers],
        "exit_latency_us": list(found.latency_us),
        "curve": sorted(curve, key=lambda point: float(point["expected_bitops"])),
        "exit_images": _pictures(taken, mine, data, len(answers)),
    } | (errors if data.task is Task.REGRESSION else {})


def sweep_thresholds(logits: np.ndarray, task: Task) -> list[tuple[float, ...]]:
    """Thresholds, the same at every early exit, from "all leave as soon as they can" to "none leaves early".

    They are quantiles of the confidences met, so that the shares of exits spread evenly.
    """
    early = len(logits) - 1
    if early == 0:
        return []
    classified = task is Task.CLASSIFICATION
    scores = np.concatenate(
        [
            arithmetic.exit_confidence(logits[k], logits[k - 1] if k else None, task)
            for k in range(0 if classified else 1, early)
        ]
        or [np.zeros(0, np.float32)]
    )
    if len(scores) == 0:
        return [(0.0,) * early]
    values = np.quantile(scores if classified else -scores, np.linspace(0, 1, SWEEP - 2))
    ends = [0.0, NEVER[task]] if classified else [0.0]
    levels = sorted({*ends, *(float(value) for value in values)})
    return [(level,) * early for level in levels]


def _point(found: ExitStudy, graph: Graph, thresholds: tuple[float, ...], data: Images) -> dict[str, Any]:
    """One point of the curve: what these thresholds give on the test images."""
    taken = arithmetic.exits_taken(found.logits, thresholds, graph.task)
    answers = answers_of(found.logits[taken, np.arange(len(taken))], graph.task)
    shares = np.bincount(taken, minlength=len(found.logits)) / len(taken)
    costs = [cost.bitops(graph.segment_layers(k)) for k in range(len(graph.segments))]
    expected = cost.expected(costs, list(shares))
    original = graph.meta.get("original_bitops")
    used = [(share, us) for share, us in zip(shares, found.latency_us, strict=True) if share > 0]
    latency = [share * us for share, us in used if us is not None]
    return {
        "thresholds": list(thresholds),
        "accuracy": _accuracy(answers, data),
        "exit_share": [float(share) for share in shares],
        "expected_bitops": float(expected),
        "bitops_cr": original / expected if original and expected else None,
        "expected_latency_us": float(sum(latency)) if len(latency) == len(used) else None,
    } | ({"mae": _error(answers, data)} if data.task is Task.REGRESSION else {})


def _accuracy(answers: np.ndarray, data: Images, chosen: np.ndarray | None = None) -> float | None:
    """A fraction of 1; None without labels, of a regression, and of no images."""
    if data.labels is None or data.task is Task.REGRESSION:
        return None
    right = answers == data.labels
    right = right if chosen is None else right[chosen]
    return float(right.mean()) if len(right) else None


def _error(answers: np.ndarray, data: Images, chosen: np.ndarray | None = None) -> float | None:
    """Mean absolute error of a regression; None without labels, and of no images."""
    if data.labels is None or data.task is Task.CLASSIFICATION:
        return None
    some = np.ones(len(answers), bool) if chosen is None else chosen
    return quality.mean_absolute_error(answers[some], data.labels[some]) if some.any() else None


def _pictures(taken: np.ndarray, answers: np.ndarray, data: Images, exits: int) -> list[list[dict[str, str]]]:
    """Some test images that left at each exit, spread over the split; none of random images."""
    if data.labels is None or not can_show(data.images.shape[1:]):
        return [[] for _ in range(exits)]
    shown = []
    for exit_ in range(exits):
        left = np.flatnonzero(taken == exit_)
        some = left[np.linspace(0, len(left) - 1, min(SHOWN_IMAGES, len(left))).astype(int)]
        shown.append(
            [
                {
                    "png": base64_png(data.images[index]),
                    "label": _name(data.labels[index], data),
                    "predicted": _name(answers[index], data),
                }
                for index in some
            ]
        )
    return shown


def _name(label: Any, data: Images) -> str:
    if data.task is Task.REGRESSION:
        return ", ".join(f"{value:.3g}" for value in np.ravel(label))
    return data.classes[int(label)] if int(label) < len(data.classes) else str(int(label))


def histogram(elapsed: np.ndarray, exits: np.ndarray, count: int) -> dict[str, Any]:
    """Rounds by latency and exit taken. elapsed: nanoseconds [rounds]; exits: those of its images.

    Bins are equally wide up to the 99th percentile; the last one reaches to the worst.
    """
    micro = elapsed / 1e3
    low, high, worst = float(micro.min()), float(np.percentile(micro, 99)), float(micro.max())
    edges = np.append(np.linspace(low, max(high, low + 1e-3), BINS), max(worst, high + 1e-3, low + 2e-3))
    counts = [np.histogram(micro[exits == k], edges)[0].tolist() for k in range(count)]
    return {"edges_us": edges.tolist(), "counts_by_exit": counts}
