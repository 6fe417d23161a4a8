"""Every operator in ONNX Runtime equals the NumPy reference, at every level of its optimizations."""

import numpy as np
import onnxruntime
import pytest
from onnxruntime import GraphOptimizationLevel

from coc_export.onnx.writer import write_onnx
from coc_runtime import onnxfile
from coc_runtime.backends.reference import ReferenceBackend
from contract import single_operators
from graphs import random_images

LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")


@pytest.mark.parametrize("level", LEVELS)
def test_every_operator_equals_the_reference(level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(GraphOptimizationLevel, f"ORT_{level}")
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for name, graph in single_operators().items():
        images = random_images(graph, 5)
        images[0], images[1] = 0, 255
        file = onnxfile.parse(write_onnx(graph).SerializeToString(), name)
        session = onnxruntime.InferenceSession(file.segment_model(0), options)
        logits, codes = session.run(None, {onnxfile.INPUT: images})
        expected_logits, expected = ReferenceBackend(graph).run_segment(0, images)
        np.testing.assert_array_equal(codes, expected, err_msg=name)
        np.testing.assert_array_equal(logits, expected_logits, err_msg=name)
        assert codes.std() > 0, name
