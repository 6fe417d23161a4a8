"""Rewrite the figures of README.md, and its picture, from the committed JSON; --check only compares."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coc_bench import report as bench_report
from coc_deploy import cli as compress
from coc_export import cli as export

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
EXAMPLES = ("cifar10-resnet20-1x8", "cifar10-resnet20-4x8")
PICTURE = ROOT / "docs/chain.png"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def example(name: str, file: str) -> Any:
    return read(ROOT / "examples" / name / file)


def headline() -> str:
    """What each example came to, against its original."""
    lines = [
        "| | accuracy | BitOpsCR | (uniform) | CR | file | latency, mean | fewer BitOps, faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first = {run["kind"]: run for run in example(EXAMPLES[0], "bench.json")["runs"]}["original"]
    lines.append(
        f"| original: ResNet-56, float | {first['accuracy']:.2%} | 1x | 1x | 1x | {_kilobytes(first)} "
        f"| {first['latency_us']['mean']:,.0f} us | |"
    )
    for name in EXAMPLES:
        runs = {run["kind"]: run for run in example(name, "bench.json")["runs"]}
        run, record = runs["artifact"], example(name, "history.json")[-1]
        lines.append(
            f"| [{record['model'].replace('resnet', 'ResNet-')} {record['bits']}, "
            f"{len(record['thresholds'])} early exits](examples/{name}) | {run['accuracy']:.2%} "
            f"| {run['bitops_cr']:.0f}x | {run['bitops_cr_uniform']:.0f}x | {run['cr']:.0f}x "
            f"| {_kilobytes(run)} | {run['latency_us']['mean']:,.0f} us | {run['bitops_cr']:.0f}x, "
            f"{run['mean_speedup_over_original']:.1f}x |"
        )
    return "\n".join(lines)


def _kilobytes(run: dict[str, Any]) -> str:
    return f"{run['file_bytes'] / 1000:,.0f} KB"


def _console(*lines: str) -> str:
    return "\n".join(("```console", *lines, "```"))


def compress_output() -> str:
    name = EXAMPLES[0]
    rows = [compress.row(record) for record in example(name, "history.json")]
    command = f"$ coc-compress recipes/{name}.toml --out runs/1x8"
    return _console(command, compress.COLUMNS, *rows, "wrote runs/1x8/model.pt")


def export_output() -> str:
    name = EXAMPLES[0]
    command = f"$ coc-export examples/{name}/model.pt --out model.onnx --data imagefolder:data/cifar10"
    summary = export.summary(example(name, "model.report.json"))
    return _console(command, summary, "wrote model.onnx and model.report.json")


def bench_output() -> str:
    runs = example(EXAMPLES[0], "bench.json")["runs"]
    peers = "--original original.onnx --int8-of pruned.onnx"
    command = f"$ coc-bench model.onnx --data imagefolder:data/cifar10 {peers} --rounds 3000"
    return _console(command, bench_report.table(runs))


def stages() -> str:
    """Every stage of both examples."""
    lines = [
        "| stage | " + " | ".join(f"{name.rsplit('-', 1)[1]}" for name in EXAMPLES) + " |",
        "|---|---|---|",
    ]
    for records in zip(*(example(name, "history.json") for name in EXAMPLES), strict=True):
        cells = [f"{r['accuracy']:.2f} %, {r['bitops_cr']:.1f}x" for r in records]
        lines.append(f"| {records[0]['stage']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def packed() -> str:
    """What packing costs in latency and saves in bytes."""
    result = read(RESULTS / "packed_weights.json")
    latency, sizes, leaving = result["latency_us"], result["file_bytes"], result["first_exit"]
    packed_us, unpacked_us = (latency[name]["median"] for name in ("packed", "unpacked"))
    lines = (
        f"- Packed weights: {packed_us:.0f} us against {unpacked_us:.0f} us for the same graph with int8",
        f"  weights (ratio {result['packed_over_unpacked']:.3f}), {sizes['packed']:,} bytes against",
        f"  {sizes['unpacked']:,}.",
        f"- Leaving at the first exit: {leaving['latency_over_packed']:.0%} of the time of the whole. Its",
        f"  layers hold {leaving['share_of_macs']:.0%} of the MACs and, run without any exits, take",
        f"  {leaving['share_of_time_without_exits']:.0%} of the time.",
    )
    return "\n".join(lines)


def demo() -> str:
    from demo import table

    return "\n".join(("```text", table(read(RESULTS / "digits_demo.json")), "```"))


def environment() -> str:
    about = example(EXAMPLES[0], "bench.json")["environment"]
    flags = ", ".join(about["flags"])
    return (
        f"Measured on {about['cpu']} ({flags}), {about['os'].split('-')[0]}, one thread, "
        f"ONNX Runtime {about['onnxruntime']}; {about['date'][:10]}."
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "compress": compress_output,
    "export": export_output,
    "bench": bench_output,
    "stages": stages,
    "packed": packed,
    "demo": demo,
    "environment": environment,
}


def filled(text: str) -> str:
    """The text with each block between `<!-- figures: NAME -->` and `<!-- end -->` written anew."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- figures: {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- figures: (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def draw(path: Path) -> None:
    """Accuracy against BitOpsCR along each example's chain."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 3.8), constrained_layout=True)
    for name, marker in zip(EXAMPLES, "os", strict=True):
        records = example(name, "history.json")
        x, y = [r["bitops_cr"] for r in records], [r["accuracy"] for r in records]
        axes.plot(x, y, marker=marker, label=f"weights x activations: {records[-1]['bits']} bits")
        for record in records if name == EXAMPLES[0] else records[3:]:
            axes.annotate(
                record["stage"],
                (record["bitops_cr"], record["accuracy"]),
                textcoords="offset points",
                xytext=(4, 7),
                fontsize=9,
            )
    axes.set_xscale("log")
    axes.set_xlabel("BitOps of the original / BitOps spent per image (per-layer convention)")
    axes.set_ylabel("test accuracy, %")
    axes.set_title("CIFAR-10 (JPEG q75): ResNet-56 along the chain D, P, Q, E")
    axes.grid(alpha=0.3)
    axes.margins(0.1, 0.15)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if README.md is out of date")
    options = parser.parse_args()
    path = ROOT / "README.md"
    text = path.read_text()
    if options.check:
        return int(filled(text) != text)
    path.write_text(filled(text))
    draw(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
