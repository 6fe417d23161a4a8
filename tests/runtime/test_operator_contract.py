"""What holds for every operator: rules agree, files give it back, all back ends compute the same integers.

Operators answer in tests/contract; this file names none.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coc_export.lowering.units import UNITS
from coc_export.onnx.nodes import NODES
from coc_export.onnx.writer import write_onnx
from coc_runtime import CocError, cocfile, cocwrite, onnxfile
from coc_runtime.backends import native
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.backends.reference import ReferenceBackend
from coc_runtime.cost import LayerCost
from coc_runtime.graph import Graph
from coc_runtime.limits import LOGIT_BITS
from coc_runtime.ops import KINDS, OPS, Conv, Op, Weight
from coc_runtime.ops.row import EVERY, PER_CHANNEL, Row
from contract import CONTRACTS, Instance
from graphs import random_images

OPERATORS = pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
SEEDS = st.integers(0, 2**32 - 1)
FEW, MANY = (settings(max_examples=count, deadline=None) for count in (12, 60))
NATIVE = Path(__file__).parents[2] / "runtime/native"


def drawn(op: type[Op], seed: int) -> Instance:
    instance = CONTRACTS[op].draw(np.random.default_rng(seed))
    assert type(instance.node) is op
    return instance


def codes(instance: Instance, seed: int) -> list[np.ndarray]:
    """Three images per input: every code at random, the smallest and the largest everywhere."""
    rng = np.random.default_rng(seed)
    found = []
    for x in instance.inputs:
        made = rng.integers(0, 1 << x.bits, (3, *x.shape)).astype(np.uint8)
        made[1], made[2] = 0, (1 << x.bits) - 1
        found.append(made)
    return found


def test_every_operator_answers() -> None:
    assert set(CONTRACTS) == set(OPS)


def test_numbers_and_names_are_unique_and_fields_exist() -> None:
    assert list(KINDS) == sorted(KINDS) == list(range(1, len(OPS) + 1))
    assert len({op.__name__ for op in OPS}) == len(OPS)
    for op in OPS:
        assert set(Row._fields) - EVERY >= op.FIELDS and set(op.SECTIONS) <= set(PER_CHANNEL)
        assert ("second" in op.FIELDS) == (op.INPUTS == 2 or op is Conv) and op.INPUTS in (1, 2)
        assert not (op.GIVES_LOGITS and op.KEEPS_TYPE) and op.ONNX_WINDOWS <= op.ONNX


@OPERATORS
@MANY
@given(seed=SEEDS)
def test_the_reference_has_the_shape_and_type_that_the_rules_say(op: type[Op], seed: int) -> None:
    instance = drawn(op, seed)
    node, output = instance.node, instance.output
    assert len(node.inputs) == op.INPUTS and node.output_shape(*instance.inputs) == output.shape
    node.check_parameters()
    node.check_output(output, *instance.inputs)
    node.check(*instance.inputs)
    operands = [part for pair in zip(instance.inputs, codes(instance, seed), strict=True) for part in pair]
    found = node.reference(*operands, output)
    assert found.shape == (3, *output.shape)
    assert found.dtype == (np.int32 if op.GIVES_LOGITS else np.uint8)
    assert op.GIVES_LOGITS or int(found.max()) < 1 << output.bits
    assert (output.bits == LOGIT_BITS) == op.GIVES_LOGITS


@OPERATORS
@MANY
@given(seed=SEEDS)
def test_an_image_is_computed_alike_alone_and_among_others(op: type[Op], seed: int) -> None:
    instance = drawn(op, seed)
    found = codes(instance, seed)

    def run(index: slice) -> np.ndarray:
        parts = [(x, made[index]) for x, made in zip(instance.inputs, found, strict=True)]
        return instance.node.reference(*(part for pair in parts for part in pair), instance.output)

    alone = np.concatenate([run(slice(i, i + 1)) for i in range(3)])
    np.testing.assert_array_equal(run(slice(None)), alone)


@OPERATORS
@MANY
@given(seed=SEEDS)
def test_cost_is_counted_at_the_bits_that_are_stored_and_read(op: type[Op], seed: int) -> None:
    instance = drawn(op, seed)
    cost, stored = instance.node.cost(*instance.inputs), instance.node.stored()
    assert (cost is not None) == CONTRACTS[op].counted == ("weights" in stored)
    if cost is not None:
        assert isinstance(cost, LayerCost) and cost.name == instance.node.name
        assert len(stored["weights"]) == -(-cost.weights * cost.weight_bits // 8)
        assert cost.activation_bits == instance.inputs[0].bits
        channels, elements = instance.output.shape[0], int(np.prod(instance.output.shape))
        assert cost.macs == cost.weights * (elements // channels)
        numbers = {section: stored[section] for section in op.SECTIONS}
        assert cost.parameters == len(numbers) * channels
        assert all(len(numbers[name]) == PER_CHANNEL[name].itemsize * channels for name in numbers)


@OPERATORS
def test_what_does_not_fit_or_is_not_exact_is_refused_by_name(op: type[Op]) -> None:
    misfits = list(CONTRACTS[op].misfits())
    assert misfits
    for node, inputs in misfits:
        with pytest.raises(CocError, match=rf"^{node.name}: "):
            node.output_shape(*inputs)
    for node, inputs in CONTRACTS[op].inexact():
        node.output_shape(*inputs)
        with pytest.raises(CocError, match=rf"^{node.name}: "):
            node.check(*inputs)


@OPERATORS
def test_a_type_that_it_cannot_write_is_refused(op: type[Op]) -> None:
    instance = drawn(op, 1)
    output = instance.output
    other = LOGIT_BITS if output.bits != LOGIT_BITS else 8
    wrong = [{"bits": other}] + ([{"exponent": output.exponent + 1}] if op.KEEPS_TYPE else [])
    for change in wrong:
        changed = type(output)(**{**vars(output), **change})
        with pytest.raises(CocError, match=rf"^{instance.node.name}: "):
            instance.node.check_output(changed, *instance.inputs)


def assert_same(a: Op, b: Op) -> None:
    """The same operator in every field."""
    assert type(a) is type(b) and vars(a).keys() - {"integers", "packed"} == vars(b).keys()
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, Weight):
            assert (value.bits, value.encoding) == (other.bits, other.encoding)
            value, other = value.codes, other.codes
        np.testing.assert_array_equal(value, other, err_msg=name)
        assert getattr(value, "dtype", type(value)) == getattr(other, "dtype", type(other))


def node_of(graph: Graph, name: str) -> Op:
    return next(node for segment in graph.segments for node in segment.nodes if node.name == name)


@OPERATORS
@MANY
@given(seed=SEEDS)
def test_a_coc_file_gives_it_back(op: type[Op], seed: int) -> None:
    instance = drawn(op, seed)
    data = cocwrite.dump(instance.graph())
    graph = cocfile.parse(data, "memory").graph
    assert_same(instance.node, node_of(graph, instance.node.name))
    assert graph.tensors["y"] == instance.output and cocwrite.dump(graph) == data
    assert set(instance.node.row()) == op.FIELDS - ({"second"} if op.INPUTS == 2 else set())


@OPERATORS
@FEW
@given(seed=SEEDS)
def test_an_onnx_file_gives_it_back(op: type[Op], seed: int) -> None:
    instance = drawn(op, seed)
    data = write_onnx(instance.graph()).SerializeToString(deterministic=True)
    graph = onnxfile.parse(data, "memory").graph
    assert_same(instance.node, node_of(graph, instance.node.name))
    assert graph.tensors["y"] == instance.output
    assert write_onnx(graph).SerializeToString(deterministic=True) == data


def compare(graph: Graph, seed: int) -> None:
    """Every back end, optimization and level with the reference, on images at the borders, too."""
    images = random_images(graph, 4, seed)
    images[0], images[1] = 0, 255
    reference = ReferenceBackend(graph)
    logits, carry = reference.run_segment(0, images)
    expected = [logits] if carry is None else [logits, reference.run_segment(1, carry)[0]]
    file = onnxfile.parse(write_onnx(graph).SerializeToString(), "memory")
    for optimize in (False, True):
        found, codes = OrtBackend(file, optimize=optimize).run_segment(0, images)
        np.testing.assert_array_equal(found, logits, err_msg=f"onnxruntime, optimize={optimize}")
        if carry is not None:
            np.testing.assert_array_equal(codes, carry, err_msg=f"onnxruntime, optimize={optimize}")
    for level in levels():
        backend = native.NativeBackend(cocwrite.dump(graph), "memory", threads=2, cpu=level)
        np.testing.assert_array_equal(backend.logits_per_exit(images), expected, err_msg=f"native, {level}")


@cache
def levels() -> tuple[str, ...]:
    return () if native.why_missing() is not None else native.levels()


@OPERATORS
@FEW
@given(seed=SEEDS)
def test_every_back_end_computes_the_same_integers(op: type[Op], seed: int) -> None:
    compare(drawn(op, seed).graph(), seed)


@OPERATORS
def test_every_back_end_computes_the_cases_picked_by_hand(op: type[Op]) -> None:
    for name, graph in CONTRACTS[op].cases():
        try:
            compare(graph, 0)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_every_target_has_every_operator() -> None:
    assert set(NODES) == set(OPS)
    modules = {write.__module__ for write in UNITS.values()}
    assert len(modules) == len({write.__module__ for write in NODES.values()})


def listed() -> dict[int, tuple[str, str]]:
    """Number -> (symbol, name) of the operators of the C core."""
    text = (NATIVE / "ops/list.h").read_text()
    found = re.findall(r'^COC_OPERATOR\((\d+), (\w+), "(\w+)"\)$', text, re.MULTILINE)
    return {int(kind): (symbol, name) for kind, symbol, name in found}


@OPERATORS
def test_the_c_core_declares_it_alike(op: type[Op]) -> None:
    """Number, name, inputs, fields, sections and the rule of its output's type."""
    symbol, name = listed()[op.KIND]
    assert name == op.__name__ and len(listed()) == len(OPS)
    text = (NATIVE / f"ops/{symbol}.c").read_text()
    (body,) = re.findall(rf"^const coc_op coc_op_{symbol} = \{{\n(.*?)^\}};", text, re.DOTALL | re.MULTILINE)
    stated = dict(re.findall(r"\.(\w+) = (.+?),$", body, re.MULTILINE))
    fields = {
        "COC_WEIGHTS": {"weight_bits", "encoding", "channels"},
        "COC_WINDOW": {"stride", "across", "kernel_height", "kernel_width", "top", "left", "bottom", "right"},
        "COC_GROUPS": {"groups"},
        "COC_COUNT": {"channels"},
        "COC_DILATION": {"second"},
    }
    named = [word for word in stated.get("fields", "").split(" | ") if word]
    others = {"second"} if op.INPUTS == 2 else set()
    assert set().union(others, *(fields[word] for word in named)) == op.FIELDS
    assert int(stated["inputs"]) == op.INPUTS and int(stated["since"]) == op.SINCE
    assert int(stated.get("gives_logits", 0)) == op.GIVES_LOGITS
    assert int(stated.get("keeps_type", 0)) == op.KEEPS_TYPE
    assert int(stated.get("has_biases", 0)) == ("biases" in op.SECTIONS)
    assert int(stated.get("has_scales", 0)) == ("scales" in op.SECTIONS)
