"""Figures about networks as people bring them: which are taken, and what they lose without training."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def networks_tried() -> str:
    """Of every public network that was tried whether it is traced and quantizable, and what stops it."""
    tried = [(file, row) for file, rows in read("networks.json")["networks"].items() for row in rows]
    states = Counter(_state(row) for _, row in tried)
    exact = states["quantizable"] + states["traced"]
    lines = [
        f"Of {len(tried)} networks {exact} are traced exactly, {states['quantizable']} can be quantized.",
        "",
        "| network | from | image | is | because |",
        "|---|---|---|---|---|",
    ]
    for file, row in tried:
        reason = row["refused"] or row["differs"] or row["unquantized"]
        said = re.sub("; supported: .*?(?= [(]|$)", "", reason).replace("|", "/")
        source, size = file.partition("_")[0], f"{row['size']}x{row['size']}"
        lines.append(f"| {row['name']} | {source} | {size} | {_state(row)} | {said} |")
    return "\n".join(lines)


def network_chains() -> str:
    """Of networks that went through a chain whether both files computed the same on every back end."""
    rows = read("network_chains.json")["networks"]
    same = [r for r in rows if not (r["failed"] or r["differing_logits"] or r["flipped_exits"])]
    lines = [
        f"{len(same)} of {len(rows)} networks gave both files, and every back end the same integers:",
        "",
        "| network | image | .onnx | .coc | pairs of back ends | images | differing logits |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = f"{row['size']}x{row['size']}"
        if row["failed"]:
            lines.append(f"| {row['name']} | {size} | {row['failed'].replace('|', '/')} | | | | |")
            continue
        sizes = " | ".join(f"{row[f'{kind}_bytes'] / 1e6:.2f} MB" for kind in ("onnx", "coc"))
        numbers = f"{row['pairs']} | {row['images']} | {row['differing_logits']}"
        lines.append(f"| {row['name']} | {size} | {sizes} | {numbers} |")
    return "\n".join(lines)


def _state(row: dict[str, Any]) -> str:
    if row["refused"] or row["differs"]:
        return "refused"
    return "traced" if row["unquantized"] else "quantizable"


def post_training() -> str:
    """Accuracy of public CIFAR-10 networks, quantized without training."""
    found = read("post_training.json")
    lines = [
        f"Accuracy (%) of public CIFAR-10 networks on {found['images']:,} test images (JPEG), steps and "
        f"biases from {found['chosen_on']} others:",
        "",
        "| network | bits | float | ranges cover 99.9 % | steps of least error | and corrected biases |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        numbers = (row["float"], row["calibrated"], row["steps"], row["biases"])
        lines.append(" | ".join([f"| {row['network']}", row["bits"], *(f"{n:.2f}" for n in numbers)]) + " |")
    return "\n".join(lines)
