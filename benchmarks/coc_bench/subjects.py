"""What is measured: an artifact on a backend, or a peer model in plain ONNX Runtime."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from coc_runtime.session import Session


class Kind(enum.Enum):
    ARTIFACT = "artifact"
    """A compressed model, run by coc_runtime."""
    ORIGINAL = "original"
    """The float model as an ONNX file, run by ONNX Runtime."""
    INT8 = "int8"
    """A float model after ONNX Runtime's own static quantization."""


@dataclass(frozen=True)
class Subject:
    """One row of the report. `path` is the file that is loaded; `name` is what the report calls it."""

    name: str
    path: Path
    kind: Kind
    backend: str
    threads: int
    thresholds: tuple[float, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """How a peer was made, for the report."""
    task: Task = Task.CLASSIFICATION
    """What a peer gives; artifacts say it themselves."""


class Runner(Protocol):
    """A loaded subject."""

    image_shape: tuple[int, ...]
    """(C, H, W)"""
    backend: str
    """The backend's name, never "auto"."""
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
        self._session = Session(
            str(subject.path),
            backend=subject.backend,
            threads=subject.threads,
            thresholds=subject.thresholds,
        )
        info = self._session.info
        self.image_shape = info.input_shape
        self.backend, self.cpu_level, self.reason = info.backend, info.cpu_level, info.reason
        self.task = info.task

    @property
    def graph(self) -> Graph:
        """Read when it is asked for: a native session runs without."""
        return self._session.graph

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = self._session.run(images)
        return result.label if self.task is Task.CLASSIFICATION else result.logits, result.exit


class PlainRunner:
    """A model with input `image` (uint8 [N, C, H, W]) and output `logits` in an ONNX Runtime session."""

    graph: Graph | None = None
    backend = "onnxruntime"
    cpu_level: str | None = None
    reason = "peers run in ONNX Runtime"

    def __init__(self, subject: Subject) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = subject.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        if not subject.path.is_file():
            raise CocError(f"{subject.path}: no such file")
        try:
            self._session = ort.InferenceSession(
                str(subject.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this one.
            raise CocError(f"{subject.path}: ONNX Runtime cannot load it: {first_line(error)}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].name != "image" or inputs[0].type != "tensor(uint8)":
            raise CocError(f"{subject.path}: its only input must be `image`, uint8 [N, C, H, W]")
        if "logits" not in [output.name for output in self._session.get_outputs()]:
            raise CocError(f"{subject.path}: it has no output `logits`")
        self.image_shape = tuple(inputs[0].shape[1:])
        self.task = subject.task

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (logits,) = self._session.run(["logits"], {"image": images})
        answers = logits.argmax(axis=1) if self.task is Task.CLASSIFICATION else logits
        return answers, np.zeros(len(images), dtype=np.int64)


def open_runner(subject: Subject) -> Runner:
    """Load a subject; raises CocError where that fails."""
    return ArtifactRunner(subject) if subject.kind is Kind.ARTIFACT else PlainRunner(subject)


def import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise CocError("ONNX Runtime is not installed: pip install 'coc-deploy[ort]'") from error
    return onnxruntime


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
        names.append(str(Path(*path.parts[-length:])))
    return names
