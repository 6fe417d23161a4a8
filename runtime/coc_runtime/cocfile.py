"""Reads .coc files: an integer graph packed at its bits. docs/format.md describes them byte by byte.

Shapes, positions and outputs follow from the operators, so a file states none of them. Whatever it
does state is checked before it is used; nothing is allocated beyond what the file's bytes can fill.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import arithmetic, coclayout, files
from .coclayout import HEADER, MAGIC, SEGMENT, TASKS, VERSION, Header
from .errors import CocError
from .graph import Graph, Segment, verify
from .limits import MAX_DESCRIPTION, MAX_ELEMENTS, MAX_FILE_BYTES, MAX_NAME, WEIGHT_ALIGNMENT
from .ops import KINDS, Op, Tensor, Weight, version_of
from .ops.row import ENCODINGS, PER_CHANNEL, ROW, Row, Stored


@dataclass(frozen=True, eq=False)
class CocFile:
    """A verified file: the integer graph and the file's bytes."""

    graph: Graph
    data: bytes


def is_coc(path: str | Path) -> bool:
    """Whether a file begins like a .coc file; False for a file that cannot be read."""
    try:
        if not Path(path).is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def read(path: str | Path) -> CocFile:
    """The verified contents of a file; CocError, naming the path, if it is missing, damaged or not ours."""
    return parse(files.read_artifact(path), str(path))


def parse(data: bytes, where: str) -> CocFile:
    """What `read` does with a file's bytes; `where` names them in errors."""
    try:
        header = _header(data)
        try:
            return CocFile(_Reader(data, header).graph(), data)
        except CocError as error:
            raise CocError(f"inconsistent file, {error}: export it again") from None
    except CocError as error:
        raise CocError(f"{where}: {error}") from None


def _header(data: bytes) -> Header:
    """The header of a whole and undamaged file of this version."""
    if not data.startswith(MAGIC):
        raise CocError("not a .coc file: give the file that coc-export wrote")
    if len(data) < HEADER.size:
        raise CocError(f"truncated, {len(data)} bytes are no header: copy the file again or export it again")
    header = Header(*HEADER.unpack_from(data))
    if header.version > VERSION:
        raise CocError(
            f"format {header.version} is newer than this version reads ({VERSION}): upgrade coc-deploy"
        )
    if header.version < 1:
        raise CocError(f"format {header.version} does not exist: export the file again")
    if len(data) != header.file_size:
        state = "truncated" if len(data) < header.file_size else "damaged"
        sizes = f"{len(data)} bytes instead of {header.file_size}"
        raise CocError(f"{state}, {sizes}: copy the file again or export it again")
    if header.checksum != coclayout.checksum(data):
        raise CocError("damaged, its checksum does not hold: copy the file again or export it again")
    return header


