"""The report of a benchmark: its JSON schema, written and read."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime import cost, files, quality
from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from coc_runtime.thresholds import forcing

from .data import Images
from .exits import ExitStudy, describe_exits, histogram
from .footprint import Footprint
from .intervals import interval, paired_ratio, resampled_means
from .subjects import Kind, Subject

SCHEMA = 2
"""1 had no ratios, missing_peers, settings and drift, and no details of exits; what it had still holds."""
REFERENCES = (Kind.ORIGINAL, Kind.INT8, Kind.PEER)


@dataclass(frozen=True, eq=False)
class Measurement:
    """All that was measured of one subject."""

    subject: Subject
    backend: str
    version: str | None
    """of the library that ran it"""
    cpu_level: str | None
    """level of kernels, of the native back end"""
    reason: str
    """why this back end"""
    graph: Graph | None
    thresholds: tuple[float, ...]
    """those that it ran with"""
    answers: np.ndarray
    """int64 [images], classes predicted; or numbers, float32 [images, outputs]"""
    exits: np.ndarray
    """int64 [images], taken"""
    elapsed: np.ndarray
    """int64 [rounds], nanoseconds at batch 1"""
    images_per_s: float
    footprint: Footprint
    exit_study: ExitStudy | None = None
    layers: list[dict[str, Any]] | None = None
    """of an artifact, where the runtime can profile it"""


def describe(
    measurements: Sequence[Measurement], data: Images, order: np.ndarray, batch: int
) -> list[dict[str, Any]]:
    """One JSON object per measurement, in their order.

    data: the test images. order: the image of each latency round.
    Accuracies and shares are fractions of 1; a regression's accuracy is None, its `mae` is in units of the
    labels; both are None without labels. Bytes, MB and BitOps are decimal.
    """
    originals = [m for m in measurements if m.subject.kind is Kind.ORIGINAL]
    baseline = originals[0].elapsed if originals else None
    known = {_original(m.graph) for m in measurements if m.graph is not None} - {(None, None)}
    means = resampled_means(np.stack([m.elapsed for m in measurements])) / 1e3
    runs = []
    for m, samples in zip(measurements, means.T, strict=True):
        exits = len(m.graph.segments) if m.graph else 1
        shares = np.bincount(m.exits, minlength=exits) / len(m.exits)
        run = {
            "artifact": m.subject.name,
            "kind": m.subject.kind.value,
            "precision": m.subject.precision.value if m.subject.precision else None,
            "backend": m.backend,
            "version": m.version,
            "cpu_level": m.cpu_level,
            "reason": m.reason,
            "threads": m.subject.threads,
            **_quality(m.answers, data),
            "latency_us": summary(m.elapsed),
            "mean_latency_interval_us": list(interval(samples)),
            "latency_us_by_exit": _by_exit(m.elapsed, m.exits[order], exits),
            "latency_histogram": histogram(m.elapsed, m.exits[order], exits),
            "images_per_s": m.images_per_s,
            "exit_share": [float(share) for share in shares],
            **_costs(m, shares, known, data.labels is not None),
            "file_bytes": m.subject.file_bytes,
            **asdict(m.footprint),
            "data": data.name,
            "samples": len(data.images),
            "rounds": len(order),
            "batch": batch,
        }
        if baseline is not None:
            speedup = float(baseline.mean() / m.elapsed.mean())
            run["speedup_over_original"] = float(np.median(baseline / m.elapsed))
            run["mean_speedup_over_original"] = speedup
            run["bitops_cr_over_speedup"] = _ratio(run["bitops_cr"], speedup)
        if m.exit_study is not None and m.graph is not None:
            run |= describe_exits(m.exit_study, m.graph, m.thresholds, m.exits, data)
        if m.layers is not None:
            run["layers"] = m.layers
        if m.subject.settings:
            run["settings"] = m.subject.settings
        runs.append(run)
    return runs


def ratios(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Mean latency of every run over that of each original, peer and the first artifact, with intervals."""
    elapsed = np.stack([m.elapsed for m in measurements])
    means = resampled_means(elapsed)
    kinds = [m.subject.kind for m in measurements]
    targets = [index for index, kind in enumerate(kinds) if kind in REFERENCES or index == 0]
    found = []
    for of in range(len(kinds)):
        for to in targets:
            if of != to:
                ratio = paired_ratio(elapsed, means, of, to)
                found.append(
                    {
                        "of": of,
                        "to": to,
                        "mean_latency_ratio": ratio.value,
                        "interval": list(ratio.interval),
                        "verdict": ratio.verdict.value,
                    }
                )
    return found


def profile_layers(session: Any, images: np.ndarray, rounds: int) -> list[dict[str, Any]] | None:
    """Where the time of a session goes; None where the runtime cannot tell."""
    try:
        profile = importlib.import_module("coc_runtime.profile").profile
        rows = profile(session, images, rounds)
    except (ImportError, CocError):
        return None
    return [{key: getattr(value, "value", value) for key, value in asdict(row).items()} for row in rows]


