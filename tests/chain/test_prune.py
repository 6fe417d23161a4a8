"""Pruning: the same share everywhere, rounded, and a network that is still whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coc_deploy import checkpoint, recipe
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.counting import segment_layers
from coc_deploy.network import Network
from coc_deploy.stages import prune
from coc_runtime import cost
from coc_runtime.errors import CocError
from tiny import digits, float_network, learn, plain_forward


def pruned(network: Network, **config: object) -> Network:
    return prune.transform(network, recipe.parse({"chain": "P", "p": config}))


def channels(network: Network) -> dict[str, int]:
    return {n: m.out_channels for n, m in network.body.named_modules() if isinstance(m, nn.Conv2d)}


def bitops(network: Network) -> int:
    return sum(cost.bitops(layers) for layers in segment_layers(network))


@pytest.mark.parametrize("importance", ["l1", "l2", "bn"])
@pytest.mark.parametrize(
    ("width", "ratio", "round_to", "kept"), [(16, 0.25, 4, 12), (16, 0.5, 8, 8), (8, 0.25, 2, 6)]
)
def test_every_layer_keeps_the_same_share(
    importance: str, width: int, ratio: float, round_to: int, kept: int
) -> None:
    network = float_network(width=width)
    smaller = pruned(network, ratio=ratio, round_to=round_to, importance=importance)
    before, after = channels(network), channels(smaller)
    assert after["conv1"] == kept
    assert {name: count * kept // width for name, count in before.items()} == after
    fc = smaller.body.get_submodule("fc")
    assert isinstance(fc, nn.Linear) and (fc.in_features, fc.out_features) == (4 * kept, 10)


@pytest.mark.parametrize("round_to", [1, 3, 4, 8])
def test_channels_are_multiples_of_what_they_are_rounded_to(round_to: int) -> None:
    after = channels(pruned(float_network(width=24), ratio=0.4, round_to=round_to))
    assert all(count % round_to == 0 and count > 0 for count in after.values())


def test_bitops_fall_with_the_square_of_the_share() -> None:
    network = float_network(width=16)
    ratio = bitops(pruned(network, ratio=0.5, round_to=4)) / bitops(network)
    assert 0.25 < ratio < 0.27  # the stem's and the linear layer's fall with the share alone


def test_the_network_that_was_pruned_is_left_alone() -> None:
    network = float_network(width=8)
    images = digits("test").images[:20]
    before, shapes = plain_forward(network, images), channels(network)
    pruned(network, ratio=0.5)
    assert channels(network) == shapes
    np.testing.assert_array_equal(plain_forward(network, images), before)


def test_channels_that_compute_nothing_go_first() -> None:
    """Half the inner channels of a block are dead, so removing them changes no logit."""
    network = float_network(width=8, steps=3)
    with torch.no_grad():
        for name, module in network.body.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[::2], module.bias[::2], module.running_mean[::2] = 0, 0, 0  # type: ignore[index]
            if isinstance(module, nn.Conv2d):
                module.weight[::2] = 0
                if name != "conv1":
                    module.weight[:, ::2] = 0
    images = digits("test").images
    smaller = pruned(network, ratio=0.5, round_to=4)
    np.testing.assert_allclose(plain_forward(smaller, images), plain_forward(network, images), atol=1e-4)


def test_a_pruned_network_can_be_trained_and_rebuilt_from_its_file(tmp_path: Path) -> None:
    network = pruned(float_network(width=8), ratio=0.25, round_to=2)
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.train()
    learn(network, 3)
    path = tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(network))
    rebuilt = checkpoint.load(path).network
    images = digits("test").images
    assert channels(rebuilt) == channels(network)
    np.testing.assert_array_equal(plain_forward(rebuilt, images), plain_forward(network, images))


def test_no_share_is_no_change() -> None:
    network = float_network(width=8)
    assert channels(pruned(network, ratio=0.0)) == channels(network)


@pytest.mark.parametrize(("ratio", "round_to"), [(0.5, 256), (0.1, 32)])
def test_a_rounding_that_leaves_everything_is_refused(ratio: float, round_to: int) -> None:
    with pytest.raises(
        CocError, match=rf"p\.ratio = {ratio} with p\.round_to = {round_to} removes no channels"
    ):
        pruned(float_network(width=8), ratio=ratio, round_to=round_to)


def test_shortcut_a_cannot_be_pruned_and_is_named() -> None:
    with pytest.raises(CocError, match=r"layer2\.0\.downsample: shortcut A has a fixed number of channels"):
        pruned(float_network(width=8, shortcut="A"), ratio=0.5)
