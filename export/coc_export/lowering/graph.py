"""The integer graph of a checkpoint: its body and heads, cut into segments."""

import hashlib
from pathlib import Path
from typing import Any

from torch import fx, nn

from coc_deploy.checkpoint import Checkpoint
from coc_deploy.network import Network
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Segment, Task, verify
from coc_runtime.ops import Op, Tensor

from .place import Place
from .units import lower_unit


class _Lowering:
    """Collects tensors and operators; tensor names are unique over body and heads."""

    def __init__(self, network: Network) -> None:
        self.network = network
        image = Tensor("image", network.input_shape, 8, 128, -7)
        self.tensors: dict[str, Tensor] = {image.name: image}

    def lower(self, module: fx.GraphModule, prefix: str, source: str) -> list[tuple[str, Op]]:
        """(fx node name, operator) in order; the graph's placeholder stands for tensor `source`."""
        names = {node.name: source for node in module.graph.nodes if node.op == "placeholder"}
        units: dict[str, nn.Module] = dict(module.named_modules())
        result: list[tuple[str, Op]] = []
        for node in module.graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            read: list[fx.Node] = []
            fx.map_arg(node.args, read.append)  # an operand may come twice
            inputs = tuple(self.tensors[names[source.name]] for source in read)
            names[node.name] = f"{prefix}{node.name}"
            at = Place(f"{prefix}{node.target}", names[node.name], inputs)
            for op, output in lower_unit(units.get(str(node.target)), at):
                self.tensors[output.name] = output
                result.append((node.name, op))
        return result


def lower(loaded: Checkpoint, source: Path) -> Graph:
    """The integer graph of a quantized checkpoint; `source` is its file, whose hash goes into the meta.

    Raises CocError, naming the module, for what has no integer form.
    """
    network = loaded.network
    if network.quant is None:
        raise CocError(
            f"{source}: the model is not quantized; add Q to the recipe's chain, or export it with --float"
        )
    lowering = _Lowering(network)
    taps = [network.positions[position] for position in network.exits.positions] if network.exits else []
    segments: list[Segment] = []
    nodes: list[Op] = []
    lowered = lowering.lower(network.body, "", "image")
    for index, (node, op) in enumerate(lowered):
        nodes.append(op)
        if node in taps and node != lowered[index + 1][0]:  # behind the last operator of the node
            head = network.heads[len(segments)]
            assert isinstance(head, fx.GraphModule)
            nodes += [head_op for _, head_op in lowering.lower(head, f"exit{len(segments)}.", op.output)]
            segments.append(Segment(tuple(nodes), nodes[-1].output, op.output))
            nodes = []
    segments.append(Segment(tuple(nodes), nodes[-1].output, None))
    meta = _meta(loaded, source)
    # Tensors and meta in the order of .coc files, so that either file is made from the other, byte for byte.
    order = ["image", *(node.output for segment in segments for node in segment.nodes)]
    tensors = {name: lowering.tensors[name] for name in order}
    graph = Graph("image", tensors, tuple(segments), network.thresholds, meta, loaded.task)
    verify(graph)
    return graph


def _meta(loaded: Checkpoint, source: Path) -> dict[str, Any]:
    last = loaded.history[-1] if loaded.history else {}
    quality = ("mae", "r2") if loaded.task is Task.REGRESSION else ("accuracy",)
    found = {
        **{key: value for key, value in loaded.meta.items() if key not in ("versions", "seed", "task")},
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        **{name: last.get(name) for name in quality},
    }
    return dict(sorted(found.items()))
