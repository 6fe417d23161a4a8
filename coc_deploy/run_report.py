"""RUN/report.md: what every stage did to accuracy (of a regression: error) and cost, with a plot."""

from pathlib import Path
from typing import Any

from coc_report import plots
from coc_runtime import files, quality
from coc_runtime.text import one_line

from . import train
from .recipe import Recipe

Records = tuple[dict[str, Any], ...]
PICTURE = "report.png"
RATIOS = ("bitops_cr", "bitops_cr_uniform", "cr")


def factors(history: Records) -> list[dict[str, float]]:
    """What every stage multiplied each of RATIOS by; the first record's are its ratios themselves."""
    before = [dict.fromkeys(RATIOS, 1.0), *history]
    return [
        {name: record[name] / last[name] for name in RATIOS}
        for last, record in zip(before, history, strict=False)
    ]


def write(out: Path, recipe: Recipe, history: Records) -> None:
    """Write report.md and the picture that it shows into a run's folder."""
    _write_picture(out / PICTURE, history, recipe)
    files.write_text(out / "report.md", markdown(recipe, history))


def markdown(recipe: Recipe, history: Records) -> str:
    """The whole report."""
    first, last = history[0], history[-1]
    name = _measured(last)
    of = f"{quality.text(last)} of" if name == "accuracy" else f"{quality.text(last)} on"
    lines = [
        f"# {recipe.chain} on {one_line(recipe.data)}",
        "",
        f"{of} {last['test_images']} test images, {quality.text(first)} before; "
        f"{last['bitops_cr']:.1f} times fewer BitOps, {last['cr']:.1f} times fewer bits stored.",
        "",
        f"![{name} against BitOpsCR]({PICTURE})",
        "",
        *_summary(history),
        "",
        "A factor is what the stage multiplied the ratio by. BitOps = MACs x weight bits x activation bits, "
        "32x32 for float, expected over the exits that the test images took; batch-norm, ReLU, pooling and "
        "additions cost nothing. *uniform* counts every layer at the chain's bits, as the literature does.",
    ]
    for index, record in enumerate(history):
        lines += ["", f"## {index}. {record['stage']} (`[{recipe.section_name(index)}]`)", ""]
        lines += _stage(record)
    return "\n".join(lines) + "\n"


def _measured(record: dict[str, Any]) -> str:
    """What quality is, in words."""
    return "accuracy" if record["accuracy"] is not None else "mean absolute error"


def _summary(history: Records) -> list[str]:
    title = "accuracy" if _measured(history[0]) == "accuracy" else "quality"
    lines = [
        f"| stage | model | bits | {title} | BitOpsCR | factor | uniform | factor | CR | factor |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for record, factor in zip(history, factors(history), strict=True):
        ratios = " | ".join(f"{record[name]:.1f}x | x{factor[name]:.2f}" for name in RATIOS)
        lines.append(
            f"| {record['stage']} | {record['model']} | {record['bits']} | {quality.text(record)} | "
            f"{ratios} |"
        )
    return lines


def _stage(record: dict[str, Any]) -> list[str]:
    epochs = record["epochs"]
    rows = {"MACs": f"{record['macs']:,}", "expected BitOps": f"{record['expected_bitops']:,.0f}"}
    rows["stored"] = f"{record['stored_bits'] / 8000:,.1f} kB"
    if epochs:
        rows["training"] = f"{len(epochs)} epochs, {record['seconds']:.0f} s on {record['threads']} threads"
        rows["loss"] = f"{epochs[0]['loss']:.4f} after the first epoch, {epochs[-1]['loss']:.4f} at the end"
        held_out = f"held-out {_measured(record)}".removesuffix(" mean absolute error")
        rows[held_out] = f"{train.held_out(epochs[-1])} (last exit)"
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    if record["thresholds"]:
        lines += [
            "",
            f"| exit | threshold | images that leave | {_measured(record)} on all images |",
            "|---|---|---|---|",
        ]
        limits = [*(f"{limit:.4f}" for limit in record["thresholds"]), "-"]
        for k, limit in enumerate(limits):
            numbers = "exit_mae" in record
            found = f"{record['exit_mae'][k]:.4f}" if numbers else f"{record['exit_accuracy'][k]:.2f} %"
            lines.append(f"| {k} | {limit} | {record['exit_share'][k]:.1%} | {found} |")
    return lines


@plots.style()
def _write_picture(path: Path, history: Records, recipe: Recipe) -> None:
    """Accuracy or error against BitOpsCR along the chain, like figure 15 of the Chain of Compression."""
    figure, axes = plots.figure(560, 360)
    ratios = [record["bitops_cr"] for record in history]
    name = _measured(history[0])
    heights = [record["accuracy" if name == "accuracy" else "mae"] for record in history]
    axes.plot(ratios, heights, marker=plots.MARKERS[0])
    for index, (x, y) in enumerate(zip(ratios, heights, strict=True)):
        axes.annotate(recipe.chain[:index] or "original", (x, y), xytext=(5, 7), textcoords="offset points")
    axes.margins(0.12, 0.18)
    plots.log_axis(axes, "x")
    axes.set_xlabel("BitOpsCR (times fewer BitOps than the original)")
    axes.set_ylabel("accuracy (%)" if name == "accuracy" else name)
    plots.png(figure, path)
