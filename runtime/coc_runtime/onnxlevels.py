"""The nested graphs of a one-file ONNX model, read as raw nodes and initializers, one level a segment.

Anything that coc-export does not write is refused: other operators, attributes, data types, external
data, and constants that would let a small file ask for much memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .errors import CocError
from .graph import Segment
from .ops import Conv
from .protobuf import Message

SEGMENT_OPS = frozenset(
    ["Add", "Cast", "Clip", "Conv", "DequantizeLinear", "Flatten", "Gather", "Gemm", "GlobalAveragePool"]
    + ["Mul", "QuantizeLinear", "ReduceSum", "Reshape", "Slice"]
)
"""Operators that compute a segment."""
GATE_OPS = frozenset(
    ["Constant", "ConstantOfShape", "GreaterOrEqual", "Identity", "If", "ReduceMax", "Shape", "Softmax"]
    + ["Split"]
)
"""Operators that decide about leaving; the exit number's Cast, the only other one, reads `xf`."""

DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}
MAX_TABLE_ROW = 8

GRAPH = {1: bytes, 2: bytes, 5: bytes, 11: bytes, 12: bytes}
NODE = {1: bytes, 2: bytes, 3: bytes, 4: bytes, 5: bytes}
ATTRIBUTE = {1: bytes, 3: int, 6: bytes, 8: int, 20: int}
TENSOR = {1: int, 2: int, 8: bytes, 9: bytes}


@dataclass(frozen=True)
class Initializer:
    """A constant; `data` is its TensorProto, `payload` its raw little-endian numbers."""

    name: str
    data: memoryview
    dtype: str
    shape: tuple[int, ...]
    payload: memoryview

    def array(self) -> np.ndarray:
        little_endian = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(self.payload, little_endian).reshape(self.shape).astype(self.dtype)


@dataclass(frozen=True)
class Level:
    """Nodes (NodeProto bytes) that compute a segment, the names they read, and the level's initializers."""

    segment_nodes: tuple[memoryview, ...]
    segment_reads: frozenset[str]
    initializers: dict[str, Initializer]


@dataclass(frozen=True)
class _Node:
    data: memoryview
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Message]

    def ints(self, name: str, default: list[int]) -> list[int]:
        """Values of an attribute of integers, of one or several."""
        if name not in self.attributes:
            return default
        return self.attributes[name].numbers(3) + self.attributes[name].numbers(8)


def read_levels(graph: memoryview, count: int) -> tuple[Level, ...]:
    """The `count` levels of a serialized GraphProto, outermost first."""
    levels: list[Level] = []
    known: dict[str, Initializer] = {}
    rest: memoryview | None = graph
    for index in range(count):
        assert rest is not None
        message = Message(rest, GRAPH)
        initializers = _initializers(message.parts(5), known)
        known |= initializers
        nodes = [_node(part) for part in message.parts(1)]
        rest = _deeper(nodes, last=index == count - 1)
        compute = [node for node in nodes if node.op in SEGMENT_OPS and node.inputs != ("xf",)]
        for node in compute:
            _check_growth(node, known)
        reads = frozenset(name for node in compute for name in node.inputs)
        levels.append(Level(tuple(node.data for node in compute), reads, initializers))
    return tuple(levels)


def check_convolutions(level: Level, segment: Segment) -> None:
    """Raise CocError unless the level's Conv nodes have the manifest's strides, padding and groups."""
    nodes = [node for node in map(_node, level.segment_nodes) if node.op == "Conv"]
    convs = [node for node in segment.nodes if isinstance(node, Conv)]
    if len(nodes) != len(convs):
        raise CocError(f"the ONNX graph has {len(nodes)} convolutions in a segment of {len(convs)}")
    for node, conv in zip(nodes, convs, strict=True):
        found = node.ints("strides", [1, 1]), node.ints("pads", [0] * 4), node.ints("group", [1])
        if found != ([conv.stride] * 2, list(conv.pads), [conv.groups]) or len(node.attributes) > 3:
            raise CocError(f"{conv.name}: strides, padding and groups in the ONNX graph are {found}")


def _initializers(parts: Iterable[memoryview], known: dict[str, Initializer]) -> dict[str, Initializer]:
    result: dict[str, Initializer] = {}
    for part in parts:
        tensor = Message(part, TENSOR)
        name, shape, payload = tensor.text(8), tuple(tensor.numbers(1)), tensor.part(9)
        dtype = DTYPES.get(tensor.number(2))
        if dtype is None:
            raise CocError(f"initializer {name} has data type {tensor.number(2)}")
        size = np.dtype(dtype).itemsize
        for length in shape:
            size *= length
        if len(shape) > 4 or size != len(payload):
            raise CocError(f"initializer {name} of shape {shape} has {len(payload)} bytes, needs {size}")
        if name in result or name in known:
            raise CocError(f"initializer {name} appears twice")
        result[name] = Initializer(name, part, dtype, shape, payload)
    return result


def _node(part: memoryview) -> _Node:
    message = Message(part, NODE)
    op = message.text(4)
    message.text(3)
    message.texts(2)
    if op not in SEGMENT_OPS and op not in GATE_OPS:
        raise CocError(f"operator {op[:40]!r} is not one that coc-deploy writes")
    attributes: dict[str, Message] = {}
    for data in message.parts(5):
        attribute = Message(data, ATTRIBUTE)
        attributes[attribute.text(1)] = attribute
    if op != "If" and any(attribute.parts(6) for attribute in attributes.values()):
        raise CocError(f"operator {op} holds a graph")
    return _Node(part, op, tuple(message.texts(1)), attributes)


def _deeper(nodes: list[_Node], last: bool) -> memoryview | None:
    """The else_branch of a level's If, whose then_branch must only pass results on."""
    branches = [node for node in nodes if node.op == "If"]
    if last and not branches:
        return None
    if last or len(branches) != 1 or set(branches[0].attributes) != {"then_branch", "else_branch"}:
        raise CocError("the If operators do not match the manifest's segments")
    leave = Message(branches[0].attributes["then_branch"].part(6), {1: bytes, 2: bytes, 12: bytes})
    if any(_node(part).op not in ("Identity", "Constant") for part in leave.parts(1)):
        raise CocError("a branch that leaves computes something")
    return branches[0].attributes["else_branch"].part(6)


def _check_growth(node: _Node, known: dict[str, Initializer]) -> None:
    """Raise CocError for constants that broadcast or repeat beyond a few times the file's size."""
    if node.op == "Gather":
        table = known.get(node.inputs[0]) if node.inputs else None
        if table is None or len(table.shape) != 2 or table.shape[1] > MAX_TABLE_ROW:
            raise CocError("a Gather does not read a table of packed weights")
    if node.op == "Mul":
        factor = known.get(node.inputs[-1]) if node.inputs else None
        if factor is None or factor.shape:
            raise CocError("a Mul does not read a scalar")
