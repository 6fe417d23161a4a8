"""The report of a benchmark: its JSON schema, and the table for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coc_runtime import cost, quality
from coc_runtime.arithmetic import Task
from coc_runtime.datasets import Dataset
from coc_runtime.graph import Graph

from .measure import Footprint
from .subjects import Kind, Subject

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Measurement:
    """All that was measured of one subject."""

    subject: Subject
    backend: str
    cpu_level: str | None
    """level of kernels, of the native back end"""
    reason: str
    """why this back end"""
    graph: Graph | None
    answers: np.ndarray
    """int64 [images], classes predicted; or numbers, float32 [images, outputs]"""
    exits: np.ndarray
    """int64 [images], taken"""
    elapsed: np.ndarray
    """int64 [rounds], nanoseconds at batch 1"""
    images_per_s: float
    footprint: Footprint


def describe(
    measurements: Sequence[Measurement], data: Dataset, order: np.ndarray, batch: int
) -> list[dict[str, Any]]:
    """One JSON object per measurement, in their order.

    data: the test images. order: the image of each latency round.
    Accuracies and shares are fractions of 1; a regression's accuracy is None, its `mae` is in units of the
    labels. Bytes, MB and BitOps are decimal.
    """
    originals = [m for m in measurements if m.subject.kind is Kind.ORIGINAL]
    baseline = originals[0].elapsed if originals else None
    known = {_original(m.graph) for m in measurements if m.graph is not None} - {(None, None)}
    runs = []
    for m in measurements:
        exits = len(m.graph.segments) if m.graph else 1
        shares = np.bincount(m.exits, minlength=exits) / len(m.exits)
        run = {
            "artifact": m.subject.name,
            "kind": m.subject.kind.value,
            "backend": m.backend,
            "cpu_level": m.cpu_level,
            "reason": m.reason,
            "threads": m.subject.threads,
            **_quality(m.answers, data),
            "latency_us": summary(m.elapsed),
            "latency_us_by_exit": _by_exit(m.elapsed, m.exits[order], exits),
            "images_per_s": m.images_per_s,
            "exit_share": [float(share) for share in shares],
            **_costs(m, shares, known),
            "file_bytes": m.subject.path.stat().st_size,
            **asdict(m.footprint),
            "data": data.name,
            "samples": len(data.labels),
            "rounds": len(order),
            "batch": batch,
        }
        if baseline is not None:
            run["speedup_over_original"] = float(np.median(baseline / m.elapsed))
            run["mean_speedup_over_original"] = float(baseline.mean() / m.elapsed.mean())
        if m.subject.settings:
            run["settings"] = m.subject.settings
        runs.append(run)
    return runs


def _quality(answers: np.ndarray, data: Dataset) -> dict[str, float | None]:
    if data.task is Task.REGRESSION:
        return quality.measure(answers, data.labels, data.task)
    return {"accuracy": float((answers == data.labels).mean())}


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
    m: Measurement, shares: np.ndarray, known: set[tuple[int | None, int | None]]
) -> dict[str, float | None]:
    """BitOps and ratios. The original's come from the artifacts, if they agree; an int8 peer has none."""
    expected: float | None = None
    uniform: float | None = None
    stored: float | None = None
    original_bitops = original_bits = None
    if m.graph is not None:
        graph = m.graph
        original_bitops, original_bits = _original(graph)
        segments = [graph.segment_layers(k) for k in range(len(graph.segments))]
        expected = cost.expected([cost.bitops(layers) for layers in segments], list(shares))
        stored = cost.stored_bits(graph.layers())
        if "chain_bits" in graph.meta:
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


def _ratio(whole: float | None, part: float | None) -> float | None:
    return whole / part if whole and part else None


COLUMNS = (
    "artifact",
    "backend",
    "acc %",
    "mean us",
    "p50 us",
    "p99 us",
    "images/s",
    "speedup",
    "exits %",
    "BitOps",
    "BitOpsCR",
    "uniform",
    "CR",
    "KB",
    "load ms",
    "RSS MB",
)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The runs, all of one data set, as aligned text; `-` where a figure is not known."""
    head = list(COLUMNS)
    if any(run["accuracy"] is None for run in runs):
        at = head.index("acc %")
        head[at : at + 1] = ["MAE", "R2"]
    rows = [head, *(_row(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _row(run: dict[str, Any]) -> list[str]:
    latency = run["latency_us"]
    return [
        run["artifact"],
        " ".join(filter(None, (run["backend"], run.get("cpu_level")))),
        *(
            [f"{100 * run['accuracy']:.2f}"]
            if run["accuracy"] is not None
            else [f"{run['mae']:.4f}", f"{run['r2']:.4f}"]
        ),
        *(f"{latency[key]:.{1 if latency[key] < 100 else 0}f}" for key in ("mean", "p50", "p99")),
        f"{run['images_per_s']:.0f}",
        _cell(run.get("speedup_over_original"), "{:.2f}x"),
        "/".join(f"{100 * share:.0f}" for share in run["exit_share"]),
        _cell(run["expected_bitops"], "{:.3g}"),
        _cell(run["bitops_cr"], "{:.1f}x"),
        _cell(run["bitops_cr_uniform"], "{:.1f}x"),
        _cell(run["cr"], "{:.1f}x"),
        f"{run['file_bytes'] / 1e3:.1f}",
        f"{run['load_ms']:.1f}",
        f"{run['peak_rss_mb']:.0f}",
    ]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
