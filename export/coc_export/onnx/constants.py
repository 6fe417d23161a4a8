"""Numbers that several nodes of an ONNX file read, each written once."""

import zlib
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from coc_runtime import arithmetic
from coc_runtime.arithmetic import Encoding
from coc_runtime.errors import CocError

MAX_EXPONENT = 100
"""Powers of two up to this, and their products with a scale, are normal float32 numbers."""


class Constants:
    """Initializers shared by operators, keyed by their name; a name states the value."""

    def __init__(self) -> None:
        self.tensors: dict[str, onnx.TensorProto] = {}

    def _add(self, name: str, array: np.ndarray) -> str:
        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def power(self, exponent: int) -> str:
        """2**exponent, float32 scalar."""
        if abs(exponent) > MAX_EXPONENT:
            raise CocError(f"scale 2**{exponent} is outside 2**-{MAX_EXPONENT} to 2**{MAX_EXPONENT}")
        return self._add(f"e{exponent}", np.array(2.0**exponent, np.float32))

    def code(self, value: int) -> str:
        """A uint8 scalar: a zero point or the largest code."""
        return self._add(f"z{value}", np.array(value, np.uint8))

    def weight_zero_point(self, signed: bool, channels: int | None) -> str:
        """0 (int8) or 128 (uint8), a scalar or a vector of one value per channel."""
        shape = () if channels is None else (channels,)
        array = np.zeros(shape, np.int8) if signed else np.full(shape, 128, np.uint8)
        return self._add(f"{'i' if signed else 'u'}{channels or ''}", array)

    def sizes(self, values: Iterable[int]) -> str:
        """An int64 vector: a shape, axes or a position."""
        values = list(values)
        return self._add("n" + "x".join(map(str, values)), np.array(values, np.int64))

    def reciprocal(self, count: int) -> str:
        """float32(1 / count) as every back end computes it."""
        return self._add(f"r{count}", np.float32(1) / np.array(count, np.float32))

    def reciprocals(self, counts: np.ndarray) -> str:
        """float32(1 / count) of several, float32 [counts]."""
        array = np.float32(1) / counts.astype(np.float32)
        return self._add(f"r{_digest(array)}", array)

    def matrix(self, array: np.ndarray) -> str:
        """float32 [rows, columns]."""
        return self._add(f"m{_digest(array)}", array)

    def ones(self, kernel: tuple[int, int]) -> str:
        """float32 [1, 1, *kernel]: a filter that sums windows."""
        return self._add(f"o{kernel[0]}x{kernel[1]}", np.ones((1, 1, *kernel), np.float32))

    def infinity(self) -> str:
        """float32 scalar."""
        return self._add("inf", np.array(np.inf, np.float32))

    def table(self, bits: int, encoding: Encoding) -> str:
        """int8 [256, 8 / bits]: the integers that each packed byte holds."""
        codes = arithmetic.unpack(np.arange(256, dtype=np.uint8), bits, 256 * 8 // bits)
        integers = arithmetic.decode(codes.reshape(256, -1), bits, encoding)
        return self._add(f"t{bits}{encoding.value[0]}", integers.astype(np.int8))


def _digest(array: np.ndarray) -> str:
    """A short name of an array's shape and numbers."""
    return "x".join(map(str, array.shape)) + f"_{zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"
