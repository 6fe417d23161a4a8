"""ONNX Runtime: the one file for single images, a session per segment for batches."""

import threading
from typing import Any

import numpy as np

from ..arithmetic import Task
from ..errors import CocError
from ..onnxfile import INPUT, OUTPUT_CARRY, OUTPUT_LOGITS, OnnxFile
from . import ortprofile

QUIET = 4
"""Log only what is fatal; what matters arrives as an exception. (enable_fallback=0 keeps onnxruntime from
printing errors before it raises them.)"""

NEVER = {Task.CLASSIFICATION: 2.0, Task.REGRESSION: -1.0}
"""A threshold of the one file at which no image leaves."""


def why_missing() -> str | None:
    """Why ONNX Runtime cannot be used here; None if it can."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error}): pip install 'coc-deploy[ort]'"
    return None


class OrtBackend:
    """A `Backend` on onnxruntime; sessions are created when first needed, once, also under threads."""

    name = "onnxruntime"

    def __init__(self, file: OnnxFile, threads: int = 1, *, optimize: bool = True) -> None:
        """threads: of one operator. optimize=False turns off all graph optimizations (parity checks).

        Raises CocError if onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            message = f"onnxruntime cannot be imported ({error}): pip install 'coc-deploy[ort]'"
            raise CocError(message) from None
        self._ort: Any = onnxruntime
        self._file = file
        self._threads = threads
        self._optimize = optimize
        self._lock = threading.Lock()
        self._sessions: dict[int | None, Any] = {}

    def run_segment(self, index: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Backend.run_segment`."""
        last = index == len(self._file.graph.segments) - 1
        outputs = [OUTPUT_LOGITS] if last else [OUTPUT_LOGITS, OUTPUT_CARRY]
        results = self._run(index, outputs, {INPUT: np.ascontiguousarray(codes)})
        logits, carry = results[0], None if last else results[1]
        self._check_logits(logits, len(codes))
        if carry is not None:
            name = self._file.graph.segments[index].carry
            assert name is not None
            shape = (len(codes), *self._file.graph.tensors[name].shape)
            if carry.shape != shape or carry.dtype != np.uint8:
                raise CocError(f"segment {index} of the file gives {carry.shape}, its manifest says {shape}")
        return logits, carry

    def run_single(self, images: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
        """One image, uint8 [1, C, H, W], to its exit in one call: see `SingleRun`."""
        feeds = {"image": np.ascontiguousarray(images)}
        if self._file.graph.thresholds:
            feeds["thresholds"] = np.asarray(thresholds, dtype=np.float32)
        logits, taken, confidence = self._run(None, ["logits", "exit", "confidence"], feeds)
        self._check_logits(logits, 1)
        if taken.shape != (1,) or not 0 <= taken[0] < len(self._file.graph.segments):
            raise CocError("the file takes an exit that its manifest does not have: export it again")
        if confidence.shape != (1,) or confidence.dtype != np.float32:
            raise CocError("the file gives no confidence for an image: export it again")
        return logits, int(taken[0]), confidence

    def _run(self, key: int | None, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        session = self._session(key)
        try:
            results: list[np.ndarray] = session.run(outputs, feeds)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise CocError(f"onnxruntime failed to run the model: {_first_line(error)}") from error
        return results

    def _check_logits(self, logits: np.ndarray, count: int) -> None:
        """A file whose operators contradict its manifest must not lead to another error later."""
        shape = (count, self._file.graph.classes)
        if logits.shape != shape or logits.dtype != np.float32:
            raise CocError(
                f"the file gives logits {logits.shape}, its manifest says {shape}: export it again"
            )

    def _session(self, key: int | None) -> Any:
        """Session of segment `key`, or of the one file for None."""
        with self._lock:
            if key not in self._sessions:
                data = self._file.data if key is None else self._file.segment_model(key)
                self._sessions[key] = self._create(data)
            return self._sessions[key]

    def operator_times(self, images: np.ndarray, rounds: int) -> np.ndarray:
        """See `Profiled.operator_times`, and `ortprofile` for what ONNX Runtime's profile can say."""
        graph, data = self._file.graph, self._file.data
        never = np.full(len(graph.thresholds), NEVER[graph.task], np.float32)
        feeds = [{"image": image[None]} for image in np.ascontiguousarray(images)]
        for feed in feeds if graph.thresholds else ():
            feed["thresholds"] = never
        try:
            return ortprofile.operator_times(graph, feeds * rounds, lambda file: self._create(data, file))
        except OSError as error:
            raise CocError(f"onnxruntime's profile cannot be kept in a temporary file: {error}") from None

    def _create(self, data: bytes, profile: str | None = None) -> Any:
        """A session; profile: begin of the name of the file to which it writes its profile."""
        options = self._ort.SessionOptions()
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        if not self._optimize:
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return self._ort.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise CocError(f"onnxruntime refuses the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
