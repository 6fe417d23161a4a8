"""Where time goes per layer of an exported artifact, for `coc-export --layers` and the report's "layers"."""

from dataclasses import asdict
from typing import Any

import numpy as np

from coc_runtime import profile
from coc_runtime.backends.native import NativeBackend, why_missing
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.cocfile import CocFile
from coc_runtime.onnxfile import OnnxFile
from coc_runtime.profile import LayerTime

IMAGES, ROUNDS = 8, 25
"""Each of the first images runs so many times; 200 runs steady a profile."""


def measure(file: OnnxFile | CocFile, images: np.ndarray) -> dict[str, Any]:
    """The profile of an artifact as its report holds it: on ONNX Runtime or on the C core.

    images: raw, uint8 [N, C, H, W], at least one. Without the C core "missing" says why there are no rows.
    """
    images = images[:IMAGES]
    about: dict[str, Any] = {"images": len(images), "rounds": ROUNDS, "missing": None}
    if isinstance(file, OnnxFile):
        about |= {"backend": OrtBackend.name, "cpu_level": None}
        times = OrtBackend(file).operator_times(images, ROUNDS)
    else:
        about |= {"backend": NativeBackend.name, "cpu_level": None, "missing": why_missing()}
        if about["missing"] is not None:
            return about | {"rows": []}
        native = NativeBackend(file.data, "the exported model")
        about["cpu_level"] = native.cpu
        times = native.operator_times(images, ROUNDS)
    return about | {"rows": [asdict(row) for row in profile.rows_of(file.graph, times)]}


def text(report: dict[str, Any]) -> str:
    """A report's "layers" as a table for people."""
    if report["missing"] is not None:
        return f"layers    not measured: {report['missing']}"
    where = report["backend"] + (f", {report['cpu_level']}" if report["cpu_level"] else "")
    head = f"layers    {where}: time of one image, nothing left early, {report['images']} images"
    return f"{head}\n{profile.table([LayerTime(**row) for row in report['rows']])}"
