"""Functions of single values, as tables of codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import CocError
from ..limits import MAX_BITS
from .base import Tensor, Unary
from .entry import Entry
from .row import Stored


@dataclass(frozen=True, eq=False)
class Lookup(Unary):
    """What every code becomes, looked up in a table: any function of single values (docs/adr/0016).

    One table for all channels, or one for each.
    """

    KIND = 9
    SINCE = 2
    FIELDS = frozenset({"channels"})
    ONNX = frozenset({"Add", "Cast", "Gather"})

    tables: np.ndarray
    """output codes, uint8 [1 or channels, 2**bits of the input]"""

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        count, codes = self.tables.shape
        if codes != 1 << x.bits or count not in (1, x.shape[0]):
            raise CocError(
                f"{self.name}: {count} tables of {codes} codes do not fit input {x.shape} of {x.bits} bits"
            )
        return x.shape

    def check_parameters(self) -> None:
        tables = self.tables
        if tables.ndim != 2 or tables.dtype != np.uint8 or tables.size == 0:
            raise CocError(f"{self.name}: tables must be uint8 of rank 2 and not empty")

    def check_output(self, output: Tensor, *inputs: Tensor) -> None:
        super().check_output(output, *inputs)
        if int(self.tables.max()) >= 1 << output.bits:
            raise CocError(f"{self.name}: codes of its table do not fit {output.bits} bits")

    def reference(self, x: Tensor, codes: np.ndarray, output: Tensor) -> np.ndarray:
        if len(self.tables) == 1:
            return np.asarray(self.tables[0][codes])
        channel = np.arange(len(self.tables)).reshape(-1, *[1] * (len(x.shape) - 1))
        return np.asarray(self.tables[channel, codes])

    def temporaries(self, output: Tensor) -> int:
        """Codes as indices of eight bytes."""
        return 2 * int(np.prod(output.shape))

    def row(self) -> Mapping[str, int]:
        return {"channels": len(self.tables)}

    def stored(self) -> Mapping[str, bytes]:
        return {"tables": self.tables.tobytes()}

    @classmethod
    def from_row(cls, stored: Stored) -> Self:
        (source,) = stored.inputs
        tables = stored.bytes((stored.row.channels, _codes(stored.name, source)))
        return cls(stored.name, source.name, stored.output, tables)

    def entry(self) -> Mapping[str, Any]:
        return {"tables": len(self.tables)}

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        count = entry.positive("tables", "{} tables are out of range")
        tables = entry.array("w", "uint8", (count, _codes(entry.name, entry.sources[0])))
        return cls(entry.name, entry.inputs[0], entry.output, tables)


def _codes(name: str, x: Tensor) -> int:
    """How many codes a tensor has, whose bits nobody has checked yet."""
    if not 1 <= x.bits <= MAX_BITS:
        raise CocError(f"{name}: reads {x.name} of {x.bits} bits, which has no codes")
    return 1 << x.bits
