"""Where a quantized unit stands in the graph that it becomes a part of."""

from dataclasses import dataclass

from coc_deploy.qat import ActQuant
from coc_runtime.ops import Op, Tensor

Lowered = list[tuple[Op, Tensor]]
"""The operators of a unit in order, each with what it writes."""


@dataclass(frozen=True)
class Place:
    """Names of the operator and of the tensor that it writes, and what it reads."""

    name: str
    output: str
    inputs: tuple[Tensor, ...]

    @property
    def input(self) -> str:
        """Name of the only tensor that is read, or of the first."""
        return self.inputs[0].name


def single(op: Op, inputs: tuple[Tensor, ...], act: ActQuant) -> Lowered:
    """One operator, its output of the type that a quantizer gives."""
    shape = op.output_shape(*inputs)
    return [(op, Tensor(op.output, shape, act.bits, act.zero_point, int(act.exponent)))]
