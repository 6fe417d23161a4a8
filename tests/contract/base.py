"""Instances of operators, and the graph around one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from coc_runtime.arithmetic import Encoding
from coc_runtime.graph import Graph, Segment, verify
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import Conv, Flatten, Linear, Op, Tensor, Weight
from coc_runtime.ops.windows import Stride, stride_of

CLASSES = 7

TYPES = [(0, 8), (128, 8), (0, 4), (8, 4), (0, 2)]
"""zero point, bits"""

EXPONENTS = (-7, -3)
"""Of the tensors of random instances, lowest and highest."""


@dataclass(frozen=True)
class Instance:
    """A legal operator with the tensors that it reads and the one that it writes."""

    node: Op
    inputs: list[Tensor]
    output: Tensor

    def graph(self) -> Graph:
        return around(self.node, self.output, self.inputs)


Refused = Iterator[tuple[Op, list[Tensor]]]


@dataclass(frozen=True)
class Contract:
    """What the tests know of an operator. draw: an instance from random numbers, borders included.

    misfits: operators with inputs that their shape rule must refuse. inexact: what fits, but is not exact.
    cases: name -> graph, picked by hand. counted: whether it costs anything.
    """

    draw: Callable[[np.random.Generator], Instance]
    misfits: Callable[[], Refused]
    inexact: Callable[[], Refused] = field(default=lambda: iter(()))
    cases: Callable[[], Iterator[tuple[str, Graph]]] = field(default=lambda: iter(()))
    counted: bool = False


def tensor(
    name: str, rng: np.random.Generator, shape: tuple[int, ...], kind: tuple[int, int] | None = None
) -> Tensor:
    """A tensor of a random type, or of one of TYPES."""
    zero_point, bits = TYPES[rng.integers(len(TYPES))] if kind is None else kind
    return Tensor(name, shape, bits, zero_point, int(rng.integers(EXPONENTS[0], EXPONENTS[1] + 1)))


def like(name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the type of another."""
    return Tensor(name, shape, x.bits, x.zero_point, x.exponent)


def sizes(rng: np.random.Generator, most: int = 17) -> tuple[int, int, int]:
    """Channels, height and width; mostly odd ones, each 1 now and then."""
    return tuple(int(rng.choice((1, rng.integers(1, most + 1)), p=(0.2, 0.8))) for _ in range(3))  # type: ignore[return-value]


def random_stride(rng: np.random.Generator, most: int) -> Stride:
    """One for both directions, or now and then two."""
    down, across = (int(number) for number in rng.integers(1, most + 1, 2))
    return stride_of(down, across if rng.random() < 0.4 else down)


def layer_weight(rng: np.random.Generator, shape: tuple[int, ...]) -> Weight:
    bits = int(rng.choice((1, 2, 4, 8)))
    encoding = Encoding.SYMMETRIC if bits == 8 or rng.random() < 0.2 else Encoding.ODD
    codes = rng.integers(encoding is Encoding.SYMMETRIC, 1 << bits, shape).astype(np.uint8)
    return Weight(codes, bits, encoding)


def wide_weight(rng: np.random.Generator, shape: tuple[int, ...]) -> Weight:
    """8 bits, most of them large and positive: sums of two thousand pass 2**24 and are no multiples of 4."""
    codes = rng.integers(128 + 32, 256, shape).astype(np.uint8)
    return Weight(codes, 8, Encoding.SYMMETRIC)


def around(node: Op, output: Tensor, inputs: list[Tensor]) -> Graph:
    """A convolution per input of the node makes its codes from the image, Flatten a vector of them.

    The image has the shape of the first input (of a vector, height and width 1), the others have at most its
    height and width. Two heads read the output: the first segment carries it, the second reads it again.
    Logits are read by none.
    """
    rng = np.random.default_rng(0)
    images = [t if len(t.shape) == 3 else like(f"{t.name}.image", t, (*t.shape, 1, 1)) for t in inputs]
    image = Tensor("image", images[0].shape, 8, 128, -7)
    tensors = {tensor.name: tensor for tensor in (image, output, *inputs, *images)}
    nodes: list[Op] = []
    for made, read in zip(images, inputs, strict=True):
        if made.name not in {node.output for node in nodes}:
            nodes.append(_mix(image, made, rng))
        if made is not read:
            nodes.append(Flatten(read.name, made.name, read.name))
    nodes.append(node)
    if output.bits == LOGIT_BITS:
        graph = Graph("image", tensors, (Segment(tuple(nodes), output.name, None),), ())
        verify(graph)
        return graph
    segments = []
    for k in range(2):
        flat, logits = f"flat{k}", f"logits{k}"
        count = int(np.prod(output.shape))
        codes = rng.integers(128 - 7, 128 + 8, (CLASSES, count)).astype(np.uint8)
        weight = Weight(codes, 8, Encoding.SYMMETRIC)
        if len(output.shape) == 3:
            nodes.append(Flatten(flat, output.name, flat))
            tensors[flat] = like(flat, output, (count,))
        else:
            flat = output.name
        nodes.append(Linear(logits, flat, logits, weight, np.zeros(CLASSES, np.int32), -8))
        tensors[logits] = Tensor(logits, (CLASSES,), LOGIT_BITS, 0, output.exponent - 8)
        segments.append(Segment(tuple(nodes), logits, None if k else output.name))
        nodes = []
    graph = Graph("image", tensors, tuple(segments), (2.0,))
    verify(graph)
    return graph


def _mix(image: Tensor, output: Tensor, rng: np.random.Generator) -> Conv:
    """Codes that spread over the range of `output`: one channel of the image each, or its negative."""
    channels = output.shape[0]
    kernel = [whole - part + 1 for whole, part in zip(image.shape[1:], output.shape[1:], strict=True)]
    codes = np.full((channels, image.shape[0], *kernel), 128, np.uint8)
    codes[np.arange(channels), np.arange(channels) % image.shape[0], 0, 0] = rng.choice([126, 130], channels)
    scale = np.full(channels, 2.0 ** (output.exponent - image.exponent + output.bits - 9), np.float32)
    bias = np.full(channels, 0 if output.zero_point else 256, np.int32)
    return Conv(
        output.name, "image", output.name, Weight(codes, 8, Encoding.SYMMETRIC), bias, scale, 1, (0, 0, 0, 0)
    )
