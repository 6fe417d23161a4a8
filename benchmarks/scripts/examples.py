"""make examples: run the CIFAR-10 recipes, export, benchmark, and put what is committed into examples/.

Takes hours on two cores; interrupted, the same command continues. Expects the images in
data/cifar10/{train,test}/<class>/ and the pretrained networks in data/weights/ (or links to them). The
measuring half, with all peers, also takes the digits network that `make demo` left in runs/demo.
"""

import argparse
import shutil
from pathlib import Path

from demo import ROOT, command, export_and_bench

DEMO = Path("runs/demo")
DEMO_RESULT = ROOT / "benchmarks/results/digits_bench.json"

NAMES = ("cifar10-resnet20-1x8", "cifar10-resnet20-4x8")
DATA = "imagefolder:data/cifar10"
KEPT = ("history.json", "model.pt", "model.md", "model.report.json", "model.coc.report.json", "bench.json")


def compress(name: str, extra: list[str]) -> None:
    command("coc-compress", f"recipes/{name}.toml", "--out", f"runs/{name}", *extra)


def keep(name: str) -> None:
    folder = ROOT / "examples" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        shutil.copyfile(ROOT / "runs" / name / file, folder / file)
    shutil.copyfile(ROOT / "recipes" / f"{name}.toml", folder / "recipe.toml")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("compress", "measure"), help="one half of the work")
    parser.add_argument("--rounds", type=int, default=3000, help="of coc-bench at batch 1")
    options = parser.parse_args()
    if options.only != "measure":
        for name in NAMES:
            compress(name, ["--store", "runs/stages"])
    if options.only != "compress":
        for name in NAMES:
            export_and_bench(Path("runs") / name, DATA, options.rounds, "--peers", "all")
            keep(name)
        if (ROOT / DEMO / "model.pt").exists():
            export_and_bench(DEMO, "digits", options.rounds, "--peers", "all")
            shutil.copyfile(ROOT / DEMO / "bench.json", DEMO_RESULT)


if __name__ == "__main__":
    main()
