"""Session: opens an artifact, runs images on a backend, and stops each at its first confident exit."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from . import arithmetic, cocfile, files
from .arithmetic import Task
from .backends import Backend, Profiled, WholeBackend
from .coclayout import MAGIC
from .errors import CocError
from .graph import Graph, check_thresholds, verify

BACKENDS = ("native", "onnxruntime", "reference")


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gives for each image, in the order of the images."""

    logits: np.ndarray
    """float32 [N, classes], of the exit that the image took"""
    label: np.ndarray
    """int64 [N], the class of the largest logit; the first of equals. 0 for a regression"""
    exit: np.ndarray
    """int64 [N], 0 to exits - 1"""
    confidence: np.ndarray
    """float32 [N], maximum softmax probability at the exit taken. Of a regression: minus the largest
    difference between its outputs at the exit taken and at the exit before; -inf at exit 0"""
    bitops: np.ndarray
    """int64 [N], spent up to the exit taken, the heads evaluated on the way included"""


@dataclass(frozen=True)
class Info:
    """What a session runs, and on what."""

    input_shape: tuple[int, ...]
    """(C, H, W) of an image"""
    classes: int
    """of a regression: how many numbers it gives"""
    exits: int
    """early exits and the final one"""
    thresholds: tuple[float, ...]
    """one per early exit, as given or as stored in the file"""
    exit_bitops: tuple[int, ...]
    """BitOps of an image that leaves at each exit"""
    backend: str
    reason: str
    """why this backend"""
    cpu_level: str | None = None
    """level of kernels of the native backend, e.g. "avx2"; None for the others"""
    memory_bytes: int | None = None
    """of a session of the native backend, one for each thread that runs at once; None for the others"""
    task: Task = Task.CLASSIFICATION


@dataclass(frozen=True, eq=False)
class _Source:
    """What a session was opened from, and is opened from again where it is pickled."""

    data: bytes
    """of the file, as it was then"""
    where: str
    """the path, for errors"""
    backend: str
    """as asked for"""
    threads: int
    thresholds: tuple[float, ...] | None


