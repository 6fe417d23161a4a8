"""ONNX Runtime: runs float and int8 ONNX models as they are."""

from typing import Any

import numpy as np

from coc_runtime.environment import version
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph

from ..subjects import Subject, answers_of, first_line
from .base import Converted, Engine, Job


class OrtRunner:
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
        self.version = version("onnxruntime")

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (logits,) = self._session.run(["logits"], {"image": images})
        return answers_of(logits, self.task), np.zeros(len(images), dtype=np.int64)


def import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise CocError("ONNX Runtime is not installed: pip install 'coc-deploy[ort]'") from error
    return onnxruntime


def _convert(job: Job) -> Converted:
    """Nothing to do for float; int8 is `ort_int8.quantize_int8`, which needs labels to choose by."""
    return Converted(job.source)


ENGINE = Engine("onnxruntime", "onnxruntime", "onnxruntime", _convert, OrtRunner)
