"""make auto: search the settings of a recipe and write what was found beside the recipe's own result."""

import argparse
import json
import sys
from pathlib import Path

from coc_deploy import cli
from coc_runtime import files
from coc_runtime.environment import environment
from demo import ROOT

KEPT = ("asked", "original", "held_out_images", "budget_epochs", "epochs", "best", "ended", "met", "compared")
"""Of RUN/auto.json."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes/digits.toml")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/auto-digits", help="folder of the run")
    parser.add_argument("--max-drop", default="1.0")
    parser.add_argument("--budget-epochs", default="300")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    drop, budget = ("--max-drop", options.max_drop), ("--budget-epochs", options.budget_epochs)
    command = [str(options.recipe), "--auto", *drop, *budget, "--threads", "1", "--out", str(options.out)]
    status = cli.main(command)
    if status not in (0, 1):
        return status
    found = json.loads((options.out / "auto.json").read_text())
    del found["asked"]["space"]["recipe"]
    stages = [json.loads(path.read_text()) for path in (options.out / "auto/stages").glob("*/result.json")]
    shown = options.recipe.resolve().relative_to(ROOT)
    files.write_json(
        options.json,
        {
            "command": f"coc-compress {shown} --auto {' '.join((*drop, *budget))} --out RUN",
            **{name: found[name] for name in KEPT},
            "trials": [
                {name: trial[name] for name in ("number", "settings", "state", "why", "epochs", "chosen")}
                for trial in found["trials"]
            ],
            "stages": len(stages),
            "training_seconds": sum(stage["seconds"] for stage in stages),
            "environment": environment(("numpy", "torch", "optuna")),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
