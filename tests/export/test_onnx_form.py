"""What the exported ONNX consists of: packed bytes, fused operators, safe weight types, small size."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from coc_export.onnx.constants import Constants
from coc_export.onnx.writer import write_onnx, write_segments
from coc_runtime import arithmetic, onnxfile
from coc_runtime.arithmetic import Encoding
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from coc_runtime.ops import Conv, GlobalAveragePool, Linear, Weight
from graphs import random_graph, random_inception
from resnets import resnet  # noqa: E402

ALLOWED_LEFT = {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm", "Transpose", "Flatten"}
GATE = {"Softmax", "ReduceMax", "Split", "GreaterOrEqual", "If", "Identity"}
WIDE_POOL = {"DequantizeLinear", "ReduceSum", "Mul", "QuantizeLinear"}


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that are nested in it, outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    found = [tensor for graph in graphs_of(model.graph) for tensor in graph.initializer]
    names = [tensor.name for tensor in found]
    assert len(names) == len(set(names))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in found}


def optimized_operators(model: onnx.ModelProto, path: Path) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return Counter(node.op_type for graph in graphs_of(onnx.load(path).graph) for node in graph.node)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("exits", [0, 1, 2])
def test_checker_passes_with_standard_operators_only(bits: int, exits: int) -> None:
    graph = random_graph(bits, bits, 4, exits, 5, 8)
    for model in [write_onnx(graph), write_onnx(graph, packed=False), *write_segments(graph)]:
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
        assert all(not node.domain for part in graphs_of(model.graph) for node in part.node)


@pytest.mark.parametrize("exits", [1, 2])
def test_value_names_are_unique_across_nested_graphs(exits: int) -> None:
    model = write_onnx(random_graph(0, exits=exits))
    names = [name for part in graphs_of(model.graph) for node in part.node for name in node.output]
    names += list(initializers(model))
    assert len(names) == len(set(names))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [3, 5, 11])
def test_weights_take_exactly_their_bits(bits: int, channels: int) -> None:
    graph = random_graph(2, bits, 8, 1, channels, 8)
    arrays = initializers(write_onnx(graph))
    for key, node in enumerate(node for segment in graph.segments for node in segment.nodes):
        if isinstance(node, Conv | Linear):
            weight = node.weight
            stored = arrays[f"w{key}"]
            assert stored.dtype == np.uint8
            assert stored.nbytes == -(-weight.bits * weight.codes.size // 8)
            np.testing.assert_array_equal(stored.reshape(-1), weight.packed)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_weights_beyond_63_are_unsigned_with_zero_point_128(bits: int, packed: bool) -> None:
    graph = random_graph(3, bits, 8, 2, 8, 8)
    model = write_onnx(graph, packed=packed)
    arrays = initializers(model)
    wide = {
        f"w{key}"
        for key, node in enumerate(node for segment in graph.segments for node in segment.nodes)
        if isinstance(node, Conv | Linear) and np.abs(node.weight.integers).max() > 63
    }
    assert "w0" in wide  # the stem
    dequantized = set()
    for node in [node for part in graphs_of(model.graph) for node in part.node]:
        if node.op_type == "DequantizeLinear" and node.input[0] in wide:
            assert arrays[node.input[0]].dtype == np.uint8
            assert arrays[node.input[2]].dtype == np.uint8 and (arrays[node.input[2]] == 128).all()
            dequantized.add(node.input[0])
    assert dequantized == wide
    for name, array in arrays.items():
        assert array.dtype != np.int8 or np.abs(array.astype(int)).max() <= 63, name


@pytest.mark.parametrize(("bits", "act_bits"), [(1, 8), (2, 8), (4, 4), (8, 8)])
@pytest.mark.parametrize("exits", [1, 2])
@pytest.mark.parametrize(("channels", "size"), [(8, 16), (5, 14)])
def test_onnxruntime_folds_the_unpacking_and_fuses_every_layer(
    bits: int, act_bits: int, exits: int, channels: int, size: int, tmp_path: Path
) -> None:
    graph = random_graph(4, bits, act_bits, exits, channels, size)
    found = optimized_operators(write_onnx(graph), tmp_path / "optimized.onnx")
    nodes = Counter(type(node).__name__ for segment in graph.segments for node in segment.nodes)
    assert found["QLinearConv"] == nodes["Conv"]
    assert found["QLinearAdd"] == nodes["Add"]
    assert found["QGemm"] == nodes["Linear"]
    assert found["If"] == exits
    pools = [
        node for segment in graph.segments for node in segment.nodes if isinstance(node, GlobalAveragePool)
    ]
    counts = [int(np.prod(graph.tensors[pool.input].shape[1:])) for pool in pools]
    exact = sum(count & (count - 1) == 0 for count in counts)
    assert found["QLinearGlobalAveragePool"] == exact
    wide = set() if exact == len(pools) else WIDE_POOL
    assert set(found) <= ALLOWED_LEFT | GATE | wide | ({"Clip"} if act_bits < 8 else set())


def test_onnxruntime_fuses_pools_and_joins(tmp_path: Path) -> None:
    graph = random_inception(0, exits=0)
    found = optimized_operators(write_onnx(graph), tmp_path / "optimized.onnx")
    assert (found["QLinearConv"], found["Conv"]) == (5, 1)  # the float one sums windows of 3x3
    assert (found["QLinearConcat"], found["QLinearAveragePool"]) == (3, 1)
    assert found["NhwcMaxPool"] + found["MaxPool"] == 2
    assert (found["DequantizeLinear"], found["Mul"], found["QuantizeLinear"]) == (1, 1, 1)


def test_table_entries_are_the_integers_of_each_packed_byte() -> None:
    for bits in (1, 2, 4):
        for encoding in Encoding:
            constants = Constants()
            table = numpy_helper.to_array(constants.tensors[constants.table(bits, encoding)])
            codes = arithmetic.unpack(np.array([0b11100100], np.uint8), bits, 8 // bits)
            np.testing.assert_array_equal(table[0b11100100], arithmetic.decode(codes, bits, encoding))


def test_symmetric_encoding_below_8_bits_is_stored_packed() -> None:
    graph = random_graph(6, 4, 8, 0, 3, 6)
    segment = graph.segments[0]
    nodes = tuple(
        dataclasses.replace(node, weight=Weight(node.weight.codes, 4, Encoding.SYMMETRIC))
        if isinstance(node, Conv) and node.weight.bits == 4
        else node
        for node in segment.nodes
    )
    changed = dataclasses.replace(graph, segments=(dataclasses.replace(segment, nodes=nodes),))
    read = onnxfile.parse(write_onnx(changed).SerializeToString(), "memory").graph
    assert [encoding_of(graph) for graph in (changed, read)] == [Encoding.SYMMETRIC] * 2


def encoding_of(graph: Graph) -> Encoding:
    return next(
        node.weight.encoding
        for node in graph.segments[0].nodes
        if isinstance(node, Conv) and node.weight.bits == 4
    )


def test_odd_8_bit_weights_are_refused() -> None:
    graph = random_graph(6, 8, 8, 0, 3, 6)
    segment = graph.segments[0]
    head = segment.nodes[-1]
    assert isinstance(head, Linear)
    odd = dataclasses.replace(head, weight=Weight(head.weight.codes, 8, Encoding.ODD))
    nodes = (*segment.nodes[:-1], odd)
    changed = dataclasses.replace(graph, segments=(dataclasses.replace(segment, nodes=nodes),))
    with pytest.raises(CocError, match="symmetric"):
        write_onnx(changed)


def test_writing_is_deterministic() -> None:
    first, second = (write_onnx(random_graph(8, 2, 4, 2)).SerializeToString() for _ in range(2))
    assert first == second


def test_resnet20_takes_72_kb_of_which_weights_36() -> None:
    graph = resnet(20)
    convs = [node for segment in graph.segments for node in segment.nodes if isinstance(node, Conv)]
    assert len(convs) == 21 and len(graph.segments) == 3
    model = write_onnx(graph)
    weights = sum(array.nbytes for name, array in initializers(model).items() if name.startswith("w"))
    assert weights <= 36_000
    assert model.ByteSize() <= 72_000
