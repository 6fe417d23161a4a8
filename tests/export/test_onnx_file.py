"""Reading what was written, and refusing everything else with one line that says what to do."""

import copy
import dataclasses
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from coc_export.onnx.writer import write_onnx, write_segments
from coc_runtime import manifest, onnxfile
from coc_runtime.arithmetic import gate_thresholds
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.backends.reference import ReferenceBackend
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, verify
from coc_runtime.ops import OPS, AdaptiveAveragePool, AveragePool, Tensor
from contract.base import around
from graphs import random_graph, random_images, random_inception, random_mobile


def assert_same(a: Graph, b: Graph) -> None:
    assert dict(a.tensors) == dict(b.tensors)
    assert (a.input, dict(a.meta)) == (b.input, dict(b.meta))
    assert gate_thresholds(a.thresholds).tolist() == list(b.thresholds)
    assert len(a.segments) == len(b.segments)
    for left, right in zip(a.segments, b.segments, strict=True):
        assert (left.logits, left.carry, len(left.nodes)) == (right.logits, right.carry, len(right.nodes))
        for first, second in zip(left.nodes, right.nodes, strict=True):
            assert type(first) is type(second)
            for field in dataclasses.fields(first):
                x, y = getattr(first, field.name), getattr(second, field.name)
                if field.name == "weight":
                    assert (x.bits, x.encoding) == (y.bits, y.encoding)
                    x, y = x.codes, y.codes
                np.testing.assert_array_equal(x, y)
                if isinstance(x, np.ndarray):
                    assert (x.dtype, x.shape) == (y.dtype, y.shape)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("exits", [0, 1, 2])
@pytest.mark.parametrize(("act_bits", "channels", "size"), [(8, 8, 8), (4, 5, 7)])
def test_round_trip_gives_the_same_graph(
    bits: int, exits: int, act_bits: int, channels: int, size: int, tmp_path: Path
) -> None:
    graph = random_graph(9, bits, act_bits, exits, channels, size)
    path = tmp_path / "model.onnx"
    onnx.save(write_onnx(graph), str(path))
    file = onnxfile.read(path)
    assert_same(graph, file.graph)
    assert file.data == path.read_bytes()


@pytest.mark.parametrize(("bits", "act_bits"), [(1, 8), (4, 4)])
def test_round_trip_of_joined_branches_and_of_products(bits: int, act_bits: int) -> None:
    for made in (random_inception, random_mobile):
        graph = made(9, bits, act_bits, 2, 3, 9)
        assert_same(graph, onnxfile.parse(write_onnx(graph).SerializeToString(), "memory").graph)


def test_onnx_package_accepts_segment_models() -> None:
    file = onnxfile.parse(write_onnx(random_graph(9, exits=2)).SerializeToString(), "memory")
    for index in range(3):
        onnx.checker.check_model(onnx.load_from_string(file.segment_model(index)), full_check=True)


def test_a_file_without_exits_of_version_0_1_still_runs() -> None:
    """It gave the exit's number by Shape, ConstantOfShape and Cast; now ArgMax does."""
    graph = random_graph(3, exits=0)
    model = write_onnx(graph)
    assert [node.op_type for node in model.graph.node][-2:] == ["ReduceMax", "ArgMax"]
    del model.graph.node[-2:]
    shape = helper.make_node("Shape", ["confidence"], ["xs"])
    zeros = helper.make_node("ConstantOfShape", ["xs"], ["xf"])
    cast = helper.make_node("Cast", ["xf"], ["exit"], to=onnx.TensorProto.INT64)
    model.graph.node.extend([shape, zeros, cast])
    file = onnxfile.parse(
        onnxfile.model_bytes(model.graph.SerializeToString(), manifest.dump(graph)), "memory"
    )
    images = random_images(graph, 3)
    logits, _ = OrtBackend(file).run_segment(0, images)
    np.testing.assert_array_equal(logits, ReferenceBackend(graph).run_segment(0, images)[0])
    found, taken, _ = OrtBackend(file).run_single(images[:1], np.empty(0, np.float32))
    assert taken == 0 and np.array_equal(found, logits[:1])


