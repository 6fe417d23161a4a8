"""Narrowed copies: the same structure with a share of the channels, fresh weights, whatever came before."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from coc_deploy.channels import remove_channels
from coc_deploy.counting import segment_layers
from coc_deploy.models import Architecture
from coc_deploy.models.narrow import fresh, narrowed
from coc_deploy.network import ExitSpec, Network
from coc_runtime import cost
from coc_runtime.errors import CocError
from tiny import float_network, quantized_network
from usernets import USER, ZOO, network, quantize


def channels(found: Network) -> dict[str, int]:
    kinds = nn.Conv2d | nn.Linear
    return {n: len(m.weight) for n, m in found.body.named_modules() if isinstance(m, kinds)}


@pytest.mark.parametrize("name", [*USER, *ZOO])
def test_every_layer_has_the_share_and_the_logits_stay(name: str) -> None:
    whole = network(name)
    before, smaller = channels(whole), narrowed(whole, 0.5)
    after = channels(smaller)
    *inner, last = before
    assert before == channels(whole) and after.keys() == before.keys() and after[last] == 10
    assert all(0.25 * before[n] <= after[n] <= 0.7 * before[n] or before[n] <= 3 for n in inner)
    assert smaller.quant is None and smaller.exits is None
    assert smaller.exit_places() == whole.exit_places()
    (logits,) = smaller(torch.zeros(2, *whole.input_shape))
    assert logits.shape == (2, 10)
    assert all(parameter.requires_grad for parameter in smaller.parameters())


def test_bitops_fall_with_the_square_of_the_share() -> None:
    whole = Network(Architecture("vgg11_bn", 32, "B", 3, 10), (32, 32))
    small, large = (cost.bitops(segment_layers(n)[0]) for n in (narrowed(whole, 0.25), whole))
    assert 1 / 16 < small / large < 1.15 / 16


@pytest.mark.parametrize(
    "build",
    [
        lambda: quantize(network("plain"), (1, 8)),
        lambda: quantize(network("lenet"), (4, 4)),
        lambda: quantized_network((1, 8), head="conv"),
    ],
)
def test_quantized_networks_and_those_with_exits_give_plain_ones(build: Callable[[], Network]) -> None:
    smaller = narrowed(build(), 0.5)
    assert smaller.quant is None and smaller.exits is None
    smaller.quantize(build().quant)  # type: ignore[arg-type]


def test_a_pruned_networks_copy_has_the_share_of_what_is_left() -> None:
    pruned = float_network(width=16)
    remove_channels(pruned, 0.5)
    assert set(channels(narrowed(pruned, 0.5)).values()) == {4, 8, 10, 16}


def test_weights_are_fresh_and_differ_by_seed() -> None:
    whole = network("plain")
    torch.manual_seed(1)
    a = fresh(whole).state_dict()
    torch.manual_seed(2)
    b = fresh(whole).state_dict()
    weights = [name for name in a if name.endswith("weight")]
    assert all(not torch.equal(a[name], b[name]) for name in weights)
    assert a.keys() == whole.state_dict().keys()


def test_the_whole_width_is_an_untrained_copy() -> None:
    assert channels(narrowed(network("dense"), 1.0)) == channels(network("dense"))


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_other_shares_are_refused(fraction: float) -> None:
    with pytest.raises(CocError, match="share of the channels above 0, at most 1"):
        narrowed(float_network(), fraction)


def test_shortcut_a_is_named() -> None:
    with pytest.raises(CocError, match=r"layer2\.0\.downsample: shortcut A has a fixed number of channels"):
        narrowed(float_network(shortcut="A"), 0.5)


def test_exits_can_be_added_to_a_copy() -> None:
    smaller = narrowed(network("blocks"), 0.7)
    smaller.add_exits(ExitSpec(("blocks.0", "blocks.1"), "conv", 4))
    assert len(smaller(torch.zeros(2, 3, 16, 16))) == 3
