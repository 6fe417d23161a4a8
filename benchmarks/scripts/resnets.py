"""Random integer ResNets for CIFAR's images: what layers cost does not depend on the weights' values."""

import numpy as np

from coc_runtime import arithmetic
from coc_runtime.arithmetic import Encoding
from coc_runtime.graph import Graph, Segment
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import Add, Conv, GlobalAveragePool, Linear, Op, Tensor, Weight


def resnet(depth: int, bits: int = 1, act_bits: int = 8, classes: int = 10, seed: int = 0) -> Graph:
    """ResNet of depth 6n+2 for 32x32 images with 1x1 convolution shortcuts and an exit after stages 1 and 2.

    Random weights: 8-bit stem and linear layers, `bits` elsewhere.
    """
    builder = _Builder(np.random.default_rng(seed), bits, act_bits)
    x = builder.conv("stem", "image", 16, weight_bits=8)
    segments = []
    for stage, width in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            x = builder.block(f"stage{stage}.{block}", x, width, 2 if stage and not block else 1)
        logits = builder.head(f"exit{stage}", x, classes)
        nodes, builder.nodes = tuple(builder.nodes), []
        segments.append(Segment(nodes, logits, x if stage < 2 else None))
    return Graph("image", builder.tensors, tuple(segments), (0.75, 0.75), {"chain_bits": [bits, act_bits]})


class _Builder:
    """Appends operators whose outputs spread over their codes for inputs that do."""

    def __init__(self, rng: np.random.Generator, bits: int, act_bits: int) -> None:
        self.rng, self.bits, self.act_bits = rng, bits, act_bits
        self.nodes: list[Op] = []
        self.tensors = {"image": Tensor("image", (3, 32, 32), 8, 128, -7)}

    def block(self, name: str, x: str, width: int, stride: int) -> str:
        y = self.conv(f"{name}.conv1", x, width, stride=stride)
        y = self.conv(f"{name}.conv2", y, width, signed=True)
        if stride > 1:
            x = self.conv(f"{name}.shortcut", x, width, kernel=1, stride=stride, signed=True)
        kind = Tensor(f"{name}.add", self.tensors[y].shape, self.act_bits, 0, -4)
        return self._append(Add(kind.name, (y, x), kind.name), kind)

    def conv(
        self,
        name: str,
        x: str,
        out: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        signed: bool = False,
        weight_bits: int | None = None,
    ) -> str:
        source = self.tensors[x]
        weight = self._weight((out, source.shape[0], kernel, kernel), weight_bits or self.bits)
        spread = 4 * self.rng.uniform(0.5, 2, out)
        sums = np.sqrt((weight.integers.astype(float) ** 2).sum(axis=(1, 2, 3)))
        scale = spread / (sums * np.ldexp(64.0, source.exponent))
        worst = arithmetic.worst_sum(weight.integers, source.zero_point, source.bits)
        bias = self.rng.normal(0, 1, out)
        exact = arithmetic.exact_scale_and_bias(scale, bias, source.exponent, worst)
        pads = (kernel // 2,) * 4
        node = Conv(name, x, name, weight, exact[1], exact[0], stride, (pads[0], pads[1], pads[2], pads[3]))
        bits = 8 if signed else self.act_bits
        return self._append(node, Tensor(name, node.output_shape(source), bits, 128 if signed else 0, -4))

    def head(self, name: str, x: str, classes: int) -> str:
        source = self.tensors[x]
        pooled = Tensor(f"{name}.pool", source.shape[:1], 8, 0, -4)
        self._append(GlobalAveragePool(pooled.name, x, pooled.name), pooled)
        weight = self._weight((classes, source.shape[0]), 8)
        bias = self.rng.integers(-2000, 2000, classes).astype(np.int32)
        node = Linear(f"{name}.linear", pooled.name, name, weight, bias, -9)
        return self._append(node, Tensor(name, (classes,), LOGIT_BITS, 0, -13))

    def _weight(self, shape: tuple[int, ...], bits: int) -> Weight:
        encoding = Encoding.SYMMETRIC if bits == 8 else Encoding.ODD
        codes = self.rng.integers(bits == 8, 1 << bits, shape).astype(np.uint8)
        return Weight(codes, bits, encoding)

    def _append(self, node: Op, output: Tensor) -> str:
        self.tensors[output.name] = output
        self.nodes.append(node)
        return output.name


def without_exits(graph: Graph) -> Graph:
    """The layers that lead to the final logits, as one segment."""
    needed, kept = {graph.segments[-1].logits}, []
    for node in reversed([node for segment in graph.segments for node in segment.nodes]):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return one_segment(graph, kept[::-1], graph.segments[-1].logits)


def first(graph: Graph) -> Graph:
    """Segment 0 as a model of its own."""
    return one_segment(graph, list(graph.segments[0].nodes), graph.segments[0].logits)


def one_segment(graph: Graph, nodes: list[Op], logits: str) -> Graph:
    names = [graph.input, *(node.output for node in nodes)]
    tensors = {name: graph.tensors[name] for name in names}
    return Graph(graph.input, tensors, (Segment(tuple(nodes), logits, None),), ())
