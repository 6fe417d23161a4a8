"""Any quantized network as a float one: the same function, and the same units when quantized again."""

from pathlib import Path

import numpy as np
import pytest

from coc_deploy import checkpoint
from coc_deploy.channels import remove_channels
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.dequantize import dequantized
from coc_deploy.network import ExitSpec, exit_logits
from coc_deploy.qat import QConv
from coc_deploy.quantizers import QuantSpec
from tiny import quantized_network
from usernets import FIXED, USER, ZOO, images, network, quantize, settled


@pytest.mark.parametrize("name", [*USER, *FIXED, *ZOO])
def test_the_float_copy_computes_what_the_network_did_before(name: str) -> None:
    some = images(network(name).input_shape)
    expected = exit_logits(network(name), some)
    floats = dequantized(quantize(network(name), (4, 8)))
    assert floats.quant is None and floats.exit_places() == network(name).exit_places()
    np.testing.assert_allclose(exit_logits(floats, some), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", [*USER, *FIXED, *ZOO])
def test_quantized_again_it_has_the_same_units(name: str, tmp_path: Path) -> None:
    once = quantize(network(name), (4, 8))
    again = dequantized(once)
    again.quantize(QuantSpec(4, 8, 8))
    again.load_state_dict(once.state_dict())
    some = images(once.input_shape)
    np.testing.assert_array_equal(exit_logits(again, some), exit_logits(once, some))
    bits = [{k: m.weight_bits for k, m in n.named_modules() if isinstance(m, QConv)} for n in (once, again)]
    assert bits[0] == bits[1]
    checkpoint.save(tmp_path / "model.pt", Checkpoint(again))
    loaded = checkpoint.load(tmp_path / "model.pt").network
    np.testing.assert_array_equal(exit_logits(loaded, some), exit_logits(once, some))


@pytest.mark.parametrize("name", [*USER, *ZOO])
def test_it_can_be_pruned_and_quantized_again(name: str) -> None:
    floats = dequantized(quantize(network(name), (4, 8)))
    remove_channels(floats, 0.4)
    smaller = quantize(settled(floats), (1, 8))
    assert np.isfinite(exit_logits(smaller, images(smaller.input_shape))).all()


def test_exits_stay_where_they_were() -> None:
    once = quantized_network((4, 8), head="conv")
    again = dequantized(once)
    assert again.exits == once.exits and len(again.heads) == 2
    again.quantize(QuantSpec(4, 8, 8))
    again.load_state_dict(once.state_dict())
    some = images(once.input_shape)
    np.testing.assert_array_equal(exit_logits(again, some), exit_logits(once, some))
    fresh = dequantized(quantized_network((4, 8)))
    fresh.add_exits(ExitSpec(("layer1.0",), "linear", 4))
    assert len(exit_logits(fresh, some)) == 2
