"""OpenVINO: the float model as its IR, int8 by NNCF's post-training quantization."""

import os
from typing import Any

import numpy as np

from coc_runtime.environment import cpu_flags
from coc_runtime.errors import CocError

from ..subjects import Precision, Subject, first_line
from .base import Converted, Engine, Job, PeerRunner

PROPERTIES = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": "1",
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
}
"""coc-bench pins the process itself; f32 is what bfloat16 would otherwise stand in for on some CPUs."""


class OpenVinoRunner(PeerRunner):
    """Compiled for each number of images that it meets: a fixed shape is its fastest."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "openvino")
        import openvino

        self._core = openvino.Core()
        self._properties = PROPERTIES | {"INFERENCE_NUM_THREADS": subject.threads}
        self._requests: dict[int, Any] = {}
        try:
            self._model = self._core.read_model(str(subject.path))
            self._requests[1] = self._compile(1)
        except Exception as error:  # OpenVINO raises RuntimeError, and what its bindings raise.
            raise CocError(f"{subject.name}: OpenVINO cannot load it: {first_line(error)}") from error

    def _compile(self, count: int) -> Any:
        self._model.reshape([count, *self.image_shape])
        return self._core.compile_model(self._model, "CPU", self._properties).create_infer_request()

    def _logits(self, images: np.ndarray) -> np.ndarray:
        request = self._requests.get(len(images))
        if request is None:
            request = self._requests[len(images)] = self._compile(len(images))
        result = request.infer([np.ascontiguousarray(images)], share_inputs=True, share_outputs=True)
        logits: np.ndarray = result[0]
        return logits.copy() if len(images) > 1 else logits


def _convert(job: Job) -> Converted:
    import openvino

    target = job.folder / "model.xml"
    settings: dict[str, Any] = {
        "performance_hint": PROPERTIES["PERFORMANCE_HINT"],
        "float_type": PROPERTIES["INFERENCE_PRECISION_HINT"],
    }
    model = openvino.Core().read_model(str(job.source))
    if job.precision is Precision.INT8:
        fix = "first_layer_only" if dot_products() else "enable"
        model = _quantize(model, job, fix)
        settings |= {"quantizer": "nncf", "preset": "MIXED", "overflow_fix": fix}
        settings["calibration_images"] = len(job.calibration)
    openvino.save_model(model, str(target), compress_to_fp16=False)
    return Converted(target, settings)


def dot_products() -> bool:
    """Whether OpenVINO has instructions that add four products of bytes without saturating.

    Where it has none, its int8 sums of two products stop at 16 bits, and weights need half of their range.
    The variable that limits oneDNN limits OpenVINO, too.
    """
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not any(part in most for part in ("ALL", "DEFAULT", "VNNI", "AMX", "AVX512_CORE_", "AVX10")):
        return False
    return not {"avx512_vnni", "avx_vnni", "asimd"}.isdisjoint(cpu_flags())


def _quantize(model: Any, job: Job, overflow_fix: str) -> Any:
    try:
        import nncf
        from nncf.quantization import advanced_parameters as advanced
    except ImportError as error:
        raise CocError("the package nncf is not installed: pip install nncf") from error
    images = nncf.Dataset([image[None] for image in job.calibration])
    return nncf.quantize(
        model,
        images,
        subset_size=len(job.calibration),
        preset=nncf.QuantizationPreset.MIXED,
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            overflow_fix=advanced.OverflowFix(overflow_fix)
        ),
    )


ENGINE = Engine("openvino", "openvino", "openvino", _convert, OpenVinoRunner)
