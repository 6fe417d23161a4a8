"""Quantizers: the integers of ARITHMETIC, steps that cover what was seen, gradients in every mode."""

import numpy as np
import pytest
import torch
from torch import nn

from coc_deploy import qat
from coc_deploy.calibration import calibrate
from coc_deploy.network import exit_logits, to_input
from coc_deploy.qat import ActQuant, Mode, QAdd, QConv, QLinear, QPool, dorefa, symmetric
from coc_deploy.quantizers import QuantSpec
from coc_runtime import arithmetic
from coc_runtime.arithmetic import Encoding
from coc_runtime.errors import CocError
from tiny import digits, float_network, learn, quantized_network


def weights(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 7, 3, 3, generator=torch.Generator().manual_seed(seed)) * 0.3


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_dorefa_gives_all_odd_integers_of_its_bits_with_positive_scales(bits: int) -> None:
    integers, scale = dorefa(weights(), bits)
    levels = (1 << bits) - 1
    assert set(integers.unique().tolist()) == set(range(-levels, levels + 1, 2))
    assert scale.shape == (5, 1, 1, 1) and (scale > 0).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_dorefa_follows_its_formula_channel_by_channel(bits: int) -> None:
    w, levels = weights().double().numpy(), (1 << bits) - 1
    integers, scale = dorefa(torch.from_numpy(w), bits)
    for channel in range(len(w)):
        bounded = np.tanh(w[channel])
        q = np.rint(levels * (bounded / (2 * np.abs(bounded).max()) + 0.5))
        np.testing.assert_array_equal(integers[channel], 2 * q - levels)
        assert float(scale[channel]) == pytest.approx(np.abs(bounded).max() / levels)


def test_one_bit_is_the_sign_and_the_mean_magnitude() -> None:
    w = weights()
    integers, scale = dorefa(w, 1)
    np.testing.assert_array_equal(integers, np.where(w.numpy() < 0, -1, 1))
    np.testing.assert_allclose(scale.flatten(), w.abs().numpy().mean(axis=(1, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_weights_that_are_all_zero_are_quantized_too(bits: int) -> None:
    integers, scale = dorefa(torch.zeros(2, 3, 1, 1), bits)
    assert torch.isfinite(scale).all() and (scale > 0).all()
    arithmetic.encode(integers.numpy().astype(np.int32), bits, Encoding.ODD)


def test_eight_bit_scale_times_gain_is_a_power_of_two() -> None:
    gain = torch.tensor([0.3, 1.7, 0.01, 250.0, 1.0])[:, None, None, None]
    w = weights()
    integers, scale = symmetric(w, gain)
    folded = np.log2((scale * gain).double().numpy())
    np.testing.assert_allclose(folded, np.rint(folded), atol=1e-6)
    assert integers.abs().max() <= 127
    assert ((integers * scale - w).abs() <= scale / 2 + 1e-6).all()
    peaks = integers.abs().amax(dim=(1, 2, 3))
    assert (peaks >= 63).all(), "a step twice as fine would do"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_calibration_takes_the_smallest_power_of_two_that_covers(bits: int, signed: bool) -> None:
    levels = 1 << (bits - 1) if signed else (1 << bits) - 1
    for peak in (0.01, 0.7, 1.0, 3.3, levels * 0.25, levels * 0.26, 1e4):
        act = ActQuant(bits, signed, percentile=100)
        act.mode = Mode.OBSERVE
        act(torch.tensor([0.0, -peak / 2 if signed else -9e9, peak]))
        act.calibrate()
        step = 2.0 ** int(act.exponent)
        assert levels * step >= peak * (1 - 1e-6) > levels * step / 2 * (1 - 1e-6)


def test_calibration_covers_the_percentile_not_the_outlier() -> None:
    values = torch.cat([torch.linspace(0, 1, 1999), torch.tensor([100.0])])
    exponents = {}
    for percentile in (99.9, 100.0):
        act = ActQuant(8, signed=False, percentile=percentile)
        act.mode = Mode.OBSERVE
        act(values)
        act.calibrate()
        exponents[percentile] = int(act.exponent)
    assert exponents == {99.9: -7, 100.0: -1}


def test_codes_saturate_at_their_ends_and_pass_gradients_only_inside() -> None:
    for signed, low, high in ((False, 0.0, 7.5), (True, -4.0, 3.5)):
        act = ActQuant(4, signed, exponent=-1)
        y = torch.tensor([-100.0, -0.2, 1.25, 3.3, 100.0], requires_grad=True)
        z = act(y)
        z.sum().backward()
        assert z[0] == low and z[-1] == high
        assert z.tolist()[2:4] == [1.0, 3.5], "half to even"
        assert y.grad is not None and y.grad.tolist() == [0, 1 if signed else 0, 1, 1, 0]


@pytest.mark.parametrize("mode", [Mode.TRAIN, Mode.FOLDED])
@pytest.mark.parametrize("bits", [(1, 8), (4, 4), (8, 8)])
def test_every_parameter_gets_a_gradient(mode: Mode, bits: tuple[int, int]) -> None:
    network = quantized_network(bits, head="conv", exits_first=True)
    network.train(mode is Mode.TRAIN)
    qat.set_mode(network, mode)
    network.zero_grad()
    logits = network(to_input(digits("train").images[:64]))
    torch.stack(logits).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("bits", [(1, 8), (2, 8), (4, 4), (8, 8)])
@pytest.mark.parametrize("first_last", ["8", "same"])
def test_folded_training_sees_nearly_the_integers(bits: tuple[int, int], first_last: str) -> None:
    network = quantized_network(bits, first_last)
    images = digits("test").images
    exact = exit_logits(network, images)[-1]
    qat.set_mode(network, Mode.FOLDED)
    with torch.no_grad():
        (folded,) = network(to_input(images))
    difference = np.abs(folded.numpy() - exact)
    assert np.median(difference) <= 0.02 * exact.std() and (difference == 0).mean() > 0.2


def test_folding_turns_channels_of_negative_gamma() -> None:
    network = quantized_network((1, 8))
    unit = network.body.get_submodule("layer1.0.conv1")
    assert isinstance(unit, QConv)
    negative = unit.bn.weight < 0
    assert negative.any()
    integers, scale, _ = unit.fold()
    plain, _ = dorefa(unit.weight, 1)
    expected = plain * torch.where(negative, -1.0, 1.0)[:, None, None, None]
    np.testing.assert_array_equal(integers, expected.numpy())
    assert (scale > 0).all()


def test_multipliers_keep_eight_significant_bits() -> None:
    network = quantized_network((2, 8))
    for unit in network.modules():
        if isinstance(unit, QConv):
            assert (arithmetic.odd_part(unit.fold()[1]) < 256).all()


def test_quantization_replaces_every_layer_by_a_unit_with_the_bits_asked_for() -> None:
    network = quantized_network((2, 4), head="conv")
    bits = {n: m.weight_bits for n, m in network.named_modules() if isinstance(m, QConv | QLinear)}
    assert {n for n, b in bits.items() if b == 8} == {"body.conv1", "body.fc", "heads.0.fc", "heads.1.fc"}
    assert set(bits.values()) == {2, 8}
    bare = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.ReLU)]
    assert not bare
    for unit in network.modules():
        if isinstance(unit, QPool):
            assert unit.act.bits == 8
        elif isinstance(unit, QConv | QAdd):
            assert unit.act.bits == (8 if unit.act.signed else 4)
    same = quantized_network((2, 8), "same", head="linear")
    assert {m.weight_bits for m in same.modules() if isinstance(m, QConv | QLinear)} == {2}


def test_a_network_is_quantized_once() -> None:
    network = float_network()
    network.quantize(QuantSpec(1, 8, 8))
    with pytest.raises(CocError, match="quantized already"):
        network.quantize(QuantSpec(1, 8, 8))


def test_shortcut_a_cannot_be_quantized_and_is_named() -> None:
    with pytest.raises(CocError, match=r"layer2\.0\.downsample: ShortcutA cannot be quantized; supported: "):
        float_network(shortcut="A").quantize(QuantSpec(1, 8, 8))


def test_calibrating_new_heads_leaves_the_body_as_it_is() -> None:
    plain, with_exits = quantized_network((1, 8)), quantized_network((1, 8), head="conv")
    body = with_exits.body.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in plain.body.state_dict().items())
    assert all(int(m.exponent) < 8 for m in with_exits.heads.modules() if isinstance(m, ActQuant))


