"""Ways of quantization-aware training compared at equal epochs: which brings 1x8 closest to float?

    python benchmarks/quantizers.py --start RUN/01-distill/model.pt --data imagefolder:data/cifar10 \
        [--epochs 8] [--only NAME ...] [--out runs/quantizers] [--json benchmarks/results/quantizers.json]

Every variant starts from the same float network, is distilled from it, and is judged in integers on the test
split. Each is a chain "Q" of coc-compress, so that an interrupted comparison continues; results are added to
the JSON as they come.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from coc_bench.environment import environment
from coc_deploy import chain, recipe
from coc_runtime import files

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "learned ranges": {"ranges": "learned"},
    "scale per layer": {"scale": "layer"},
    "progressive 4, 2, 1": {"progressive": [4, 2]},
    "AdamW": {"optimizer": "adam", "lr": 0.001, "weight_decay": 0.0},
    "labels alone": {"teacher": "none"},
}
"""What differs from the defaults of [q]."""


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of a variant."""
    settings = VARIANTS[name]
    quantize = {"bits": options.bits, "epochs": options.epochs, "teacher": "before"} | settings
    chosen = recipe.parse(
        {"chain": "Q", "data": options.data, "original": {"checkpoint": str(options.start)}, "q": quantize}
    )
    folder = options.out / f"{options.bits}-{options.epochs}-{name.replace(' ', '-').replace(',', '')}"
    original, quantized = chain.run(chosen, folder, None, lambda record: None).history[-2:]
    return {
        "variant": name,
        "differs": settings,
        "bits": options.bits,
        "epochs": options.epochs,
        "float_accuracy": original["accuracy"],
        "accuracy": quantized["accuracy"],
        "loss_points": original["accuracy"] - quantized["accuracy"],
        "held_out": [epoch["calibration_accuracy"] for epoch in quantized["epochs"]],
        "test_images": quantized["test_images"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="a float model.pt")
    parser.add_argument("--data", default="imagefolder:data/cifar10")
    parser.add_argument("--bits", default="1x8")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/quantizers"))
    parser.add_argument("--json", type=Path, help="add the figures here")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.only:
        record = run(name, options)
        print(
            f"{name:22} {record['accuracy']:.2f} % ({record['loss_points']:.2f} points below float)",
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
