"""Where the bytes and the BitOps are: the size ledger and the cost table of model.report.json."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from coc_runtime import cost
from coc_runtime.cocfile import CocFile
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from coc_runtime.ops import Layer
from coc_runtime.ops.row import PER_CHANNEL

if TYPE_CHECKING:  # not needed where only .coc files are written
    import onnx


def initializers(graph: "onnx.GraphProto") -> "Iterator[onnx.TensorProto]":
    """All initializers of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from initializers(attribute.g)


def onnx_ledger(graph: Graph, model: "onnx.ModelProto") -> dict[str, Any]:
    """The size ledger of an ONNX file."""
    from onnx import numpy_helper

    held = Counter(numpy_helper.to_array(tensor).tobytes() for tensor in initializers(model.graph))
    return _size_ledger(graph, lambda packed: held[packed] > 0, model.ByteSize(), 4, 4)


def coc_ledger(file: CocFile) -> dict[str, Any]:
    """The size ledger of a .coc file."""
    at = 0

    def holds(packed: bytes) -> bool:
        """Whether the file has these weights behind those of the layer before."""
        nonlocal at
        found = file.data.find(packed, at)
        at = found + len(packed)
        return found >= 0

    return _size_ledger(file.graph, holds, len(file.data), PER_CHANNEL["scales"].itemsize, 0)


def _size_ledger(
    graph: Graph, holds: Callable[[bytes], bool], total: int, per_scale: int, per_linear: int
) -> dict[str, Any]:
    """Bytes of each weight tensor in the file against bits x count, and what the rest of the file is.

    holds: whether the file has these bytes, asked layer by layer. total: bytes of the file. per_scale,
    per_linear: bytes of a convolution's scale per channel and of a linear layer's one scale.
    Raises CocError if a weight is not in the file at exactly ceil(bits * count / 8) bytes.
    """
    nodes = [node for segment in graph.segments for node in segment.nodes]
    layers = [node for node in nodes if isinstance(node, Layer)]
    weights: list[dict[str, Any]] = []
    for layer in layers:
        data = layer.weight.packed.tobytes()
        exact = -(-layer.weight.bits * layer.weight.codes.size // 8)
        if not holds(data) or len(data) != exact:
            raise CocError(
                f"{layer.name}: {layer.weight.bits}-bit weights do not take {exact} bytes in the file"
            )
        weights.append(
            {
                "name": layer.name,
                "bits": layer.weight.bits,
                "count": layer.weight.codes.size,
                "bytes": len(data),
            }
        )
    biases = sum(layer.bias.nbytes for layer in layers)
    per_channel = [layer.channel_scales for layer in layers]
    scales = sum(per_linear if scale is None else per_scale * len(scale) for scale in per_channel)
    weight_bytes = sum(weight["bytes"] for weight in weights)
    tables = sum(len(node.stored().get("tables", b"")) for node in nodes)
    return {
        "weights": weights,
        "weight_bytes": weight_bytes,
        "bias_bytes": biases,
        "scale_bytes": scales,
        **({"table_bytes": tables} if tables else {}),
        "structure_bytes": total - weight_bytes - biases - scales - tables,
        "file_bytes": total,
    }


def cost_table(graph: Graph, shares: list[float] | None) -> dict[str, Any]:
    """Per layer and per exit: MACs, bits, BitOps; expected BitOps for the exit shares, or None."""
    layers, per_exit = [], graph.exit_bitops()
    for k in range(len(graph.segments)):
        for layer in graph.segment_layers(k):
            layers.append(
                {
                    "segment": k,
                    "name": layer.name,
                    "macs": layer.macs,
                    "weights": layer.weights,
                    "weight_bits": layer.weight_bits,
                    "activation_bits": layer.activation_bits,
                    "bitops": layer.bitops,
                }
            )
    segments = [cost.bitops(graph.segment_layers(k)) for k in range(len(graph.segments))]
    bits = graph.meta["chain_bits"]
    uniform = [cost.uniform_bitops(graph.segment_layers(k), (bits[0], bits[1])) for k in range(len(segments))]
    expected, expected_uniform = (
        None if shares is None else cost.expected(part, shares) for part in (segments, uniform)
    )
    original = graph.meta["original_bitops"]
    return {
        "layers": layers,
        "exit_bitops": per_exit,
        "exit_share": shares,
        "expected_bitops": expected,
        "bitops_cr": None if expected is None else original / expected,
        "bitops_cr_uniform": None if expected_uniform is None else original / expected_uniform,
        "cr": graph.meta["original_bits"] / cost.stored_bits(graph.layers()),
    }
