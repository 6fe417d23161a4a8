"""Pruning: the same share everywhere, rounded, and a network that is still whole."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coc_deploy import checkpoint, recipe
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.counting import cumulative_share, segment_layers
from coc_deploy.network import ExitSpec, Network, exit_logits, to_input
from coc_deploy.stages import distill, prune
from coc_deploy.stages.requantize import refresh
from coc_runtime import cost
from coc_runtime.errors import CocError
from tiny import digits, float_network, learn, plain_forward, quantized_network


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


def test_global_ratios_differ_between_layers_and_remove_the_share_in_all() -> None:
    """A layer with many channels that do little loses most; every one keeps a multiple of round_to."""
    network = float_network(width=16)
    with torch.no_grad():
        for name, module in network.body.named_modules():
            if name == "layer2.0.conv1":
                module.weight[4:] *= 1e-3  # type: ignore[index, operator]
    before = channels(network)
    after = channels(pruned(network, ratio=0.3, round_to=4, scope="global", importance="l1"))
    shares = {name: after[name] / count for name, count in before.items()}
    assert min(shares, key=shares.__getitem__) == "layer2.0.conv1" and len(set(shares.values())) > 1
    assert all(count % 4 == 0 and count > 0 for count in after.values())
    assert 0.5 < sum(after.values()) / sum(before.values()) < 0.9


@pytest.mark.parametrize("round_to", [1, 4])
def test_a_layer_that_global_ranking_would_empty_keeps_one_group(round_to: int) -> None:
    network = float_network(width=16)
    with torch.no_grad():
        network.body.get_submodule("layer2.0.conv1").weight[0] *= 1e6  # type: ignore[index, operator]
        network.body.get_submodule("layer2.0.conv2").weight[:, 0] *= 1e6  # type: ignore[index, operator]
        network.body.get_submodule("layer2.0.bn1").weight[0] *= 1e6  # type: ignore[index, operator]
    after = channels(pruned(network, ratio=0.4, round_to=round_to, scope="global"))
    assert after["layer2.0.conv1"] == round_to


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("head", ["conv", "linear"])
def test_heads_are_pruned_with_the_body_and_rebuilt_from_the_file(
    scope: str, head: str, tmp_path: Path
) -> None:
    network = float_network(width=8, steps=2)
    network.add_exits(ExitSpec(("layer1.0", "layer2.0"), head, 8))
    smaller = pruned(network, ratio=0.5, round_to=4, scope=scope)
    assert smaller.exits == ExitSpec(("layer1.0", "layer2.0"), head, 4 if head == "conv" else 8)
    assert network.exits == ExitSpec(("layer1.0", "layer2.0"), head, 8)
    learn(smaller.train(), 2)
    checkpoint.save(tmp_path / "model.pt", Checkpoint(smaller.eval()))
    rebuilt = checkpoint.load(tmp_path / "model.pt").network
    images = digits("test").images
    np.testing.assert_array_equal(exit_logits(rebuilt, images), exit_logits(smaller, images))


@pytest.mark.parametrize(("head", "exits_first"), [(None, False), ("conv", True), ("linear", False)])
def test_a_quantized_network_is_pruned_and_stays_quantized(head: str | None, exits_first: bool) -> None:
    network = quantized_network((2, 4), head=head, exits_first=exits_first)
    smaller = pruned(network, ratio=0.5, round_to=2)
    assert smaller.quant == network.quant
    layers = [list(itertools.chain(*segment_layers(n))) for n in (network, smaller)]
    assert [layer.name for layer in layers[0]] == [layer.name for layer in layers[1]]
    for before, after in zip(*layers, strict=True):
        assert (before.weight_bits, before.activation_bits) == (after.weight_bits, after.activation_bits)
        assert after.weights < before.weights
    refresh(smaller, [to_input(digits("held-out").images)], renew_norms=True)
    learn(smaller.train(), 2)
    assert np.isfinite(exit_logits(smaller, digits("test").images)).all()


def test_pruning_a_pruned_network_takes_the_share_of_what_is_left() -> None:
    once = pruned(float_network(width=16), ratio=0.5)
    assert channels(pruned(once, ratio=0.5))["layer3.0.conv1"] == 16
    assert prune.ratio_of(once) == 0.5 and prune.ratio_of(float_network()) == 0


STUDENT = {"model": "resnet8", "width": 24}


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_a_student_is_pruned_as_often_and_as_much_as_its_teacher(scope: str) -> None:
    """Untrained weights have no ranking between layers, so that the student's ratio is uniform."""
    config = recipe.parse({"chain": "PPD", "d": STUDENT, "p": {"ratio": 0.3, "scope": scope, "round_to": 2}})
    teacher = float_network(name="resnet14", width=24)
    student = distill.transform(prune.transform(prune.transform(teacher, config), config), config.at(3))
    expected = pruned(pruned(float_network(width=24), ratio=0.3, round_to=2), ratio=0.3, round_to=2)
    assert channels(student) == channels(expected) and channels(student)["conv1"] == 10


@pytest.mark.parametrize(("ratio", "kept"), [(1 / 3, 16), (0.25, 18), (0.5, 12)])
def test_a_student_is_pruned_by_what_a_given_model_lacks(ratio: float, kept: int) -> None:
    """The chain does not say how a checkpoint that it starts from was pruned; its shape does."""
    teacher = pruned(float_network(name="resnet14", width=24), ratio=ratio, round_to=2)
    given = {"original": {"checkpoint": "model.pt"}, "p": {"round_to": 2}}
    config = recipe.parse({"chain": "D", "d": STUDENT, **given})
    student = distill.transform(teacher, config)
    assert channels(student) == {n: c for n, c in channels(teacher).items() if n in channels(student)}
    assert channels(student)["conv1"] == kept


def test_a_student_has_exits_at_the_nearest_shares_of_its_own_bitops() -> None:
    teacher = float_network(name="resnet20", width=8)
    teacher.add_exits(ExitSpec(("layer1.2", "layer2.1", "layer3.1"), "conv", 6))
    config = recipe.parse({"chain": "ED", "d": {"model": "resnet14", "width": 4}})
    student = distill.transform(teacher, config)
    assert student.exits is not None and (student.exits.head, student.exits.head_channels) == ("conv", 6)
    wanted, shares = cumulative_share(teacher), cumulative_share(student)
    for ours, theirs in zip(student.exits.positions, ("layer1.2", "layer2.1", "layer3.1"), strict=True):
        assert abs(shares[ours] - wanted[theirs]) == min(abs(s - wanted[theirs]) for s in shares.values())
    tiny = recipe.parse({"chain": "ED", "d": {"model": "resnet8", "width": 4}})
    teacher = float_network(name="resnet20", width=8)
    teacher.add_exits(ExitSpec(tuple(teacher.exit_places()[:4]), "linear", 6))
    with pytest.raises(CocError, match="4 exits do not fit resnet8: its blocks are layer1.0, layer2.0"):
        distill.transform(teacher, tiny)


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
