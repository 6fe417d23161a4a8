"""The integer graph: frozen operators and tensors, cut into segments that each end at an exit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .arithmetic import Task as Task
from .cost import LayerCost, exit_bitops
from .errors import CocError
from .limits import LOGIT_BITS, MAX_BITS, MAX_EXPONENT
from .ops import Op, Tensor


@dataclass(frozen=True)
class Segment:
    """Operators that run between two exits, in order; reads the previous segment's carry.

    The last segment carries nothing (None).
    """

    nodes: tuple[Op, ...]
    logits: str
    carry: str | None


@dataclass(frozen=True)
class Graph:
    """A legal graph passes `verify`. Segment k's input is the image (k = 0) or segment k-1's carry.

    task: what the logits are: of classes, or the `classes` real numbers of a regression.
    thresholds: one per segment but the last; an image leaves when its confidence reaches it, or, in a
    regression, when exit k and exit k - 1 differ by no more (the tolerance of exit 0 is ignored).
    meta: what the compiler knows about the model, JSON values only: source_sha256, chain, data,
    chain_bits ([W, A]), original_bitops, original_bits, and whatever else it records.
    """

    input: str
    tensors: Mapping[str, Tensor]
    segments: tuple[Segment, ...]
    thresholds: tuple[float, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    task: Task = Task.CLASSIFICATION

    def segment_input(self, index: int) -> str:
        """Name of the tensor that segment `index` reads."""
        name = self.input if index == 0 else self.segments[index - 1].carry
        assert name is not None
        return name

    def segment_layers(self, index: int) -> list[LayerCost]:
        """Cost of each convolution and linear layer of a segment, its head included."""
        costs = (
            node.cost(*(self.tensors[name] for name in node.inputs)) for node in self.segments[index].nodes
        )
        return [cost for cost in costs if cost is not None]

    def layers(self) -> list[LayerCost]:
        return [cost for k in range(len(self.segments)) for cost in self.segment_layers(k)]

    def exit_bitops(self) -> list[int]:
        """BitOps that an image has spent when it leaves at exit k, for every k (the last is the end)."""
        return exit_bitops(self.segment_layers(k) for k in range(len(self.segments)))

    @property
    def classes(self) -> int:
        """How many classes the model tells apart; of a regression how many numbers it gives."""
        return self.tensors[self.segments[-1].logits].shape[0]


def check_thresholds(
    thresholds: tuple[float, ...], exits: int, task: Task = Task.CLASSIFICATION
) -> tuple[float, ...]:
    """Thresholds as floats, or a CocError that says what is wrong with them."""
    if len(thresholds) != exits:
        raise CocError(f"{len(thresholds)} thresholds given, the model has {exits} early exits")
    values = tuple(float(value) for value in thresholds)
    if any(value != value or value < 0 for value in values):
        hint = "above 1: never exit" if task is Task.CLASSIFICATION else "tolerances of disagreement"
        raise CocError(f"thresholds {list(values)} must be numbers of at least 0 ({hint})")
    return values


def verify(graph: Graph) -> None:
    """Raise CocError, naming the node, unless the graph is legal: every name is written once and before
    it is read, shapes and types follow the operators' rules, and every sum is exact in float32."""
    if not graph.segments:
        raise CocError("graph has no segments")
    check_thresholds(graph.thresholds, len(graph.segments) - 1, graph.task)
    image = _tensor(graph, graph.input)
    if len(image.shape) != 3 or (image.bits, image.zero_point) != (8, 128):
        raise CocError(f"input {image.name} must be an 8-bit image with zero point 128")
    for tensor in graph.tensors.values():
        _verify_tensor(tensor)
    written = {graph.input}
    for index, segment in enumerate(graph.segments):
        readable = {graph.segment_input(index)} if index else {graph.input}
        for node in segment.nodes:
            _verify_node(graph, node, readable)
            if node.output in written:
                raise CocError(f"{node.name}: writes {node.output}, which is written already")
            written.add(node.output)
            readable.add(node.output)
        last = index == len(graph.segments) - 1
        if last != (segment.carry is None):
            raise CocError(f"segment {index} must {'not ' if last else ''}carry a tensor on")
        for name in (segment.logits, segment.carry):
            if name is not None and name not in readable:
                raise CocError(f"segment {index} ends with {name}, which it does not compute")
        if _tensor(graph, segment.logits).shape != (graph.classes,):
            raise CocError(f"segment {index}: logits must have {graph.classes} classes like the last exit's")
        if _tensor(graph, segment.logits).bits != LOGIT_BITS:
            raise CocError(f"segment {index}: logits must come from an operator that gives them")


def _tensor(graph: Graph, name: str) -> Tensor:
    if name not in graph.tensors:
        raise CocError(f"tensor {name} has no type")
    return graph.tensors[name]


def _verify_tensor(tensor: Tensor) -> None:
    if not tensor.shape or min(tensor.shape) < 1:
        raise CocError(f"tensor {tensor.name}: shape {tensor.shape} is empty")
    if abs(tensor.exponent) > MAX_EXPONENT:
        limits = f"-{MAX_EXPONENT}..{MAX_EXPONENT}"
        raise CocError(f"tensor {tensor.name}: exponent {tensor.exponent} is outside {limits}")
    if tensor.bits == LOGIT_BITS:
        allowed = [0]
    elif 2 <= tensor.bits <= MAX_BITS:
        allowed = [0, 1 << (tensor.bits - 1)]
    else:
        raise CocError(f"tensor {tensor.name}: {tensor.bits} bits are not supported (2 to 8)")
    if tensor.zero_point not in allowed:
        raise CocError(f"tensor {tensor.name}: zero point {tensor.zero_point} is not one of {allowed}")


def _verify_node(graph: Graph, node: Op, readable: set[str]) -> None:
    for name in node.inputs:
        if name not in readable:
            raise CocError(f"{node.name}: reads {name} before it is written in its segment")
    inputs = [_tensor(graph, name) for name in node.inputs]
    output = _tensor(graph, node.output)
    if any(tensor.bits == LOGIT_BITS for tensor in inputs):
        raise CocError(f"{node.name}: reads logits, which only an exit may do")
    node.check_parameters()
    shape = node.output_shape(*inputs)
    if output.shape != shape:
        raise CocError(f"{node.name}: output {output.name} is declared {output.shape}, computed {shape}")
    node.check_output(output, *inputs)
    node.check(*inputs)
