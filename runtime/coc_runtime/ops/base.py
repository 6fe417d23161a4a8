"""What an operator of the integer graph is, whatever it computes.

A class states, and nothing else does: its fields, the shape of its output, its cost, when it is exact, its
reference in NumPy, what it is in a .coc file and in the manifest of an ONNX file. The defaults fit an
operator without parameters that costs nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..cost import LayerCost
from ..errors import CocError
from ..limits import LOGIT_BITS

if TYPE_CHECKING:
    from .entry import Entry
    from .row import Stored


@dataclass(frozen=True)
class Tensor:
    """Logical type of an activation: code q stands for (q - zero_point) * 2**exponent.

    shape is per image, (C, H, W) or (C,). Up to 8 bits the container is uint8; logits are 32-bit
    signed integers with zero point 0.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    zero_point: int
    exponent: int

    @property
    def type(self) -> tuple[int, int, int]:
        """What codes stand for."""
        return self.bits, self.zero_point, self.exponent

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Codes [N, *shape] as the float32 numbers that they stand for."""
        return np.ldexp((codes.astype(np.int32) - self.zero_point).astype(np.float32), self.exponent)


class Op(ABC):
    """An operator: reads one or two tensors, writes one. Subclasses are frozen dataclasses.

    Their methods name the parameters that stand for `inputs` here: one tensor, or two.
    """

    KIND: ClassVar[int]
    """Its number in .coc files."""
    SINCE: ClassVar[int] = 1
    """The first version of .coc files and of manifests that has it."""
    INPUTS: ClassVar[int]
    """How many tensors it reads."""
    FIELDS: ClassVar[frozenset[str]] = frozenset()
    """Fields of its row in a .coc file beside those that every operator has."""
    SECTIONS: ClassVar[tuple[str, ...]] = ()
    """Sections of a .coc file that hold a number of it for each output channel, of `row.PER_CHANNEL`."""
    GIVES_LOGITS: ClassVar[bool] = False
    """Whether its output has LOGIT_BITS bits, which exits alone read."""
    KEEPS_TYPE: ClassVar[bool] = False
    """Whether its output has the bits, zero point and exponent of its (first) input."""
    ONNX: ClassVar[frozenset[str]]
    """Types of the nodes that stand for it in an ONNX file."""
    ONNX_WINDOWS: ClassVar[frozenset[str]] = frozenset()
    """The types of ONNX nodes among them whose attributes must be `onnx_window`'s."""

    @property
    def since(self) -> int:
        """The first version of files that has it with these parameters."""
        return self.SINCE

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """Names it in errors, profiles and files; unique by use, not by rule."""

        @property
        def inputs(self) -> tuple[str, ...]:
            """Names of the tensors that it reads."""

        @property
        def output(self) -> str:
            """Name of the tensor that it writes."""

    @abstractmethod
    def output_shape(self, *inputs: Any, **_: Any) -> tuple[int, ...]:
        """Shape of the output, per image; CocError, naming the operator, if the inputs do not fit."""

    @abstractmethod
    def reference(self, *operands: Any, **_: Any) -> np.ndarray:
        """What it computes by definition: the output's codes, uint8 [N, *shape], of logits int32.

        operands: of each input its tensor and its codes [N, *shape]; last the output's tensor.
        """

    def cost(self, *inputs: Any, **_: Any) -> LayerCost | None:
        """What it costs per image; None if nothing."""
        return None

    def check(self, *inputs: Any, **_: Any) -> None:
        """Raise CocError unless any float32 evaluation of it is exact."""
        return

    def check_parameters(self) -> None:
        """Raise CocError unless its fields have the types and ranges that the other methods rely on."""
        return

    def check_output(self, output: Tensor, *inputs: Tensor) -> None:
        """Raise CocError unless `output` has a type that it can write."""
        if output.bits == LOGIT_BITS:
            raise CocError(f"{self.name}: only logits have {LOGIT_BITS} bits")
        if self.KEEPS_TYPE and output.type != inputs[0].type:
            raise CocError(
                f"{self.name}: output {output.name} must have the input's bits, zero point, exponent"
            )

    def temporaries(self, output: Tensor) -> int:
        """Numbers per image that the reference holds beside inputs and output."""
        return 0

    def row(self) -> Mapping[str, int]:
        """The values of FIELDS."""
        return {}

    def stored(self) -> Mapping[str, bytes]:
        """Its parameters in a .coc file: of each section of SECTIONS, and of one of `row.BEHIND`."""
        return {}

    @classmethod
    @abstractmethod
    def from_row(cls, stored: "Stored") -> Self:
        """The operator that a row and its parameters describe; CocError if they do not fit."""

    def entry(self) -> Mapping[str, Any]:
        """What the manifest says of it beside its class, name and tensors: JSON values, in that order."""
        return {}

    @classmethod
    @abstractmethod
    def from_entry(cls, entry: "Entry") -> Self:
        """The operator that an entry describes; CocError if it does not fit."""

    def onnx_window(self) -> tuple[str, dict[str, list[int]]] | None:
        """Type of its node of ONNX_WINDOWS, and the attributes that are not of default value; None if it has
        no such node."""
        return None


@dataclass(frozen=True, eq=False)
class Unary(Op):
    """An operator on one tensor; as it stands, one without parameters."""

    INPUTS = 1

    name: str
    input: str
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    @classmethod
    def from_row(cls, stored: "Stored") -> Self:
        return cls(stored.name, stored.inputs[0].name, stored.output)

    @classmethod
    def from_entry(cls, entry: "Entry") -> Self:
        return cls(entry.name, entry.inputs[0], entry.output)


@dataclass(frozen=True, eq=False)
class Binary(Op):
    """An operator on two tensors; as it stands, one without parameters."""

    INPUTS = 2
    FIELDS = frozenset({"second"})

    name: str
    inputs: tuple[str, str]
    output: str

    @classmethod
    def from_row(cls, stored: "Stored") -> Self:
        first, second = stored.inputs
        return cls(stored.name, (first.name, second.name), stored.output)

    @classmethod
    def from_entry(cls, entry: "Entry") -> Self:
        return cls(entry.name, (entry.inputs[0], entry.inputs[1]), entry.output)
