"""The plots of a benchmark's page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coc_report import plots

from .facts import Facts, digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 460
ROW = 46
"""Height of a row with a line of text above its bar."""
MAX_LAYERS = 24
OURS, OTHER, SECOND = plots.PALETTE[0], plots.PALETTE[5], plots.PALETTE[1]


@plots.style()
def latency(facts: Facts) -> "Figure":
    """Mean latency of every run as a bar, median and 99th percentile as marks."""
    figure, axes = _rows(facts, range(len(facts.runs)))
    end = max(max(run["latency_us"]["mean"], run["latency_us"]["p99"]) for run in facts.runs)
    for k, run in enumerate(facts.runs):
        times = run["latency_us"]
        axes.barh(k, times["mean"], 0.26, color=OURS if k in facts.artifacts else OTHER)
        axes.plot(
            [times["p50"], times["p99"]], [k, k], color=plots.TEXT, linewidth=1.2, solid_capstyle="butt"
        )
        axes.plot([times["p50"]], [k], "o", color=plots.TEXT, markersize=4)
        axes.plot([times["p99"]], [k], "|", color=plots.TEXT, markersize=9, markeredgewidth=1.2)
        furthest = max(times["mean"], times["p99"])
        label = axes.text(furthest + 0.02 * end, k, f"{times['mean']:{digits(times['mean'])}}", va="center")
        plots.bind(label, f"runs.{k}.latency_us.mean")
    axes.set_xlim(0, 1.16 * end)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("microseconds for one image")
    return figure


@plots.style()
def speeds(facts: Facts, k: int) -> "Figure":
    """How many times as fast run k is as every other one, with intervals where there are some."""
    compared = facts.speeds(k)
    figure, axes = _rows(facts, [speed.to for speed in compared])
    axes.vlines([1] * len(compared), *_spans(len(compared)), color=plots.MUTED, linewidth=1.2)
    for row, speed in enumerate(compared):
        value = facts.value(speed.faster)
        ends = [value]
        if speed.low:
            ends = [facts.value(speed.low), facts.value(speed.high)]
            axes.plot(ends, [row, row], color=plots.TEXT, linewidth=1.2, marker="|", markersize=6)
        axes.plot(
            [value], [row], "o", color=OTHER if speed.differs is False else OURS, markersize=6, zorder=3
        )
        label = axes.annotate(
            f"{value:{digits(value)}}",
            (max(ends), row),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
        )
        plots.bind(label, speed.faster)
    values = [facts.value(speed.faster) for speed in compared]
    axes.set_xlim(min(0.8, *values) / 1.25, max(1.25, *values) * 1.6)
    plots.log_axis(axes, "x")
    axes.set_xlabel("times as fast (1 = no difference)")
    return figure


@plots.style()
def distribution(facts: Facts, k: int) -> "Figure":
    """Latencies of run k as a histogram, stacked by the exit that the images took."""
    histogram = facts.runs[k]["latency_histogram"]
    edges, counts = list(histogram["edges_us"]), histogram["counts_by_exit"]
    if has_tail(edges):
        edges[-1] = edges[-2] + (edges[1] - edges[0])
    figure, axes = plots.figure(WIDTH, 300)
    below = [0] * (len(edges) - 1)
    for exit, row in enumerate(counts):
        above = [low + count for low, count in zip(below, row, strict=True)]
        colour = plots.PALETTE[exit % len(plots.PALETTE)]
        label = exit_name(exit, len(counts))
        axes.stairs(above, edges, baseline=below, fill=True, color=colour, label=label)
        below = above
    axes.grid(False, axis="x")
    axes.margins(x=0.02)
    axes.set_ylim(0, 1.06 * max(below))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("microseconds for one image")
    axes.set_ylabel("timed images")
    if len(counts) > 1:
        plots.legend(figure, 4)
    return figure


def has_tail(edges: Sequence[float]) -> bool:
    """Whether the last bin of a histogram is wider than the others: it holds all slower images."""
    return len(edges) > 2 and edges[-1] - edges[-2] > 1.5 * (edges[1] - edges[0])


@plots.style()
def exit_accuracy(facts: Facts, k: int) -> "Figure":
    """Per exit: accuracy of the images that left there, and of all images if all left there."""
    run = facts.runs[k]
    figure, axes = plots.figure(WIDTH, 300)
    count = len(run["exit_share"])
    series = (
        ("accuracy_by_exit", "images that left here", OURS, "o"),
        ("exit_accuracy", "all images, had they left here", SECOND, "s"),
    )
    for key, label, colour, marker in series:
        points = [(exit, 100 * value) for exit, value in enumerate(run.get(key) or []) if value is not None]
        if points:
            line = "-" if key == "exit_accuracy" else "none"
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "linestyle": line}
            axes.plot(*zip(*points, strict=True), label=label, **look)
    axes.set_xticks(range(count), [exit_name(exit, count) for exit in range(count)])
    axes.set_xlim(-0.5, count - 0.5)
    axes.margins(y=0.15)
    axes.grid(False, axis="x")
    axes.set_ylabel("right answers, %")
    plots.legend(figure, 2)
    return figure


@plots.style()
def tradeoff(facts: Facts, runs: Sequence[int], quality: str, cost: str, title: str) -> "Figure":
    """Quality against a cost over thresholds, a line per run; a ring where each run itself is.

    quality: `accuracy` or `mae`. cost: `expected_latency_us` or `expected_bitops`.
    """
    figure, axes = plots.figure(WIDTH, 320)
    scale = 100 if quality == "accuracy" else 1
    for index, k in enumerate(runs):
        run = facts.runs[k]
        points = [
            (point[cost], scale * point[quality])
            for point in sorted(run["curve"], key=lambda point: point[cost] or 0)
            if not point.get("chosen") and point[cost] is not None and point.get(quality) is not None
        ]
        look: dict[str, Any] = {
            "color": plots.PALETTE[index % 6],
            "marker": plots.MARKERS[index % 6],
            "markersize": 4,
        }
        axes.plot(*zip(*points, strict=True), label=shorten(facts.name(k), 60), **look)
        now = facts.mean(k) if cost == "expected_latency_us" else run[cost]
        ring: dict[str, Any] = {
            "markersize": 13,
            "markerfacecolor": "none",
            "markeredgewidth": 1.6,
            "color": plots.TEXT,
        }
        axes.plot([now], [scale * run[quality]], "o", **ring)
    axes.margins(0.08, 0.12)
    axes.xaxis.set_major_formatter(lambda value, _: plots.short(value))
    axes.set_xlabel(title)
    axes.set_ylabel("right answers, %" if quality == "accuracy" else "mean absolute error")
    if len(runs) > 1:
        plots.legend(figure, 1)
    return figure


@plots.style()
def gap(facts: Facts, runs: Sequence[int]) -> "Figure":
    """Per run: measured speed-up and BitOpsCR over the original, on one logarithmic axis."""
    figure, axes = _rows(facts, runs, legend=True)
    keys = (("mean_speedup_over_original", "measured speed-up", "o"), ("bitops_cr", "BitOpsCR", "s"))
    for row, k in enumerate(runs):
        values = [facts.runs[k][key] for key, _, _ in keys]
        axes.plot(values, [row, row], color=plots.RULE, linewidth=3, solid_capstyle="butt")
        for (key, label, marker), colour, value in zip(keys, (OURS, SECOND), values, strict=True):
            axes.plot([value], [row], marker, color=colour, markersize=8, label=label if row == 0 else None)
            side = 1 if value == max(values) else -1
            number = axes.annotate(
                f"{value:{digits(value)}}",
                (value, row),
                xytext=(9 * side, 0),
                textcoords="offset points",
                va="center",
                ha="left" if side > 0 else "right",
            )
            plots.bind(number, f"runs.{k}.{key}")
    every = [facts.runs[k][key] for k in runs for key, _, _ in keys]
    axes.set_xlim(min(every) / 3, max(every) * 3)
    plots.log_axis(axes, "x")
    axes.set_xlabel("times better than the original")
    plots.legend(figure, 2)
    return figure


@plots.style()
def layers(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Share of time beside share of BitOps, a pair of bars per layer."""
    figure, axes = plots.figure(WIDTH, 20 * len(rows) + 80)
    for offset, key, label, colour in (
        (-0.19, "share_of_time", "share of time", OURS),
        (0.19, "share_of_bitops", "share of BitOps", SECOND),
    ):
        lengths = [100 * (row[key] or 0) for row in rows]
        axes.barh([y + offset for y in range(len(rows))], lengths, 0.36, color=colour, label=label)
    axes.set_yticks(range(len(rows)), [shorten(row["name"], 24) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel("% of the whole network")
    plots.legend(figure, 2)
    return figure


def largest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The MAX_LAYERS rows with the largest share of time or BitOps, in their own order."""
    ranked = sorted(rows, key=lambda row: -max(row["share_of_time"] or 0, row["share_of_bitops"] or 0))
    kept = {id(row) for row in ranked[:MAX_LAYERS]}
    return [row for row in rows if id(row) in kept]


def exit_name(exit: int, count: int) -> str:
    """Exits are counted from 0; the last one is the network's own output."""
    return "end" if exit == count - 1 else f"exit {exit}"


def shorten(name: str, length: int) -> str:
    """A name with its middle left out where it is longer than length."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}\N{HORIZONTAL ELLIPSIS}{name[head + 1 - length :]}"


def _spans(rows: int) -> tuple[list[float], list[float]]:
    """Bottom and top of each row below its line of text."""
    return [row - 0.2 for row in range(rows)], [row + 0.2 for row in range(rows)]


def _rows(facts: Facts, runs: Sequence[int], legend: bool = False) -> "tuple[Figure, Axes]":
    """Axes with one row per run, its name on a line above the row."""
    figure, axes = plots.figure(WIDTH, ROW * len(runs) + (72 if legend else 48))
    axes.set_ylim(len(runs) - 0.55, -0.72)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    across = axes.get_yaxis_transform()
    for row, k in enumerate(runs):
        backend = shorten(facts.backend(k), 28)
        name = shorten(facts.runs[k]["artifact"], 58 - len(backend))
        place: dict[str, Any] = {"y": row - 0.4, "va": "center", "transform": across, "in_layout": False}
        axes.text(0, s=name, **place)
        axes.text(1, s=backend, ha="right", color=plots.MUTED, **place)
    return figure, axes