def test_threshold_just_above_one_still_never_leaves() -> None:
    assert gate_thresholds((1 + 1e-12,))[0] > 1
    assert gate_thresholds((float("inf"), 1.0, 0.25)).tolist() == [2, 1, 0.25]


def test_threads_share_a_backend() -> None:
    graph = random_graph(10, exits=2)
    images = random_images(graph, 16)
    file = onnxfile.parse(write_onnx(graph).SerializeToString(), "memory")
    single, shared = OrtBackend(file), OrtBackend(file)
    expected = [single.run_segment(0, images[i : i + 1])[0] for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: shared.run_segment(0, images[i : i + 1])[0], range(16)))
    np.testing.assert_array_equal(found, expected)


# --- refusals -----------------------------------------------------------------------------------


def small_file() -> bytes:
    return write_onnx(random_graph(1, 4, 8, 1, 3, 6)).SerializeToString()


def refusal(data: bytes, tmp_path: Path) -> str:
    path = tmp_path / "given.onnx"
    path.write_bytes(data)
    with pytest.raises(CocError) as caught:
        onnxfile.read(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def other_tools_model() -> bytes:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
    return helper.make_model(graph, producer_name="pytorch").SerializeToString()


def resealed(change: dict[str, Any]) -> bytes:
    """The small file with keys of its manifest replaced and a checksum that holds."""
    model = onnx.load_from_string(small_file())
    description = json.loads(model.metadata_props[0].value) | change
    return onnxfile.model_bytes(model.graph.SerializeToString(), json.dumps(description).encode())


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(CocError, match=r"missing\.onnx: no such file: check the path"):
        onnxfile.read(tmp_path / "missing.onnx")
    with pytest.raises(CocError, match="is a directory: give"):
        onnxfile.read(tmp_path)
    with pytest.raises(CocError, match="cannot be read"):
        onnxfile.read("nul\0byte")


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n0000", b"hello world\n" * 50, bytes(1000)])
def test_not_onnx(data: bytes, tmp_path: Path) -> None:
    assert "not an ONNX file" in refusal(data, tmp_path)


def test_made_by_another_tool(tmp_path: Path) -> None:
    assert "made by another tool" in refusal(other_tools_model(), tmp_path)


def test_unpacked_and_split_exports_have_no_manifest(tmp_path: Path) -> None:
    graph = random_graph(1)
    for model in (write_onnx(graph, packed=False), write_segments(graph)[0]):
        assert "manifest is missing" in refusal(model.SerializeToString(), tmp_path)


def test_newer_format(tmp_path: Path) -> None:
    assert "upgrade coc-deploy" in refusal(resealed({"format": manifest.FORMAT + 1}), tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"input": 99}, "tensor number 99 does not exist"),
        ({"segments": []}, "0 segments"),
        ({"tensors": [["image", [3, 1 << 40, 6], 8, 128, -7]]}, "integers of 32 bits"),
        ({"tensors": [["image", [3, 1 << 30, 6], 8, 128, -7]]}, "exceeds"),
        ({"meta": None}, "needs 'meta'"),
    ],
)
def test_inconsistent_manifest(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    message = refusal(resealed(change), tmp_path)
    assert complaint in message and "inconsistent" in message and "export it again" in message


@pytest.mark.parametrize(("ir_version", "opset"), [(10, 12), (10, 99), (8, 21), (10, 13)])
def test_an_opset_that_is_not_written_or_with_another_ir_is_refused(
    ir_version: int, opset: int, tmp_path: Path
) -> None:
    model = onnx.load_from_string(small_file())
    assert (model.ir_version, model.opset_import[0].version) == (10, 21)
    model.ir_version, model.opset_import[0].version = ir_version, opset
    message = refusal(model.SerializeToString(deterministic=True), tmp_path)
    assert "its header is not the one that coc-export writes" in message


def test_weights_of_another_size_than_the_manifest_says(tmp_path: Path) -> None:
    model = onnx.load_from_string(small_file())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    tensor.raw_data, tensor.dims[0] = tensor.raw_data[:-1], tensor.dims[0] - 1
    data = onnxfile.model_bytes(model.graph.SerializeToString(), model.metadata_props[0].value.encode())
    assert "initializer w1" in refusal(data, tmp_path)


def test_external_data_and_other_operators_are_refused(tmp_path: Path) -> None:
    structure = onnx.load_from_string(small_file()).metadata_props[0].value.encode()
    model = onnx.load_from_string(small_file())
    model.graph.initializer[0].external_data.add(key="location", value="../../etc/passwd")
    assert "not one that coc-deploy" in refusal(
        onnxfile.model_bytes(model.graph.SerializeToString(), structure), tmp_path
    )
    model = onnx.load_from_string(small_file())
    model.graph.node[0].op_type = "Loop"
    assert "'Loop'" in refusal(onnxfile.model_bytes(model.graph.SerializeToString(), structure), tmp_path)


def pooling_file() -> tuple[onnx.GraphProto, bytes]:
    """GraphProto and manifest of an average pool with padding, of a power-of-two count."""
    x, y = Tensor("x", (2, 5, 5), 8, 0, -5), Tensor("y", (2, 3, 3), 8, 0, -5)
    graph = around(AveragePool("pool", "x", "y", (2, 2), 2, (1, 1, 0, 0)), y, [x])
    model = onnx.load_from_string(write_onnx(graph).SerializeToString())
    return model.graph, model.metadata_props[0].value.encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel_shape", [2, 3]),
        ("strides", [1, 1]),
        ("pads", [0, 1, 0, 0]),
        ("count_include_pad", 0),
        ("ceil_mode", 1),
        ("dilations", [2, 2]),
    ],
)
def test_pools_of_other_windows_than_the_manifest_says_are_refused(
    name: str, value: Any, tmp_path: Path
) -> None:
    body, structure = pooling_file()
    node = next(node for node in body.node if node.op_type == "AveragePool")
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    data = onnxfile.model_bytes(body.SerializeToString(), structure)
    assert "pool: is AveragePool in the ONNX graph" in refusal(data, tmp_path)


