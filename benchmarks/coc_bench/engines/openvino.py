"""OpenVINO: the float model as its IR, int8 by NNCF's post-training quantization."""

from typing import Any

import numpy as np

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
        model = _quantize(model, job)
        settings |= {"quantizer": "nncf", "preset": "MIXED", "calibration_images": len(job.calibration)}
    openvino.save_model(model, str(target), compress_to_fp16=False)
    return Converted(target, settings)


def _quantize(model: Any, job: Job) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise CocError("the package nncf is not installed: pip install nncf") from error
    images = nncf.Dataset([image[None] for image in job.calibration])
    return nncf.quantize(
        model, images, subset_size=len(job.calibration), preset=nncf.QuantizationPreset.MIXED
    )


ENGINE = Engine("openvino", "openvino", "openvino", _convert, OpenVinoRunner)
