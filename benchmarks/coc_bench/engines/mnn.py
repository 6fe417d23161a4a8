"""MNN: float, and int8 by its offline quantizer.

MNN's command line tools are left alone: importing `MNN.tools` installs a package for its telemetry. Their
extension module `_tools` does the work without.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime.errors import CocError

from ..subjects import Precision, Subject
from .base import Converted, Engine, Job, PeerRunner, silent
from .float_input import with_float_input

CALIBRATION_METHOD = "KL"
"""MNN's default. Its others were worse or crashed (ADMM, MNN 3.6)."""
CONFIG = {"backend": "CPU", "precision": "normal"}


class MnnRunner(PeerRunner):
    """Input `image`, float32: the conversion of the pixels is a part of the call."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "MNN")
        with silent():
            import MNN

            manager = MNN.nn.create_runtime_manager((CONFIG | {"numThread": subject.threads},))
            module = MNN.nn.load_module_from_file(
                str(subject.path), ["image"], ["logits"], runtime_manager=manager, shape_mutable=True
            )
        if module is None:
            raise CocError(f"{subject.name}: MNN cannot load it")
        self._expr, self._module, self._manager = MNN.expr, module, manager

    def _logits(self, images: np.ndarray) -> np.ndarray:
        expr = self._expr
        pixels = np.ascontiguousarray(images, dtype=np.float32)
        image = expr.const(pixels, list(pixels.shape), expr.data_format.NCHW, expr.dtype.float)
        logits: np.ndarray = self._module.forward([image])[0].read()
        return logits


def _convert(job: Job) -> Converted:
    tools = importlib.import_module("_tools")
    source, plain = job.folder / "float.onnx", job.folder / "float.mnn"
    source.write_bytes(with_float_input(job.source).SerializeToString())
    words = ["-f", "ONNX", "--modelFile", source, "--MNNModel", plain, "--bizCode", "coc"]
    tools.mnnconvert(["mnnconvert", *map(str, words)])
    source.unlink()
    if not plain.is_file():
        raise CocError("MNN's converter wrote nothing")
    settings: dict[str, Any] = {"precision": CONFIG["precision"]}
    if job.precision is Precision.FLOAT:
        return Converted(plain, settings)
    settings |= {"calibration": CALIBRATION_METHOD, "calibration_images": len(job.calibration)}
    return Converted(_quantize(tools, plain, job), settings)


def _quantize(tools: Any, source: Path, job: Job) -> Path:
    """The int8 model; the quantizer reads each calibration image from a folder, as text."""
    images = job.folder / "images"
    for index, image in enumerate(job.calibration):
        folder = images / f"{index:05}"
        folder.mkdir(parents=True)
        shape = [1, *image.shape]
        about = {"inputs": [{"name": "image", "shape": shape}], "outputs": ["logits"]}
        (folder / "input.json").write_text(json.dumps(about))
        (folder / "image.txt").write_text("\n".join(str(pixel) for pixel in image.ravel()))
    config, target = job.folder / "quantize.json", job.folder / "int8.mnn"
    wanted = {
        "input_type": "sequence",
        "path": f"{images}/",
        "used_sample_num": len(job.calibration),
        "batch_size": 1,
        "quant_bits": 8,
        "feature_quantize_method": CALIBRATION_METHOD,
        "weight_quantize_method": "MAX_ABS",
        "model": str(source),
    }
    config.write_text(json.dumps(wanted))
    # MNN's own command passes three words, which its extension reads as a list, and crashes.
    tools.mnnquant(["mnnquant", str(source), str(target), str(config)])
    if not target.is_file():
        raise CocError("MNN's quantizer wrote nothing")
    return target


ENGINE = Engine("mnn", "MNN", "MNN", _convert, MnnRunner)