def test_a_maximum_instead_of_an_average_is_refused(tmp_path: Path) -> None:
    body, structure = pooling_file()
    next(node for node in body.node if node.op_type == "AveragePool").op_type = "MaxPool"
    data = onnxfile.model_bytes(body.SerializeToString(), structure)
    assert "pool: is MaxPool" in refusal(data, tmp_path)


@pytest.mark.parametrize(
    ("op", "shape", "why"),
    [
        ("MatMul", (1000, 5), "a MatMul makes 1000 sums of 5 numbers"),
        ("MatMul", (1, 2, 5), "a MatMul does not read one constant matrix"),
        ("Mul", (7,), "a Mul of a constant does not read a scalar, or a number for each value of a row"),
        ("Mul", (1000, 6), "a Mul of a constant does not read a scalar, or a number for each value of a row"),
    ],
)
def test_constants_that_spread_values_are_refused(
    op: str, shape: tuple[int, ...], why: str, tmp_path: Path
) -> None:
    x, y = Tensor("x", (2, 5, 5), 8, 0, -5), Tensor("y", (2, 2, 3), 8, 0, -5)
    graph = around(AdaptiveAveragePool("pool", "x", "y", (2, 3)), y, [x])
    model = onnx.load_from_string(write_onnx(graph).SerializeToString())
    node = next(node for node in model.graph.node if node.op_type == op and node.output[0].startswith("p"))
    (constant,) = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    constant.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), constant.name))
    data = onnxfile.model_bytes(model.graph.SerializeToString(), model.metadata_props[0].value.encode())
    assert why in refusal(data, tmp_path)