def read(path: Path) -> dict[str, Any]:
    """A report of this schema from a file of this one or of schema 1; CocError for anything else."""
    files.require_regular(path, "give a file that coc-bench --json wrote")
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise CocError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise CocError(f"{path}: is not JSON: give a file that coc-bench --json wrote") from None
    schema = report.get("schema") if isinstance(report, dict) else None
    if not isinstance(schema, int) or not _is_report(report):
        raise CocError(f"{path}: is not a report: give a file that coc-bench --json wrote")
    if schema > SCHEMA:
        raise CocError(f"{path}: has schema {schema}, this coc-bench reads up to {SCHEMA}: update coc-deploy")
    missing: dict[str, Any] = {"ratios": [], "missing_peers": [], "settings": None, "drift": None}
    return missing | report | {"schema": SCHEMA}


def _is_report(report: dict[str, Any]) -> bool:
    """Whether it has what tables and comparisons read."""
    runs = report.get("runs")
    if not isinstance(report.get("environment"), dict) or not isinstance(runs, list) or not runs:
        return False
    keys = {"artifact", "kind", "backend", "accuracy", "latency_us", "exit_share", "data", "threads"}
    keys |= {"images_per_s", "expected_bitops", "file_bytes", "rounds", "samples"}
    return all(
        isinstance(run, dict)
        and keys <= run.keys()
        and isinstance(run["latency_us"], dict)
        and isinstance(run["latency_us"].get("mean"), int | float)
        and run["latency_us"]["mean"] > 0
        for run in runs
    )


def _quality(answers: np.ndarray, data: Images) -> dict[str, float | None]:
    if data.task is Task.REGRESSION:
        if data.labels is None:
            return {"accuracy": None, "mae": None, "r2": None}
        return quality.measure(answers, data.labels, data.task)
    return {"accuracy": None if data.labels is None else float((answers == data.labels).mean())}


def summary(elapsed: np.ndarray) -> dict[str, float]:
    """Mean, percentiles and the worst of nanoseconds, in microseconds."""
    micro = elapsed / 1e3
    p50, p90, p99 = np.percentile(micro, [50, 90, 99])
    return {
        "mean": float(micro.mean()),
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99),
        "max": float(micro.max()),
    }


def _by_exit(elapsed: np.ndarray, exits: np.ndarray, count: int) -> list[float | None]:
    """Median microseconds of the images that left at each exit; None where no timed image did."""
    groups = [elapsed[exits == k] for k in range(count)]
    return [float(np.median(group) / 1e3) if len(group) else None for group in groups]


def _original(graph: Graph) -> tuple[int | None, int | None]:
    """(BitOps, stored bits) of the float model that the graph was made from, where it tells."""
    return graph.meta.get("original_bitops"), graph.meta.get("original_bits")


def _costs(
    m: Measurement, shares: np.ndarray, known: set[tuple[int | None, int | None]], real: bool
) -> dict[str, float | None]:
    """BitOps and ratios. The original's come from the artifacts, if they agree; other peers have none.

    real: whether the exits are those of real images; what others take says nothing of the BitOps spent.
    """
    expected: float | None = None
    uniform: float | None = None
    stored: float | None = None
    original_bitops = original_bits = None
    if m.graph is not None:
        graph = m.graph
        original_bitops, original_bits = _original(graph)
        stored = cost.stored_bits(graph.layers())
        segments = [graph.segment_layers(k) for k in range(len(graph.segments))]
        known_exits = real or len(segments) == 1 or _forced(m.thresholds, graph)
        if known_exits:
            expected = cost.expected([cost.bitops(layers) for layers in segments], list(shares))
        if known_exits and "chain_bits" in graph.meta:
            weights, activations = graph.meta["chain_bits"]
            totals = [cost.uniform_bitops(layers, (weights, activations)) for layers in segments]
            uniform = cost.expected(totals, list(shares))
    elif m.subject.kind is Kind.ORIGINAL and len(known) == 1:
        ((original_bitops, original_bits),) = known
        expected = uniform = original_bitops
        stored = original_bits
    return {
        "expected_bitops": expected,
        "bitops_cr": _ratio(original_bitops, expected),
        "bitops_cr_uniform": _ratio(original_bitops, uniform),
        "cr": _ratio(original_bits, stored),
    }


def _forced(thresholds: tuple[float, ...], graph: Graph) -> bool:
    """Whether thresholds send every image to one exit, whatever it shows."""
    exits = len(graph.segments)
    return any(thresholds == forcing(k, exits, graph.task) for k in range(exits))


def _ratio(whole: float | None, part: float | None) -> float | None:
    return whole / part if whole and part else None
