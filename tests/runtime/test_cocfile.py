"""Files in the .coc format: one encoding for one graph, small, and refused when anything is wrong."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import cocparts
import corpus
import corpus_pools
from coc_runtime import CocError, Session, arithmetic, cocfile, cocwrite
from coc_runtime.graph import Graph, Segment, verify
from coc_runtime.ops import Conv, Linear, Weight
from graphs import random_graph, random_images, random_inception, random_mobile

LARGEST_RESNET20 = 44_000


@cache
def malformed() -> Mapping[str, bytes]:
    return corpus.corpus()


def assert_equal(a: Graph, b: Graph) -> None:
    """The same graph in every number and name."""
    assert (a.input, a.tensors, a.meta) == (b.input, dict(b.tensors), dict(b.meta))
    assert arithmetic.gate_thresholds(a.thresholds).tolist() == list(b.thresholds)
    assert [(s.logits, s.carry) for s in a.segments] == [(s.logits, s.carry) for s in b.segments]
    for mine, theirs in zip(a.segments, b.segments, strict=True):
        for left, right in zip(mine.nodes, theirs.nodes, strict=True):
            assert type(left) is type(right)
            for name, value in vars(left).items():
                other = getattr(right, name)
                if isinstance(value, Weight):
                    assert (value.bits, value.encoding) == (other.bits, other.encoding)
                    value, other = value.codes, other.codes
                np.testing.assert_array_equal(value, other, err_msg=f"{left.name}.{name}")
                assert getattr(value, "dtype", None) == getattr(other, "dtype", None)


def change_node(graph: Graph, index: int, **changes: object) -> Graph:
    """The graph with other fields in a node of its first segment."""
    first = graph.segments[0]
    nodes = list(first.nodes)
    nodes[index] = replace(nodes[index], **changes)  # type: ignore[arg-type]
    return replace(graph, segments=(replace(first, nodes=tuple(nodes)), *graph.segments[1:]))


@pytest.mark.parametrize(("bits", "act_bits"), [(1, 8), (2, 8), (4, 8), (8, 8), (1, 4), (4, 4), (2, 2)])
@pytest.mark.parametrize("exits", [0, 1, 3])
def test_a_graph_comes_back_as_it_was(bits: int, act_bits: int, exits: int) -> None:
    graph = random_graph(17 + exits, bits, act_bits, exits, channels=5, size=7, classes=3)
    data = cocwrite.dump(graph)
    file = cocfile.parse(data, "memory")
    assert file.data == data
    assert_equal(graph, file.graph)
    assert cocwrite.dump(file.graph) == data


@pytest.mark.parametrize(("bits", "act_bits"), [(1, 8), (4, 4), (8, 2)])
def test_graphs_of_joined_branches_and_of_products_come_back_as_they_were(bits: int, act_bits: int) -> None:
    for made in (random_inception, random_mobile):
        graph = made(3, bits, act_bits, exits=2, channels=3, size=9)
        data = cocwrite.dump(graph)
        file = cocfile.parse(data, "memory")
        assert_equal(graph, file.graph)
        assert cocwrite.dump(file.graph) == data


@pytest.mark.parametrize("exits", [0, 16])
def test_the_smallest_and_the_largest_number_of_exits(exits: int) -> None:
    graph = random_graph(3, exits=exits, channels=1, size=4, classes=2)
    assert_equal(graph, cocfile.parse(cocwrite.dump(graph), "memory").graph)


def test_seventeen_early_exits_are_not_written() -> None:
    graph = cocfile.parse(cocparts.plain().build(), "memory").graph
    (segment,), logits = graph.segments, graph.tensors["logits"]
    head = segment.nodes[1]
    names = [f"exit{k}" for k in range(1, 18)]
    tensors = {**graph.tensors, **{name: replace(logits, name=name) for name in names}}
    later = [Segment((replace(head, output=name),), name, "pool") for name in names]
    later[-1] = replace(later[-1], carry=None)
    many = Graph("image", tensors, (replace(segment, carry="pool"), *later), (0.5,) * 17)
    verify(many)
    with pytest.raises(CocError, match="^18 segments, not 1 to 17$"):
        cocwrite.dump(many)


def test_one_graph_has_one_encoding_whatever_the_order_of_its_tables() -> None:
    graph = random_graph(2, exits=2)
    tensors = dict(reversed(graph.tensors.items()))
    unused = replace(graph.tensors["stem"], name="unused")
    meta = dict(reversed(graph.meta.items()))
    other = replace(graph, tensors=tensors | {"unused": unused}, meta=meta)
    assert cocwrite.dump(other) == cocwrite.dump(graph)


def test_operators_and_outputs_keep_names_that_differ() -> None:
    graph = random_graph(4)
    renamed = change_node(graph, 0, name="körper.stem")
    back = cocfile.parse(cocwrite.dump(renamed), "memory").graph
    assert (back.segments[0].nodes[0].name, back.segments[0].nodes[0].output) == ("körper.stem", "stem")


def test_thresholds_are_what_back_ends_compare() -> None:
    graph = replace(random_graph(0, exits=3), thresholds=(-0.0, 1 + 1e-12, 1e300))
    read = cocfile.parse(cocwrite.dump(graph), "memory").graph.thresholds
    assert read == (0.0, np.nextafter(np.float32(1), np.float32(2)), 2.0)
    assert not np.signbit(read[0])


def test_every_scale_that_training_may_choose_is_kept() -> None:
    graph = random_graph(5)
    stem = graph.segments[0].nodes[0]
    assert isinstance(stem, Conv)
    scale = np.float32([2.0**-60, 2.0**60, 255 * 2.0**-67, 255 * 2.0**52, 1, 1.5, 129 / 256, 3 * 2.0**-61])
    small = replace(stem.weight, codes=np.full_like(stem.weight.codes, 129))
    changed = change_node(graph, 0, scale=scale, weight=small, bias=np.zeros(8, np.int32))
    back = cocfile.parse(cocwrite.dump(changed), "memory").graph.segments[0].nodes[0]
    assert isinstance(back, Conv)
    np.testing.assert_array_equal(back.scale, scale)


def test_a_scale_of_nine_significant_bits_is_not_written() -> None:
    graph = random_graph(5)
    stem = graph.segments[0].nodes[0]
    assert isinstance(stem, Conv)
    small = replace(stem.weight, codes=np.full_like(stem.weight.codes, 129))
    scale = np.full(8, 257 * 2.0**-12, np.float32)
    changed = change_node(graph, 0, scale=scale, weight=small, bias=np.zeros(8, np.int32))
    verify(changed)
    with pytest.raises(CocError, match="stem: a scale has more than 8 significant bits"):
        cocwrite.dump(changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pads": (1, 0, 0, 0)}, "conv: padding must be smaller than the 1x1 kernel"),
        ({"stride": 256}, "conv: beyond the limits of .coc files"),
    ],
)
def test_what_the_format_cannot_hold_is_not_written(changes: dict[str, object], message: str) -> None:
    graph = cocfile.parse(cocparts.single((3, 8, 8, -7)).build(), "memory").graph
    changed = change_node(graph, 0, **changes)
    shape = changed.segments[0].nodes[0].output_shape(graph.tensors["image"])  # type: ignore[call-arg]
    changed = replace(changed, tensors={**graph.tensors, "conv": replace(graph.tensors["conv"], shape=shape)})
    verify(changed)
    with pytest.raises(CocError, match=message):
        cocwrite.dump(changed)


def test_meta_that_is_not_json_is_not_written() -> None:
    graph = random_graph(0)
    for value in (float("nan"), {1, 2}, b"bytes"):
        with pytest.raises(CocError, match="cannot be written as JSON"):
            cocwrite.dump(replace(graph, meta={"x": value}))


def test_weights_take_their_bits_and_the_rest_little() -> None:
    for bits in (1, 2, 4, 8):
        graph = random_graph(7, bits, exits=2, channels=16)
        nodes = [node for segment in graph.segments for node in segment.nodes]
        layers = [node for node in nodes if isinstance(node, Conv | Linear)]
        weights = sum(-(-layer.weight.bits * layer.weight.codes.size // 8) for layer in layers)
        channels = sum(len(layer.bias) for layer in layers)
        size = len(cocwrite.dump(graph))
        assert (
            weights + 6 * channels < size < weights + 6 * channels + 40 * len(nodes) + 16 * len(layers) + 1200
        )


def test_resnet20_with_one_bit_and_two_exits_fits_44_kb() -> None:
    graph = _resnet20()
    assert len(cocwrite.dump(graph)) <= LARGEST_RESNET20


def _resnet20() -> Graph:
    pytest.importorskip("onnxruntime")
    from resnets import resnet

    return resnet(20)


def test_the_reference_runs_a_coc_file_whatever_it_is_called(tmp_path: Path) -> None:
    graph = random_graph(8, exits=2)
    images = random_images(graph, 20)
    expected = Session.from_graph(graph).run(images)
    for name, backend in (("m.coc", "auto"), ("m.coc", "reference"), ("m.onnx", "reference"), ("m", "auto")):
        path = tmp_path / name
        path.write_bytes(cocwrite.dump(graph))
        session = Session(path, backend=backend)
        found = session.run(images)
        np.testing.assert_array_equal(found.logits, expected.logits)
        np.testing.assert_array_equal(found.exit, expected.exit)
        assert session.info.exit_bitops == tuple(graph.exit_bitops())


def test_onnxruntime_does_not_run_coc_files(tmp_path: Path) -> None:
    path = tmp_path / "m.coc"
    path.write_bytes(cocwrite.dump(random_graph(8)))
    with pytest.raises(CocError, match=r"onnxruntime runs \.onnx files only: .*reference, or export.*\.onnx"):
        Session(path, backend="onnxruntime")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no.coc", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(CocError, match=words):
            cocfile.read(path)
    with pytest.raises(CocError, match="is not a regular file"):
        cocfile.read("/dev/zero")
    with pytest.raises(CocError, match="cannot be read"):
        cocfile.read("nul\0byte.coc")


def refusal(data: bytes) -> str:
    with pytest.raises(CocError) as caught:
        cocfile.parse(data, "m.coc")
    message = str(caught.value)
    assert message.startswith("m.coc: ") and "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("name", malformed())
def test_every_malformed_file_is_refused_in_one_line(name: str) -> None:
    message = refusal(malformed()[name])
    words = {
        "magic": "not a .coc file",
        "version": "format",
        "checksum": "truncated" if name == "checksum-flip-16" else "checksum",
        "truncated": "not a .coc file" if name == "truncated-7" else "truncated",
    }
    assert words.get(name.split("-")[0], "") in message


def test_the_files_that_the_corpus_starts_from_are_legal() -> None:
    for data in (
        cocparts.base().build(),
        cocparts.joined().build(),
        *(parts.build() for parts in corpus_pools.at_the_limits()),
        cocparts.plain().build(),
        cocparts.plain((3, 256, 256, -7)).build(),
        cocparts.single((3, 8, 8, -7)).build(),
        corpus.linear_reaching((1 << 31) - 1),
        corpus.conv_reaching((1 << 31) - 1),
    ):
        assert cocwrite.dump(cocfile.parse(data, "memory").graph) == data


def skip_description(reader: cocfile._Reader) -> tuple[list[tuple[str, str]], dict[str, object]]:
    """What a reader does that shows nothing of the description."""
    reader._take(reader.header.description)
    return [(f"{j}", f"{j}") for j in range(reader.header.operators + 1)], {}


def test_a_reader_that_skips_the_description_refuses_the_same_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cocfile._Reader, "_description", skip_description)
    accepted = [
        name for name, data in malformed().items() if not name.startswith("description-") and _ok(data)
    ]
    assert not accepted


def _ok(data: bytes) -> bool:
    try:
        cocfile.parse(data, "memory")
    except CocError:
        return False
    return True


def test_mutants_with_a_fitting_checksum_are_refused_or_legal() -> None:
    rng = np.random.default_rng(9)
    originals = [
        parts.build() for parts in (cocparts.base(), cocparts.joined(), cocparts.single((3, 8, 8, -7)))
    ]
    interesting = [0, 1, 2, 3, 4, 8, 16, 32, 127, 128, 129, 254, 255]
    accepted, started = 0, time.monotonic()
    for attempt in range(1000):
        if time.monotonic() - started > 10:
            break
        data = bytearray(originals[attempt % 3])
        reach = len(data) if attempt % 4 else 700
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(16, min(reach, len(data))))
            data[at] = rng.choice(interesting) if rng.random() < 0.7 else data[at] ^ (1 << rng.integers(8))
        if rng.random() < 0.1:
            del data[int(rng.integers(48, len(data))) :]
        if rng.random() < 0.1:
            at = int(rng.integers(48, len(data)))
            data[at:at] = bytes(int(rng.integers(1, 40)))
        mutant = cocparts.refit(bytes(data))
        try:
            graph = cocfile.parse(mutant, "mutant").graph
        except CocError as error:
            assert "\n" not in str(error)
            continue
        accepted += 1
        verify(graph)
        assert cocwrite.dump(graph) == mutant
    assert accepted
