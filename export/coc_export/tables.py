"""What coc-export prints."""

from collections.abc import Sequence
from typing import Any

from coc_runtime import quality

from . import parity
from .export_report import RECORDED
from .imagesets import Kind

GIVE = "give --data with test images"
BY = "recorded by coc-compress"


def summary(report: dict[str, Any]) -> str:
    """The report as a few lines on screen."""
    agreement, sizes = report["parity"], report["size"]
    first, *others = parity.sections(agreement)
    lines = [
        f"parity    {images(first)}, {len(first['pairs'])} pairs of back ends: {_differing(first)}",
        *(f"          {images(other)}: {_differing(other)}" for other in others),
    ]
    for backend in ("native", "onnxruntime"):
        if f"{backend}_missing" in agreement:
            lines.append(f"{backend:<10}not compared: {agreement[f'{backend}_missing']}")
    good = "accuracy" if classified(report) else "errors"
    return "\n".join(
        [
            *lines,
            f"{good:<10}{found_quality(report) or f'not measured: {GIVE}'}",
            f"size      {sizes['file_bytes']:,} bytes: weights {sizes['weight_bytes']:,}, "
            + "".join(f"{name} {count:,}, " for name, count in _beside(sizes)).rstrip(", "),
            *_costs(report["cost"]),
        ]
    )


def _costs(costs: dict[str, Any]) -> list[str]:
    """Where images leave, and what that costs."""
    if costs["exit_share"] is None:
        spent = costs["exit_bitops"]
        return [
            f"exits     not measured: {GIVE}",
            f"BitOps    {spent[0]:,} to {spent[-1]:,} an image, by the exit that it takes; "
            f"CR {costs['cr']:.1f}x",
        ]
    shares = ", ".join(f"{share:.1%}" for share in costs["exit_share"])
    known = f", {BY}" if costs.get("exit_share_of") == RECORDED else ""
    return [
        f"exits     {shares}{known}",
        f"BitOps    {costs['expected_bitops']:,.0f} an image on average, {costs['bitops_cr']:.1f}x below the "
        "original",
        f"          ({costs['bitops_cr_uniform']:.1f}x by the uniform convention), CR {costs['cr']:.1f}x",
    ]


def classified(report: dict[str, Any]) -> bool:
    """Whether the model is a classifier."""
    return "mae" not in report["parity"]


def images(section: dict[str, Any]) -> str:
    """What a section of a report's parity was asked on."""
    count, kind = section["images"], section.get("set", Kind.TEST.value)
    if kind == Kind.GENERATED.value:
        return f"{count} generated images"
    return f"{count} images of {section['data']}" + (
        " that model.pt carries" if kind == Kind.CARRIED.value else ""
    )


def _differing(section: dict[str, Any]) -> str:
    return f"{section['differing_logits']} differing logits, {section['flipped_exits']} flipped exits"


def found_quality(report: dict[str, Any]) -> str | None:
    """How good a model is on test images, measured or else recorded, then with whose; None if unknown."""
    agreement, recorded = report["parity"], report.get("recorded")
    if agreement.get("set", Kind.TEST.value) == Kind.TEST.value:
        return quality.text(agreement)
    if recorded is None:
        return None
    count = "the" if recorded["images"] is None else f"{recorded['images']:,}"
    return f"{quality.text(recorded['quality'])} on {count} test images of {recorded['data']}, {BY}"


def sizes(ledger: dict[str, Any]) -> str:
    """The size ledger, a line per layer."""
    rows = [["layer", "bits", "weights", "bytes"]]
    for weight in ledger["weights"]:
        rows.append([weight["name"], f"{weight['bits']}", f"{weight['count']:,}", f"{weight['bytes']:,}"])
    rows += [[name, "", "", f"{count:,}"] for name, count in _beside(ledger)]
    rows.append(["file", "", "", f"{ledger['file_bytes']:,}"])
    return table(rows)


def _beside(ledger: dict[str, Any]) -> list[tuple[str, int]]:
    """What a file holds beside weights, and its bytes; tables only where there are some."""
    parts = {name: ledger.get(f"{part}_bytes", 0) for name, part in PARTS.items()}
    return [(name, count) for name, count in parts.items() if count or name != "tables"]


PARTS = {"biases": "bias", "scales": "scale", "tables": "table", "structure": "structure"}


def threshold_choice(section: dict[str, Any]) -> str:
    """The choice of thresholds between its neighbours on the frontier and the last exit alone."""
    budget, promised = section["budget"], section["guarantee"]
    first = section["choice"]
    classified = first["accuracy"] is not None
    rows = [
        ["", "thresholds", "acc %" if classified else "MAE", "drop", "exits %"]
        + ["us", "p50", "p99", "worst", "BitOps", "p50", "p99", "worst"]
    ]
    for name, key in (
        ("cheaper", "cheaper"),
        ("chosen", "choice"),
        ("dearer", "dearer"),
        ("last exit", "last_exit"),
    ):
        point = section[key]
        if point is None:
            continue
        good = f"{point['accuracy']:.2f}" if classified else f"{point['mae']:.4f}"
        rows.append(
            [
                name,
                " ".join(limit(value, classified) for value in point["thresholds"]),
                good,
                f"{point['drop']:.2f}",
            ]
            + ["/".join(f"{100 * share:.0f}" for share in point["exit_share"])]
            + [f"{point['latency_us'][part]:.1f}" for part in ("mean", "p50", "p99", "worst")]
            + [f"{point['bitops'][part]:.4g}" for part in ("mean", "p50", "p99", "worst")]
        )
    return (
        f"thresholds chosen on {section['images']} held-out images of {section['data']}: {budget['option']} "
        f"{budget['text']}; with {100 * promised['confidence']:g} % confidence new images lose at most "
        f"{promised['bound']:.2f} {'points' if classified else '% of error'}\n"
        f"latency of one image on one thread, {section['backend']} on {section['cpu']}\n{table(rows)}"
    )


def limit(value: float, classified: bool) -> str:
    """A threshold, or a tolerance."""
    return "never" if classified and value > 1 else f"{value:.4g}"


def pairs(records: Sequence[dict[str, Any]]) -> str:
    """A line per pair of back ends."""
    rows = [["back end", "back end", "images", "logits", "differing", "flipped exits"]]
    for record in records:
        counts = ("images", "logits", "differing_logits", "flipped_exits")
        rows.append([*record["pair"], *(f"{record[key]:,}" for key in counts)])
    return table(rows, words=2)


def table(rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Columns with a space or two between them; the first `words` to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
