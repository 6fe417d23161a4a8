"""A float copy of a quantized network: the same values, and the way back."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coc_deploy import qat
from coc_deploy.calibration import calibrate
from coc_deploy.counting import segment_layers
from coc_deploy.dequantize import RULES, dequantized
from coc_deploy.network import Network, exit_logits, to_input
from coc_deploy.qat import UNITS, ActQuant, Mode
from coc_deploy.quantizers import QuantSpec
from coc_deploy.stages.requantize import refresh
from coc_runtime.errors import CocError
from tiny import digits, float_network, quantized_network, same_state

NETWORKS = [(None, False), ("conv", False), ("conv", True), ("linear", True)]


def float_outputs(network: Network) -> list[Tensor]:
    with torch.no_grad():
        return list(network.eval()(to_input(digits("test").images)))


@pytest.mark.parametrize(("head", "exits_first"), NETWORKS)
def test_the_copy_computes_what_the_units_compute_in_float(head: str | None, exits_first: bool) -> None:
    network = quantized_network(head=head, exits_first=exits_first)
    copied = dequantized(network)
    assert copied.quant is None and not any(isinstance(m, UNITS) for m in copied.modules())
    qat.set_mode(network, Mode.OBSERVE)
    for a, b in zip(float_outputs(copied), float_outputs(network), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("head", "exits_first"), NETWORKS)
def test_quantizing_the_copy_again_gives_the_network_back(head: str | None, exits_first: bool) -> None:
    network = quantized_network((2, 8), head=head, exits_first=exits_first)
    again = dequantized(network)
    assert network.quant is not None
    again.quantize(network.quant)
    assert again.state_dict().keys() == network.state_dict().keys()
    again.load_state_dict(network.state_dict())
    images = digits("test").images
    np.testing.assert_array_equal(exit_logits(again, images), exit_logits(network, images))
    assert segment_layers(again) == segment_layers(network)
    assert again.exit_places() == network.exit_places()


def test_the_quantized_network_is_left_alone() -> None:
    network = quantized_network(head="conv")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for parameter in dequantized(network).parameters():
        parameter.data.zero_()
    assert same_state(before, network.state_dict())


def test_every_unit_has_a_rule() -> None:
    assert set(RULES) == set(UNITS)


def test_a_module_without_a_rule_is_named() -> None:
    network = quantized_network()
    network.body.add_submodule("layer2.0.conv1", nn.Sigmoid())
    with pytest.raises(CocError, match=r"layer2\.0\.conv1: Sigmoid cannot be made float again"):
        dequantized(network)


def test_refreshed_statistics_are_those_of_the_batches() -> None:
    """The first convolution reads the image itself, so its outputs' mean and variance are known."""
    network = quantized_network((8, 8))
    images = [to_input(digits("held-out").images)]
    refresh(network, images, renew_norms=True)
    unit = network.body.get_submodule("conv1")
    assert isinstance(unit, qat.QConv) and unit.bn.running_mean is not None
    with torch.no_grad():
        out = unit.convolve(images[0], unit.weight)
    torch.testing.assert_close(unit.bn.running_mean, out.mean(dim=(0, 2, 3)), atol=0.02, rtol=0.02)
    assert {norm.momentum for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


def test_ranges_of_a_network_that_did_not_change_stay_within_one_power_of_two() -> None:
    network, images = float_network(steps=8), [to_input(digits("held-out").images)]
    network.quantize(QuantSpec(8, 8, 8))
    calibrate(network, images)
    acts = [m for m in network.modules() if isinstance(m, ActQuant)]
    before = [int(act.exponent) for act in acts]
    refresh(network, images, renew_norms=False)
    assert max(abs(int(act.exponent) - was) for act, was in zip(acts, before, strict=True)) <= 1
    assert acts[-1].mode is Mode.TRAIN
