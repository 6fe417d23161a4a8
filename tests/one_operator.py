"""Graphs around one operator, so that a back end can be compared on it alone."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from coc_runtime.arithmetic import Encoding
from coc_runtime.graph import Graph, Segment, verify
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import AveragePool, Concat, Conv, Flatten, Linear, MaxPool, Op, Tensor, Weight

CLASSES = 7

POOLS = [
    # kernel, stride, pads, (channels, height, width)
    ((2, 2), 2, (0, 0, 0, 0), (3, 8, 66)),
    ((3, 3), 2, (1, 1, 1, 1), (2, 9, 67)),
    ((3, 3), 2, (0, 0, 1, 1), (4, 6, 34)),
    ((3, 3), 1, (1, 1, 1, 1), (3, 7, 40)),
    ((1, 1), 2, (0, 0, 0, 0), (3, 5, 5)),
    ((2, 4), 3, (1, 3, 0, 2), (2, 5, 17)),
    ((5, 3), 1, (4, 2, 4, 2), (1, 1, 1)),
    ((7, 7), 1, (0, 0, 0, 0), (9, 7, 7)),
    ((4, 1), 4, (0, 0, 3, 0), (17, 5, 3)),
    ((3, 2), 5, (2, 0, 2, 1), (1, 4, 12)),
    # sums of half a count make ties, which a division rounds differently than the product with 1 / count
    ((2, 7), 1, (1, 1, 0, 1), (3, 16, 40)),
    ((4, 7), 1, (0, 2, 1, 1), (3, 16, 40)),
]
TYPES = [(0, 8), (128, 8), (0, 4), (8, 4), (0, 2)]
"""zero point, bits"""


@cache
def single_operators() -> dict[str, Graph]:
    """Name -> graph: pools, concatenations of every pair of types, convolutions to and of single pixels."""
    found = [*_pools(), *_concatenations(), *_small_convolutions()]
    graphs = dict(found)
    assert len(graphs) == len(found)
    return graphs


def _pools() -> Iterator[tuple[str, Graph]]:
    for index, (kernel, stride, pads, shape) in enumerate(POOLS):
        zero_point, bits = TYPES[index % len(TYPES)]
        x = Tensor("x", shape, bits, zero_point, -5)
        name = f"{kernel[0]}x{kernel[1]}s{stride}-{''.join(map(str, pads))}-{zero_point}"
        largest = MaxPool("pool", "x", "y", kernel, stride, pads)
        y = Tensor("y", largest.output_shape(x), bits, zero_point, -5)
        yield f"max-{name}", around(largest, y, [x])
        mean = AveragePool("pool", "x", "y", kernel, stride, pads)
        for out_zero, out_bits, exponent in ((0, 8, -5), (128, 8, -7), (8, 4, bits - 10)):
            y = Tensor("y", mean.output_shape(x), out_bits, out_zero, exponent)
            yield f"average-{name}-{out_zero}-{exponent}", around(mean, y, [x])


def _concatenations() -> Iterator[tuple[str, Graph]]:
    for first, (a_zero, a_bits) in enumerate(TYPES):
        for second, (b_zero, b_bits) in enumerate(TYPES):
            y_zero, y_bits = TYPES[(first + 2 * second) % 4]
            a = Tensor("a", (3, 5, 7), a_bits, a_zero, -5)
            b = Tensor("b", (1 + 4 * (first == second), 5, 7), b_bits, b_zero, -5 + first - second)
            y = Tensor("y", (a.shape[0] + b.shape[0], 5, 7), y_bits, y_zero, -4 - first % 2)
            yield (
                f"concat-{a_zero}-{a_bits}-{b_zero}-{b_bits}",
                around(Concat("c", ("a", "b"), "y"), y, [a, b]),
            )
    x = Tensor("x", (2, 3, 3), 8, 128, -5)
    y = Tensor("y", (4, 3, 3), 8, 128, -5)
    yield "concat-with-itself", around(Concat("c", ("x", "x"), "y"), y, [x])


def _small_convolutions() -> Iterator[tuple[str, Graph]]:
    """Of single pixels, with padding and without, and of kernels as large as the image."""
    for bits in (1, 2, 4, 8):
        for kernel, size, pad, groups in (
            (1, 1, 0, 1),
            (3, 1, 1, 1),
            (4, 4, 0, 1),
            (3, 3, 0, 16),
            (5, 5, 0, 2),
        ):
            for zero_point in (0, 128):
                rng = np.random.default_rng(bits * kernel)
                x = Tensor("x", (16, size, size), 8, zero_point, -5)
                encoding = Encoding.SYMMETRIC if bits == 8 else Encoding.ODD
                codes = rng.integers(bits == 8, 1 << bits, (32, 16 // groups, kernel, kernel)).astype(
                    np.uint8
                )
                fan_in = codes[0].size
                scale = np.full(32, 2.0 ** -np.rint(bits + np.log2(fan_in) / 2 + 2), np.float32)
                bias = rng.integers(-99, 100, 32).astype(np.int32)
                weight, pads = Weight(codes, bits, encoding), (pad, pad, pad, pad)
                conv = Conv("conv", "x", "y", weight, bias, scale, 1, pads, groups)
                y = Tensor("y", (32, 1, 1), 8, 128, -6)
                yield f"conv-{bits}-{kernel}x{size}-{groups}-{zero_point}", around(conv, y, [x])


def around(node: Op, output: Tensor, inputs: list[Tensor]) -> Graph:
    """A 1x1 convolution per input of the node makes its codes from the image; two heads read the output.

    Inputs have rank 3 and one height and width, the image as many channels as the first. The first
    segment carries the output, which the second reads again.
    """
    rng = np.random.default_rng(0)
    image = Tensor("image", (inputs[0].shape[0], *inputs[0].shape[1:]), 8, 128, -7)
    tensors = {tensor.name: tensor for tensor in (image, output, *inputs)}
    nodes: list[Op] = [_mix(image, tensor, rng) for tensor in inputs]
    nodes.append(node)
    segments = []
    for k in range(2):
        flat, logits = f"flat{k}", f"logits{k}"
        count = int(np.prod(output.shape))
        codes = rng.integers(128 - 7, 128 + 8, (CLASSES, count)).astype(np.uint8)
        weight = Weight(codes, 8, Encoding.SYMMETRIC)
        nodes.append(Flatten(flat, output.name, flat))
        nodes.append(Linear(logits, flat, logits, weight, np.zeros(CLASSES, np.int32), -8))
        tensors[flat] = Tensor(flat, (count,), output.bits, output.zero_point, output.exponent)
        tensors[logits] = Tensor(logits, (CLASSES,), LOGIT_BITS, 0, output.exponent - 8)
        segments.append(Segment(tuple(nodes), logits, None if k else output.name))
        nodes = []
    graph = Graph("image", tensors, tuple(segments), (2.0,))
    verify(graph)
    return graph


def _mix(image: Tensor, output: Tensor, rng: np.random.Generator) -> Conv:
    """Codes that spread over the range of `output`: one channel of the image each, or its negative."""
    channels = output.shape[0]
    codes = np.full((channels, image.shape[0], 1, 1), 128, np.uint8)
    codes[np.arange(channels), np.arange(channels) % image.shape[0]] = rng.choice(
        [126, 130], (channels, 1, 1)
    )
    scale = np.full(channels, 2.0 ** (output.exponent - image.exponent + output.bits - 9), np.float32)
    bias = np.full(channels, 0 if output.zero_point else 256, np.int32)
    return Conv(
        output.name, "image", output.name, Weight(codes, 8, Encoding.SYMMETRIC), bias, scale, 1, (0, 0, 0, 0)
    )
