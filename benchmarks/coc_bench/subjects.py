"""What is measured: an artifact on a back end, or a peer model on an engine."""

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import coc_runtime
from coc_runtime.arithmetic import Task
from coc_runtime.graph import Graph
from coc_runtime.session import Session
from coc_runtime.text import one_line


class Kind(enum.Enum):
    ARTIFACT = "artifact"
    """A compressed model, run by coc_runtime."""
    ORIGINAL = "original"
    """The float model as an ONNX file, run by ONNX Runtime."""
    INT8 = "int8"
    """A float model after ONNX Runtime's own static quantization."""
    PEER = "peer"
    """A float model that another engine converted, or quantized, and runs."""


class Precision(enum.Enum):
    """The number type of a peer's weights and activations."""

    FLOAT = "float"
    INT8 = "int8"


@dataclass(frozen=True)
class Subject:
    """One row of the report. `path` is the file that is loaded; `name` is what the report calls it."""

    name: str
    path: Path
    kind: Kind
    backend: str
    """a back end of coc_runtime, or a peer's engine"""
    threads: int
    thresholds: tuple[float, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """How a peer was made, for the report."""
    task: Task = Task.CLASSIFICATION
    """What a peer gives; artifacts say it themselves."""
    precision: Precision | None = None
    """the number type of a peer; None of an artifact"""
    image_shape: tuple[int, ...] = ()
    """(C, H, W), of a converted peer: its engine needs them before the first image."""

    @property
    def file_bytes(self) -> int:
        """The size of all its files: some engines keep weights beside the model, under the same stem."""
        if self.kind is not Kind.PEER:
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.stem}.*"))

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes, for another process."""
        precision = self.precision.value if self.precision else None
        plain = {"path": str(self.path), "kind": self.kind.value, "task": self.task.value}
        return asdict(self) | plain | {"precision": precision}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Subject":
        thresholds, precision = record["thresholds"], record["precision"]
        return cls(
            **record
            | {
                "path": Path(record["path"]),
                "kind": Kind(record["kind"]),
                "task": Task(record["task"]),
                "thresholds": None if thresholds is None else tuple(thresholds),
                "precision": Precision(precision) if precision else None,
                "image_shape": tuple(record["image_shape"]),
            }
        )


class Runner(Protocol):
    """A loaded subject."""

    image_shape: tuple[int, ...]
    """(C, H, W)"""
    backend: str
    """The name of the back end or engine, never "auto"."""
    version: str | None
    """the version of the library that runs it"""
    cpu_level: str | None
    """The native backend's level of kernels."""
    reason: str
    """Why this backend."""
    task: Task

    @property
    def graph(self) -> Graph | None:
        """The integer graph, where the subject has one."""
        ...

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers and exits taken, int64 [N], of uint8 images [N, C, H, W].

        Answers: classes, int64 [N], or the numbers of a regression, float32 [N, outputs].
        """
        ...


class ArtifactRunner:
    def __init__(self, subject: Subject) -> None:
        self.session = Session(
            str(subject.path),
            backend=subject.backend,
            threads=subject.threads,
            thresholds=subject.thresholds,
        )
        info = self.session.info
        self.image_shape = info.input_shape
        self.backend, self.cpu_level, self.reason = info.backend, info.cpu_level, info.reason
        self.task = info.task
        self.version: str | None = coc_runtime.__version__

    @property
    def graph(self) -> Graph:
        """Read when it is asked for: a native session runs without."""
        return self.session.graph

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = self.session.run(images)
        return result.label if self.task is Task.CLASSIFICATION else result.logits, result.exit


def answers_of(logits: np.ndarray, task: Task) -> np.ndarray:
    """`Runner.run`'s answers for logits [N, classes]."""
    return logits.argmax(axis=1) if task is Task.CLASSIFICATION else logits


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def display_names(paths: Sequence[Path]) -> list[str]:
    """The shortest trailing part of each path that tells different files apart."""
    resolved = [path.resolve() for path in paths]
    names = []
    for path in resolved:
        others = {other for other in resolved if other != path}
        length = 1
        while any(other.parts[-length:] == path.parts[-length:] for other in others):
            length += 1
        names.append(one_line(str(Path(*path.parts[-length:]))))
    return names
