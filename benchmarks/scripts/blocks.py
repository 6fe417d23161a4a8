"""What the pages of the project show of the committed JSON: a function per block, which gives Markdown."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import blocks_networks
from coc_bench import tables
from coc_deploy import cli as compress
from coc_export import tables as export
from coc_study import KINDS, plan, settings
from coc_study.auto.result import table as comparison

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
EXAMPLES = ("cifar10-resnet20-1x8", "cifar10-resnet20-4x8")
DATA = "imagefolder:data/cifar10"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def example(name: str, file: str) -> Any:
    return read(ROOT / "examples" / name / file)


def headline() -> str:
    """The README's table: what each example came to, in one line of few columns."""
    lines = [
        "| | accuracy (original) | fewer BitOps | file | original | int8 | `.onnx` | `.coc` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    benches = [(name, example(name, "bench.json")["runs"]) for name in EXAMPLES]
    for name, runs in [*benches, ("", read(RESULTS / "digits_bench.json")["runs"])]:
        label, accuracy, ratio, _, _, size, *times, _ = _cells(name, runs)
        lines.append(f"| {' | '.join((label, accuracy, ratio, size, *times))} |")
    return "\n".join(lines)


def results() -> str:
    """What each example came to, against its original and the fastest int8 engine."""
    lines = [
        "| | accuracy (original) | BitOpsCR | (uniform) | CR | file | original | int8, fastest peer "
        "| `.onnx` | `.coc` | fewer BitOps, faster |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_headline_row(name, example(name, "bench.json")["runs"]) for name in EXAMPLES]
    return "\n".join([*lines, _headline_row("", read(RESULTS / "digits_bench.json")["runs"])])


def _headline_row(name: str, runs: list[dict[str, Any]]) -> str:
    return f"| {' | '.join(_cells(name, runs))} |"


def _cells(name: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    """An example's row of `results`."""
    kinds = by_kind(runs)
    run, original = kinds[".coc"], kinds["original"]
    rival = min(
        (run for run in runs if run["kind"] != "artifact" and run["precision"] == "int8"),
        key=lambda run: float(run["latency_us"]["mean"]),
    )
    if name:
        record = example(name, "history.json")[-1]
        network = record["model"].replace("resnet", "ResNet-")
        exits = len(record["thresholds"])
        label = f"CIFAR-10, {network} {record['bits']}, {exits} early exits (`examples/{name}`)"
    else:
        label = "digits, the network of `make demo`"
    return (
        label,
        f"{run['accuracy']:.2%} ({original['accuracy']:.2%})",
        *(f"{run[key]:.0f}x" for key in ("bitops_cr", "bitops_cr_uniform", "cr")),
        f"{_kilobytes(original)} to {_kilobytes(run)}",
        _microseconds(original),
        f"{_microseconds(rival)} ({rival['backend']})",
        _microseconds(kinds[".onnx"]),
        _microseconds(run),
        f"{run['bitops_cr']:.0f}x, {run['mean_speedup_over_original']:.1f}x",
    )


def _microseconds(run: dict[str, Any]) -> str:
    mean = run["latency_us"]["mean"]
    return f"{mean:,.{1 if mean < 100 else 0}f} us"


def by_kind(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The runs of a benchmark: artifacts by their suffix, ONNX Runtime's by their kind."""
    return {Path(run["artifact"]).suffix if run["kind"] == "artifact" else run["kind"]: run for run in runs}


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
    command = f"$ coc-export examples/{name}/model.pt --out model.onnx --out model.coc --data {DATA}"
    lines = [command]
    for artifact, report in (("model.onnx", "model.report.json"), ("model.coc", "model.coc.report.json")):
        lines += [f"{artifact}:", export.summary(example(name, report))]
    lines += ["wrote model.onnx and model.report.json", "wrote model.coc and model.coc.report.json"]
    lines += ["wrote model.md"]
    return _console(*lines)


def bench_output() -> str:
    runs = example(EXAMPLES[0], "bench.json")["runs"]
    peers = "--original original.onnx --int8-of pruned.onnx"
    if any(run["kind"] == "peer" for run in runs):
        peers += " --peers all"
    command = f"$ coc-bench model.onnx model.coc --data {DATA} {peers} --rounds {runs[0]['rounds']}"
    return _console(command, tables.table(runs))


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


def native() -> str:
    """Whole models on the native back end: beside ONNX Runtime as it is, and as on a CPU with AVX2 alone."""
    here, plain = (read(RESULTS / f"native_models{suffix}.json") for suffix in ("", "_avx2_only"))
    lines = [
        "| model | ONNX Runtime | native | faster | ONNX Runtime, AVX2 only | native, AVX2 | faster |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {
        "resnet20": "ResNet-20 1x8, no exits",
        "resnet8": "ResNet-8 1x8, no exits",
        "example": "the 1x8 example with its exits",
    }
    for key, name in names.items():
        cells = []
        for result, level in ((here[key], _best_level(here[key])), (plain[key], "native avx2")):
            latency = result["latency_us"]
            cells += [f"{latency[row]['mean']:.0f} us" for row in ("onnxruntime", level)]
            cells.append(f"{result['faster_than_onnxruntime'][level]:.2f}x")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    best = _best_level(here["example"])
    shown, run, sizes = here["example"], here["run_overhead"], here["session_bytes"]
    original, faster = shown["latency_us"]["original float"]["mean"], shown["faster_than_original"]
    held = plain["example"]["latency_us"]["original float"]["mean"]
    held_faster, imports = plain["example"]["faster_than_original"]["native avx2"], here["import_ms"]
    lines += [
        "",
        f"- The original, ResNet-56 in float under ONNX Runtime, takes {original:,.0f} us, mean over "
        f"{shown['rounds']:,} test images: the",
        f"  example is {faster[best]:.1f} times as fast. With both held to AVX2 the original takes",
        f"  {held:,.0f} us and the example is {held_faster:.1f} times as fast.",
        f"- A call of `Session.run` costs {run['overhead_us']:.1f} us beside the model. The example's file "
        f"({shown['file_bytes']['coc']:,} bytes)",
        f"  loads in {shown['load_ms']:.2f} ms.",
        f"- A session of ResNet-20 takes {sizes['native avx2']:,} bytes at `avx2`, {sizes[best]:,} at "
        f"`{best.removeprefix('native ')}`: weights as the kernels",
        "  read them, activations and scratch.",
        f"- `import coc_runtime` takes {imports['coc_runtime']:.0f} ms (NumPy {imports['numpy']:.0f}). "
        f"The wheel has {here['wheel_bytes']:,} bytes.",
    ]
    return "\n".join(lines)


def _best_level(result: dict[str, Any]) -> str:
    """The fastest native subject of a model."""
    ratios = result["faster_than_onnxruntime"]
    return max((name for name in ratios if name.startswith("native")), key=ratios.__getitem__)


def kernels() -> str:
    """The kernel that the planner takes for a layer against QLinearConv: MACs per cycle, and the ratio."""
    here, plain = (read(RESULTS / f"conv_kernels{suffix}.json")["runs"] for suffix in ("", "_avx2_only"))
    lines = [
        "| layer | ONNX Runtime | AVX-512 | faster | ONNX Runtime, AVX2 only | AVX2 | faster |",
        "|---|---|---|---|---|---|---|",
    ]
    for first, second in zip(here, plain, strict=True):
        assert first["layer"] == second["layer"]
        cells = []
        for run, level in ((first, None), (second, "avx2")):
            row = next(row for row in run["kernels"] if level in (None, row["level"]))
            cells += [f"{run['onnxruntime']['macs_per_cycle']:.0f}", f"{row['macs_per_cycle']:.0f}"]
            cells.append(f"{row['ratio_min']:.2f}x")
        lines.append(f"| {first['layer']} | {' | '.join(cells)} |")
    lines += ["", "Columns without x are multiply-accumulates per cycle."]
    return "\n".join(lines)


def exactness() -> str:
    """How many logits were compared on each level, and how many differ."""
    result = read(RESULTS / "exactness.json")
    lines = [
        "| data | network | weights x activations | level | images | logits | differ | exits differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cases: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in result["runs"]:
        key = (row["data"], row["network"], row["level"], str(row["images"]))
        cases.setdefault(key, []).append(row)
    for (data, network, level, images), rows in cases.items():
        compared, logits, exits = (
            sum(row[key] for row in rows) for key in ("logits", "differing_logits", "differing_exits")
        )
        lines.append(
            f"| {data} | {network} | {', '.join(row['bits'] for row in rows)} | {level} "
            f"| {int(images):,} | {compared:,} | {logits} | {exits} |"
        )
    return "\n".join(lines)


def fuzz() -> str:
    result = read(RESULTS / "fuzz.json")
    found = "something failed" if result["failed"] else "nothing was found"
    return (
        f"The last recorded run: {result['runs']:,} inputs in {result['seconds']} s, "
        f"{result['edges_covered']:,} edges covered; {found}."
    )


def embedding() -> str:
    from embedding import table

    return table(read(RESULTS / "embedding.json"))


def shared_sessions() -> str:
    from embedding import shared_table

    return shared_table(read(RESULTS / "embedding.json"))


def engines() -> str:
    """How many logits, labels and exits differ on engines that are not ours."""
    lines = [
        "| engine | network | images | file | logits | differ | by at most | labels differ | exits differ |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in read(RESULTS / "engines.json")["runs"]:
        if row["refused"] is not None:
            cells = f"refused: {row['refused']} | | | |"
        else:
            cells = (
                f"{row['logits']:,} | {row['differing_logits']:,} | {row['largest_difference']:.2g} "
                f"| {row['differing_labels']} | {row['differing_exits']} |"
            )
        name = f"{row['engine']} {row['version']}"
        lines.append(f"| {name} | {row['model']} | {row['images']:,} | {row['form']} | {cells}")
    return "\n".join(lines)


def variants_q() -> str:
    """Ways of quantization-aware training at equal epochs."""
    return _variants("variants_q.json", "float network")


def variants_p() -> str:
    """Rounding of channels, ranking and scope of pruning at equal epochs."""
    return _variants("variants_p.json", "network before")


def _variants(file: str, start: str) -> str:
    runs = read(RESULTS / file)["runs"]
    first = runs[0]
    lines = ["| variant | test accuracy | loss | MACs |", "|---|---|---|---|"]
    for run in runs:
        differs = ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in run["differs"].items())
        name = f"{run['variant']}: {differs}" if differs else run["variant"]
        loss, macs = f"{run['loss_points']:.2f} points", f"{run['macs'] / 1e6:.1f} M"
        lines.append(f"| {name} | {run['accuracy']:.2f} % | {loss} | {macs} |")
    # Half the width of a 95 % interval of a share, in points.
    share, images = first["accuracy"] / 100, first["test_images"]
    spread = 196 * (share * (1 - share) / images) ** 0.5
    epochs = f"{first['epochs']} epoch{'s' * (first['epochs'] > 1)}"
    lines += [
        "",
        f"{first['bits']}, {epochs} each; the {start} has {first['float_accuracy']:.2f} %. On {images:,}",
        f"test images one of these accuracies is certain to about {spread:.1f} points.",
    ]
    return "\n".join(lines)


EVIDENCE = {1: "pairs", 2: "insertions", 3: "pairs", 4: "rivals", 5: "repeats", 7: "rivals"}
"""What of a study's conclusions speaks of each claim of the paper."""


def _measured(study: Any, claim: int) -> bool:
    """Whether a study has anything to say of a claim; pairs are listed also where they were not compared."""
    return any(found.get("comparison", True) for found in study[EVIDENCE[claim]])


def claims() -> str:
    """What the committed studies say of each claim of the paper."""
    studies = {path.stem.removeprefix("study_"): read(path) for path in sorted(RESULTS.glob("study_*.json"))}
    verdicts = {name: {c["number"]: c for c in study["claims"]} for name, study in studies.items()}
    lines = [f"| claim of the paper | {' | '.join(studies)} |", "|---|" + "---|" * len(studies)]
    for number, claim in next(iter(verdicts.values())).items():
        cells = (
            verdicts[name][number]["status"] if _measured(study, number) else "not measured"
            for name, study in studies.items()
        )
        lines.append(f"| {claim['title']} | {' | '.join(cells)} |")
    lines.append("")
    for name, study in studies.items():
        costs = study["cost"]
        lines.append(
            f"- {name}: {costs['cases']} cases, {_seeds(study)}, "
            f"{study['images']:,} test images; {costs['stages']} stages in the tree instead of "
            f"{costs['stages_alone']:,} one by one, {costs['seconds'] / 60:.0f} minutes of training."
        )
        lines += [
            f"  - Claim {number}. {claim['evidence']}"
            for number, claim in verdicts[name].items()
            if _measured(study, number)
        ]
    return "\n".join(lines)


def _seeds(study: Any) -> str:
    count = len(study["seeds"])
    return "1 seed" if count == 1 else f"{count} seeds"


def paper_plan() -> str:
    """The end of what `coc-study all recipes/study-paper.toml --plan --workers 16` prints."""
    study = settings.load(ROOT / "recipes/study-paper.toml")
    made = plan.make(study, KINDS, None, {})
    found = list(plan.lines(made, study.images_per_s, 16))
    return "\n".join(("```", *found[: found.index("") + 1], *found[-5:], "```"))


def auto(name: str) -> str:
    """A search beside the recipe that it began with."""
    result = read(RESULTS / f"auto_{name}.json")
    rows, trials = result["compared"], result["trials"]
    states = Counter(trial["state"] for trial in trials)
    first, last = rows["by hand"], rows["found"]
    if result["asked"]["goal"] == "max-drop":
        gained = f"{last['held_out_bitops_cr'] / first['held_out_bitops_cr']:.2f} times the recipe's BitOpsCR"
    else:
        gained = f"{last['held_out_accuracy'] - first['held_out_accuracy']:+.2f} points of accuracy"
    each = sum(1 for trial in trials if trial["state"] == "done") * trials[0]["epochs"]
    # A proportion's standard error, in points.
    share, images = last["test_accuracy"] / 100, last["test_images"]
    error = 100 * (share * (1 - share) / images) ** 0.5
    return "\n".join(
        (
            f"`{result['command']}`: {len(trials)} settings, "
            + ", ".join(f"{count} {state}" for state, count in states.items())
            + f", in {result['epochs']} epochs ({result['training_seconds'] / 60:.0f} minutes of training "
            "on a busy machine);",
            f"the chains that ran to their ends would have taken {each} without shared stages.",
            "",
            comparison(rows),
            "",
            f"{gained} on the {result['held_out_images']:,} held-out images, where the original has "
            f"{result['original']['held_out_accuracy']:.2f} %. On the {images:,} test images the original "
            f"has {last['test_original_accuracy']:.2f} %;",
            f"the standard error of one of these accuracies is about {error:.1f} points.",
        )
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "results": results,
    "compress": compress_output,
    "export": export_output,
    "bench": bench_output,
    "stages": stages,
    "packed": packed,
    "demo": demo,
    "environment": environment,
    "native": native,
    "kernels": kernels,
    "exactness": exactness,
    "fuzz": fuzz,
    "embedding": embedding,
    "shared_sessions": shared_sessions,
    "engines": engines,
    "networks": blocks_networks.networks_tried,
    "network_chains": blocks_networks.network_chains,
    "post_training": blocks_networks.post_training,
    "claims": claims,
    "paper_plan": paper_plan,
    "auto_digits": partial(auto, "digits"),
    "auto_cifar10": partial(auto, "cifar10"),
    "variants_q": variants_q,
    "variants_p": variants_p,
}
