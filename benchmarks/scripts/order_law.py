"""make studies: run a study and put its conclusions into benchmarks/results/.

    python benchmarks/scripts/order_law.py digits|cifar10-pairs|cifar10-sequences [options of coc-study]

Interrupted, the same command continues. The name of the machine is left out of what is committed.
"""

import argparse
import json
import shutil
from pathlib import Path

from coc_runtime import files
from demo import ROOT, command

PLOTS = {"digits": "pairs", "cifar10-pairs": "pairs", "cifar10-sequences": "sequences"}
"""The studies, and of each the plot that docs show."""
RESULTS = ROOT / "benchmarks/results"


def keep(name: str, folder: Path) -> None:
    """conclusions.json of a finished study, and a plot for docs."""
    found = json.loads((folder / "conclusions.json").read_text())
    found["meta"] = {key: value for key, value in found["meta"].items() if key != "machine"}
    files.write_json(RESULTS / f"study_{name}.json", found)
    shutil.copyfile(folder / f"figures/{PLOTS[name]}.png", ROOT / f"docs/study-{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=PLOTS)
    parser.add_argument("--out", type=Path, help="the study's folder (default: runs/study-NAME)")
    parser.add_argument("--only-keep", action="store_true", help="the study has run")
    options, more = parser.parse_known_args()
    folder = options.out or ROOT / f"runs/study-{options.name}"
    if not options.only_keep:
        command("coc-study", "all", f"recipes/study-{options.name}.toml", "--out", folder, *more)
    keep(options.name, folder)


if __name__ == "__main__":
    main()
