"""Tensors of the exported program while it is translated: nodes of the body, seen in any arrangement."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from coc_runtime.errors import CocError

from .program import BATCH, Constant
from .refusal import Place, refuse

Size = tuple[int, ...]
"""Of an image (channels, height, width) or a vector (features,), without the batch."""


@dataclass(frozen=True)
class Call:
    """An operation of the exported program.

    op: its name, without overload and without the underscore of operations in place. given: arguments by
    the names in its schema, defaults included. shape: of its first result. run: computes it on tensors.
    """

    op: str
    given: dict[str, Any]
    place: Place
    shape: Size
    run: Callable[..., Any]

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    def value(self, name: str) -> "Value":
        """An argument that must depend on the images."""
        found = self.given[name]
        if not isinstance(found, Value):
            raise self.refuse(f"{self.kind} of a constant as its '{name}'")
        return found

    def constant(self, name: str) -> Constant | None:
        """An argument that must not depend on the images; None where it is left out."""
        found = self.given.get(name)
        if found is not None and not isinstance(found, Constant):
            raise self.refuse(f"{self.kind} with a '{name}' that depends on the image")
        return found

    @property
    def kind(self) -> str:
        """The class of torch.nn that the operation belongs to, or its own name."""
        return self.place.kind if self.place.leaf else self.op

    def refuse(self, what: str, why: str = "") -> CocError:
        return refuse(self.place, what, why, self.op)


@dataclass(frozen=True, eq=False)
class Value:
    """What a node of the canonical body computes, rearranged.

    node: gives [N, *size]. shape: of the tensor in the exported program, its batch included. index: for each
    of its values the position in the flattened [BATCH, *size] that it comes from, int64; None: in order.
    call: the operation that arranged it so. name: of the node that rearranges, instead of the operation's.
    """

    node: fx.Node
    size: Size
    shape: Size
    index: Tensor | None = None
    call: Call | None = None
    name: str = ""

    @functools.cached_property
    def indices(self) -> Tensor:
        """`index`, written out."""
        if self.index is not None:
            return self.index
        return torch.arange(math.prod(self.shape)).reshape(self.shape)

    @property
    def count(self) -> int:
        """Values of one image in the node's result."""
        return math.prod(self.size)

    def arranged(self, index: Tensor, call: Call, name: str = "") -> "Value":
        """The same node in another arrangement."""
        whole = index.numel() == BATCH * self.count and torch.equal(
            index.flatten(), torch.arange(index.numel())
        )
        return Value(self.node, self.size, tuple(index.shape), None if whole else index, call, name)

    def of_one_image(self) -> Tensor | None:
        """The indices of the first image, of shape[1:]; None where the images of a batch are mixed."""
        if not self.shape or self.shape[0] != BATCH:
            return None
        first, *others = self.indices
        if first.numel() == 0 or int(first.min()) < 0 or int(first.max()) >= self.count:
            return None
        alike = all(torch.equal(other, first + number * self.count) for number, other in enumerate(others, 1))
        return first if alike else None


def image_size(shape: Size) -> Size | None:
    """The size that a tensor of this shape, its batch included, has in the canonical body.

    A sequence [N, C, L] is an image one pixel high. None: neither image, sequence nor vector.
    """
    if not shape or shape[0] != BATCH:
        return None
    if len(shape) == 3:
        return (shape[1], 1, shape[2])
    return tuple(shape[1:]) if len(shape) in (2, 4) else None


@dataclass(frozen=True)
class Noise:
    """Random numbers that do not depend on the images: uniform in [0, 1) plus `keep` until they are `rounded`
    down; then `scale` with probability `keep`, else 0."""

    shape: Size
    keep: float = 0.0
    scale: float = 1.0
    rounded: bool = False
