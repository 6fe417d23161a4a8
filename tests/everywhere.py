"""A quantized network computed by every back end, in both files."""

from pathlib import Path

import numpy as np

from coc_deploy import checkpoint
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.counting import segment_layers
from coc_deploy.network import Network
from coc_export import parity
from coc_export.lowering import lower
from coc_export.onnx.writer import write_onnx
from coc_runtime import cocfile, cocwrite, onnxfile
from coc_runtime.graph import Graph
from usernets import images

META = {"chain": "Q", "data": "digits", "chain_bits": [1, 8], "original_bitops": 1, "original_bits": 1}


def exported(quantized: Network, folder: Path) -> tuple[Network, Graph]:
    """The network as its file gives it back, and its integer graph."""
    path = folder / "model.pt"
    checkpoint.save(path, Checkpoint(quantized, ({"accuracy": 1.0},), dict(META)))
    loaded = checkpoint.load(path)
    return loaded.network, lower(loaded, path)


def assert_parity(quantized: Network, folder: Path) -> Graph:
    rebuilt, graph = exported(quantized, folder)
    assert [graph.segment_layers(k) for k in range(len(graph.segments))] == segment_layers(rebuilt)
    inputs = images(rebuilt.input_shape)
    inputs[0], inputs[1] = 0, 255
    onnx = onnxfile.parse(write_onnx(graph).SerializeToString(), "model.onnx")
    coc = cocfile.parse(cocwrite.dump(graph), "model.coc")
    answers = parity.ask_all(quantized, onnx, inputs) + parity.ask_all(rebuilt, coc, inputs)
    for pair in parity.compare(answers):
        assert pair["differing_logits"] == pair["flipped_exits"] == 0, pair
    logits = answers[0].logits
    assert logits is not None and len(np.unique(logits)) > 20, "logits that hardly vary would prove nothing"
    return graph
