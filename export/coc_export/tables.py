"""What coc-export prints."""

from collections.abc import Sequence
from typing import Any

from coc_runtime import quality


def summary(report: dict[str, Any]) -> str:
    """The report as a few lines on screen."""
    agreement, sizes, costs = report["parity"], report["size"], report["cost"]
    shares = ", ".join(f"{share:.1%}" for share in costs["exit_share"])
    found = quality.text(agreement)
    measured = f"accuracy  {found}" if agreement["accuracy"] is not None else f"errors    {found}"
    absent = "".join(
        f"{backend:<10}not compared: {agreement[f'{backend}_missing']}\n"
        for backend in ("native", "onnxruntime")
        if f"{backend}_missing" in agreement
    )
    return f"""\
parity    {agreement["images"]} images of {agreement["data"]}, {len(agreement["pairs"])} pairs of back ends: \
{agreement["differing_logits"]} differing logits, {agreement["flipped_exits"]} flipped exits
{absent}{measured}
size      {sizes["file_bytes"]:,} bytes: weights {sizes["weight_bytes"]:,}, biases {sizes["bias_bytes"]:,}, \
scales {sizes["scale_bytes"]:,}, structure {sizes["structure_bytes"]:,}
exits     {shares}
BitOps    {costs["expected_bitops"]:,.0f} an image on average, {costs["bitops_cr"]:.1f}x below the original
          ({costs["bitops_cr_uniform"]:.1f}x by the uniform convention), CR {costs["cr"]:.1f}x"""


def sizes(ledger: dict[str, Any]) -> str:
    """The size ledger, a line per layer."""
    rows = [["layer", "bits", "weights", "bytes"]]
    for weight in ledger["weights"]:
        rows.append([weight["name"], f"{weight['bits']}", f"{weight['count']:,}", f"{weight['bytes']:,}"])
    parts = (("biases", "bias_bytes"), ("scales", "scale_bytes"), ("structure", "structure_bytes"))
    rows += [[name, "", "", f"{ledger[key]:,}"] for name, key in parts]
    rows.append(["file", "", "", f"{ledger['file_bytes']:,}"])
    return table(rows)


def calibration(section: dict[str, Any]) -> str:
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
        f"calibrated on {section['images']} held-out images of {section['data']}: {budget['option']} "
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
