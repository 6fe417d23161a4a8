"""Bits of single layers: by name, by pattern, through a model.pt and in both files."""

from pathlib import Path

import pytest

from coc_deploy import layer_bits, recipe
from coc_deploy.calibration import calibrate
from coc_deploy.dequantize import dequantized
from coc_deploy.keys import settings
from coc_deploy.network import ExitSpec, Network, to_input
from coc_deploy.qat import QConv
from coc_deploy.quantizers import QuantSpec
from coc_deploy.state import _narrow_units
from coc_runtime.errors import CocError
from coc_runtime.ops import Conv, Linear
from everywhere import assert_parity
from usernets import images, network

LAYERS = {"blocks.*": "4", "blocks.1*": "2x4", "blocks.2.conv": "8x8", "fc": "1"}


def quantized(layers: dict[str, str], float_network: Network | None = None) -> Network:
    found = network("blocks") if float_network is None else float_network
    found.quantize(QuantSpec(1, 8, 8, layers=layers))
    calibrate(found, [to_input(images(found.input_shape, 24, 3))])
    return found


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("a.b", (8, 4)),
        ("a.c", (4, None)),
        ("a.cc", (2, None)),
        ("b", (None, None)),
    ],
)
def test_a_name_comes_before_patterns_and_long_ones_before_short(name: str, bits: tuple[int, int]) -> None:
    table = {"*.b": "1", "a.b": "8x4", "a.*": "4", "a.c?": "2"}
    assert layer_bits.of(table, name) == bits
    assert layer_bits.of(dict(reversed(table.items())), name) == bits


def test_both_files_hold_them_and_every_back_end_agrees(tmp_path: Path) -> None:
    graph = assert_parity(quantized(LAYERS), tmp_path)
    nodes = {node.name: node for node in graph.segments[0].nodes}
    weights = {n: node.weight.bits for n, node in nodes.items() if isinstance(node, Conv | Linear)}
    assert weights == {"blocks.0.conv": 4, "blocks.1.conv": 2, "blocks.2.conv": 8, "fc": 1}
    given = {n: graph.tensors[node.output].bits for n, node in nodes.items() if isinstance(node, Conv)}
    assert given == {"blocks.0.conv": 8, "blocks.1.conv": 4, "blocks.2.conv": 8}


def test_quantizing_again_gives_the_same_bits() -> None:
    once = quantized(LAYERS)
    again = quantized(LAYERS, dequantized(once))
    bits = [[unit.weight_bits for unit in n.body.modules() if isinstance(unit, QConv)] for n in (once, again)]
    assert bits[0] == bits[1] == [4, 2, 8]


def test_heads_have_the_chains_bits() -> None:
    found = network("blocks")
    found.add_exits(ExitSpec(("blocks.0",), "conv", 3))
    found.quantize(QuantSpec(2, 8, 8, layers={"*": "4"}))
    assert [u.weight_bits for u in found.heads.modules() if isinstance(u, QConv)] == [2]


def test_progressive_weights_leave_them_alone() -> None:
    """Also a layer that is given the chain's own bits."""
    found = quantized({"blocks.1.conv": "1"})
    assert [unit is found.body.get_submodule("blocks.2.conv") for unit in _narrow_units(found)] == [True]


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        ({"blocks.9.*": "4"}, ("'blocks.9.*' fits no layer", "blocks.0.conv, blocks.1.conv")),
        ({"flatten": "4"}, ("'flatten' fits no layer",)),
    ],
)
def test_a_line_that_fits_no_layer_is_refused(layers: dict[str, str], parts: tuple[str, ...]) -> None:
    with pytest.raises(CocError) as caught:
        quantized(layers)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(
    ("layers", "part"),
    [
        ({"fc": "3"}, "q.layers: 'fc' = '3' is not allowed: \"W\" or \"WxA\""),
        ({"fc": "4x2"}, "'4x2' is not allowed"),
        ({"fc": [4]}, "q.layers = {'fc': [4]} has the wrong type"),
        ({"fc": True}, "has the wrong type: expected"),
        ("4", "q.layers = '4' has the wrong type: expected a table of names and bits"),
    ],
)
def test_recipes_are_checked(layers: object, part: str) -> None:
    with pytest.raises(CocError) as caught:
        recipe.parse({"chain": "Q", "q": {"layers": layers}})
    assert part in str(caught.value)


def test_a_recipe_may_give_numbers_and_none_leaves_the_key_of_a_stage() -> None:
    given = recipe.parse({"q": {"layers": {"fc": 4}}})
    assert given.q.spec.layers == {"fc": "4"}
    assert "layers" in str(settings(given, "Q")) and "layers" not in str(settings(recipe.parse({}), "Q"))
