"""The structure of an integer graph as JSON; the numbers (weights, biases, scales) lie beside it.

Tensors and operators are listed once; operators refer to tensors by their index. Operator j of the
graph (counted over all segments) owns the parameters `w{j}` (packed weight codes), `b{j}` (bias,
int32) and, for convolutions, `s{j}` (scale, float32). `task` is there where it is not classification.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .arithmetic import Encoding, unpack
from .cost import bitops
from .errors import CocError
from .graph import Graph, Segment, Task, verify
from .limits import MAX_ELEMENTS, MAX_NAME, ONNX_FIELD, WEIGHT_BITS
from .ops import (
    OPS,
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

FORMAT = 1
"""Version of this structure. A reader refuses what is newer than itself."""

Parameters = Callable[[str, str, tuple[int, ...]], np.ndarray]
"""(name, dtype, shape) -> array, or a CocError if the file holds no such array."""


def dump(graph: Graph) -> bytes:
    """The manifest of a graph as compact UTF-8 JSON."""
    index = {name: i for i, name in enumerate(graph.tensors)}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "input": index[graph.input],
        "tensors": [[t.name, t.shape, t.bits, t.zero_point, t.exponent] for t in graph.tensors.values()],
        "segments": [
            {
                "nodes": [_dump_node(node, index) for node in segment.nodes],
                "logits": index[segment.logits],
                "carry": None if segment.carry is None else index[segment.carry],
                "bitops": bitops(graph.segment_layers(k)),
            }
            for k, segment in enumerate(graph.segments)
        ],
        "meta": dict(graph.meta),
    }
    if graph.task is not Task.CLASSIFICATION:
        manifest["task"] = graph.task.value
    try:
        return json.dumps(manifest, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CocError(f"graph.meta cannot be written as JSON: {error}") from None


def _dump_node(node: Op, index: Mapping[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "op": type(node).__name__,
        "name": node.name,
        "in": [index[name] for name in node.inputs],
        "out": index[node.output],
    }
    if isinstance(node, Conv | Linear):
        row |= {"shape": node.weight.codes.shape, "bits": node.weight.bits}
        row["encoding"] = node.weight.encoding.value
    if isinstance(node, Conv):
        row |= {"stride": node.stride, "pads": node.pads, "groups": node.groups}
    if isinstance(node, MaxPool | AveragePool):
        row |= {"kernel": node.kernel, "stride": node.stride, "pads": node.pads}
    if isinstance(node, Linear):
        row["exponent"] = node.exponent
    return row


def decode(data: bytes) -> dict[str, Any]:
    """JSON of a manifest; CocError if it is none or newer than this reader."""
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise CocError("the manifest is not JSON: export the file again") from None
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if type(version) is not int:
        raise CocError("the manifest states no format: export the file again")
    if version > FORMAT:
        raise CocError(
            f"format {version!r:.20} is newer than this version reads ({FORMAT}): upgrade coc-deploy"
        )
    if version < 1:
        raise CocError(f"format {version!r:.20} does not exist: export the file again")
    return dict(manifest)


def task_of(manifest: dict[str, Any]) -> Task:
    """The task of a decoded manifest."""
    if "task" not in manifest:
        return Task.CLASSIFICATION
    if manifest["task"] != Task.REGRESSION.value:
        raise CocError(f"task {manifest['task']!r:.40} is not known")
    return Task.REGRESSION


def load(manifest: dict[str, Any], thresholds: tuple[float, ...], parameters: Parameters) -> Graph:
    """The verified graph of a decoded manifest; CocError wherever anything does not fit."""
    tensors = [_tensor(row) for row in _get(manifest, "tensors", list)]
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise CocError("two tensors have the same name")
    segments, first, declared = [], 0, []
    for row in _get(manifest, "segments", list):
        nodes = _get(row, "nodes", list)
        carry = None if row.get("carry") is None else _pick(tensors, row["carry"]).name
        built = tuple(
            _Node(node, tensors, f"{first + i}", parameters).build() for i, node in enumerate(nodes)
        )
        segments.append(Segment(built, _pick(tensors, _get(row, "logits", int)).name, carry))
        declared.append(_get(row, "bitops", int))
        first += len(nodes)
    name = _pick(tensors, _get(manifest, "input", int)).name
    by_name = {tensor.name: tensor for tensor in tensors}
    meta = _get(manifest, "meta", dict)
    graph = Graph(name, by_name, tuple(segments), thresholds, meta, task_of(manifest))
    verify(graph)
    counted = [bitops(graph.segment_layers(k)) for k in range(len(segments))]
    if counted != declared:
        raise CocError(f"BitOps per segment are {counted}, declared {declared}")
    return graph


class _Node:
    """One operator's row, read with every type and range checked before anything is allocated."""

    def __init__(self, row: Any, tensors: list[Tensor], key: str, parameters: Parameters) -> None:
        self.row, self.tensors, self.key, self.parameters = row, tensors, key, parameters
        self.name = _name(_get(row, "name", str))

    def build(self) -> Op:
        op = _get(self.row, "op", str)
        kind = {kind.__name__: kind for kind in OPS}.get(op)
        inputs = [_pick(self.tensors, i).name for i in _get(self.row, "in", list)]
        output = _pick(self.tensors, _get(self.row, "out", int)).name
        if kind is None or len(inputs) != (2 if kind in (Add, Concat) else 1):
            raise CocError(f"{self.name}: operator {op[:40]!r} with {len(inputs)} inputs is not known")
        if kind is Add or kind is Concat:
            return kind(self.name, (inputs[0], inputs[1]), output)
        if kind is GlobalAveragePool or kind is Flatten:
            return kind(self.name, inputs[0], output)
        if kind is MaxPool or kind is AveragePool:
            kernel_h, kernel_w = _integers(_get(self.row, "kernel", list), 2)
            kernel = (kernel_h, kernel_w)
            return kind(self.name, inputs[0], output, kernel, self._stride(), self._pads(kernel))
        return self._conv(inputs[0], output) if kind is Conv else self._linear(inputs[0], output)

    def _stride(self) -> int:
        stride: int = _get(self.row, "stride", int)
        if not 1 <= stride < ONNX_FIELD:
            raise CocError(f"{self.name}: stride {stride} out of range")
        return stride

    def _pads(self, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
        top, left, bottom, right = _integers(_get(self.row, "pads", list), 4)
        height, width = kernel
        if min(top, left, bottom, right) < 0 or max(top, bottom) >= height or max(left, right) >= width:
            raise CocError(f"{self.name}: padding must be smaller than the {height}x{width} kernel")
        return top, left, bottom, right

    def _conv(self, source: str, output: str) -> Conv:
        weight = self._weight(4)
        kernel_h, kernel_w = weight.codes.shape[2:]
        pads, stride, groups = self._pads((kernel_h, kernel_w)), self._stride(), _get(self.row, "groups", int)
        if not 1 <= groups < ONNX_FIELD:
            raise CocError(f"{self.name}: {groups} groups are out of range")
        scale = self.parameters(f"s{self.key}", "float32", weight.codes.shape[:1])
        return Conv(self.name, source, output, weight, self._bias(weight), scale, stride, pads, groups)

    def _linear(self, source: str, output: str) -> Linear:
        weight = self._weight(2)
        exponent = _get(self.row, "exponent", int)
        return Linear(self.name, source, output, weight, self._bias(weight), exponent)

    def _bias(self, weight: Weight) -> np.ndarray:
        return self.parameters(f"b{self.key}", "int32", weight.codes.shape[:1])

    def _weight(self, rank: int) -> Weight:
        shape = _integers(_get(self.row, "shape", list), rank)
        bits, count = _get(self.row, "bits", int), _product(shape)
        if bits not in WEIGHT_BITS:
            raise CocError(f"{self.name}: {bits} weight bits are not supported (1, 2, 4 or 8)")
        encodings = {encoding.value: encoding for encoding in Encoding}
        encoding = _get(self.row, "encoding", str)
        if encoding not in encodings:
            raise CocError(f"{self.name}: weight encoding {encoding[:40]!r} is not known")
        packed = self.parameters(f"w{self.key}", "uint8", (-(-bits * count // 8),))
        codes = unpack(packed, bits, count).reshape(shape)
        return Weight(codes, bits, encodings[encoding])


def _tensor(row: Any) -> Tensor:
    if not isinstance(row, list) or len(row) != 5 or not isinstance(row[0], str):
        raise CocError("a tensor's row is not [name, shape, bits, zero point, exponent]")
    if not isinstance(row[1], list) or len(row[1]) not in (1, 3):
        raise CocError(f"tensor {_name(row[0])}: shape must have one or three sizes")
    shape = _integers(row[1], len(row[1]))
    if _product(shape) > MAX_ELEMENTS:
        raise CocError(f"tensor {_name(row[0])}: shape {shape} exceeds {MAX_ELEMENTS} elements")
    return Tensor(_name(row[0]), shape, *_integers(row[2:], 3))


def _get(row: Any, key: str, kind: type) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if type(value) is not kind:
        raise CocError(f"the manifest needs {key!r} as {kind.__name__}")
    return value


def _integers(values: list[Any], count: int) -> tuple[int, ...]:
    if len(values) != count or any(type(value) is not int or abs(value) >= 1 << 31 for value in values):
        raise CocError(f"the manifest needs {count} integers of 32 bits, not {str(values)[:60]}")
    return tuple(values)


def _product(shape: tuple[int, ...]) -> int:
    if min(shape) < 1:
        raise CocError(f"shape {shape} is empty")
    result = 1
    for size in shape:
        result *= size
    return result


def _pick(tensors: list[Tensor], index: Any) -> Tensor:
    if type(index) is not int or not 0 <= index < len(tensors):
        raise CocError(f"tensor number {index!r:.20} does not exist")
    return tensors[index]


def _name(value: str) -> str:
    if not value.isprintable() or not value or len(value) > MAX_NAME:
        raise CocError("a name in the manifest is empty, too long or not printable")
    return value
