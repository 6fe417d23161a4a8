"""Small legal graphs with random weights, and images for them: what backends are compared on."""

from dataclasses import replace

import numpy as np

from coc_runtime import arithmetic
from coc_runtime.arithmetic import Encoding
from coc_runtime.graph import Graph, Segment, Task, verify
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    Logits,
    Lookup,
    MaxPool,
    Mul,
    Op,
    Select,
    Tensor,
    Weight,
    convolve,
)
from coc_runtime.session import Session

CALIBRATION_IMAGES = 24


def random_images(graph: Graph, count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, *input shape], of varying brightness and contrast, so that exits vary too."""
    return _images(np.random.default_rng(seed), count, graph.tensors[graph.input].shape)


def random_graph(
    seed: int,
    bits: int = 1,
    act_bits: int = 8,
    exits: int = 1,
    channels: int = 8,
    size: int = 8,
    classes: int = 10,
) -> Graph:
    """A residual network of `exits` early exits and a final one, so `exits + 1` segments.

    Input [3, size, size]. An 8-bit symmetric stem; then in every segment an identity block, in even
    segments also a block of stride 2 with a 1x1 shortcut, and a head. `bits`: of the weights of the
    blocks; `act_bits`: of the unsigned activations (the signed ones before additions have 8). Scales are
    chosen on random images such that codes spread over their range; thresholds such that about half
    of the images leave at each exit. The same arguments give the same graph.
    """
    builder = _Builder(np.random.default_rng(seed), size)
    builder.bits, builder.act_bits = bits, act_bits
    x = builder.conv("stem", "image", channels, 3, bits=8)
    segments, thresholds = [], []
    for index in range(exits + 1):
        x = builder.block(f"segment{index}.identity", x, stride=1)
        if index % 2 == 0:
            x = builder.block(f"segment{index}.down", x, stride=2)
        logits, threshold = builder.head(f"segment{index}.head", x, classes)
        nodes, builder.nodes = tuple(builder.nodes), []
        segments.append(Segment(nodes, logits, x if index < exits else None))
        thresholds.append(threshold)
    return builder.graph(segments, thresholds[:-1])


def as_regression(graph: Graph) -> Graph:
    """The same graph with its logits as real numbers.

    About half of the images that arrive at an exit but the first leave there.
    """
    session = Session.from_graph(graph)
    logits = session.logits_per_exit(random_images(graph, CALIBRATION_IMAGES, seed=99))
    distances = np.abs(np.diff(logits, axis=0)).max(axis=2)
    tolerances = [float(np.median(distance)) for distance in distances[:-1]]
    thresholds = (0.0, *tolerances) if graph.thresholds else ()
    return replace(graph, task=Task.REGRESSION, thresholds=thresholds)


def depthwise_graph(bits: int, channels: int) -> Graph:
    """Stem and head of a random graph with a signed depthwise 3x3 convolution between them."""
    graph = random_graph(12, 8, 8, 0, channels, 8)
    stem, head = graph.segments[0].nodes[0], graph.segments[0].nodes[-1]
    assert isinstance(stem, Conv) and isinstance(head, Linear)
    codes = np.random.default_rng(0).integers(bits == 8, 1 << bits, (channels, 1, 3, 3)).astype(np.uint8)
    weight = Weight(codes, bits, Encoding.SYMMETRIC if bits == 8 else Encoding.ODD)
    scale = np.full(channels, 2.0 ** -(bits + 1) * 21 / 16, np.float32)
    bias = np.arange(channels, dtype=np.int32) * 3
    depthwise = Conv("dw", stem.output, "dw", weight, bias, scale, 1, (1, 1, 1, 1), channels)
    pool = GlobalAveragePool("pool", "dw", "pool")
    rng = np.random.default_rng(1)
    linear_weight = Weight(rng.integers(1, 256, (10, channels)).astype(np.uint8), 8, Encoding.SYMMETRIC)
    linear = Linear("head", "pool", "head", linear_weight, head.bias, -8)
    exponent = graph.tensors[stem.output].exponent
    tensors = {name: graph.tensors[name] for name in (graph.input, stem.output)}
    tensors["dw"] = Tensor("dw", graph.tensors[stem.output].shape, 8, 128, exponent)
    tensors["pool"] = Tensor("pool", (channels,), 8, 128, exponent - 2)
    tensors["head"] = Tensor("head", (10,), LOGIT_BITS, 0, exponent - 10)
    return Graph(graph.input, tensors, (Segment((stem, depthwise, pool, linear), "head", None),), ())


def random_inception(
    seed: int,
    bits: int = 1,
    act_bits: int = 8,
    exits: int = 1,
    channels: int = 8,
    size: int = 12,
    classes: int = 10,
) -> Graph:
    """A network of branches that are joined, with pools of every kind; arguments as of `random_graph`.

    Behind a stem and a 3x3 max pool every segment joins a 1x1 and a 3x3 convolution, a max pool and an
    average pool of different types, and halves the image. Heads in turn: a convolution of the image's
    size, one of a single pixel and Flatten; Flatten alone; global average pooling.
    """
    builder = _Builder(np.random.default_rng(seed), size)
    builder.bits, builder.act_bits = bits, act_bits
    x = builder.conv("stem", "image", channels, 3, bits=8)
    x = builder.max_pool("maximum", x, (3, 3), 2, (1, 1, 0, 1))
    segments, thresholds = [], []
    for index in range(exits + 1):
        name = f"segment{index}"
        narrow = builder.conv(f"{name}.narrow", x, channels, 1, exponent=-4)
        wide = builder.conv(f"{name}.wide", narrow, channels, 3, signed=True)
        most = builder.max_pool(f"{name}.most", narrow, (3, 2), 1, (1, 1, 1, 0))
        mean = builder.average_pool(f"{name}.mean", x, (3, 3), 1, (1, 1, 1, 1))
        left = builder.concat(f"{name}.left", narrow, wide)
        right = builder.concat(f"{name}.right", most, mean)
        x = builder.concat(f"{name}.joined", left, right)
        if index % 2:
            x = builder.max_pool(f"{name}.half", x, (2, 2), 2, (0, 1, 1, 1))
        else:
            x = builder.average_pool(f"{name}.half", x, (2, 2), 2, (0, 0, 1, 1))
        features = x
        if index % 3 == 0:
            features = builder.conv(f"{name}.hidden0", x, channels, builder.tensors[x].shape[1], padded=False)
            features = builder.conv(f"{name}.hidden1", features, channels, 1)
        logits, threshold = builder.head(f"{name}.head", features, classes, flat=index % 3 < 2)
        nodes, builder.nodes = tuple(builder.nodes), []
        segments.append(Segment(nodes, logits, x if index < exits else None))
        thresholds.append(threshold)
    return builder.graph(segments, thresholds[:-1])


def random_mobile(
    seed: int,
    bits: int = 1,
    act_bits: int = 8,
    exits: int = 1,
    channels: int = 8,
    size: int = 8,
    classes: int = 10,
) -> Graph:
    """A network of tables, products and shuffles, like MobileNetV3; arguments as of `random_graph`.

    In every segment a convolution goes through one table for all channels, is multiplied with a number for
    each channel from the whole image, and then, through a table for each channel, with itself.
    """
    builder = _Builder(np.random.default_rng(seed), size)
    builder.bits, builder.act_bits = bits, act_bits
    x = builder.lookup(
        "stem.act", builder.conv("stem", "image", channels, 3, bits=8, signed=True), 1, signed=True
    )
    segments, thresholds = [], []
    for index in range(exits + 1):
        name = f"segment{index}"
        y = builder.lookup(
            f"{name}.act", builder.conv(f"{name}.conv", x, channels, 3, signed=True), 1, signed=True
        )
        whole = builder.tensors[y].shape[1:]
        pooled = builder.average_pool(f"{name}.pool", y, (whole[0], whole[1]), 1, (0, 0, 0, 0))
        gate = builder.conv(f"{name}.gate", pooled, channels, 1, signed=True)
        gate = builder.lookup(f"{name}.gate.act", gate, 1, exponent=-act_bits)
        gated = builder.mul(f"{name}.gated", y, gate)
        bent = builder.lookup(f"{name}.bent", gated, channels)
        product = builder.mul(f"{name}.product", bent, y)
        x = builder.select(f"{name}.shuffle", product, np.roll(np.arange(channels)[::-1], index))
        head = builder.logits if index % 2 else builder.head
        logits, threshold = head(f"{name}.head", x, classes)
        nodes, builder.nodes = tuple(builder.nodes), []
        segments.append(Segment(nodes, logits, x if index < exits else None))
        thresholds.append(threshold)
    return builder.graph(segments, thresholds[:-1])


def _images(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    brightness = rng.uniform(40, 215, (count, shape[0], 1, 1))
    contrast = rng.uniform(5, 90, (count, 1, 1, 1))
    noise = rng.standard_normal((count, *shape))
    return np.clip(np.rint(brightness + contrast * noise), 0, 255).astype(np.uint8)


class _Builder:
    """Appends operators, running each on random images to see what range its output needs."""

    bits: int
    act_bits: int

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.nodes: list[Op] = []
        self.tensors = {"image": Tensor("image", (3, size, size), 8, 128, -7)}
        self.codes = {"image": _images(rng, CALIBRATION_IMAGES, (3, size, size))}

    def graph(self, segments: list[Segment], thresholds: list[float]) -> Graph:
        meta = {
            "source_sha256": "0" * 64,
            "chain": "DPQE",
            "data": "random",
            "chain_bits": [self.bits, self.act_bits],
            "original_bitops": 1024 * 40_813_184,
            "original_bits": 32 * 270_896,
        }
        graph = Graph("image", self.tensors, tuple(segments), tuple(thresholds), meta)
        verify(graph)
        return graph

    def block(self, name: str, x: str, stride: int) -> str:
        channels = self.tensors[x].shape[0] * stride
        y = self.conv(f"{name}.conv1", x, channels, 3, stride=stride)
        groups = 1 if stride == 1 else 2
        branch = self.conv(f"{name}.conv2", y, channels, 3, groups=groups, signed=True, exponent=-4)
        shortcut = x
        if stride > 1:
            shortcut = self.conv(f"{name}.shortcut", x, channels, 1, stride=stride, signed=True, exponent=-3)
        return self.add(f"{name}.add", branch, shortcut)

    def conv(
        self,
        name: str,
        x: str,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bits: int | None = None,
        signed: bool = False,
        exponent: int = -5,
        padded: bool = True,
    ) -> str:
        """A convolution whose output's codes have a standard deviation of about a quarter of their range."""
        source, rng = self.tensors[x], self.rng
        weight = _weight(rng, (out, source.shape[0] // groups, kernel, kernel), bits or self.bits)
        even = source.shape[1] % 2 == 0 and source.shape[1] > 1
        pads = (0, 0, 1, 1) if stride == 2 and even else (1, 1, 1, 1)
        if kernel == 1 or not padded:
            pads = (0, 0, 0, 0)
        zeros = np.zeros(out, np.int32)
        bare = Conv(name, x, name, weight, zeros, np.ones(out, np.float32), stride, pads, groups)
        acc = _accumulate(bare, source, self.codes[x])
        output_bits = 8 if signed or self.act_bits == 8 else self.act_bits
        spread = np.ldexp(float(1 << output_bits) / (5 if signed else 3), exponent)
        unit = 2.0**source.exponent
        scale = spread * rng.uniform(0.6, 1.4, out) / (np.maximum(acc.std(axis=(0, 2, 3)), 1) * unit)
        shift = rng.uniform(0.05, 0.6, out) * np.where(np.arange(out) % 2, -spread, spread)
        bias = shift - acc.mean(axis=(0, 2, 3)) * scale * unit
        worst = arithmetic.worst_sum(weight.integers, source.zero_point, source.bits)
        exact_scale, exact_bias = arithmetic.exact_scale_and_bias(scale, bias, source.exponent, worst)
        node = Conv(name, x, name, weight, exact_bias, exact_scale, stride, pads, groups)
        shape = node.output_shape(source)
        return self._append(node, Tensor(name, shape, output_bits, 128 if signed else 0, exponent))

    def add(self, name: str, a: str, b: str) -> str:
        exponent = -4 if self.act_bits == 8 else 0
        return self._append(
            Add(name, (a, b), name),
            Tensor(name, self.tensors[a].shape, self.act_bits, 0, exponent),
        )

    def max_pool(
        self, name: str, x: str, kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int]
    ) -> str:
        node = MaxPool(name, x, name, kernel, stride, pads)
        source = self.tensors[x]
        return self._append(node, replace(source, name=name, shape=node.output_shape(source)))

    def average_pool(
        self, name: str, x: str, kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int]
    ) -> str:
        """An average pool of twice the resolution, 8 bits."""
        node = AveragePool(name, x, name, kernel, stride, pads)
        source = self.tensors[x]
        zero_point = 128 if source.zero_point else 0
        output = Tensor(name, node.output_shape(source), 8, zero_point, source.exponent - 1)
        return self._append(node, output)

    def concat(self, name: str, a: str, b: str) -> str:
        """Signed if an operand is; on the scale of the first."""
        node, first, second = Concat(name, (a, b), name), self.tensors[a], self.tensors[b]
        bits = 8 if first.zero_point or second.zero_point else self.act_bits
        zero_point = 128 if first.zero_point or second.zero_point else 0
        output = Tensor(name, node.output_shape(first, second), bits, zero_point, first.exponent)
        return self._append(node, output)

    def lookup(self, name: str, x: str, count: int, signed: bool = False, exponent: int = -5) -> str:
        """Tables that rise with the code, each from another code on, or `count` = 1 for all channels."""
        source = self.tensors[x]
        bits = 8 if signed else self.act_bits
        output = Tensor(name, source.shape, bits, 1 << (bits - 1) if signed else 0, exponent)
        first = self.rng.integers(0, 1 << (source.bits - 1), (count, 1))
        rising = np.arange(1 << source.bits) - first
        top = (1 << bits) - 1
        tables = np.clip(rising * top // ((1 << source.bits) - 1) + output.zero_point // 2, 0, top)
        return self._append(Lookup(name, x, name, tables.astype(np.uint8)), output)

    def mul(self, name: str, a: str, b: str) -> str:
        """A signed product whose codes reach about a quarter of their range."""
        first, second = self.tensors[a], self.tensors[b]
        exponent = first.exponent + second.exponent + first.bits + second.bits - 11
        return self._append(Mul(name, (a, b), name), Tensor(name, first.shape, 8, 128, exponent))

    def head(self, name: str, x: str, classes: int, flat: bool = False) -> tuple[str, float]:
        """A linear layer behind global average pooling, or behind Flatten.

        Its logits, and a threshold at the median confidence.
        """
        source, rng = self.tensors[x], self.rng
        pooled = f"{name}.pool"
        if flat:
            output = replace(source, name=pooled, shape=(int(np.prod(source.shape)),))
            self._append(Flatten(pooled, x, pooled), output)
        else:
            output = Tensor(pooled, source.shape[:1], 8, 0, source.exponent + self.act_bits - 8)
            self._append(GlobalAveragePool(pooled, x, pooled), output)
        finer = output.exponent
        weight = _weight(rng, (classes, output.shape[0]), 8)
        acc = (self.codes[pooled].astype(np.int64) - output.zero_point) @ weight.integers.T
        bias = np.rint(-acc.mean(axis=0) + acc.std() * rng.uniform(-1, 1, classes)).astype(np.int32)
        exponent = int(np.rint(np.log2(1.5 / max(acc.std(axis=0).mean(), 1)))) - finer
        node = Linear(name, pooled, name, weight, bias, exponent)
        logits = Tensor(name, (classes,), LOGIT_BITS, 0, finer + exponent)
        return self._end(node, logits)

    def select(self, name: str, x: str, indices: np.ndarray) -> str:
        node = Select(name, x, name, indices.astype(np.int32))
        return self._append(
            node, replace(self.tensors[x], name=name, shape=node.output_shape(self.tensors[x]))
        )

    def logits(self, name: str, x: str, classes: int) -> tuple[str, float]:
        """Channels of a pooled image, again and again, as logits; the rest as of `head`."""
        source, pooled = self.tensors[x], f"{name}.pool"
        output = Tensor(pooled, source.shape[:1], 8, source.zero_point, source.exponent - 1)
        self._append(GlobalAveragePool(pooled, x, pooled), output)
        chosen = self.select(f"{name}.classes", pooled, np.arange(classes) % source.shape[0])
        logits = Tensor(name, (classes,), LOGIT_BITS, 0, output.exponent)
        return self._end(Logits(name, chosen, name), logits)

    def _end(self, node: Op, logits: Tensor) -> tuple[str, float]:
        self._append(node, logits)
        confidences = np.sort(arithmetic.confidence(logits.values(self.codes[logits.name])))
        middle = len(confidences) // 2
        return logits.name, float(confidences[middle - 1 : middle + 1].mean())

    def _append(self, node: Op, output: Tensor) -> str:
        operands = [part for name in node.inputs for part in (self.tensors[name], self.codes[name])]
        self.codes[output.name] = node.reference(*operands, output)  # type: ignore[arg-type, call-arg]
        self.tensors[output.name] = output
        self.nodes.append(node)
        return output.name


def _weight(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> Weight:
    if bits == 8:
        integers = np.clip(np.rint(40 * rng.standard_normal(shape)), -127, 127)
        return Weight(arithmetic.encode(integers, 8, Encoding.SYMMETRIC), 8, Encoding.SYMMETRIC)
    return Weight(rng.integers(0, 1 << bits, shape).astype(np.uint8), bits, Encoding.ODD)


def _accumulate(conv: Conv, source: Tensor, codes: np.ndarray) -> np.ndarray:
    """The convolution's integer sums without bias, float64 [N, O, OH, OW]."""
    return convolve(codes, conv, source.zero_point).astype(np.float64)
