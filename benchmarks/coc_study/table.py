"""What a study measured, read from DIR/study.sqlite, and checked before anything is concluded from it."""

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime.errors import CocError

NAME = "study.sqlite"
ACCURACY_SLACK = 0.01
"""Points by which a row's accuracy may differ from its answers: the rounding of a float."""
RATIO_SLACK = 1e-3
"""The same of BitOpsCR, relative."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One operating point of one case: a trained chain at one set of thresholds."""

    kind: str
    """pairs, insert, sequences or repeat"""
    group: str
    """cases that are compared with each other: "DP", "PQ+D", "sequences", "DPQE+D" """
    chain: str
    case: str
    setting: str
    """hyper-parameters as JSON; cases of the same setting differ only in the order"""
    seed: int
    thresholds: str
    accuracy: float
    """percent, on the test images"""
    original_accuracy: float
    bitops_cr: float
    bitops_cr_uniform: float | None
    cr: float
    correct: np.ndarray
    """bool [images]"""
    exits: np.ndarray
    """uint8 [images], taken"""
    exit_bitops: np.ndarray
    """float64 [exits], of an image that leaves there"""
    original_bitops: float
    epochs: int
    """trained in all of the chain, the original included"""
    data: str
    original_correct: np.ndarray | None = None
    """bool [images], of the original, where the study kept its answers"""

    @property
    def loss(self) -> float:
        """Percentage points below the original; negative where the chain is better."""
        return self.original_accuracy - self.accuracy


@dataclass(frozen=True)
class Table:
    """Everything in the table file."""

    samples: tuple[Sample, ...]
    stages: tuple[dict[str, Any], ...]
    failures: tuple[dict[str, Any], ...]
    meta: dict[str, str]

    @cached_property
    def parents(self) -> dict[str, str | None]:
        """The stage before each stage, by their keys."""
        return {str(stage.get("key")): stage.get("parent") for stage in self.stages}

    def of(self, kind: str, group: str | None = None) -> tuple[Sample, ...]:
        """Samples of a kind, or of one of its groups, in the file's order."""
        return tuple(s for s in self.samples if s.kind == kind and group in (None, s.group))

    def groups(self, kind: str) -> tuple[str, ...]:
        """Names of a kind's groups, in the file's order."""
        return unique(s.group for s in self.of(kind))


def unique(values: Iterable[Any]) -> tuple[Any, ...]:
    """Each value once, in order of first appearance."""
    return tuple(dict.fromkeys(values))


def chains(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Chains of some samples, in the file's order."""
    return unique(s.chain for s in samples)


def read(path: Path) -> Table:
    """A study's table file; CocError if it is missing, is something else, or contradicts itself."""
    if not path.is_file():
        raise CocError(f"{path}: no such file: run coc-study first, or give the folder it wrote to")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            base.row_factory = sqlite3.Row
            rows = [dict(row) for row in base.execute("SELECT * FROM samples")]
            stages, failures = (_optional(base, table) for table in ("stages", "failures"))
            meta = {str(row["key"]): str(row["value"]) for row in _optional(base, "meta")}
    except sqlite3.Error as error:
        raise CocError(f"{path}: not a study's table file ({error}): run coc-study again") from None
    samples = tuple(_sample(path, number, row) for number, row in enumerate(rows, start=1))
    _check_images(path, samples)
    samples = _with_originals(samples)
    return Table(samples, tuple(stages), tuple(failures), meta)


def _optional(base: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    """Rows of a table that a study may lack, without their binary columns."""
    known = {row["name"] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if table not in known:
        return []
    rows = base.execute(f"SELECT * FROM {table}").fetchall()
    return [{key: row[key] for key in row.keys() if not isinstance(row[key], bytes)} for row in rows]  # noqa: SIM118


def _sample(path: Path, number: int, row: dict[str, Any]) -> Sample:
    def wrong(reason: str) -> CocError:
        return CocError(
            f"{path}: sample {number} ({row.get('chain')}, {row.get('case_id')}): {reason}: "
            f"run coc-study again"
        )

    try:
        images = int(row["images"])
        correct = np.unpackbits(np.frombuffer(row["correct"], np.uint8), count=images).astype(bool)
        exits = np.frombuffer(row["exits"], np.uint8)
        costs = np.array(json.loads(row["exit_bitops"]), np.float64)
        uniform = row["bitops_cr_uniform"]
        sample = Sample(
            row["kind"],
            row["grp"],
            row["chain"],
            str(row["case_id"]),
            _canonical(row["setting"]),
            int(row["seed"]),
            str(row["thresholds"] or "[]"),
            float(row["accuracy"]),
            float(row["original_accuracy"]),
            float(row["bitops_cr"]),
            None if uniform is None else float(uniform),
            float(row["cr"]),
            correct,
            exits,
            costs,
            float(row["original_bitops"]),
            int(row["epochs"] or 0),
            str(row["data"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise wrong(f"cannot be read ({error!r})") from None
    _check(sample, images, wrong)
    return sample


def _canonical(setting: str) -> str:
    """The same text for the same hyper-parameters, however their JSON was written."""
    return json.dumps(json.loads(setting), sort_keys=True)


def _check(sample: Sample, images: int, wrong: Callable[[str], CocError]) -> None:
    if images < 1 or len(sample.correct) != images or len(sample.exits) != images:
        raise wrong(f"answers of {len(sample.exits)} images where {images} were tested")
    if sample.exits.max() >= len(sample.exit_bitops):
        raise wrong(f"an image left at exit {sample.exits.max()} of {len(sample.exit_bitops)}")
    found = 100 * float(sample.correct.mean())
    if abs(found - sample.accuracy) > ACCURACY_SLACK:
        raise wrong(f"accuracy {sample.accuracy:.2f} %, but {found:.2f} % of its answers are right")
    if not (np.isfinite(sample.exit_bitops).all() and sample.exit_bitops.min() > 0):
        raise wrong("BitOps of an exit that are not positive")
    ratio = sample.original_bitops / float(sample.exit_bitops[sample.exits].mean())
    if not abs(ratio / sample.bitops_cr - 1) < RATIO_SLACK:
        raise wrong(f"BitOpsCR {sample.bitops_cr:.2f}, but its exits come to {ratio:.2f}")


def _with_originals(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples of chains, each with the answers of its original: a sample of its seed whose chain is empty
    and whose accuracy is the one that the chain began with."""
    originals = [s for s in samples if not s.chain]
    return tuple(
        dataclasses.replace(sample, original_correct=_answers(sample, originals))
        for sample in samples
        if sample.chain
    )


def _answers(sample: Sample, originals: Sequence[Sample]) -> np.ndarray | None:
    own = (o.correct for o in originals if o.seed == sample.seed and _equal(o.accuracy, sample))
    return next(own, None)


def _equal(accuracy: float, sample: Sample) -> bool:
    return abs(accuracy - sample.original_accuracy) <= ACCURACY_SLACK


def _check_images(path: Path, samples: tuple[Sample, ...]) -> None:
    """Cases are compared image by image: all must have seen the same test images."""
    seen = {(s.data, len(s.correct)) for s in samples}
    if len(seen) > 1:
        listed = ", ".join(f"{count} images of {data}" for data, count in sorted(seen))
        raise CocError(f"{path}: holds samples of different test sets ({listed}): use one folder for each")