class Session:
    """A model ready to run. Threads may share it: running changes nothing in it.

    `info` says what it runs, `graph` is the integer graph. Pickled, or copied, it is opened again from the
    bytes of its file, for which it chooses a back end of the process that it comes to.
    """

    info: Info
    _backend: Backend
    _source: _Source | None = None
    """None of a graph in memory"""
    _graph: Graph | None = None
    _whole: WholeBackend | None = None
    """what takes the exits itself, instead of _backend"""

    def __init__(
        self,
        path: str | Path,
        backend: str = "auto",
        threads: int = 1,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        """Open an artifact, .onnx or .coc; its first bytes tell which, not its name.

        The file is read once; what happens to it later changes nothing here.
        backend: "onnxruntime" (.onnx only), "native" (.coc only), "reference" (NumPy) or "auto": the fast
        one for the file if it is installed, else the reference; `info.reason` says why. threads: of the
        fast ones; the reference leaves this to NumPy. thresholds: one per early exit instead of the
        file's; 0 always leaves there, above 1 never. Of a regression they are tolerances: an image leaves
        where an exit and the one before differ by no more, so never at exit 0.
        Raises CocError: file missing, unreadable or damaged; unknown or missing backend; bad thresholds.
        """
        _choose_backend(backend, cocfile.is_coc(path))  # what is not installed is told whatever the file is
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise CocError(f"threads must be an integer of at least 1, {threads!r} given")
        limits = None if thresholds is None else _as_tuple(thresholds)
        self._open(_Source(files.read_artifact(path), str(path), backend, threads, limits))

    def _open(self, source: _Source) -> None:
        self._source = source
        packed = source.data.startswith(MAGIC) or source.where.endswith(".coc")
        name, reason = _choose_backend(source.backend, packed)
        if name == "native":
            self._bind_native(source, reason)
            return
        if packed:
            graph = cocfile.parse(source.data, source.where).graph
            self._bind(graph, _reference(graph), reason, source.thresholds)
            return
        from .onnxfile import parse

        file = parse(source.data, source.where)
        if name == "reference":
            self._bind(file.graph, _reference(file.graph), reason, source.thresholds)
        else:
            from .backends.ort import OrtBackend

            self._bind(file.graph, OrtBackend(file, source.threads), reason, source.thresholds)

    @classmethod
    def _reopened(cls, source: _Source) -> Self:
        session = cls.__new__(cls)
        session._open(source)
        return session

    def __reduce__(self) -> tuple[Callable[..., "Session"], tuple[Any, ...]]:
        if self._source is not None:
            return type(self)._reopened, (self._source,)
        if self._backend.name != "reference":
            raise CocError(f"a session on a given back end ({self._backend.name}) has no file to open again")
        return type(self).from_graph, (self.graph, self.info.thresholds)

    @classmethod
    def from_graph(
        cls, graph: Graph, thresholds: Sequence[float] | None = None, backend: Backend | None = None
    ) -> Self:
        """A session for a graph in memory, on the NumPy reference or a given backend; CocError if illegal."""
        verify(graph)
        session = cls.__new__(cls)
        reason = "graphs in memory run on the reference" if backend is None else "given"
        session._bind(graph, backend or _reference(graph), reason, thresholds)
        return session

    def _bind(self, graph: Graph, backend: Backend, reason: str, thresholds: Sequence[float] | None) -> None:
        values = check_thresholds(
            graph.thresholds if thresholds is None else _as_tuple(thresholds),
            len(graph.segments) - 1,
            graph.task,
        )
        self._graph = graph
        self._backend = backend
        self._thresholds = arithmetic.gate_thresholds(values, graph.task)
        self._bitops = np.array(graph.exit_bitops(), dtype=np.int64)
        self.info = Info(
            input_shape=graph.tensors[graph.input].shape,
            classes=graph.classes,
            exits=len(graph.segments),
            thresholds=values,
            exit_bitops=tuple(graph.exit_bitops()),
            backend=backend.name,
            reason=reason,
            task=graph.task,
        )

    def _bind_native(self, source: _Source, reason: str) -> None:
        from .backends.native import NativeBackend

        backend = NativeBackend(source.data, source.where, source.threads, source.thresholds)
        self._whole = backend
        self.info = Info(
            input_shape=backend.input_shape,
            classes=backend.classes,
            exits=len(backend.exit_bitops),
            thresholds=backend.thresholds,
            exit_bitops=backend.exit_bitops,
            backend=backend.name,
            reason=reason,
            cpu_level=backend.cpu,
            memory_bytes=backend.memory_bytes,
            task=backend.task,
        )

    @property
    def graph(self) -> Graph:
        """The integer graph. The native backend does not need it, so it is read from the file's bytes, which
        the session keeps, when it is first asked for."""
        if self._graph is None:
            assert self._source is not None
            self._graph = cocfile.parse(self._source.data, self._source.where).graph
        return self._graph

    def run(self, images: np.ndarray) -> Result:
        """Classify images, each up to its first confident exit.

        images: raw pixels, uint8 [N, C, H, W]; N may be 0. The result does not depend on how images
        are grouped into batches. Raises CocError for another type or shape.
        """
        images = self._checked(images)
        if self._whole is not None:
            return Result(*self._whole.run(images))
        arithmetic.check_rounding()
        if len(images) == 1 and self._backend.run_single is not None:
            logits, taken, confidence = self._backend.run_single(images, self._thresholds)
            if self.info.task is Task.CLASSIFICATION:
                confidence = arithmetic.confidence(logits)
            return self._result(logits, np.array([taken], dtype=np.int64), confidence)
        logits = np.empty((len(images), self.info.classes), np.float32)
        exits = np.empty(len(images), np.int64)
        confidence = np.empty(len(images), np.float32)
        waiting, codes = np.arange(len(images)), images
        before: np.ndarray | None = None
        for index in range(self.info.exits):
            if len(waiting) == 0:
                break
            found, carry = self._backend.run_segment(index, codes)
            score = arithmetic.exit_confidence(found, before, self.info.task)
            leave = self._leaves(index, score)
            logits[waiting[leave]] = found[leave]
            exits[waiting[leave]] = index
            confidence[waiting[leave]] = score[leave]
            waiting, before = waiting[~leave], found[~leave]
            if carry is not None:
                codes = carry[~leave]
        return self._result(logits, exits, confidence)

    def logits_per_exit(self, images: np.ndarray) -> np.ndarray:
        """Logits of every exit for every image, nothing left early: float32 [exits, N, classes].

        What choices of thresholds and parity checks look at. Takes and refuses what `run` does.
        """
        images = self._checked(images)
        if self._whole is not None:
            return self._whole.logits_per_exit(images)
        arithmetic.check_rounding()
        logits = np.empty((self.info.exits, len(images), self.info.classes), np.float32)
        codes: np.ndarray | None = images
        for index in range(self.info.exits if len(images) else 0):
            assert codes is not None
            logits[index], codes = self._backend.run_segment(index, codes)
        return logits

    def operator_times(self, images: np.ndarray, rounds: int) -> np.ndarray:
        """Where the time goes, in microseconds per image: float64 [operators + 1], see `profile.profile`.

        Raises CocError for no images, no rounds, and for the reference, whose time says nothing.
        """
        images = self._checked(images)
        backend = self._whole if self._whole is not None else self._backend
        if not isinstance(backend, Profiled):
            kinds = "native (.coc) or onnxruntime (.onnx)"
            raise CocError(f"backend {backend.name} has no profile: choose {kinds}")
        if len(images) == 0 or rounds < 1:
            given = f"{len(images)} and {rounds} given"
            raise CocError(f"a profile needs at least 1 image and 1 round: {given}")
        return backend.operator_times(images, rounds)

    def _leaves(self, index: int, score: np.ndarray) -> np.ndarray:
        """Which images leave at an exit, bool [N]; at the last, all."""
        if index == self.info.exits - 1:
            return np.ones(len(score), dtype=bool)
        return arithmetic.leaves(score, self._thresholds[index], self.info.task)

    def _result(self, logits: np.ndarray, exits: np.ndarray, confidence: np.ndarray) -> Result:
        classified = self.info.task is Task.CLASSIFICATION
        return Result(
            logits=logits,
            label=logits.argmax(axis=1).astype(np.int64) if classified else np.zeros(len(logits), np.int64),
            exit=exits,
            confidence=confidence,
            bitops=self._bitops[exits],
        )

    def _checked(self, images: np.ndarray) -> np.ndarray:
        """The images as a plain array, whatever class of array they came in; CocError if they do not fit.

        Classes of arrays compute in ways of their own: only plain ones mean the same to all back ends.
        """
        if type(images) is np.ndarray and images.dtype == np.uint8 and images.ndim == 4:  # noqa: SIM102
            if images.shape[1:] == self.info.input_shape:
                return images  # before the words of an error are made: calls take microseconds
        expected = f"expected uint8 [N, {', '.join(map(str, self.info.input_shape))}]"
        if not isinstance(images, np.ndarray):
            raise CocError(f"images are a {type(images).__name__}, not a NumPy array: {expected}")
        if isinstance(images, np.ma.MaskedArray):
            raise CocError(
                f"images are a masked array, but no pixel can be left out: {expected}; see filled()"
            )
        if images.dtype != np.uint8:
            raise CocError(f"images are {images.dtype}: {expected}, raw pixels 0 to 255")
        if images.ndim != 4 or images.shape[1:] != self.info.input_shape:
            raise CocError(f"images have shape {list(images.shape)}: {expected}")
        return np.asarray(images)


def backends_for(path: str | Path) -> tuple[str, ...]:
    """What `Session` takes as backend for a file, by its first bytes, whether it is installed or not."""
    return ("auto", "native" if cocfile.is_coc(path) else "onnxruntime", "reference")


def _choose_backend(name: str, packed: bool = False) -> tuple[str, str]:
    """(backend, why) for what the user asked for; packed: for a .coc file, else for .onnx."""
    if name not in ("auto", *BACKENDS):
        raise CocError(f"unknown backend {name!r}: choose one of auto, {', '.join(BACKENDS)}")
    if name == "reference":
        return name, "asked for"
    return _choose_for_coc(name) if packed else _choose_for_onnx(name)


def _choose_for_coc(name: str) -> tuple[str, str]:
    if name == "onnxruntime":
        raise CocError(
            f"backend {name} runs .onnx files only: choose native or reference, or export the model as .onnx"
        )
    from .backends.native import why_missing

    missing = why_missing()
    if missing is None:
        return "native", "asked for" if name == "native" else "the fastest for .coc files"
    if name == "auto":
        return "reference", missing
    raise CocError(f"backend native: {missing}")


def _choose_for_onnx(name: str) -> tuple[str, str]:
    if name == "native":
        raise CocError(
            "backend native runs .coc files only: choose onnxruntime or reference, or export it as .coc"
        )
    try:
        importlib.import_module("onnxruntime")
    except ImportError as error:
        if name == "auto":
            return "reference", f"onnxruntime cannot be imported ({error}): pip install 'coc-deploy[ort]'"
        message = f"backend onnxruntime cannot be imported ({error}): pip install 'coc-deploy[ort]'"
        raise CocError(message) from error
    return "onnxruntime", "asked for" if name == "onnxruntime" else "the fastest that is installed"


def _reference(graph: Graph) -> Backend:
    from .backends.reference import ReferenceBackend

    return ReferenceBackend(graph)


def _as_tuple(thresholds: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in thresholds)
    except (TypeError, ValueError, OverflowError) as error:
        raise CocError(f"thresholds must be a list of numbers, {thresholds!r} given") from error
