"""Reads the ONNX files that coc-export writes, without the onnx package.

A file is accepted only if it consists of the fields, operators and data types that coc-export writes,
its checksum (SHA-256 over the bytes of the GraphProto, then the manifest) holds, and the graph that
manifest and initializers describe is legal. No external data, no functions, no custom operators.
Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import files, manifest, protobuf
from .errors import CocError
from .graph import Graph
from .limits import MAX_SEGMENTS
from .onnxlevels import Initializer, Level, check_windows, read_levels
from .protobuf import Message, encode

PRODUCER = "coc-deploy"
OPSET = 21
"""What coc-export writes unless told otherwise."""
IR_VERSIONS = dict(zip(range(13, 26), (7, 7, 8, 8, 8, 8, 9, 9, 10, 10, 11, 12, 13), strict=True))
"""Opsets that coc-export can write, and the oldest IR that may hold each: older engines refuse newer IRs."""
MANIFEST_KEY = "coc"
CHECKSUM_KEY = "coc_sha256"

UINT8, FLOAT = 2, 1
INPUT, OUTPUT_LOGITS, OUTPUT_CARRY = "segment_input", "segment_logits", "segment_carry"
"""What a segment's model reads and gives; no names of the one-file model."""


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A verified file: the integer graph, the file's bytes and what segment models are cut from."""

    graph: Graph
    data: bytes
    levels: tuple[Level, ...]
    opset: int = OPSET

    def segment_model(self, index: int) -> bytes:
        """A complete ONNX model of segment `index` for any batch size.

        Reads INPUT (uint8 codes [N, *shape]), gives OUTPUT_LOGITS (float32 [N, classes]) and, except
        the last, OUTPUT_CARRY (uint8 [N, *shape]).
        """
        graph, segment = self.graph, self.graph.segments[index]
        names = self._names(index)
        source = graph.segment_input(index)
        nodes: list[bytes | memoryview] = [_identity(INPUT, names[source]), *self.levels[index].segment_nodes]
        nodes.append(_identity(names[segment.logits], OUTPUT_LOGITS))
        outputs = [_value_info(OUTPUT_LOGITS, FLOAT, (graph.classes,))]
        if segment.carry is not None:
            nodes.append(_identity(names[segment.carry], OUTPUT_CARRY))
            outputs.append(_value_info(OUTPUT_CARRY, UINT8, graph.tensors[segment.carry].shape))
        body = b"".join(encode(1, node) for node in nodes) + encode(2, f"segment{index}")
        used = self.levels[index].segment_reads
        for level in self.levels[: index + 1]:
            body += b"".join(encode(5, i.data) for i in level.initializers.values() if i.name in used)
        body += encode(11, _value_info(INPUT, UINT8, graph.tensors[source].shape))
        body += b"".join(encode(12, output) for output in outputs)
        return model_bytes(body, opset=self.opset)

    def _names(self, index: int) -> dict[str, str]:
        """ONNX names of the graph's tensors in the one-file model."""
        names = {name: f"a{i}" for i, name in enumerate(self.graph.tensors)}
        names[self.graph.input] = "image"
        if len(self.graph.segments) == 1:
            names[self.graph.segments[0].logits] = "logits"
        return names


def read(path: str | Path) -> OnnxFile:
    """The verified contents of a file; CocError, naming the path, if it is missing, damaged or not ours."""
    return parse(files.read_artifact(path), str(path))


def parse(data: bytes, where: str) -> OnnxFile:
    """What `read` does with a file's bytes; `where` names them in errors."""
    try:
        return _parse(data)
    except CocError as error:
        raise CocError(f"{where}: {error}") from None


def checksum(graph: bytes | memoryview, structure: bytes | memoryview) -> str:
    """SHA-256 (hexadecimal) over a serialized GraphProto followed by the manifest."""
    digest = hashlib.sha256(graph)
    digest.update(structure)
    return digest.hexdigest()


def model_bytes(
    graph: bytes | memoryview, structure: bytes | memoryview | None = None, opset: int = OPSET
) -> bytes:
    """A ModelProto around a serialized GraphProto, with manifest and checksum if there is a manifest."""
    result = _start(IR_VERSIONS[opset]) + encode(7, graph)
    result += encode(8, encode(1, "") + encode(2, opset))
    if structure is not None:
        result += encode(14, encode(1, MANIFEST_KEY) + encode(2, structure))
        result += encode(14, encode(1, CHECKSUM_KEY) + encode(2, checksum(graph, structure)))
    return result


