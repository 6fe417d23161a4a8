"""The paper's figures from a study: 6 to 11 pairs, 12 insertion, 13 all four, 14 repeats, 15 stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coc_report import plots

from . import frontier
from .compare import Comparison
from .law import TECHNIQUES, Law
from .published import published
from .results import Results
from .table import Sample, chains

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 460, 320
SMALL = plots.FONT_SIZE - 1.5
LEGEND = 3
"""Chains in a row of a legend."""
FIRST, SECOND, OTHERS = plots.PALETTE[0], plots.PALETTE[1], plots.PALETTE[2:]


@dataclass(frozen=True)
class Panel:
    """A scatter plot to draw: chains in the order of the palette, `behind` them the curves of others."""

    title: str
    samples: tuple[Sample, ...]
    chains: tuple[str, ...]
    behind: tuple[tuple[str, tuple[Sample, ...]], ...] = ()


def pairs(results: Results) -> list[Panel]:
    """Both orders of every pair that was measured."""
    found = []
    for pair in results.pairs:
        samples = tuple(s for s in results.table.of("pairs") if sorted(s.chain) == sorted(pair.published))
        if samples:
            title = f"{pair.name}: {_better(pair.measured)}"
            found.append(Panel(title, samples, _present(samples, (pair.published, pair.published[::-1]))))
    return found


def insertions(results: Results) -> list[Panel]:
    """Both orders of every pair with a third technique between."""
    found = []
    for one in results.insertions:
        samples = results.table.of("insert", one.measured.group)
        title = f"{one.inserted} between {one.pair[0]} and {one.pair[1]}: {_better(one.measured)}"
        found.append(Panel(title, samples, (one.measured.first, one.measured.second)))
    return found


def sequences(results: Results) -> Panel | None:
    """The sequences of all techniques."""
    letters = sorted(TECHNIQUES)
    samples = tuple(s for s in results.table.of("sequences") if sorted(s.chain) == letters)
    order = [row.chain for row in results.table1]
    best = [published().order] if published().order in order else []
    shown = (*best, *(chain for chain in order if chain not in best))[: len(plots.PALETTE)]
    if not samples:
        return None
    return Panel("Sequences of all four techniques", samples, shown)


def combined(results: Results) -> Panel | None:
    """All four techniques against the better order of every pair."""
    best = published().order
    samples = tuple(s for s in results.table.of("sequences") if s.chain == best)
    pairs = [pair.better or pair.published for pair in results.pairs if pair.measured]
    behind = tuple((chain, _of(results.table.of("pairs"), chain)) for chain in pairs)
    if not samples or not behind:
        return None
    return Panel(f"{best} against two techniques", samples, (best,), tuple(b for b in behind if b[1]))


def repeats(results: Results) -> list[Panel]:
    """Every repeat against the chain that it prolongs."""
    found = []
    for one in results.repeats:
        longer, single = one.measured.first, one.measured.second
        samples = results.table.of("repeat", one.group)
        if single not in chains(samples):
            samples += _of(results.table.of("sequences"), single)
        title = f"{longer} against {single}: {_better(one.measured)}"
        found.append(Panel(title, samples, (single, longer)))
    return found


def _of(samples: Sequence[Sample], chain: str) -> tuple[Sample, ...]:
    return tuple(s for s in samples if s.chain == chain)


def _present(samples: Sequence[Sample], wanted: Sequence[str]) -> tuple[str, ...]:
    return tuple(chain for chain in wanted if chain in chains(samples))


def _better(found: Comparison | None) -> str:
    if found is None:
        return "one order only"
    if found.better:
        return f"{found.better} is better"
    return "too few cases" if found.few else "no difference"


@plots.style()
def scatter(panel: Panel, width: float = WIDTH, height: float = HEIGHT) -> "Figure":
    """One panel as a figure of its own."""
    figure, axes = plots.figure(width, height)
    draw(axes, panel)
    return figure


@plots.style()
def sheet(panels: Sequence[Panel], columns: int) -> "Figure":
    """All panels side by side, for a document."""
    rows = -(-len(panels) // columns)
    legend = 18 * max(-(-len(panel.chains) // LEGEND) for panel in panels)
    figure, axes = plots.figure(WIDTH * columns, (HEIGHT + 26) * rows)
    figure.set_layout_engine("constrained", wspace=0.06, hspace=0.06)
    axes.remove()
    for k, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, k)
        axes.set_title(panel.title, pad=8 + legend)
        draw(axes, panel)
    return figure


def draw(axes: "Axes", panel: Panel) -> None:
    """Points of each chain and the curve of what it reaches, BitOpsCR against accuracy."""
    original = max(s.original_accuracy for s in panel.samples)
    _limits(axes, panel, original)
    for chain, samples in panel.behind:
        _curve(axes, samples, plots.MUTED, chain, behind=True)
    _names(axes, panel)
    for k, chain in enumerate(panel.chains):
        own = _of(panel.samples, chain)
        colour, marker = plots.PALETTE[k], plots.MARKERS[k]
        axes.plot(
            [s.bitops_cr for s in own],
            [s.accuracy for s in own],
            linestyle="",
            marker=marker,
            markersize=4.2,
            alpha=0.38 if len(panel.chains) < 3 else 0.2,
            color=colour,
            markeredgewidth=0,
        )
        _curve(axes, own, colour, chain, marker=marker)
    plots.log_axis(axes, "x")
    axes.axhline(original, color=plots.MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    axes.annotate(
        "original",
        (1, original),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color=plots.MUTED,
        fontsize=SMALL,
    )
    axes.set_xlabel("BitOpsCR")
    axes.set_ylabel("accuracy, %")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=min(len(panel.chains), LEGEND),
        columnspacing=1.1,
        handletextpad=0.4,
    )


def _names(axes: "Axes", panel: Panel) -> None:
    """Beside the ends of the muted curves, each at a height (fraction of the axes) of its own."""
    bottom = axes.get_ylim()[0]
    ends = {
        chain: max((x for x, y in frontier.curve(samples) if y > bottom), default=0.0)
        for chain, samples in panel.behind
    }
    shown = [chain for chain in sorted(ends, key=ends.__getitem__) if ends[chain]]
    for k, chain in enumerate(shown):
        axes.annotate(
            chain,
            (ends[chain], 0.05 + 0.075 * k),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color=plots.MUTED,
            fontsize=SMALL,
        )


def _curve(
    axes: "Axes", samples: Sequence[Sample], colour: str, name: str, marker: str = "", behind: bool = False
) -> None:
    """A staircase: what is reached at each accuracy."""
    line = frontier.curve(samples)
    ratios, heights = [x for x, _ in line], [y for _, y in line]
    axes.plot(
        [ratios[0] / 1e3, *ratios, ratios[-1]],
        [heights[0], *heights, 0],
        drawstyle="steps-pre",
        color=colour,
        linewidth=1.1 if behind else 1.8,
        marker="" if behind else marker,
        markevery=range(1, len(line) + 1),
        label="_" if behind else name,
        zorder=2 if behind else 3,
    )


def _limits(axes: "Axes", panel: Panel, original: float) -> None:
    """All points, but none far below those that the hypervolume counts."""
    shown = [*panel.samples, *(s for _, samples in panel.behind for s in samples)]
    best = max(s.accuracy for s in shown)
    top = max(original, best)
    bottom = max(min(s.accuracy for s in shown), min(original, best) - frontier.DEPTH)
    room = max(top - bottom, 1.0)
    axes.set_ylim(bottom - 0.06 * room, top + 0.1 * room)
    ratios = [s.bitops_cr for s in shown]
    axes.set_xlim(min(ratios) / 1.25, max(ratios) * 1.25)


@plots.style()
def stages(records: Sequence[Mapping[str, Any]], width: float = WIDTH, height: float = HEIGHT) -> "Figure":
    """BitOpsCR after each stage as bars, what the stage multiplied it by, and the accuracy above."""
    figure, axes = plots.figure(width, height)
    names = [str(record["stage"]) for record in records]
    ratios = [float(record["bitops_cr"]) for record in records]
    axes.bar(range(len(records)), ratios, width=0.62, color=FIRST, bottom=0)
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(ratios) * 6)
    plots.log_axis(axes, "y")
    axes.set_xticks(range(len(records)), names)
    axes.grid(False, axis="x")
    axes.set_ylabel("BitOpsCR")
    for k, record in enumerate(records):
        factor = f"x{ratios[k] / ratios[k - 1]:.3g}\n" if k else ""
        axes.annotate(
            f"{record['accuracy']:.2f} %\n{factor}", (k, ratios[k]), xytext=(0, -9 if factor else 4),
            textcoords="offset points", ha="center", va="bottom", fontsize=plots.FONT_SIZE - 1,
        )  # fmt: skip
    return figure


@plots.style()
def graph(law: Law, width: float = WIDTH, height: float = 190) -> "Figure":
    """The techniques in a row, an arrow for each better order, dashed lines for pairs without one."""
    figure, axes = plots.figure(width, height)
    axes.set_axis_off()
    order = law.orders[0] if law.orders else TECHNIQUES
    for pair in (*law.edges, *law.open_pairs):
        first, second = (order.index(letter) for letter in pair)
        _arrow(axes, first, second, is_open=pair in law.open_pairs)
    for k, letter in enumerate(order):
        axes.plot([k], [0], marker="o", markersize=34, color=plots.SURFACE, markeredgecolor=FIRST, zorder=3)
        axes.annotate(letter, (k, 0), ha="center", va="center", fontsize=17, zorder=4)
    axes.set_xlim(-0.35, len(order) - 0.65)
    below = any(abs(order.index(a) - order.index(b)) > 1 for a, b in map(tuple, law.open_pairs)) or law.cycles
    axes.set_ylim(-1.1 if below else -0.4, 1.1)
    return figure


def _arrow(axes: "Axes", first: int, second: int, is_open: bool) -> None:
    """Neighbours straight, others in an arc: above from left to right, below where the order is turned."""
    distance = abs(second - first)
    forward = second > first
    bend = 0.0 if distance == 1 else -0.34
    if is_open:
        first, second, forward = min(first, second), max(first, second), False
        bend = 0.0 if distance == 1 else 0.34
    colour = plots.MUTED if is_open else FIRST if forward else SECOND
    axes.annotate(
        "", (second, 0), (first, 0),
        arrowprops={
            "arrowstyle": "-" if is_open else "-|>",
            "linestyle": (0, (3, 3)) if is_open else "-",
            "connectionstyle": f"arc3,rad={bend}",
            "color": colour,
            "linewidth": 1.4,
            "shrinkA": 19,
            "shrinkB": 19,
            "mutation_scale": 13,
        },
    )  # fmt: skip
