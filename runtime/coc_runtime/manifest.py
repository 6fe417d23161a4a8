"""The structure of an integer graph as JSON; the numbers (weights, biases, scales) lie beside it.

Tensors and operators are listed once; operators refer to tensors by their index. Operator j of the
graph (counted over all segments) owns the parameters `w{j}` (packed weight codes), `b{j}` (bias,
int32) and, for convolutions, `s{j}` (scale, float32). `task` is there where it is not classification.
"""

import json
from collections.abc import Mapping
from typing import Any

from .cost import bitops
from .errors import CocError
from .graph import Graph, Segment, Task, verify
from .limits import MAX_ELEMENTS
from .ops import OPS, Op, Tensor, version_of
from .ops.entry import Entry, Parameters, checked_name, get, integers, pick, product

FORMAT = 2
"""The newest version of this structure; a manifest has the oldest that holds all of its operators. A reader
refuses what is newer than itself."""


def dump(graph: Graph) -> bytes:
    """The manifest of a graph as compact UTF-8 JSON."""
    index = {name: i for i, name in enumerate(graph.tensors)}
    manifest: dict[str, Any] = {
        "format": _format(graph),
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


def _format(graph: Graph) -> int:
    """The version of the graph's manifest."""
    return version_of(node for segment in graph.segments for node in segment.nodes)


def _dump_node(node: Op, index: Mapping[str, int]) -> dict[str, Any]:
    return {
        "op": type(node).__name__,
        "name": node.name,
        "in": [index[name] for name in node.inputs],
        "out": index[node.output],
        **node.entry(),
    }


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
    tensors = [_tensor(row) for row in get(manifest, "tensors", list)]
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise CocError("two tensors have the same name")
    segments, first, declared = [], 0, []
    for row in get(manifest, "segments", list):
        nodes = get(row, "nodes", list)
        carry = None if row.get("carry") is None else pick(tensors, row["carry"]).name
        built = tuple(_node(node, tensors, f"{first + i}", parameters) for i, node in enumerate(nodes))
        segments.append(Segment(built, pick(tensors, get(row, "logits", int)).name, carry))
        declared.append(get(row, "bitops", int))
        first += len(nodes)
    name = pick(tensors, get(manifest, "input", int)).name
    by_name = {tensor.name: tensor for tensor in tensors}
    meta = get(manifest, "meta", dict)
    graph = Graph(name, by_name, tuple(segments), thresholds, meta, task_of(manifest))
    verify(graph)
    if manifest["format"] != _format(graph):
        raise CocError(f"format {manifest['format']} is not that of its operators, {_format(graph)}")
    counted = [bitops(graph.segment_layers(k)) for k in range(len(segments))]
    if counted != declared:
        raise CocError(f"BitOps per segment are {counted}, declared {declared}")
    return graph


def _node(fields: Any, tensors: list[Tensor], key: str, parameters: Parameters) -> Op:
    entry = Entry(fields, tensors, key, parameters)
    kind = {kind.__name__: kind for kind in OPS}.get(entry.op)
    if kind is None or len(entry.inputs) != kind.INPUTS:
        count = len(entry.inputs)
        raise CocError(f"{entry.name}: operator {entry.op[:40]!r} with {count} inputs is not known")
    return kind.from_entry(entry)


def _tensor(row: Any) -> Tensor:
    if not isinstance(row, list) or len(row) != 5 or not isinstance(row[0], str):
        raise CocError("a tensor's row is not [name, shape, bits, zero point, exponent]")
    if not isinstance(row[1], list) or len(row[1]) not in (1, 3):
        raise CocError(f"tensor {checked_name(row[0])}: shape must have one or three sizes")
    shape = integers(row[1], len(row[1]))
    if product(shape) > MAX_ELEMENTS:
        raise CocError(f"tensor {checked_name(row[0])}: shape {shape} exceeds {MAX_ELEMENTS} elements")
    return Tensor(checked_name(row[0]), shape, *integers(row[2:], 3))
