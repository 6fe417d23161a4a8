"""A trained, quantized network -> the integer graph that the runtime executes."""

import hashlib
from pathlib import Path
from typing import Any

from torch import fx, nn

from coc_deploy.checkpoint import Checkpoint
from coc_deploy.network import Network
from coc_deploy.qat import ActQuant, QAdd, QAvgPool, QConcat, QConv, QFlatten, QLinear, QMaxPool, QPool
from coc_runtime import arithmetic
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Segment, Task, verify
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
    Tensor,
    Weight,
)

SUPPORTED = "convolution, addition, concatenation, max and average pooling, flattening, linear"


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
            unit = units.get(str(node.target))
            read: list[fx.Node] = []
            fx.map_arg(node.args, read.append)  # an operand may come twice
            inputs = [names[source.name] for source in read]
            name, output = f"{prefix}{node.target}", f"{prefix}{node.name}"
            names[node.name] = output
            if isinstance(unit, QConcat):
                result += [(node.name, op) for op in self._concat(name, output, unit, inputs)]
            else:
                result.append((node.name, self._op(name, output, unit, inputs)))
        return result

    def _concat(self, name: str, output: str, unit: QConcat, inputs: list[str]) -> list[Op]:
        """Two inputs at a time; what is joined already has the output's type and keeps its codes."""
        ops: list[Op] = []
        for index in range(1, len(inputs)):
            last = index == len(inputs) - 1
            suffix = "" if last else f".{index}"
            left = inputs[0] if index == 1 else ops[-1].output
            op = Concat(f"{name}{suffix}", (left, inputs[index]), f"{output}{suffix}")
            shape = op.output_shape(self.tensors[left], self.tensors[inputs[index]])
            self.tensors[op.output] = _typed(op.output, shape, unit.act)
            ops.append(op)
        return ops

    def _op(self, name: str, output: str, unit: nn.Module | None, inputs: list[str]) -> Op:
        op: Op
        if isinstance(unit, QConv):
            op = _conv(name, output, unit, inputs[0])
        elif isinstance(unit, QAdd):
            op = Add(name, (inputs[0], inputs[1]), output)
        elif isinstance(unit, QPool):
            op = GlobalAveragePool(name, inputs[0], output)
        elif isinstance(unit, QAvgPool):
            op = AveragePool(name, inputs[0], output, unit.kernel, unit.stride, unit.pads)
        elif isinstance(unit, QMaxPool):
            op = MaxPool(name, inputs[0], output, unit.kernel, unit.stride, unit.pads)
        elif isinstance(unit, QFlatten):
            op = Flatten(name, inputs[0], output)
        elif isinstance(unit, QLinear):
            op = _linear(name, output, unit, inputs[0])
        else:
            kind = type(unit).__name__ if unit is not None else "operation"
            raise CocError(f"{name}: {kind} cannot be exported; supported: {SUPPORTED}")
        sources = [self.tensors[source] for source in inputs]
        shape = op.output_shape(*sources)
        self.tensors[output] = (
            Tensor(output, shape, LOGIT_BITS, 0, sources[0].exponent + op.exponent)
            if isinstance(op, Linear)
            else _typed(output, shape, unit.act)  # type: ignore[arg-type]
        )
        return op


def _typed(name: str, shape: tuple[int, ...], act: ActQuant) -> Tensor:
    return Tensor(name, shape, act.bits, act.zero_point, int(act.exponent))


def _conv(name: str, output: str, unit: QConv, source: str) -> Conv:
    try:
        integers, scale, bias = unit.fold()
    except CocError as error:
        raise CocError(f"{name}: {error}") from error
    codes = arithmetic.encode(integers, unit.weight_bits, unit.encoding)
    weight = Weight(codes, unit.weight_bits, unit.encoding)
    return Conv(name, source, output, weight, bias, scale, unit.stride, unit.pads, unit.groups)


def _linear(name: str, output: str, unit: QLinear, source: str) -> Linear:
    integers, exponent, bias = unit.fold()
    codes = arithmetic.encode(integers, unit.weight_bits, unit.encoding)
    return Linear(name, source, output, Weight(codes, unit.weight_bits, unit.encoding), bias, exponent)


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
    graph = Graph("image", tensors, tuple(segments), network.thresholds, meta, task_of(loaded))
    verify(graph)
    return graph


def _meta(loaded: Checkpoint, source: Path) -> dict[str, Any]:
    last = loaded.history[-1] if loaded.history else {}
    quality = ("mae", "r2") if task_of(loaded) is Task.REGRESSION else ("accuracy",)
    found = {
        **{key: value for key, value in loaded.meta.items() if key not in ("versions", "seed", "task")},
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        **{name: last.get(name) for name in quality},
    }
    return dict(sorted(found.items()))


def task_of(loaded: Checkpoint) -> Task:
    """What a checkpoint's model predicts."""
    return Task(loaded.meta.get("task", Task.CLASSIFICATION.value))
