"""SHA-256 of the artifacts that deterministic inputs give: what a change of the code's structure must keep.

    python tests/pinned.py     writes pinned.json anew, after a change that is meant to change files

Artifacts hold no version of coc-deploy or of a library and no date, so their bytes are compared as they are.
Where a number of a made-up input could depend on the CPU (confidences at the median, batch statistics), it is
set to a fixed one instead.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import torch

from coc_deploy import checkpoint
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.network import Network
from coc_deploy.qat import ActQuant
from coc_deploy.quantizers import QuantSpec
from coc_export.lowering import lower
from coc_export.onnx.float_network import write_float
from coc_export.onnx.writer import write_onnx, write_segments
from coc_runtime import cocwrite, onnxfile
from coc_runtime.graph import Graph
from contract import single_operators
from graphs import as_regression, depthwise_graph, random_graph, random_inception
from usernets import FIXED, USER, ZOO, network

PINS = Path(__file__).with_suffix(".json")
EXAMPLES = Path(__file__).parents[1] / "examples"
META = {"chain": "Q", "data": "digits", "chain_bits": [1, 8], "original_bitops": 1, "original_bits": 1}
WIDTHS = ((1, 8), (2, 8), (4, 4), (8, 8), (1, 4))
EXPONENT = -4

Made = Iterator[tuple[str, bytes]]


def examples() -> Made:
    """Of the committed models: .coc, .onnx of every opset that the installed onnx writes, segments."""
    for path in sorted(EXAMPLES.glob("*/model.pt")):
        graph = lower(checkpoint.load(path), path)
        yield from _packed(path.parent.name, graph, opsets())


def opsets() -> list[int]:
    return [opset for opset in onnxfile.IR_VERSIONS if opset <= onnx.defs.onnx_opset_version()]


def corpus() -> Made:
    """Of random graphs of every operator and width, classifying and regressing."""
    for bits, act_bits in WIDTHS:
        for exits in (0, 2):
            residual = gated(random_graph(bits + exits, bits, act_bits, exits, channels=5, size=7, classes=3))
            joined = gated(random_inception(bits, bits, act_bits, exits, channels=3, size=9))
            yield from _packed(f"residual-{bits}x{act_bits}-{exits}", residual, [13, 21])
            yield from _packed(f"joined-{bits}x{act_bits}-{exits}", joined, [13, 21])
    yield from _packed("regression", as_regression(random_graph(3, exits=2, channels=4, size=6)), [13, 21])
    yield from _packed("depthwise", depthwise_graph(2, 9), [21])
    for name, graph in single_operators().items():
        yield name, b"".join(data for _, data in _packed(name, graph, [21]))


def gated(graph: Graph) -> Graph:
    """The graph with fixed thresholds in place of the confidences that it was made with."""
    return replace(graph, thresholds=tuple(0.25 + k / 8 for k in range(len(graph.thresholds))))


def networks() -> Made:
    """Float .onnx and, quantized, .coc of networks of every kind of layer, weights and steps made up."""
    for name in (*USER, *FIXED, *ZOO):
        found = fill(network(name))
        yield f"{name}.float.onnx", write_float(found).SerializeToString(deterministic=True)
        found.quantize(QuantSpec(1, 8, 8))
        for act in found.modules():
            if isinstance(act, ActQuant) and act is not found.image:
                act.set_exponent(EXPONENT)
        source = EXAMPLES / "own/net.py"  # any file: its hash replaces that of a checkpoint
        graph = lower(Checkpoint(found.eval(), (), dict(META)), source)
        graph = replace(graph, meta={**graph.meta, "source_sha256": "0" * 64})
        yield f"{name}.coc", cocwrite.dump(graph)


@torch.no_grad()
def fill(found: Network) -> Network:
    """The network with numbers of NumPy's generator for those of torch's and of batch statistics."""
    rng = np.random.default_rng(0)
    for name, value in sorted(found.state_dict().items()):
        if value.is_floating_point():
            low, high = (0.5, 1.5) if name.endswith("running_var") else (-0.5, 0.5)
            numbers = rng.uniform(low, high, value.shape) / np.sqrt(max(value[0].numel(), 1))
            value.copy_(torch.from_numpy(numbers.astype(np.float32)))
    return found


def _packed(name: str, graph: Graph, wanted: list[int]) -> Made:
    yield f"{name}.coc", cocwrite.dump(graph)
    for opset in wanted:
        yield f"{name}.{opset}.onnx", write_onnx(graph, opset=opset).SerializeToString(deterministic=True)
    for index, model in enumerate(write_segments(graph)):
        yield f"{name}.segment{index}.onnx", model.SerializeToString(deterministic=True)
    bare = write_onnx(graph, packed=False)
    yield f"{name}.unpacked.onnx", bare.SerializeToString(deterministic=True)


def hashes(made: Made) -> dict[str, str]:
    """Name -> SHA-256 of every artifact."""
    found = list(made)
    assert len({name for name, _ in found}) == len(found)
    return {name: sha256(data).hexdigest() for name, data in found}


if __name__ == "__main__":
    everything = chain(examples(), corpus(), networks())
    PINS.write_text(json.dumps(hashes(everything), indent=1) + "\n")
