"""An operator's entry in a manifest, read with every type and range checked before anything is allocated."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arithmetic import Encoding, unpack
from ..errors import CocError
from ..limits import MAX_NAME, ONNX_FIELD, WEIGHT_BITS
from .base import Tensor
from .weight import Weight
from .windows import Pads, Stride, check_pads

Parameters = Callable[[str, str, tuple[int, ...]], np.ndarray]
"""(name, dtype, shape) -> array, or a CocError if the file holds no such array."""


class Entry:
    """Fields of an operator's JSON object; every method raises CocError where the object does not fit."""

    def __init__(self, fields: Any, tensors: Sequence[Tensor], key: str, parameters: Parameters) -> None:
        """key: the operator's number, which names its parameters."""
        self._fields, self._key, self._parameters = fields, key, parameters
        self.name = checked_name(self.get("name", str))
        self.op: str = self.get("op", str)
        self.sources = tuple(pick(tensors, index) for index in self.get("in", list))
        self.inputs = tuple(source.name for source in self.sources)
        self.output = pick(tensors, self.get("out", int)).name

    def get(self, field: str, kind: type) -> Any:
        return get(self._fields, field, kind)

    def integers(self, field: str, count: int) -> tuple[int, ...]:
        return integers(self.get(field, list), count)

    def positive(self, field: str, complaint: str) -> int:
        """An integer of at least 1; complaint: what an error says of its value."""
        value: int = self.get(field, int)
        if not 1 <= value < ONNX_FIELD:
            raise CocError(f"{self.name}: {complaint.format(value)}")
        return value

    def kernel(self) -> tuple[int, int]:
        height, width = self.integers("kernel", 2)
        return height, width

    def stride(self) -> Stride:
        return self._steps("stride")

    def dilation(self) -> Stride:
        return self._steps("dilation") if "dilation" in self._fields else 1

    def _steps(self, field: str) -> Stride:
        if isinstance(self._fields.get(field), list):
            down, across = self.integers(field, 2)
            return down, across
        return self.positive(field, field + " {} out of range")

    def pads(self, kernel: tuple[int, int]) -> Pads:
        top, left, bottom, right = self.integers("pads", 4)
        check_pads(self.name, kernel, (top, left, bottom, right))
        return top, left, bottom, right

    def array(self, letter: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """The parameter of that letter: w, b, s."""
        return self._parameters(f"{letter}{self._key}", dtype, shape)

    def weight(self, rank: int) -> Weight:
        shape = self.integers("shape", rank)
        bits, count = self.get("bits", int), product(shape)
        if bits not in WEIGHT_BITS:
            raise CocError(f"{self.name}: {bits} weight bits are not supported (1, 2, 4 or 8)")
        encodings = {encoding.value: encoding for encoding in Encoding}
        encoding = self.get("encoding", str)
        if encoding not in encodings:
            raise CocError(f"{self.name}: weight encoding {encoding[:40]!r} is not known")
        packed = self.array("w", "uint8", (-(-bits * count // 8),))
        codes = unpack(packed, bits, count).reshape(shape)
        return Weight(codes, bits, encodings[encoding])


def get(fields: Any, field: str, kind: type) -> Any:
    """A field of a JSON object, which must have a type."""
    value = fields.get(field) if isinstance(fields, dict) else None
    if type(value) is not kind:
        raise CocError(f"the manifest needs {field!r} as {kind.__name__}")
    return value


def integers(values: list[Any], count: int) -> tuple[int, ...]:
    if len(values) != count or any(type(value) is not int or abs(value) >= 1 << 31 for value in values):
        raise CocError(f"the manifest needs {count} integers of 32 bits, not {str(values)[:60]}")
    return tuple(values)


def product(shape: tuple[int, ...]) -> int:
    """How many elements a shape has, in Python's integers."""
    if min(shape) < 1:
        raise CocError(f"shape {shape} is empty")
    result = 1
    for size in shape:
        result *= size
    return result


def pick(tensors: Sequence[Tensor], index: Any) -> Tensor:
    if type(index) is not int or not 0 <= index < len(tensors):
        raise CocError(f"tensor number {index!r:.20} does not exist")
    return tensors[index]


def checked_name(value: str) -> str:
    if not value.isprintable() or not value or len(value) > MAX_NAME:
        raise CocError("a name in the manifest is empty, too long or not printable")
    return value