def _start(ir_version: int) -> bytes:
    return encode(1, ir_version) + encode(2, PRODUCER)


def _parse(data: bytes) -> OnnxFile:
    graph_bytes, opset, properties = _outline(data)
    structure = properties.get(MANIFEST_KEY.encode())
    if structure is None:
        raise CocError(
            "the manifest is missing: the file is truncated or not the one-file export: export it again"
            if _ours(data)
            else "made by another tool, it has no coc-deploy manifest: write the file with coc-export"
        )
    stated = properties.get(CHECKSUM_KEY.encode(), memoryview(b""))
    if bytes(stated) != checksum(graph_bytes, structure).encode():
        raise CocError("damaged, its checksum does not hold: copy the file again or export it again")
    description = manifest.decode(bytes(structure))
    try:
        if opset not in IR_VERSIONS or model_bytes(graph_bytes, structure, opset) != data:
            raise CocError("its header is not the one that coc-export writes")
        return _build(data, graph_bytes, description, opset)
    except CocError as error:
        raise CocError(f"inconsistent file, {error}: export it again") from None


def _ours(data: bytes) -> bool:
    """Whether a file begins as ours do."""
    return any(data.startswith(_start(version)) for version in set(IR_VERSIONS.values()))


def _outline(data: bytes) -> tuple[memoryview, int, dict[bytes, memoryview]]:
    """The GraphProto's bytes, the opset and the metadata of a ModelProto of any origin."""
    graph, opset, properties = None, 0, {}
    try:
        for number, value in protobuf.fields(memoryview(data)):
            if number == 7 and isinstance(value, memoryview):
                graph = value
            if number == 8 and isinstance(value, memoryview):
                opset = next((v for n, v in protobuf.fields(value) if n == 2 and isinstance(v, int)), 0)
            if number == 14 and isinstance(value, memoryview):
                entry = Message(value, {1: bytes, 2: bytes})
                properties[bytes(entry.part(1))] = entry.part(2)
    except CocError as error:
        if _ours(data):
            raise CocError(
                f"truncated or damaged ({error}): copy the file again or export it again"
            ) from None
        raise CocError(f"not an ONNX file ({error}): give the .onnx file that coc-export wrote") from None
    if graph is None:
        message = "truncated, the graph is missing" if _ours(data) else "not an ONNX file, it holds no graph"
        raise CocError(f"{message}: give the .onnx file that coc-export wrote")
    return graph, opset, properties


def _build(data: bytes, graph_bytes: memoryview, description: dict[str, object], opset: int) -> OnnxFile:
    rows = description.get("segments")
    count = len(rows) if isinstance(rows, list) else 0
    if not 1 <= count <= MAX_SEGMENTS:
        raise CocError(f"the manifest has {count} segments, not 1 to {MAX_SEGMENTS}")
    levels = read_levels(graph_bytes, count)
    initializers = {name: value for level in levels for name, value in level.initializers.items()}

    def parameter(name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        return _parameter(initializers, name, dtype, shape)

    thresholds: tuple[float, ...] = ()
    if count > 1:
        thresholds = tuple(parameter("thresholds", "float32", (count - 1,)).tolist())
    graph = manifest.load(description, thresholds, parameter)
    for level, segment in zip(levels, graph.segments, strict=True):
        check_windows(level, segment)
        if level.task is not graph.task:
            stated = f"the manifest says {graph.task.value}"
            raise CocError(f"the ONNX graph gates like a {level.task.value}, {stated}")
    return OnnxFile(graph, data, levels, opset)


def _parameter(
    initializers: dict[str, Initializer], name: str, dtype: str, shape: tuple[int, ...]
) -> np.ndarray:
    """The array of an initializer, whose flattened length must be that of `shape`."""
    if name not in initializers:
        raise CocError(f"initializer {name} is missing")
    array = initializers[name].array()
    count = 1
    for length in shape:
        count *= length
    if array.dtype != dtype or array.size != count:
        raise CocError(f"initializer {name} is {array.dtype} {array.shape}, must be {dtype} {shape}")
    return array.reshape(shape)


def _identity(source: str, target: str) -> bytes:
    return encode(1, source) + encode(2, target) + encode(4, "Identity")


def _value_info(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    """ValueInfoProto of a tensor [N, *shape]."""
    sizes = encode(1, encode(2, "N")) + b"".join(encode(1, encode(1, size)) for size in shape)
    tensor = encode(1, kind) + encode(2, sizes)
    return encode(1, name) + encode(2, encode(1, tensor))
