"""ONNX Runtime's own static int8 quantization of a float model."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime import quality
from coc_runtime.arithmetic import Task
from coc_runtime.environment import cpu_flags
from coc_runtime.errors import CocError

from ..data import Images
from ..footprint import predict
from ..subjects import Kind, Precision, Subject, first_line
from .ort import OrtRunner, import_onnxruntime

METHODS = ("MinMax", "Percentile", "Entropy")
"""Range calibrations of ONNX Runtime that are tried; the best on held-out images is kept."""
CALIBRATION_IMAGES = 256
SELECTION_IMAGES = 1000


def quantize_int8(source: Subject, folder: Path, calibration: Images) -> Subject:
    """Quantize a float ONNX model (see `OrtRunner`) into `folder`; the int8 model as a subject.

    QDQ form, per-channel int8 weights, uint8 activations. Of METHODS the one with the highest accuracy, of a
    regression the smallest error, on images of the calibration split; without labels the first. Weights
    keep 7 bits (reduce_range) on x86 CPUs without VNNI, where 16-bit partial sums would saturate. Raises
    CocError where ONNX Runtime cannot do it.
    """
    import_onnxruntime()
    try:
        from onnxruntime.quantization import shape_inference
    except ImportError as error:
        raise CocError(f"--int8-of needs the package onnx ({error}): pip install onnx") from error
    OrtRunner(source)  # Says what is wrong with the file, if anything is.
    folder.mkdir(parents=True, exist_ok=True)
    prepared = folder / "prepared.onnx"
    images = calibration.images[_sample(len(calibration.images), CALIBRATION_IMAGES, seed=1)]
    held_out = _sample(len(calibration.images), SELECTION_IMAGES, seed=2)
    flags = cpu_flags()
    reduce_range = "avx2" in flags and not {"avx512_vnni", "avx_vnni"} & set(flags)
    candidates: list[tuple[float, str, Path]] = []
    try:
        with _quiet():
            shape_inference.quant_pre_process(str(source.path), str(prepared), skip_symbolic_shape=True)
            for method in METHODS if calibration.labels is not None else METHODS[:1]:
                target = folder / f"{method}.onnx"
                _quantize(prepared, target, images, method, reduce_range)
                runner = OrtRunner(_subject(source, target, {}))
                answers, _ = predict(runner, calibration.images[held_out])
                labels = None if calibration.labels is None else calibration.labels[held_out]
                candidates.append((_score(answers, labels, source), method, target))
    except CocError:
        raise
    except Exception as error:  # The quantizer raises whatever it meets.
        raise CocError(f"{source.path}: ONNX Runtime cannot quantize it: {first_line(error)}") from error
    _, method, path = max(candidates, key=lambda candidate: candidate[0])
    settings = {"calibration": method, "calibration_images": len(images), "reduce_range": reduce_range}
    return _subject(source, path, settings)


def _score(answers: np.ndarray, labels: np.ndarray | None, source: Subject) -> float:
    """The higher, the better."""
    if labels is None:
        return 0.0
    if source.task is Task.REGRESSION:
        return -quality.mean_absolute_error(answers, labels)
    return float((answers == labels).mean())


def _subject(source: Subject, path: Path, settings: dict[str, Any]) -> Subject:
    name = f"{source.name} (int8)"
    return Subject(
        name,
        path,
        Kind.INT8,
        "onnxruntime",
        source.threads,
        settings=settings,
        task=source.task,
        precision=Precision.INT8,
    )


def _quantize(source: Path, target: Path, images: np.ndarray, method: str, reduce_range: bool) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """One image at a time: the histogram calibrations need batches of one size."""

        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image[None]}

    quantization.quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=getattr(quantization.CalibrationMethod, method),
    )


def _sample(count: int, limit: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)[:limit]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizer's advice on the root logger and its progress on stdout."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
