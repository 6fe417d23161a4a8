"""Run by test_onnx_avx2 in a process of its own: what ONNX Runtime computes on the CPU that it sees there."""

import json

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from coc_export.onnx.writer import write_onnx
from coc_runtime import onnxfile
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.session import Session
from graphs import random_graph, random_images

CHANNELS = 16
SCALE = 2.0**15


def largest_sum(weights: np.ndarray, zero_point: np.ndarray) -> int:
    """An inner pixel of QLinearConv with every activation 255 and every weight the given one, over SCALE."""
    values = {
        "one": np.float32(1),
        "scale": np.float32(SCALE),
        "zero": np.uint8(0),
        "weights": weights,
        "weights_zero": zero_point,
    }
    inputs = ["x", "one", "zero", "weights", "one", "weights_zero", "scale", "zero"]
    shape = [1, CHANNELS, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", inputs, ["y"], pads=[1, 1, 1, 1])],
        "saturation",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return int(session.run(None, {"x": np.full(shape, 255, np.uint8)})[0][0, 0, 4, 4])


def differing_logits(bits: int) -> int:
    graph = random_graph(3, bits=bits)
    file = onnxfile.parse(write_onnx(graph).SerializeToString(deterministic=True), "probe")
    images = random_images(graph, 4)
    expected = Session.from_graph(graph).logits_per_exit(images)
    found = Session.from_graph(graph, backend=OrtBackend(file)).logits_per_exit(images)
    return int((expected != found).sum())


def main() -> None:
    shape = (CHANNELS, CHANNELS, 3, 3)
    result = {
        "exact": round(127 * 255 * CHANNELS * 9 / SCALE),
        "int8": largest_sum(np.full(shape, 127, np.int8), np.int8(0)),
        "uint8": largest_sum(np.full(shape, 127 + 128, np.uint8), np.uint8(128)),
        "differing_logits": {str(bits): differing_logits(bits) for bits in (1, 2, 4, 8)},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