def test_training_in_quantized_mode_improves_the_integer_model() -> None:
    network = float_network(width=8, steps=17)
    network.quantize(QuantSpec(1, 8, 8))
    calibrate(network, [to_input(digits("held-out").images)])
    data = digits("test")

    def accuracy() -> float:
        return float((exit_logits(network, data.images)[-1].argmax(axis=1) == data.labels).mean())

    before = accuracy()
    for _ in range(3):
        network.train()
        learn(network, 18, 0.02)
    assert accuracy() > max(before, 0.5)


def test_one_scale_for_a_layer_is_that_of_all_its_weights() -> None:
    w = weights()
    for bits in (1, 2, 4):
        integers, scale = dorefa(w, bits, per_layer=True)
        flat, one = dorefa(w.reshape(1, -1), bits)
        assert torch.equal(integers, flat.reshape(w.shape))
        assert scale.shape == (5, 1, 1, 1) and torch.equal(scale.unique(), one.flatten())


def test_a_learned_step_follows_its_gradient_to_another_power_of_two() -> None:
    act = ActQuant(4, signed=False, exponent=-6, learned=True)
    y = torch.linspace(0, 3, 500)  # far beyond the largest code, 15 / 64
    optimizer = torch.optim.SGD(act.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        ((act(y) - y) ** 2).mean().backward()
        optimizer.step()
    assert -3 <= int(act.exponent) <= -2
    assert float(((act(y) - y) ** 2).mean().detach()) < 0.01


@pytest.mark.parametrize("changes", [{"learned": True}, {"per_layer": True}])
def test_variants_of_quantization_keep_to_the_integers(changes: dict[str, bool]) -> None:
    network, images = float_network(), digits("held-out").images
    network.quantize(QuantSpec(1, 8, 8, **changes))
    calibrate(network, [to_input(images[:64])])
    learn(network, steps=3)
    unit = next(m for m in network.modules() if isinstance(m, QLinear))
    _, exponent, _ = unit.fold()
    sums = exit_logits(network, images[:16])[-1] / 2.0 ** (int(unit.sources[0].exponent) + exponent)
    np.testing.assert_array_equal(sums, np.rint(sums))


@pytest.mark.parametrize("tensor", ["weight", "bn.weight", "bn.running_mean"])
def test_a_training_that_diverged_is_told_as_such(tensor: str) -> None:
    network = quantized_network()
    unit = next(m for m in network.body.modules() if isinstance(m, QConv))
    owner, _, name = tensor.rpartition(".")
    with torch.no_grad():
        getattr(unit.get_submodule(owner), name).flatten()[0] = float("nan")
    qat.set_mode(network, Mode.FOLDED)
    with pytest.raises(CocError, match="no longer finite: lower the learning rate"):
        network(to_input(digits("test").images[:2]))