class _Reader:
    """Takes the sections of a file one after the other."""

    def __init__(self, data: bytes, header: Header) -> None:
        self.data, self.header, self.at = memoryview(data), header, HEADER.size

    def graph(self) -> Graph:
        self._check_header()
        header = self.header
        rows = [Row(*fields) for fields in ROW.iter_unpack(self._take(ROW.size * header.operators))]
        for index, row in enumerate(rows):
            _at_operator(index, coclayout.check_row, row)
        segments = list(SEGMENT.iter_unpack(self._take(SEGMENT.size * header.segments)))
        thresholds = self._thresholds()
        sections = {name: self._section(name, rows) for name in PER_CHANNEL}
        names, meta = self._description()
        image = (header.channels, header.height, header.width)
        tensors = [Tensor(names[0][1], image, 8, 128, header.exponent)]
        coclayout.check_tensor(tensors[0])
        nodes: list[Op] = []
        for index, row in enumerate(rows):
            node, output = _at_operator(index, self._operator, row, names[index + 1], tensors, sections)
            coclayout.check_tensor(output)
            nodes.append(node)
            tensors.append(output)
        if header.version != version_of(nodes):
            stated = f"format {header.version} is not that of its operators"
            raise CocError(f"{stated}, {version_of(nodes)}")
        if self.at != len(self.data):
            raise CocError(f"{len(self.data) - self.at} bytes follow the last weights")
        by_name = {tensor.name: tensor for tensor in tensors}
        parts = _segments(segments, nodes, tensors)
        graph = Graph(tensors[0].name, by_name, parts, thresholds, meta, TASKS[header.task])
        verify(graph)
        coclayout.check_graph(graph)
        return graph

    def _check_header(self) -> None:
        header = self.header
        if header.file_size > MAX_FILE_BYTES:
            raise CocError("the file is larger than 2 GB")
        if 0 in (header.channels, header.height, header.width):
            raise CocError(f"image {header.channels}x{header.height}x{header.width} is empty")
        coclayout.check_counts(header.operators, header.segments)
        if not 1 <= header.description <= MAX_DESCRIPTION:
            raise CocError(f"a description of {header.description} bytes, not 1 to {MAX_DESCRIPTION}")
        if header.task >= len(TASKS):
            raise CocError(f"task {header.task} is not known")
        if any(header.zero) or any(header.zeros):
            raise CocError("reserved bytes of the header are not 0")

    def _take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            missing = count - (len(self.data) - self.at)
            raise CocError(f"its contents need {missing} bytes more than there are")
        self.at += count
        return self.data[self.at - count : self.at]

    def _thresholds(self) -> tuple[float, ...]:
        values = np.frombuffer(self._take(4 * (self.header.segments - 1)), "<f4")
        most = coclayout.LARGEST_THRESHOLD[TASKS[self.header.task]]
        if not ((values >= 0) & (values <= most) & ~np.signbit(values)).all():
            raise CocError(f"thresholds {values.tolist()} are not all between 0 and {most:g}")
        return tuple(values.tolist())

    def _section(self, name: str, rows: list[Row]) -> "_Channels":
        """The numbers that some operators have for each output channel."""
        count = sum(row.channels for row in rows if name in KINDS[row.kind].SECTIONS)
        dtype = PER_CHANNEL[name]
        return _Channels(np.frombuffer(self._take(dtype.itemsize * count), dtype))

    def _description(self) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """(operator, output) names of the image and of every operator, and the meta."""
        text = bytes(self._take(self.header.description))
        try:
            found = json.loads(text.decode("ascii"))
        except (ValueError, RecursionError):
            raise CocError("the description is not JSON in ASCII") from None
        if not isinstance(found, dict) or found.keys() != {"meta", "names"}:
            raise CocError("the description does not consist of meta and names")
        names, meta = found["names"], found["meta"]
        if not isinstance(names, list) or len(names) != self.header.operators + 1:
            raise CocError(f"the description does not name {self.header.operators + 1} tensors")
        if not isinstance(meta, dict) or coclayout.describe(names, meta) != text:
            raise CocError("the description is not in the form that coc-export writes")
        if not isinstance(names[0], str):
            raise CocError("the image has no name")
        pairs = [_names(entry) for entry in names]
        if len({output for _, output in pairs}) != len(pairs):
            raise CocError("two tensors have the same name")
        return pairs, meta

    def _operator(
        self, row: Row, names: tuple[str, str], tensors: list[Tensor], sections: "Mapping[str, _Channels]"
    ) -> tuple[Op, Tensor]:
        """An operator and what it writes; takes its parameters."""
        kind = KINDS[row.kind]
        read = (row.input, row.second)[: kind.INPUTS]
        for index in read:
            if index >= len(tensors):
                raise CocError(f"reads tensor {index} before it is written")
        sources = tuple(tensors[index] for index in read)
        name, output = names

        def per_channel(section: str) -> np.ndarray:
            return sections[section].take(row.channels)

        weight = partial(self._weight, row)
        node = kind.from_row(Stored(row, name, sources, output, weight, self._bytes, per_channel))
        return node, Tensor(output, node.output_shape(*sources), row.bits, row.zero_point, row.exponent)

    def _bytes(self, shape: tuple[int, ...]) -> np.ndarray:
        if any(self._take(-self.at % WEIGHT_ALIGNMENT)):
            raise CocError("the padding in front of its weights is not 0")
        return np.frombuffer(self._take(math.prod(shape)), np.uint8).reshape(shape)

    def _weight(self, row: Row, shape: tuple[int, ...]) -> Weight:
        count = math.prod(shape)
        if count > MAX_ELEMENTS:
            raise CocError(f"weights {shape} exceed {MAX_ELEMENTS}")
        packed = self._bytes((-(-row.weight_bits * count // 8),))
        unused = 8 * len(packed) - row.weight_bits * count
        if int(packed[-1]) >> (8 - unused):
            raise CocError("unused bits behind its weights are not 0")
        codes = arithmetic.unpack(packed, row.weight_bits, count).reshape(shape)
        return Weight(codes, row.weight_bits, ENCODINGS[row.encoding])


class _Channels:
    """Numbers per output channel, dealt out operator by operator."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.at = values, 0

    def take(self, count: int) -> np.ndarray:
        self.at += count
        return self.values[self.at - count : self.at]


def _at_operator(index: int, function: Any, *arguments: Any) -> Any:
    """function(*arguments), its error preceded by the operator's number."""
    try:
        return function(*arguments)
    except CocError as error:
        raise CocError(f"operator {index}: {error}") from None


def _names(entry: Any) -> tuple[str, str]:
    """(operator, output) names of one entry of the description."""
    pair = [entry, entry] if isinstance(entry, str) else entry
    if not isinstance(pair, list) or len(pair) != 2 or (pair is entry and pair[0] == pair[1]):
        raise CocError("the description names an operator by something else than one or two names")
    for name in pair:
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise CocError("a name in the description is empty, too long or not printable")
    return pair[0], pair[1]


def _segments(rows: list[tuple[int, ...]], nodes: list[Op], tensors: list[Tensor]) -> tuple[Segment, ...]:
    if sum(row[0] for row in rows) != len(nodes):
        raise CocError(f"the segments do not share out {len(nodes)} operators")
    segments, first = [], 0
    for index, (count, logits, carry, zero) in enumerate(rows):
        last = index == len(rows) - 1
        if max(logits, carry) >= len(tensors):
            raise CocError(f"segment {index} ends with tensor {max(logits, carry)}, which does not exist")
        if zero or (last and carry):
            raise CocError(f"reserved bytes of segment {index} are not 0")
        carried = None if last else tensors[carry].name
        segments.append(Segment(tuple(nodes[first : first + count]), tensors[logits].name, carried))
        first += count
    return tuple(segments)
