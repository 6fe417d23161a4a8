"""make auto: search the settings of a recipe and write what was found beside the recipe's own result.

    python benchmarks/scripts/auto.py digits|cifar10

Interrupted, the same command continues.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from coc_deploy import cli
from coc_runtime import files
from coc_runtime.environment import environment
from demo import ROOT

KEPT = ("asked", "original", "held_out_images", "budget_epochs", "epochs", "best", "ended", "met", "compared")
"""The parts of RUN/auto.json that are committed."""


@dataclass(frozen=True)
class Searching:
    """recipe: its path in the repository. goal: options of coc-compress --auto."""

    recipe: str
    goal: tuple[str, ...]


SEARCHES = {
    "digits": Searching("recipes/digits.toml", ("--max-drop", "3.0", "--budget-epochs", "300")),
    "cifar10": Searching(
        "recipes/cifar10-search.toml", ("--target-bitopscr", "300", "--budget-epochs", "100")
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=SEARCHES)
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/auto-NAME)")
    options = parser.parse_args()
    search = SEARCHES[options.name]
    out = options.out or ROOT / f"runs/auto-{options.name}"
    wanted = ["--auto", *search.goal]
    status = cli.main([str(ROOT / search.recipe), *wanted, "--threads", "1", "--out", str(out)])
    if status not in (0, 1):
        return status
    keep(options.name, f"coc-compress {search.recipe} {' '.join(wanted)} --out RUN", out)
    return 0


def keep(name: str, command: str, out: Path) -> None:
    """Write the part of a finished search that is committed."""
    found = json.loads((out / "auto.json").read_text())
    del found["asked"]["space"]["recipe"]
    stages = [json.loads(path.read_text()) for path in (out / "stages").glob("*/result.json")]
    files.write_json(
        ROOT / f"benchmarks/results/auto_{name}.json",
        {
            "command": command,
            **{key: found[key] for key in KEPT},
            "trials": [
                {key: trial[key] for key in ("number", "settings", "state", "why", "epochs", "chosen")}
                for trial in found["trials"]
            ],
            "stages": len(stages),
            "training_seconds": sum(stage["seconds"] for stage in stages),
            "environment": environment(("numpy", "torch", "optuna")),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
