"""Settings of a stage compared at equal epochs on one float network: of Q, which brings 1x8 closest to float;
of P, what rounding channels costs, and how importance and scope matter.

    python benchmarks/scripts/variants.py q|p --start RUN/01-distill/model.pt \
        --data imagefolder:data/cifar10 [--epochs N] [--only NAME ...] [--out runs/variants] \
        [--json benchmarks/results/variants_q.json]

Every variant starts from the same network, is distilled from it, and is judged on the test split (quantized
ones in integers). Each is a chain of one stage of coc-compress, so that an interrupted comparison continues;
results are added to the JSON as they come.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coc_deploy import chain, recipe
from coc_runtime import files
from coc_runtime.environment import environment


@dataclass(frozen=True)
class Comparison:
    """Settings of a section that all variants share, and by name what differs from them."""

    shared: dict[str, Any]
    variants: dict[str, dict[str, Any]]


COMPARISONS = {
    "q": Comparison(
        {"bits": "1x8", "epochs": 8, "teacher": "before"},
        {
            "default": {},
            "learned ranges": {"ranges": "learned"},
            "scale per layer": {"scale": "layer"},
            "progressive 4, 2, 1": {"progressive": [4, 2]},
            "lr 0.05": {"lr": 0.05},
            "AdamW": {"optimizer": "adam", "lr": 0.001, "weight_decay": 0.0},
            "labels alone": {"teacher": "none"},
        },
    ),
    # At a ratio of 0.3 of 16, 32 and 64 channels no count is round by itself.
    "p": Comparison(
        {"ratio": 0.3, "epochs": 2, "teacher": "before"},
        {
            "not rounded": {"round_to": 1},
            "multiples of 4 (default)": {},
            "multiples of 8": {"round_to": 8},
            "multiples of 16": {"round_to": 16},
            "L1": {"importance": "l1"},
            "batch-norm scale": {"importance": "bn"},
            "global": {"scope": "global"},
        },
    ),
}


def run(letter: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of a variant."""
    comparison = COMPARISONS[letter]
    section = comparison.shared | comparison.variants[name]
    if options.epochs is not None:
        section |= {"epochs": options.epochs}
    chosen = recipe.parse(
        {
            "chain": letter.upper(),
            "data": options.data,
            "original": {"checkpoint": str(options.start)},
            letter: section,
        }
    )
    folder = options.out / f"{letter}-{section['epochs']}-{_folder(name)}"
    original, stage = chain.run(chosen, folder, None, lambda record: None).history[-2:]
    return {
        "variant": name,
        "differs": comparison.variants[name],
        "bits": stage["bits"],
        "epochs": section["epochs"],
        "float_accuracy": original["accuracy"],
        "accuracy": stage["accuracy"],
        "loss_points": original["accuracy"] - stage["accuracy"],
        "macs": stage["macs"],
        "held_out": [epoch["calibration_accuracy"] for epoch in stage["epochs"]],
        "test_images": stage["test_images"],
    }


def _folder(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("stage", choices=list(COMPARISONS))
    parser.add_argument("--start", type=Path, required=True, help="a float model.pt")
    parser.add_argument("--data", default="imagefolder:data/cifar10")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    parser.add_argument("--json", type=Path, help="add the figures here")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    names = list(COMPARISONS[options.stage].variants)
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    for name in options.only or names:
        record = run(options.stage, name, options)
        print(
            f"{name:26} {record['accuracy']:.2f} % ({record['loss_points']:.2f} points below float), "
            f"{record['macs'] / 1e6:.1f} M MACs",
            flush=True,
        )
        if options.json:
            _add(options.json, record)


def _add(path: Path, record: dict[str, Any]) -> None:
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    key = ("variant", "bits", "epochs")
    kept = [run for run in runs if [run[k] for k in key] != [record[k] for k in key]]
    files.write_json(path, {"schema": 1, "environment": environment(), "runs": [*kept, record]})


if __name__ == "__main__":
    main()
