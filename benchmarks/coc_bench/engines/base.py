"""What an engine is to coc-bench: a converter of float ONNX models and a runner of what came out."""

import ctypes
import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime.environment import version
from coc_runtime.graph import Graph

from ..subjects import Precision, Runner, Subject, answers_of


@dataclass(frozen=True, eq=False)
class Job:
    """One conversion of a float ONNX model: `image` (uint8 [N, C, H, W]) to `logits`."""

    source: Path
    precision: Precision
    folder: Path
    """where the result goes; empty"""
    calibration: np.ndarray
    """uint8 [N, C, H, W], from the calibration split"""


@dataclass(frozen=True)
class Converted:
    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    """how it was made and runs, for the report"""


@dataclass(frozen=True)
class Engine:
    """A library that runs peers."""

    name: str
    module: str
    """what is imported"""
    package: str
    """what pip installs"""
    convert: Callable[[Job], Converted]
    """runs in a process of its own: converters print, and some crash; raises CocError"""
    open: Callable[[Subject], Runner]
    """raises CocError"""

    @property
    def version(self) -> str | None:
        """None where it is not installed."""
        return version(self.package)

    def why_missing(self) -> str | None:
        """Why it cannot run here; None where it can."""
        if importlib.util.find_spec(self.module) is None:
            return f"the package {self.package} is not installed: pip install {self.package}"
        return None


class PeerRunner(ABC):
    """What runners of converted peers share; a subclass gives `_logits`."""

    graph: Graph | None = None
    cpu_level: str | None = None

    def __init__(self, subject: Subject, package: str) -> None:
        self.image_shape = subject.image_shape
        self.task = subject.task
        self.backend = subject.backend
        self.version = version(package)
        self.reason = "asked for as a peer"

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return answers_of(self._logits(images), self.task), np.zeros(len(images), dtype=np.int64)

    @abstractmethod
    def _logits(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, classes] of uint8 images [N, C, H, W]."""


@contextmanager
def silent() -> Iterator[None]:
    """Without what C code prints on stdout, also what its buffer would print later; POSIX only."""
    if os.name != "posix":
        yield
        return
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
