"""The nested graphs of a one-file ONNX model, read as raw nodes and initializers, one level a segment.

Anything that coc-export does not write is refused: other operators, attributes, data types, external
data, and constants that would let a small file ask for much memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .arithmetic import Task
from .errors import CocError
from .graph import Segment
from .limits import MAX_WINDOW, ONNX_PARTS, ONNX_TABLE_ROW
from .ops import OPS
from .protobuf import Message

SEGMENT_OPS = frozenset[str]().union(*(op.ONNX for op in OPS))
"""Types of the nodes that compute a segment."""
WINDOW_OPS = frozenset[str]().union(*(op.ONNX_WINDOWS for op in OPS))
"""Types of the nodes whose attributes must be those of the manifest's operators."""
GATE_OPS = frozenset(
    ["Abs", "ArgMax", "Constant", "ConstantOfShape", "GreaterOrEqual", "Identity", "If", "Neg", "ReduceMax"]
    + ["Shape", "Softmax", "Split", "Sub"]
)
"""Operators that decide about leaving. Files without exits that earlier versions wrote also hold Shape,
ConstantOfShape and a Cast that reads `xf`."""

DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}

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
    """Nodes (NodeProto bytes) that compute a segment, the names they read, the level's initializers, and the
    task that its gate is for."""

    segment_nodes: tuple[memoryview, ...]
    segment_reads: frozenset[str]
    initializers: dict[str, Initializer]
    task: Task


@dataclass(frozen=True)
class _Node:
    data: memoryview
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Message]

    def integers(self) -> dict[str, list[int]]:
        """Values of the attributes, of one or several integers each; none for those of other types."""
        return {name: value.numbers(3) + value.numbers(8) for name, value in self.attributes.items()}


def read_levels(graph: memoryview, count: int) -> tuple[Level, ...]:
    """The `count` levels of a serialized GraphProto, outermost first."""
    levels: list[Level] = []
    known: dict[str, Initializer] = {}
    parts: dict[str, int] = {}
    packed: set[str] = set()
    widths: dict[str, int] = {}
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
            _check_growth(node, known, packed)
            _check_spread(node, known, widths)
            _count_parts(node, parts)
        for node in nodes:
            _check_difference(node, known)
        reads = frozenset(name for node in compute for name in node.inputs)
        classified = any(node.op == "Softmax" for node in nodes)
        task = Task.CLASSIFICATION if classified else Task.REGRESSION
        levels.append(Level(tuple(node.data for node in compute), reads, initializers, task))
    return tuple(levels)


def check_windows(level: Level, segment: Segment) -> None:
    """Raise CocError unless the level's convolutions and pools are the manifest's, with their attributes."""
    nodes = [node for node in map(_node, level.segment_nodes) if node.op in WINDOW_OPS]
    stated = [(node.name, window) for node in segment.nodes if (window := node.onnx_window()) is not None]
    if len(nodes) != len(stated):
        raise CocError(
            f"the ONNX graph has {len(nodes)} convolutions and pools in a segment of {len(stated)}"
        )
    for node, (name, window) in zip(nodes, stated, strict=True):
        kind = "Conv" if node.op == "QLinearConv" else node.op
        if (kind, node.integers()) != window:
            found = f"{node.op} in the ONNX graph, with {str(node.integers())[:100]}"
            raise CocError(f"{name}: is {found}")


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
    if op not in SEGMENT_OPS and op not in GATE_OPS:
        raise CocError(f"operator {op[:40]!r} is not one that coc-deploy writes")
    attributes: dict[str, Message] = {}
    for data in message.parts(5):
        attribute = Message(data, ATTRIBUTE)
        attributes[attribute.text(1)] = attribute
    if op != "If" and any(attribute.parts(6) for attribute in attributes.values()):
        raise CocError(f"operator {op} holds a graph")
    return _Node(part, op, tuple(message.texts(1)), tuple(message.texts(2)), attributes)


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


def _check_growth(node: _Node, known: dict[str, Initializer], packed: set[str]) -> None:
    """Raise CocError for constants that broadcast or repeat beyond a few times the file's size.

    packed: values that are initializers as other integers, such as packed weights; grows.
    """
    if node.op == "Cast" and set(node.inputs) <= known.keys():
        packed.update(node.outputs)
    if node.op == "Gather" and node.integers() == {"axis": [1]}:
        chosen = known.get(node.inputs[-1])
        if chosen is None or len(chosen.shape) != 1 or known.keys() & node.inputs[:-1]:
            raise CocError("a Gather of channels does not read a list of them")
    elif node.op == "Gather":
        table = known.get(node.inputs[0]) if node.inputs else None
        if table is None or not 1 <= len(table.shape) <= 2:
            raise CocError("a Gather does not read a table")
        if len(table.shape) == 2 and (table.shape[1] > ONNX_TABLE_ROW or not set(node.inputs[1:]) <= packed):
            raise CocError("a Gather does not read a table of packed weights")


def _check_spread(node: _Node, known: dict[str, Initializer], widths: dict[str, int]) -> None:
    """Raise CocError for products with constants that spread a value beyond a grid of the largest pool.

    widths: of values that were reshaped, how long their rows are; grows.
    """
    constants = [known[name] for name in node.inputs if name in known]
    if (
        node.op == "Reshape"
        and len(constants) == 1
        and constants[0].dtype == "int64"
        and constants[0].payload
    ):
        widths.update(dict.fromkeys(node.outputs, int(constants[0].array().flat[-1])))
    elif node.op == "Mul" and constants:
        factor = known.get(node.inputs[-1])
        fitting = factor is not None and factor.shape in ((), (widths.get(node.inputs[0]),))
        if not fitting:
            raise CocError("a Mul of a constant does not read a scalar, or a number for each value of a row")
    elif node.op == "MatMul":
        if len(constants) != 1 or len(constants[0].shape) != 2:
            raise CocError("a MatMul does not read one constant matrix")
        rows, columns = constants[0].shape
        sums, summed = (rows, columns) if node.inputs[0] in known else (columns, rows)
        if sums > max(summed, MAX_WINDOW):
            raise CocError(f"a MatMul makes {sums} sums of {summed} numbers")


def _check_difference(node: _Node, known: dict[str, Initializer]) -> None:
    """Raise CocError for a gate's difference that a constant would broadcast."""
    constants = [known[name] for name in node.inputs if name in known] if node.op == "Sub" else []
    if any(constant.shape for constant in constants):
        raise CocError("a Sub reads a constant that is no scalar")


def _count_parts(node: _Node, parts: dict[str, int]) -> None:
    """Bound what a chain of Concat can grow to: `parts` counts the tensors that each output joins.

    A convolution starts anew, its weights state how many channels it reads.
    """
    counts = [parts.setdefault(name, 1) for name in node.inputs if name]
    total = sum(counts) if node.op == "Concat" else max(counts, default=1)
    if total > ONNX_PARTS:
        raise CocError(f"more than {ONNX_PARTS} tensors are joined to one")
    for name in node.outputs:
        if name in parts:
            raise CocError(f"value {name[:40]!r} is read before it is written, or written twice")
        parts[name] = 1 if node.op == "Conv" else total
