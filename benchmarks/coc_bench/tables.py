"""What coc-bench prints: the report as text, for terminals with and without Unicode."""

import sys
from collections.abc import Sequence
from typing import Any

from .data import RANDOM

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
GAP_LAYERS = 4
UNICODE_BARS = " ▁▂▃▄▅▆▇█"
ASCII_BARS = " .:-=+*%#"


def bars(counts: Sequence[int], most: int) -> str:
    """Counts as a line of bars, the height of each by the terminal's means."""
    marks = UNICODE_BARS
    try:
        marks.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        marks = ASCII_BARS
    top = len(marks) - 1
    return "".join(marks[-(-count * top // most) if most else 0] for count in counts)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The runs, all of one data set, as aligned text; `-` where a figure is not known."""
    head = list(COLUMNS)
    numbers = any("mae" in run for run in runs)
    if numbers:
        at = head.index("acc %")
        head[at : at + 1] = ["MAE", "R2"]
    lines = aligned([head, *(_row(run, numbers) for run in runs)], left=2)
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows of cells as lines; the first `left` columns are words, the others numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def backend(run: dict[str, Any]) -> str:
    """The back end with its level of kernels, or a peer's engine with its version."""
    detail = run.get("cpu_level") if run["kind"] == "artifact" else run.get("version")
    return " ".join(filter(None, (run["backend"], detail)))


def _row(run: dict[str, Any], numbers: bool) -> list[str]:
    latency = run["latency_us"]
    return [
        run["artifact"],
        backend(run),
        *(
            [_cell(run.get("mae"), "{:.4f}"), _cell(run.get("r2"), "{:.4f}")]
            if numbers
            else [_cell(None if run["accuracy"] is None else 100 * run["accuracy"], "{:.2f}")]
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


def ratio_lines(report: dict[str, Any]) -> list[str]:
    """Each artifact against originals, peers and the first artifact: how certain the difference is."""
    runs = report["runs"]
    rows = [["mean latency of", "against", "ratio", "95 % interval", "it is"]]
    for entry in report["ratios"]:
        of, to = runs[entry["of"]], runs[entry["to"]]
        if of["kind"] == "artifact":
            low, high = entry["interval"]
            named = [f"{run['artifact']}, {backend(run)}" for run in (of, to)]
            ratio = f"{entry['mean_latency_ratio']:.3f}"
            rows.append([*named, ratio, f"{low:.3f} to {high:.3f}", entry["verdict"]])
    return aligned(rows, left=2) if len(rows) > 1 else []


def exit_lines(run: dict[str, Any]) -> list[str]:
    """How an artifact with early exits spent its time, and how right it was, exit by exit."""
    if len(run["exit_share"]) < 2 or "accuracy_by_exit" not in run:
        return []
    histogram = run["latency_histogram"]
    counts, edges = histogram["counts_by_exit"], histogram["edges_us"]
    most = max(map(max, counts))
    numbers = "exit_mae" in run
    name, form = ("MAE", "{:.4f}") if numbers else ("acc", "{:.2%}")
    rows = [["exit", "images", f"{name} there", f"{name} of all", "mean us", "latency"]]
    keys = ("mae_by_exit", "exit_mae") if numbers else ("accuracy_by_exit", "exit_accuracy")
    for k, share in enumerate(run["exit_share"]):
        cells = [_cell(run[key][k], form) for key in keys]
        latency = _cell(run["exit_latency_us"][k], "{:.1f}")
        rows.append([str(k), f"{share:.1%}", *cells, latency, bars(counts[k], most)])
    title = f"{run['artifact']}, {backend(run)}: by exit; latency from {edges[0]:.1f} to {edges[-2]:.1f} us"
    return [title, *(f"  {line}" for line in aligned(rows, left=1))]


def gap_lines(run: dict[str, Any]) -> list[str]:
    """BitOpsCR beside the measured speed-up, and the layers that hold most of the gap, where known."""
    gap = run.get("bitops_cr_over_speedup")
    if run["kind"] != "artifact" or gap is None:
        return []
    lines = [
        f"{run['artifact']}, {backend(run)}: {run['bitops_cr']:.1f}x fewer BitOps, "
        f"{run['mean_speedup_over_original']:.2f}x as fast as the original: a gap of {gap:.1f}x"
    ]
    layers = sorted(run.get("layers", []), key=lambda row: row["share_of_bitops"] - row["share_of_time"])
    worst = [
        f"{row['name']} {row['share_of_time']:.0%} and {row['share_of_bitops']:.0%}"
        for row in layers[:GAP_LAYERS]
        if row["share_of_time"] > row["share_of_bitops"]
    ]
    return [*lines, f"  most of it (share of time and of BitOps): {', '.join(worst)}"] if worst else lines


def summary(report: dict[str, Any]) -> str:
    """All that is printed of a report."""
    machine, runs = report["environment"], report["runs"]
    flags = f" ({' '.join(machine['flags'])})" if machine.get("flags") else ""
    first = runs[0]
    lines = [
        f"{machine.get('cpu')}{flags}, {first['threads']} thread(s){_pinned(report)}, "
        f"{first['samples']} images of {first['data']}, {first['rounds']} rounds at batch 1",
        *_random_images(runs),
        "",
        table(runs),
    ]
    blocks = [exit_lines(run) for run in runs]
    blocks.append([line for run in runs for line in gap_lines(run)])
    blocks.append(ratio_lines(report))
    blocks.append([f"missing: {entry['peer']}: {entry['reason']}" for entry in report["missing_peers"]])
    blocks.append(_drift(report["drift"]))
    for block in blocks:
        if block:
            lines += ["", *block]
    return "\n".join(lines)


def _random_images(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What cannot be known without real images."""
    if runs[0]["data"] != RANDOM:
        return []
    early = any(len(run["exit_share"]) > 1 for run in runs)
    exits = "; at which exits they leave, and so a mean latency over exits, says nothing of real images"
    return [
        f"the images are random: accuracy is not measured{exits if early else ''} (--data names real ones)"
    ]


def _pinned(report: dict[str, Any]) -> str:
    cpus = (report["settings"] or {}).get("cpus")
    return f" on CPU {', '.join(map(str, cpus))}" if cpus else ""


def _drift(drift: dict[str, Any] | None) -> list[str]:
    if drift is None:
        return []
    line = f"clock: {drift['repeated_rounds']} rounds repeated, spread {100 * drift['spread']:.1f} %"
    if drift["unsettled_rounds"]:
        line += f"; {drift['unsettled_rounds']} rounds never settled: something else uses this machine"
    return [line]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
