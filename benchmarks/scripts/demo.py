"""make demo: compress, export and benchmark a small CNN on the embedded digits, then print what came out."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def command(name: str, *arguments: object) -> None:
    """Run one of coc-deploy's commands as a user would type it; stop the demo if it fails."""
    words = [name, *(str(argument) for argument in arguments)]
    print(f"\n$ {' '.join(words)}", flush=True)
    done = subprocess.run([BIN / name, *words[1:]], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def export_and_bench(run: Path, data: str, rounds: int, *more: str) -> None:
    """Export a finished DPQE run and its float peers, and measure them side by side, in its folder.

    more: further options of coc-bench.
    """
    artifacts = (run / "model.onnx", run / "model.coc")
    command("coc-export", run / "model.pt", "--out", artifacts[0], "--out", artifacts[1], "--data", data)
    command("coc-export", run / "00-original/model.pt", "--float", "--out", run / "original.onnx")
    command("coc-export", run / "02-prune/model.pt", "--float", "--out", run / "pruned.onnx")
    peers = ("--original", run / "original.onnx", "--int8-of", run / "pruned.onnx")
    rest = ("--data", data, "--rounds", rounds, "--json", run / "bench.json")
    command("coc-bench", *artifacts, *peers, *rest, "--html", run / "bench.html", *more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/digits.toml"))
    options = parser.parse_args()
    out: Path = options.out
    command("coc-compress", options.recipe, "--out", out)
    export_and_bench(out, "digits", rounds=300)
    result = summary(ROOT / out)
    (ROOT / out / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + table(result))
    print(f"\nThe same as JSON: {out / 'demo.json'}; all measurements as a page: {out / 'bench.html'}")


def summary(out: Path) -> dict[str, Any]:
    """The figures of a finished run, gathered from history, report and benchmark."""
    history = json.loads((out / "history.json").read_text())
    report = json.loads((out / "model.report.json").read_text())
    runs = json.loads((out / "bench.json").read_text())["runs"]
    original = next(run for run in runs if run["kind"] == "original")
    artifacts = {Path(run["artifact"]).suffix: run for run in runs if run["kind"] == "artifact"}
    artifact = artifacts[".onnx"]
    return {
        "stages": [{key: record[key] for key in STAGE_KEYS} for record in history],
        "exported_accuracy": report["parity"]["accuracy"],
        "accuracy_loss": history[0]["accuracy"] - report["parity"]["accuracy"],
        "differing_logits": report["parity"]["differing_logits"],
        "flipped_exits": report["parity"]["flipped_exits"],
        "bitops_cr": artifact["bitops_cr"],
        "bitops_cr_uniform": artifact["bitops_cr_uniform"],
        "cr": artifact["cr"],
        "exit_share": artifact["exit_share"],
        "file_bytes": {"original": original["file_bytes"]}
        | {run["artifact"]: run["file_bytes"] for run in artifacts.values()},
        "latency_us": {"original": original["latency_us"]}
        | {run["backend"]: run["latency_us"] for run in artifacts.values()},
    }


STAGE_KEYS = ("stage", "model", "bits", "accuracy", "bitops_cr", "bitops_cr_uniform", "cr", "seconds")


def table(result: dict[str, Any]) -> str:
    lines = [f"{'':<12}{'accuracy':>10}{'BitOpsCR':>11}{'(uniform)':>11}{'CR':>9}"]
    for stage in result["stages"]:
        lines.append(
            f"{stage['stage']:<12}{stage['accuracy']:>9.2f}%{stage['bitops_cr']:>10.1f}x"
            f"{stage['bitops_cr_uniform']:>10.1f}x{stage['cr']:>8.1f}x"
        )
    lines.append(
        f"{'exported':<12}{result['exported_accuracy']:>9.2f}%{result['bitops_cr']:>10.1f}x"
        f"{result['bitops_cr_uniform']:>10.1f}x{result['cr']:>8.1f}x"
    )
    sizes = ", ".join(f"{name} {count:,}" for name, count in result["file_bytes"].items())
    latency = ", ".join(f"{name} {row['mean']:.1f}" for name, row in result["latency_us"].items())
    shares = ", ".join(f"exit {k}: {share:.1%}" for k, share in enumerate(result["exit_share"]))
    return "\n".join(
        (
            *lines,
            f"loss        {result['accuracy_loss']:.2f} points",
            f"parity      {result['differing_logits']} differing logits, "
            f"{result['flipped_exits']} flipped exits",
            f"exits       {shares}",
            f"bytes       {sizes}",
            f"us          {latency} (mean, one image, one thread)",
        )
    )


if __name__ == "__main__":
    main()