def test_joining_a_tensor_with_itself_over_and_over_is_refused(tmp_path: Path) -> None:
    body, structure = pooling_file()
    doubled = [
        helper.make_node("Concat", [f"double{k}" if k else "image"] * 2, [f"double{k + 1}"], axis=1)
        for k in range(40)
    ]
    first = len(body.node)
    body.node.extend(doubled[:12])
    legal = onnxfile.model_bytes(body.SerializeToString(), structure)
    onnxfile.parse(legal, "twelve times")
    body.node.extend(doubled[12:])
    data = onnxfile.model_bytes(body.SerializeToString(), structure)
    assert "more than 4096 tensors are joined" in refusal(data, tmp_path)
    del body.node[first:]
    body.node.extend(reversed(doubled))
    data = onnxfile.model_bytes(body.SerializeToString(), structure)
    assert "read before it is written" in refusal(data, tmp_path)


def test_every_truncation_and_flip_is_refused(tmp_path: Path) -> None:
    data, rng = small_file(), random.Random(0)
    for length in [*range(40), *(rng.randrange(len(data)) for _ in range(300)), len(data) - 1]:
        refusal(data[:length], tmp_path)
    for _ in range(1000):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        refusal(bytes(changed), tmp_path)


ODD_VALUES: list[Any] = [
    None,
    -1,
    0,
    3,
    9,
    1 << 29,
    1 << 40,
    10**30,
    "",
    "x",
    "a\nb",
    "\ud800",
    "Conv",
    "Add",
]
ODD_VALUES += [[], {}, True, 1.5, [1], [0, 0, 0], float("inf")]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] = rng.choice([rng.randrange(256), 0, 255])
    if rng.random() < 0.3:
        start = rng.randrange(len(changed))
        del changed[start : start + rng.randint(1, 9)]
    return bytes(changed)


def mutated_json(structure: bytes, rng: random.Random) -> bytes:
    root = json.loads(structure)
    places: list[tuple[Any, Any]] = []
    pending = [root]
    while pending:
        part = pending.pop()
        for key in part if isinstance(part, dict) else range(len(part)):
            places.append((part, key))
            if isinstance(part[key], dict | list):
                pending.append(part[key])
    for _ in range(rng.randint(1, 2)):
        part, key = rng.choice(places)
        part[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return json.dumps(root).encode()


@pytest.mark.parametrize("kind", ["residual", "joined", "multiplied"])
def test_mutations_with_a_valid_checksum_give_a_coc_error_or_a_legal_graph(kind: str) -> None:
    made = {"joined": random_inception, "multiplied": random_mobile}
    model = write_onnx(made[kind](1, 4, 8, 1, 3, 6)) if kind in made else onnx.load_from_string(small_file())
    body, structure = model.graph.SerializeToString(), model.metadata_props[0].value.encode()
    rng, legal = random.Random(1), 0
    for attempt in range(3000):
        mutants = [
            (mutated_bytes(body, rng), structure),
            (body, mutated_bytes(structure, rng)),
            (body, mutated_json(structure, rng)),
        ]
        try:
            file = onnxfile.parse(onnxfile.model_bytes(*mutants[attempt % 3]), "mutant")
        except CocError as error:
            assert "\n" not in str(error) and str(error).isprintable() and len(str(error)) < 400
            continue
        verify(file.graph)
        legal += 1
        if legal % 10 == 0:
            run_or_refuse(file)
    assert legal > 50


def run_or_refuse(file: onnxfile.OnnxFile) -> None:
    """ONNX Runtime may refuse a file whose operators were changed, with a CocError only."""
    graph = file.graph
    assert all(isinstance(n, OPS) for s in graph.segments for n in s.nodes)
    backend = OrtBackend(file)
    image = np.zeros((1, *graph.tensors[graph.input].shape), np.uint8)
    try:
        logits, taken, _ = backend.run_single(image, np.full(len(graph.thresholds), 2, np.float32))
        assert logits.shape == (1, graph.classes) and 0 <= taken < len(graph.segments)
        backend.run_segment(0, image)
    except CocError as error:
        assert "\n" not in str(error)
