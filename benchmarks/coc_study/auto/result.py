"""What a search leaves in RUN: the best model and its recipe, how it compares, a plot, a report."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coc_deploy import chain, checkpoint, run_report
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.counting import segment_layers
from coc_deploy.network import exit_logits
from coc_deploy.recipe import Recipe
from coc_deploy.store import Store
from coc_report import plots
from coc_runtime import cost, files, thresholds

from .. import settings
from .goal import Kind, Point
from .log import State, Trial
from .search import Found, frontier
from .space import Space, text

PICTURE = "auto.png"
MODEL, RECIPE, REPORT = "model.pt", "recipe.toml", "report.md"


def write(out: Path, space: Space, found: Found, store: Store, data: chain.Data) -> dict[str, Any]:
    """Write everything; returns the comparison with the recipe, which auto.json gets, too.

    Test images are looked at here for the first time, and choose nothing.
    """
    rows = {
        name: _row(store, trial, data) for name, trial in (("by hand", found.by_hand), ("found", found.best))
    }
    best = _finished(store, found.best, data)
    tried = settings.varied(space.values, found.best.settings, space.folder)
    final = with_thresholds(tried, best.network.thresholds)
    checkpoint.save(out / MODEL, best)
    files.write_json(out / "recipe.json", final.as_dict())
    files.write_text(out / RECIPE, toml(final))
    files.write_json(out / "history.json", list(best.history))
    draw(out, found)
    run_report.write(out, final, best.history)
    chain_part = (out / REPORT).read_text(encoding="utf-8")
    files.write_text(out / REPORT, f"{chain_part}\n{markdown(found, rows, len(data.held_out.labels))}")
    return {"ended": found.why, "met": bool(found.best.chosen and found.best.chosen.met), "compared": rows}


def with_thresholds(chosen: Recipe, limits: tuple[float, ...]) -> Recipe:
    """The recipe of a model, so that a plain run of it has these thresholds."""
    fits = "E" in chosen.chain and len(limits) == len(chosen.e.positions)
    return dataclasses.replace(chosen, e=dataclasses.replace(chosen.e, thresholds=limits)) if fits else chosen


def _finished(store: Store, trial: Trial, data: chain.Data) -> Checkpoint:
    """A trial's model with the thresholds that were chosen, its last record telling what they do."""
    stage = store.stage(trial.key).load()
    network, last = stage.network, stage.history[-1]
    network.thresholds = _point(trial).thresholds
    segments = segment_layers(network)
    exits = np.cumsum([cost.bitops(segment) for segment in segments]).tolist()
    uniform = np.cumsum([cost.uniform_bitops(s, chain.chain_bits(network)) for s in segments])
    logits = exit_logits(network, data.test.images)
    gated = thresholds.gate(logits, data.test.labels, network.thresholds, exits)
    original = stage.meta["original_bitops"]
    record = {
        **last,
        **gated.quality,
        "thresholds": list(network.thresholds),
        "exit_share": list(gated.shares),
        "expected_bitops": gated.bitops,
        "bitops_cr": original / gated.bitops,
        "bitops_cr_uniform": original / float(np.dot(gated.shares, uniform)),
    }
    return dataclasses.replace(stage, history=(*stage.history[:-1], record))


def _row(store: Store, trial: Trial, data: chain.Data) -> dict[str, Any]:
    """A trial at the point chosen for the goal, on held-out and on test images."""
    assert trial.chosen is not None
    history = _finished(store, trial, data).history
    last, point = history[-1], trial.chosen.point
    return {
        "trial": trial.number,
        "settings": dict(trial.settings),
        "thresholds": list(point.thresholds),
        "met": trial.chosen.met,
        "held_out_accuracy": point.accuracy,
        "held_out_bitops_cr": point.bitops_cr,
        "held_out_error": point.error,
        "test_accuracy": last["accuracy"],
        "test_original_accuracy": history[0]["accuracy"],
        "test_images": last["test_images"],
        "test_bitops_cr": last["bitops_cr"],
        "test_bitops_cr_uniform": last["bitops_cr_uniform"],
        "cr": last["cr"],
    }


def goal_text(found: Found) -> str:
    goal = found.goal
    if goal.kind is Kind.MAX_DROP:
        return (
            f"at most {goal.amount:g} points of held-out accuracy, one standard error included, below the "
            f"original's {goal.original:.2f} %"
        )
    return f"at least {goal.amount:g} times fewer BitOps than the original on held-out images"


