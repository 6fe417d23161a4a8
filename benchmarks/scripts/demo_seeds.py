"""Whether the demo depends on luck: recipes/digits.toml for several seeds, kinds of CPU, numbers of threads.

Writes after every run, and leaves out those that the JSON has: an interrupted measurement continues. What was
measured is what exits lose on the test images against the last exit of the same network.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coc_runtime import environment, files

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/digits.toml"
KINDS = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "default": {}}
"""What PyTorch's convolutions may use of the CPU, by name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument(
        "--first", type=int, default=22, help="of the seeds; the recipe was settled on 0 to 21"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    done: list[dict[str, Any]] = json.loads(options.json.read_text())["runs"] if options.json.exists() else []
    seeds = range(options.first, options.first + options.seeds)
    known = {(run["seed"], run["cpu"], run["threads"]) for run in done}
    cases = itertools.product(seeds, options.kinds, options.threads)
    for seed, kind, threads in (case for case in cases if case not in known):
        run = {"seed": seed, "cpu": kind, "threads": threads, **measure(seed, kind, threads)}
        print(f"seed {seed}, {kind}, {threads} threads: {line(run)}", flush=True)
        done.append(run)
        files.write_json(options.json, {**summary(done), "runs": done})


def measure(seed: int, kind: str, threads: int) -> dict[str, Any]:
    """The demo's chain, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--out", folder, "--set", f"seed={seed}", "--threads", str(threads)]
        command = [Path(sys.executable).parent / "coc-compress", RECIPE, *words]
        variables = {**os.environ, **KINDS[kind], "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        *_, last = json.loads(Path(folder, "history.json").read_text())
    whole = last["exit_accuracy"][-1]
    return {
        "last_exit_accuracy": whole,
        "accuracy": last["accuracy"],
        "loss": whole - last["accuracy"],
        **{name: last[name] for name in ("exit_share", "bitops_cr", "thresholds", "guarantee")},
        "test_images": last["test_images"],
    }


def line(run: dict[str, Any]) -> str:
    shares = "/".join(f"{100 * share:.0f}" for share in run["exit_share"])
    return f"exits {shares} %, loss {run['loss']:.2f} of {run['guarantee']['max_drop']:g} points"


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all runs so far."""
    losses = sorted(run["loss"] for run in runs)
    promised = runs[0]["guarantee"]
    return {
        "cpu": environment.cpu(),
        "max_drop": promised["max_drop"],
        "confidence": promised["confidence"],
        "held_out": promised["held_out"],
        "worst_loss": losses[-1],
        "mean_loss": sum(losses) / len(losses),
        "lose_more": sum(run["loss"] > promised["max_drop"] for run in runs),
        "without_exits": sum(run["exit_share"][-1] == 1 for run in runs),
    }


if __name__ == "__main__":
    main()
