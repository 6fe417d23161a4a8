"""One benchmark: opens artifacts and peers, measures them side by side, and makes the report."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime import files
from coc_runtime.arithmetic import Task
from coc_runtime.environment import environment
from coc_runtime.errors import CocError
from coc_runtime.session import backends_for

from . import peers
from .bench_report import SCHEMA, Measurement, describe, profile_layers, ratios
from .data import SEED, Images, held_out_split, test_split
from .exits import study
from .footprint import PROBE_IMAGES, footprint, predict, throughput
from .intervals import CONFIDENCE, RESAMPLES
from .opening import open_runner
from .peers import Peers, Wanted, Workshop
from .rounds import DRIFT_LIMIT, WARM_UP_ROUNDS, Drift, latencies, pinned
from .subjects import ArtifactRunner, Kind, Runner, Subject, display_names

PROFILED_IMAGES = 8
PROFILED_ROUNDS = 20


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    artifacts: tuple[Path, ...]
    data: str
    """what `coc_runtime.datasets.load` takes, or "random" """
    backends: tuple[str, ...]
    thresholds: tuple[float, ...] | None
    peers: Wanted
    limit: int | None
    """of test images"""
    rounds: int
    batch: int
    threads: int
    cpus: tuple[int, ...] | None
    """to run on; None leaves the process where it is"""


def run(plan: Plan) -> dict[str, Any]:
    """Measure; the report as JSON. Raises CocError for a user's mistake."""
    for path in (*plan.artifacts, *peers.sources(plan.peers)):
        files.require_regular(path, "give a model")
        if not path.exists():
            raise CocError(f"{path}: no such file")
    with pinned(plan.cpus), tempfile.TemporaryDirectory(prefix="coc-bench-") as folder:
        names = display_names([*plan.artifacts, *peers.sources(plan.peers)])
        plan = replace(plan, peers=peers.with_plain_names(plan.peers, Path(folder)))
        named = dict(zip([*plan.artifacts, *peers.sources(plan.peers)], names, strict=True))
        artifacts = _artifacts(plan, names)
        runners = [open_runner(subject) for subject in artifacts]
        peers.check(plan.peers)
        data = test_split(plan.data, plan.limit, tuple(runners[0].image_shape), runners[0].task)
        for subject, runner in zip(artifacts, runners, strict=True):
            _check_fit(subject, runner, data)
        found = _peers(plan, named, Path(folder), data)
        subjects = [*artifacts, *found.subjects]
        for subject in found.subjects:
            runner = open_runner(subject)
            _check_fit(subject, runner, data)
            runners.append(runner)
        order = np.resize(np.random.default_rng(SEED).permutation(len(data.images)), plan.rounds)
        measurements, drift = _measure(subjects, runners, data, order, plan.batch)
        runs = describe(measurements, data, order, plan.batch)
    return {
        "schema": SCHEMA,
        "environment": environment(),
        "settings": _settings(plan),
        "runs": runs,
        "ratios": ratios(measurements),
        "missing_peers": found.missing,
        "drift": asdict(drift),
    }


def _settings(plan: Plan) -> dict[str, Any]:
    return {
        "data": plan.data,
        "threads": plan.threads,
        "cpus": None if plan.cpus is None else list(plan.cpus),
        "rounds": plan.rounds,
        "warm_up_rounds": min(WARM_UP_ROUNDS, plan.rounds),
        "batch": plan.batch,
        "drift_limit": DRIFT_LIMIT,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
    }


def _artifacts(plan: Plan, names: Sequence[str]) -> list[Subject]:
    backends = _backends(plan.artifacts, plan.backends)
    return [
        Subject(name, path, Kind.ARTIFACT, backend, plan.threads, plan.thresholds)
        for name, path in zip(names, plan.artifacts, strict=False)
        for backend in backends[path]
    ]


def _peers(plan: Plan, names: dict[Path, str], folder: Path, data: Images) -> Peers:
    if not peers.sources(plan.peers):
        return Peers()
    needed = plan.peers.int8_of is not None or plan.peers.engines
    calibration = held_out_split(plan.data, data) if needed else data
    return peers.prepare(Workshop(plan.peers, names, folder, data, calibration))


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


def _check_fit(subject: Subject, runner: Runner, data: Images) -> None:
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
    if data.labels is None or classes is None:
        return
    if data.task is Task.REGRESSION:
        if classes != data.labels.shape[1]:
            raise CocError(
                f"{subject.name}: gives {classes} numbers, {data.name} has {data.labels.shape[1]} an image"
            )
    elif classes <= int(data.labels.max()):
        raise CocError(
            f"{subject.name}: has {classes} classes, {data.name} has labels up to {data.labels.max()}"
        )


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)


def _measure(
    subjects: list[Subject], runners: list[Runner], data: Images, order: np.ndarray, batch: int
) -> tuple[list[Measurement], Drift]:
    predictions = [predict(runner, data.images) for runner in runners]
    timing = latencies(runners, data.images, order)
    rates = throughput(runners, data.images, order, batch)
    studies = study(subjects, runners, data, order)
    measurements = []
    for index, (subject, runner) in enumerate(zip(subjects, runners, strict=True)):
        session = runner.session if isinstance(runner, ArtifactRunner) else None
        few = data.images[order[:PROFILED_IMAGES]]
        measurements.append(
            Measurement(
                subject=subject,
                backend=runner.backend,
                version=runner.version,
                cpu_level=runner.cpu_level,
                reason=runner.reason,
                graph=runner.graph,
                thresholds=session.info.thresholds if session else (),
                answers=predictions[index][0],
                exits=predictions[index][1],
                elapsed=timing.elapsed[index],
                images_per_s=rates[index],
                footprint=footprint(
                    replace(subject, backend=runner.backend), data.images[order[:PROBE_IMAGES]]
                ),
                exit_study=studies[index],
                layers=profile_layers(session, few, PROFILED_ROUNDS) if session else None,
            )
        )
    return measurements, timing.drift