def markdown(found: Found, rows: Mapping[str, Mapping[str, Any]], images: int) -> str:
    """The search as a section of the report. images: how many are held out."""
    counts = {state: sum(trial.state is state for trial in found.trials) for state in State}
    lines = [
        "## The search",
        "",
        f"Wanted: {goal_text(found)}. {len(found.trials)} settings: "
        + ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        + f"; {found.epochs} epochs; it ended because {found.why}.",
        "",
        table(rows),
        "",
        f"![held-out accuracy against BitOpsCR of all trials]({PICTURE})",
        "",
        f"Settings and thresholds were chosen on the {images} held-out images; what the best loses there has "
        f"a standard error of {_point(found.best).error:.1f} points, and the best of many looks better there "
        "than it is. The test images were looked at only for this table.",
        "",
        "| trial | settings | held-out accuracy | BitOpsCR | epochs |",
        "|---:|---|---:|---:|---:|",
    ]
    for trial in found.trials:
        point = trial.chosen and trial.chosen.point
        shown = (
            f"{point.accuracy:.2f} % | {point.bitops_cr:.1f}x" if point else f"{trial.state}: {trial.why} |"
        )
        lines.append(f"| {trial.number} | {text(trial.settings)} | {shown} | {trial.epochs} |")
    return "\n".join(lines) + "\n"


def _point(trial: Trial) -> Point:
    assert trial.chosen is not None
    return trial.chosen.point


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The recipe and what was found, side by side."""
    lines = [
        "| | settings | held-out accuracy | BitOpsCR | test accuracy | BitOpsCR | uniform | CR |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {text(row['settings'])} | {row['held_out_accuracy']:.2f} % "
            f"| {row['held_out_bitops_cr']:.1f}x | {row['test_accuracy']:.2f} % "
            f"| {row['test_bitops_cr']:.1f}x "
            f"| {row['test_bitops_cr_uniform']:.1f}x | {row['cr']:.1f}x |"
        )
    return "\n".join(lines)


def toml(chosen: Recipe) -> str:
    """A recipe as a file of coc-compress, with whole paths and without sections that no stage reads."""
    values = chosen.as_dict()
    read = {"original", *(chosen.section_name(index) for index in range(1, len(chosen.chain) + 1))}
    tables = {name: values.pop(name) for name in list(values) if isinstance(values[name], dict)}
    kept = {name: table for name, table in tables.items() if name in read or chosen.original.checkpoint}
    lines = _assignments(values)
    for name, section in kept.items():
        lines += ["", f"[{name}]", *_assignments(section)]
    return "\n".join(lines) + "\n"


def _assignments(values: Mapping[str, Any]) -> list[str]:
    # What JSON writes of text, numbers, truth values and lists is TOML, too.
    plain = {name: value for name, value in values.items() if value is not None and value != ()}
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in plain.items()]


@plots.style()
def draw(out: Path, found: Found) -> None:
    """auto.png: all operating points on the held-out images, their frontier, the recipe's point, the best."""
    figure, axes = plots.figure(560, 380)
    points = [point for trial in found.trials for point in trial.points]
    axes.plot(*_columns(points), ".", color=plots.PALETTE[5], label="all trials")
    axes.plot(*_columns(frontier(points)), color=plots.PALETTE[0], label="frontier")
    for number, (name, trial) in enumerate((("by hand", found.by_hand), ("found", found.best)), start=1):
        look: dict[str, Any] = {
            "color": plots.PALETTE[number],
            "marker": plots.MARKERS[number],
            "markersize": 9,
        }
        axes.plot(*_columns([_point(trial)]), linestyle="none", label=name, **look)
    limit, along = (
        (found.goal.original - found.goal.amount, axes.axhline)
        if found.goal.kind is Kind.MAX_DROP
        else (found.goal.amount, axes.axvline)
    )
    along(limit, color=plots.MUTED, linestyle="--", linewidth=1)
    plots.log_axis(axes, "x")
    axes.set_xlabel("BitOpsCR on held-out images (times fewer BitOps than the original)")
    axes.set_ylabel("held-out accuracy (%)")
    axes.legend(loc="lower left")
    plots.png(figure, out / PICTURE)


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.bitops_cr for point in points], [point.accuracy for point in points]
