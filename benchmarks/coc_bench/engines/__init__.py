"""The engines that run peers, in the order of the report."""

from . import mnn, ncnn, openvino, ort
from .base import Engine

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (ort.ENGINE, openvino.ENGINE, mnn.ENGINE, ncnn.ENGINE)
}
CANNOT = {
    "litert": "LiteRT reads .tflite files, which its package does not write from ONNX; onnx2tf, which does, "
    "needs TensorFlow"
}
"""Engines that cannot take a float ONNX model, and why: `--peers all` says so."""
