"""From DIR/study.sqlite to DIR/report.html, DIR/figures/*.png, DIR/conclusions.json and a summary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coc_report import plots
from coc_runtime import files
from coc_runtime.errors import CocError
from coc_runtime.text import one_line

from . import cells, claims, effort, figures, frontier, page, results, summary, table, table5
from .results import Results

SHOWN_LOSS = 1.0
"""Points: the case whose stages are shown loses at most this."""


def write(folder: Path, store: Path | None = None) -> str:
    """Conclude from a study's folder; what a terminal shows. CocError where nothing can be concluded.

    store: the folder of its stages, if that is not in the study's own.
    """
    read = table.read(folder / table.NAME)
    if not read.samples:
        raise CocError(
            f"{folder / table.NAME}: no case is finished yet: run coc-study on, and see its failures"
        )
    found = results.results(read)
    judged = claims.claims(found)
    stages = _shown_stages(store or folder / "stages", found)
    values = summary.values(found, judged, stages)
    files.make_folder(folder / "figures")
    pictures = _pictures(folder / "figures", found, stages)
    files.write_json(folder / "conclusions.json", values)
    files.write_text(folder / "report.html", page.document(values, pictures))
    wrote = one_line(f"wrote {folder / 'report.html'} and {folder / 'conclusions.json'}")
    return f"{summary.text(values)}\n\n{wrote}"


def _shown_stages(store: Path, found: Results) -> tuple[dict[str, Any], ...]:
    points = table5.own_points(found.table)
    sample = frontier.best_point(points, SHOWN_LOSS) or max(points, key=lambda s: s.accuracy, default=None)
    return effort.stages_of(store, found.table, sample) if sample else ()


def _pictures(folder: Path, found: Results, stages: Sequence[dict[str, Any]]) -> cells.Pictures:
    """Write the PNG files; the same plots for the page."""
    panels = {
        "pairs": figures.pairs(found),
        "insertions": figures.insertions(found),
        "sequences": [panel for panel in (figures.sequences(found), figures.combined(found)) if panel],
        "repeats": figures.repeats(found),
    }
    pictures: cells.Pictures = {}
    for name, shown in panels.items():
        if shown:
            plots.png(
                figures.sheet(shown, columns=min(len(shown), 3 if len(shown) > 2 else 2)),
                folder / f"{name}.png",
            )
        pictures[name] = [(panel.title, plots.svg(figures.scatter(panel), panel.title)) for panel in shown]
    single = {"law": ("Better orders of the pairs", figures.graph(found.law))}
    if stages:
        single["stages"] = ("BitOpsCR after each stage", figures.stages(stages))
    for name, (title, figure) in single.items():
        plots.png(figure, folder / f"{name}.png")
        pictures[name] = [(title, plots.svg(figure, title))]
    return pictures
