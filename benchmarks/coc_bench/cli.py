"""coc-bench: quality, latency, cost and size of artifacts and their peers, measured on this machine."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from coc_runtime import datasets, files
from coc_runtime.arithmetic import Task
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError
from coc_runtime.session import backends_for

from .environment import environment
from .measure import PROBE_IMAGES, footprint, latencies, predict, throughput
from .peers import quantize_int8
from .report import SCHEMA, Measurement, describe, table
from .subjects import Kind, Runner, Subject, display_names, open_runner

SEED = 0
"""Of the choice of images; the same for every artifact and every run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 for a user's mistake, which is told in one line."""
    options = _parser().parse_args(arguments)
    try:
        _bench(options)
    except CocError as error:
        print(f"coc-bench: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coc-bench", description=__doc__)
    parser.add_argument(
        "artifacts", nargs="+", type=Path, metavar="MODEL", help="compressed models, .onnx or .coc"
    )
    parser.add_argument(
        "--data", required=True, metavar="SPEC", help="digits, cifar10[:PATH] or imagefolder:PATH"
    )
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="of the back ends; default: 1"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the report here")
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="auto (default), native (runs .coc), onnxruntime (runs .onnx) or reference; repeat to compare "
        "several, each on the artifacts that it runs",
    )
    parser.add_argument(
        "--original", type=Path, metavar="FLOAT.onnx", help="the float model, timed beside the artifacts"
    )
    parser.add_argument(
        "--int8-of",
        type=Path,
        metavar="FLOAT.onnx",
        help="a float model that ONNX Runtime quantizes to int8 here, timed beside the artifacts",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="use N images of the test split")
    parser.add_argument(
        "--rounds", type=_positive, default=300, metavar="R", help="timed runs at batch 1; default: 300"
    )
    parser.add_argument(
        "--batch", type=_positive, default=64, metavar="B", help="images a call for images/s; default: 64"
    )
    parser.add_argument(
        "--thresholds", type=_thresholds, metavar="A,B", help="of the early exits, instead of the files' own"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _thresholds(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0.9,0.8") from error


def _bench(options: argparse.Namespace) -> None:
    for path in (*options.artifacts, options.original, options.int8_of):
        if path is not None and not path.is_file():
            raise CocError(f"{path}: no such file")
    data = _test_split(options.data, options.limit)
    with tempfile.TemporaryDirectory(prefix="coc-bench-") as folder:
        subjects = _subjects(options, Path(folder), data.task)
        runners = [open_runner(subject) for subject in subjects]
        for subject, runner in zip(subjects, runners, strict=True):
            _check_fit(subject, runner, data)
        order = np.resize(np.random.default_rng(SEED).permutation(len(data.images)), options.rounds)
        measurements = _measure(subjects, runners, data, order, options.batch)
        runs = describe(measurements, data, order, options.batch)
    machine = environment()
    print(f"{machine['cpu']} ({' '.join(machine['flags'])}), {options.threads} thread(s)", end=", ")
    print(f"{len(data.images)} images of {data.name}, {options.rounds} rounds at batch 1\n")
    print(table(runs))
    if options.json is not None:
        files.make_folder(options.json.parent)
        files.write_json(options.json, {"schema": SCHEMA, "environment": machine, "runs": runs})


def _test_split(spec: str, limit: int | None) -> Dataset:
    """The test split, or `limit` images drawn from it (files may be sorted by class)."""
    data = datasets.load(spec, "test")
    if limit is None or limit >= len(data.images):
        return data
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(data.images))[:limit])
    return Dataset(data.name, data.images[chosen], data.labels[chosen], data.classes)


def _subjects(options: argparse.Namespace, folder: Path, task: Task) -> list[Subject]:
    peers = [path for path in (options.original, options.int8_of) if path is not None]
    names = display_names([*options.artifacts, *peers])
    backends = _backends(options.artifacts, options.backend or ["auto"])
    subjects = [
        Subject(name, path, Kind.ARTIFACT, backend, options.threads, options.thresholds)
        for name, path in zip(names, options.artifacts, strict=False)
        for backend in backends[path]
    ]
    named = dict(zip(peers, names[len(options.artifacts) :], strict=True))
    for path in peers:
        subject = Subject(named[path], path, Kind.ORIGINAL, "onnxruntime", options.threads, task=task)
        if path is options.int8_of:
            subject = quantize_int8(subject, folder, datasets.load(options.data, "calibration"))
        subjects.append(subject)
    return subjects


def _backends(artifacts: Sequence[Path], asked: Sequence[str]) -> dict[Path, list[str]]:
    """The back ends asked for that run each artifact; CocError for one, or an artifact, that is left out."""
    possible = {path: backends_for(path) for path in artifacts}
    chosen = {path: [name for name in dict.fromkeys(asked) if name in possible[path]] for path in artifacts}
    for name in asked:
        if not any(name in names for names in chosen.values()):
            choice = ", ".join(dict.fromkeys(name for names in possible.values() for name in names))
            raise CocError(f"--backend {name} runs none of the artifacts: choose one of {choice}")
    for path, names in chosen.items():
        if not names:
            given = " ".join(f"--backend {name}" for name in asked)
            raise CocError(f"{path}: {given} does not run it: add one of {', '.join(possible[path])}")
    return chosen


def _check_fit(subject: Subject, runner: Runner, data: Dataset) -> None:
    shape = tuple(data.images.shape[1:])
    if tuple(runner.image_shape) != shape:
        wanted, given = _size(runner.image_shape), _size(shape)
        raise CocError(f"{subject.name}: takes images of {wanted}, those of {data.name} are {given}")
    classes = runner.graph.classes if runner.graph else None
    if runner.task is not data.task:
        numbers = data.task is Task.REGRESSION
        held, given = ("numbers", "classes") if numbers else ("classes", "numbers")
        example = "digits" if numbers else "rotated-digits"
        raise CocError(
            f"{subject.name}: gives {given}, but the labels of {data.name} are {held}: name the data that it "
            f"was made for, e.g. --data {example}"
        )
    if data.task is Task.REGRESSION:
        if classes not in (None, data.labels.shape[1]):
            raise CocError(
                f"{subject.name}: gives {classes} numbers, {data.name} has {data.labels.shape[1]} an image"
            )
    elif classes is not None and classes <= int(data.labels.max()):
        raise CocError(
            f"{subject.name}: has {classes} classes, {data.name} has labels up to {data.labels.max()}"
        )


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)


def _measure(
    subjects: list[Subject], runners: list[Runner], data: Dataset, order: np.ndarray, batch: int
) -> list[Measurement]:
    predictions = [predict(runner, data.images, batch) for runner in runners]
    elapsed = latencies(runners, data.images, order)
    rates = throughput(runners, data.images, order, batch)
    return [
        Measurement(
            subject=subject,
            backend=runner.backend,
            cpu_level=runner.cpu_level,
            reason=runner.reason,
            graph=runner.graph,
            answers=answers,
            exits=exits,
            elapsed=row,
            images_per_s=rate,
            footprint=footprint(replace(subject, backend=runner.backend), data.images[order[:PROBE_IMAGES]]),
        )
        for subject, runner, (answers, exits), row, rate in zip(
            subjects, runners, predictions, elapsed, rates, strict=True
        )
    ]
