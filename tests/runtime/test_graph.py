"""`verify` accepts legal graphs and names the node or tensor of each kind of illegal one."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coc_runtime import CocError
from coc_runtime.arithmetic import Encoding
from coc_runtime.graph import Graph, Segment, check_thresholds, verify
from coc_runtime.ops import Add, Conv, Linear, Op, Weight
from graphs import random_graph, random_inception

Change = Callable[[Graph], Graph]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("act_bits", [8, 4])
@pytest.mark.parametrize("exits", [0, 1, 3])
def test_random_graphs_are_legal_and_hold_what_backends_must_handle(
    bits: int, act_bits: int, exits: int
) -> None:
    graph = random_graph(bits, bits, act_bits, exits)
    verify(graph)
    assert len(graph.segments) == exits + 1 == len(graph.thresholds) + 1
    convs = [node for segment in graph.segments for node in segment.nodes if isinstance(node, Conv)]
    assert {conv.stride for conv in convs} == {1, 2}
    assert {conv.weight.codes.shape[2] for conv in convs} == {1, 3}
    assert {conv.weight.bits for conv in convs} == {bits, 8}
    assert any((conv.bias < 0).any() for conv in convs) and any((conv.bias > 0).any() for conv in convs)
    adds = [node for segment in graph.segments for node in segment.nodes if isinstance(node, Add)]
    operands = [[graph.tensors[name] for name in node.inputs] for node in adds]
    assert any(a.exponent != b.exponent for a, b in operands)
    assert all(a.zero_point == 128 for a, _ in operands)
    assert {graph.tensors[node.output].bits for node in adds} == {act_bits}


def change_node(graph: Graph, name: str, **changes: Any) -> Graph:
    """The graph with some fields of one node replaced."""

    def changed(node: Op) -> Op:
        return replace(node, **changes) if node.name == name else node

    assert any(node.name == name for segment in graph.segments for node in segment.nodes)
    segments = tuple(
        replace(segment, nodes=tuple(changed(node) for node in segment.nodes)) for segment in graph.segments
    )
    return replace(graph, segments=segments)


def change_tensor(graph: Graph, name: str, **changes: Any) -> Graph:
    tensor = replace(graph.tensors[name], **changes)
    return replace(graph, tensors={**graph.tensors, name: tensor})


def change_segment(graph: Graph, index: int, **changes: Any) -> Graph:
    segments = list(graph.segments)
    segments[index] = replace(segments[index], **changes)
    return replace(graph, segments=tuple(segments))


def node_of(graph: Graph, name: str) -> Any:
    return next(node for segment in graph.segments for node in segment.nodes if node.name == name)


def without_tensor(graph: Graph, name: str) -> Graph:
    return replace(graph, tensors={key: value for key, value in graph.tensors.items() if key != name})


def reversed_nodes(graph: Graph) -> Graph:
    return change_segment(graph, 0, nodes=graph.segments[0].nodes[::-1])


def stem_twice(graph: Graph) -> Graph:
    nodes = graph.segments[0].nodes
    return change_segment(graph, 0, nodes=(nodes[0], *nodes))


def stem(graph: Graph) -> Conv:
    node = node_of(graph, "stem")
    assert isinstance(node, Conv)
    return node


def weight(shape: tuple[int, ...], bits: int = 8, code: int = 129, dtype: type = np.uint8) -> Weight:
    return Weight(np.full(shape, code, dtype), bits, Encoding.SYMMETRIC)


def with_scale(value: float, dtype: type = np.float32, count: int = 8) -> Change:
    return lambda g: change_node(g, "stem", scale=np.full(count, value, dtype))


ILLEGAL: list[tuple[str, str, Change]] = [
    ("no segments", "no segments", lambda g: replace(g, segments=(), thresholds=())),
    ("missing threshold", "0 thresholds given, the model has 1", lambda g: replace(g, thresholds=())),
    ("threshold NaN", "thresholds", lambda g: replace(g, thresholds=(math.nan,))),
    ("no input type", "tensor image has no type", lambda g: without_tensor(g, "image")),
    ("no output type", "tensor stem has no type", lambda g: without_tensor(g, "stem")),
    ("input zero point", "input image", lambda g: change_tensor(g, "image", zero_point=0)),
    ("input of 4 bits", "input image", lambda g: change_tensor(g, "image", bits=4, zero_point=8)),
    ("input rank", "input image", lambda g: change_tensor(g, "image", shape=(3, 64))),
    ("empty shape", "tensor stem: shape", lambda g: change_tensor(g, "stem", shape=(8, 0, 8))),
    ("exponent", "tensor stem: exponent 33", lambda g: change_tensor(g, "stem", exponent=33)),
    ("activation of 1 bit", "tensor stem: 1 bits", lambda g: change_tensor(g, "stem", bits=1)),
    ("activation of 9 bits", "tensor stem: 9 bits", lambda g: change_tensor(g, "stem", bits=9)),
    ("zero point", "tensor stem: zero point 3", lambda g: change_tensor(g, "stem", zero_point=3)),
    ("order", "before it is written", reversed_nodes),
    ("written twice", "stem: writes stem", stem_twice),
    (
        "reads an earlier segment",
        "segment1.identity.conv1: reads stem before",
        lambda g: change_node(g, "segment1.identity.conv1", input="stem"),
    ),
    (
        "reads logits",
        "segment0.again: reads logits",
        lambda g: change_segment(
            g,
            0,
            nodes=(
                *g.segments[0].nodes,
                replace(node_of(g, "segment0.head"), name="segment0.again", input="segment0.head"),
            ),
        ),
    ),
    ("declared shape", "stem: output stem is declared", lambda g: change_tensor(g, "stem", shape=(8, 8, 7))),
    ("no carry", "segment 0 must carry", lambda g: change_segment(g, 0, carry=None)),
    (
        "last carries",
        "segment 1 must not carry",
        lambda g: change_segment(g, 1, carry="segment1.identity.add"),
    ),
    ("carry from nowhere", "segment 0 ends with image2", lambda g: change_segment(g, 0, carry="image2")),
    ("logits from nowhere", "segment 0 ends with", lambda g: change_segment(g, 0, logits="segment1.head")),
    (
        "exits of a wrong width",
        "segment 0: logits",
        lambda g: change_segment(g, 0, logits="segment0.head.pool"),
    ),
    (
        "linear's exponent",
        "segment0.head: output must have 32 bits and exponent",
        lambda g: change_node(g, "segment0.head", exponent=node_of(g, "segment0.head").exponent + 1),
    ),
    ("conv gives logits", "stem: only logits have 32 bits", lambda g: change_tensor(g, "stem", bits=32)),
    ("conv rank", "stem: weight codes", lambda g: change_node(g, "stem", weight=weight((8, 27)))),
    (
        "conv dtype",
        "stem: weight codes",
        lambda g: change_node(g, "stem", weight=weight((8, 3, 3, 3), 8, 1, np.int32)),
    ),
    ("no weights", "stem: weight codes", lambda g: change_node(g, "stem", weight=weight((0, 3, 3, 3)))),
    (
        "linear rank",
        "segment0.head: weight",
        lambda g: change_node(g, "segment0.head", weight=weight((10, 16, 1))),
    ),
    (
        "weight bits",
        "stem: weight codes do not fit 3",
        lambda g: change_node(g, "stem", weight=weight((8, 3, 3, 3), 3, 1)),
    ),
    (
        "weight codes",
        "stem: weight codes do not fit 2",
        lambda g: change_node(g, "stem", weight=weight((8, 3, 3, 3), 2, 4)),
    ),
    ("input channels", "stem: weights", lambda g: change_node(g, "stem", weight=weight((8, 4, 3, 3)))),
    ("groups", "stem: weights", lambda g: change_node(g, "stem", weight=weight((8, 1, 3, 3)), groups=5)),
    ("no groups", "stem: padding .* or 0 groups", lambda g: change_node(g, "stem", groups=0)),
    ("no stride", "stem: stride 0", lambda g: change_node(g, "stem", stride=0)),
    ("negative padding", "stem: padding .-1, 0", lambda g: change_node(g, "stem", pads=(-1, 0, 0, 0))),
    ("kernel", "stem: kernel 3x11", lambda g: change_node(g, "stem", weight=weight((8, 3, 3, 11)))),
    (
        "features",
        "segment0.head: weights",
        lambda g: change_node(g, "segment0.head", weight=weight((10, 17))),
    ),
    (
        "bias count",
        r"stem: bias must be int32 \[8\]",
        lambda g: change_node(g, "stem", bias=np.zeros(7, np.int32)),
    ),
    ("bias type", "stem: bias must be int32", lambda g: change_node(g, "stem", bias=np.zeros(8, np.int64))),
    ("scale count", r"stem: scale must be float32 \[8\]", with_scale(1, count=7)),
    ("scale type", "stem: scale must be float32", with_scale(1, dtype=np.float64)),
    ("scale 0", "stem: scales", with_scale(0)),
    ("negative scale", "stem: scales", with_scale(-1)),
    ("infinite scale", "stem: scales", with_scale(np.inf)),
    ("scale NaN", "stem: scales", with_scale(np.nan)),
    ("tiny scale", "stem: scales", with_scale(2.0**-61)),
    (
        "bias beyond 2**31",
        "stem: sums",
        lambda g: change_node(g, "stem", bias=np.full(8, -(2**31), np.int32)),
    ),
    (
        "logits beyond 2**31",
        "segment0.head: sums",
        lambda g: change_node(g, "segment0.head", bias=np.full(10, 2**31 - 1, np.int32)),
    ),
    (
        "operands far apart",
        "segment0.down.add: operand scales",
        lambda g: change_tensor(g, "segment0.down.shortcut", exponent=5),
    ),
    (
        "operands of different shapes",
        "segment0.down.add: operands of shape",
        lambda g: change_node(g, "segment0.down.add", inputs=("segment0.down.conv2", "stem")),
    ),
    (
        "pool of a vector",
        "segment0.head.pool: input",
        lambda g: change_segment(
            g,
            0,
            nodes=(
                *g.segments[0].nodes[:-1],
                replace(node_of(g, "segment0.head.pool"), input="segment0.head.pool"),
            ),
        ),
    ),
]


@pytest.mark.parametrize(("message", "change"), [row[1:] for row in ILLEGAL], ids=[row[0] for row in ILLEGAL])
def test_illegal_graphs_are_refused_with_the_place_named(message: str, change: Change) -> None:
    graph = random_graph(1)
    with pytest.raises(CocError, match=message) as caught:
        verify(change(graph))
    assert "\n" not in str(caught.value)


JOINED: list[tuple[str, Change]] = [
    (
        "segment0.most: output segment0.most must have the input's bits",
        lambda g: change_tensor(g, "segment0.most", exponent=-6),
    ),
    (
        "maximum: output maximum must have the input's bits",
        lambda g: change_tensor(g, "maximum", zero_point=128),
    ),
    ("segment0.mean: padding must be smaller", lambda g: change_node(g, "segment0.mean", pads=(3, 0, 0, 0))),
    ("segment0.mean: window 3x0", lambda g: change_node(g, "segment0.mean", kernel=(3, 0))),
    (
        "segment0.left: images of shape",
        lambda g: change_node(g, "segment0.left", inputs=("segment0.narrow", "image")),
    ),
    (
        "segment0.joined: output segment0.joined is declared",
        lambda g: change_node(g, "segment0.joined", inputs=("image", "stem")),
    ),
    ("segment0.head: weights", lambda g: change_node(g, "segment0.head", input="segment0.half")),
    (
        "segment0.head.pool: output segment0.head.pool must have",
        lambda g: change_tensor(g, "segment0.head.pool", bits=7),
    ),
    (
        "segment0.half: only logits have 32",
        lambda g: change_tensor(g, "segment0.half", bits=32, zero_point=0),
    ),
]


@pytest.mark.parametrize(("message", "change"), JOINED, ids=[row[0].split(":")[0] for row in JOINED])
def test_illegal_pools_and_joins_are_refused_with_the_place_named(message: str, change: Change) -> None:
    graph = random_inception(1)
    verify(graph)
    with pytest.raises(CocError, match=message):
        verify(change(graph))


def test_a_node_must_not_overwrite_the_input() -> None:
    graph = random_graph(1, channels=3)
    with pytest.raises(CocError, match="stem: writes image, which is written already"):
        verify(change_node(graph, "stem", output="image"))


def test_average_pool_too_large_to_sum_exactly_is_refused() -> None:
    graph = random_graph(0, exits=0)
    pool = node_of(graph, "segment0.head.pool")
    big = replace(graph.tensors[pool.input], shape=(16, 257, 256))
    with pytest.raises(CocError, match=r"segment0.head.pool: image .* too large"):
        pool.check(big)
    pool.check(replace(big, shape=(16, 256, 256)))


def test_a_segment_may_carry_its_own_input_on() -> None:
    graph = random_graph(0, exits=0)
    nodes = graph.segments[0].nodes
    head = node_of(graph, "segment0.head")
    assert isinstance(head, Linear)
    again = replace(head, name="again", input="pooled", output="again")
    tensors = {
        **graph.tensors,
        "again": replace(graph.tensors["segment0.head"], name="again"),
        "pooled": replace(graph.tensors["segment0.head.pool"], name="pooled"),
    }
    pool = replace(node_of(graph, "segment0.head.pool"), name="pool", output="pooled")
    carry = pool.input
    segments = (Segment(nodes, "segment0.head", carry), Segment((pool, again), "again", None))
    verify(replace(graph, tensors=tensors, segments=segments, thresholds=(0.5,)))


def test_thresholds_are_checked_and_become_floats() -> None:
    assert check_thresholds((0, 1.5), 2) == (0.0, 1.5)
    for bad in ((), (0.5, 0.5), (math.nan,), (-0.1,)):
        with pytest.raises(CocError, match="threshold"):
            check_thresholds(bad, 1)
