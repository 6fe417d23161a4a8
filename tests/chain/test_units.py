"""Quantized units of any network: types, gradients, ReLU6, and a whole chain on a user's file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from coc_deploy import checkpoint, qat
from coc_deploy.network import Network, evaluating, exit_logits, to_input
from coc_deploy.qat import ActQuant, Mode, QAdd, QAvgPool, QConcat, QConv, QFlatten, QLinear, QMaxPool, QPool
from coc_deploy.quantizers import QuantSpec
from usernets import FIXED, USER, images, network, quantize, settled


def units(found: Network) -> dict[str, nn.Module]:
    return {name: m for name, m in found.body.named_modules() if isinstance(m, qat.UNITS)}


@pytest.mark.parametrize("mode", [Mode.TRAIN, Mode.FOLDED])
@pytest.mark.parametrize("bits", [(1, 4), (8, 8)])
@pytest.mark.parametrize("name", [*USER, *FIXED, "mobilenet_v2", "resnet8_mlperf"])
def test_every_parameter_gets_a_gradient(name: str, bits: tuple[int, int], mode: Mode) -> None:
    found = quantize(network(name), bits)
    found.train(mode is Mode.TRAIN)
    qat.set_mode(found, mode)
    (logits,) = found(to_input(images(found.input_shape, 16)))
    logits.square().mean().backward()
    for label, parameter in found.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), label


@pytest.mark.parametrize("name", [*USER, *FIXED, "resnet8_mlperf"])
def test_eight_bits_are_close_to_the_float_network(name: str) -> None:
    some = images(network(name).input_shape, 16)
    expected = exit_logits(network(name), some)[-1]
    found = exit_logits(quantize(network(name), (8, 8)), some)[-1]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.995


def test_bits_of_ends_hidden_layers_and_depthwise_convolutions() -> None:
    bits = {
        n: m.weight_bits
        for n, m in units(quantize(network("plain"), (2, 4))).items()
        if hasattr(m, "weight_bits")
    }
    assert bits == {"conv1": 8, "conv2": 2, "conv3": 2, "head.2": 2, "head.5": 8}
    found = units(quantize(network("mobilenet_v2"), (1, 8)))
    small = {n: m for n, m in found.items() if isinstance(m, QConv)}
    assert [n for n, m in small.items() if m.weight_bits == 8] == ["features.0.0"]
    assert any(m.groups > 1 and m.weight_bits == 1 for m in small.values())


def test_linear_bottlenecks_are_signed_with_eight_bits() -> None:
    found = units(quantize(network("mobilenet_v2"), (1, 4)))
    bottleneck, expansion = found["features.4.conv.2"], found["features.5.conv.0.0"]
    assert isinstance(bottleneck, QConv) and isinstance(expansion, QConv)
    assert (bottleneck.act.signed, bottleneck.act.bits, bottleneck.act.zero_point) == (True, 8, 128)
    assert expansion.sources[0] is bottleneck.act
    assert (expansion.act.signed, expansion.act.bits) == (False, 4)


def test_pools_and_flattening_keep_their_inputs_type() -> None:
    found = units(quantize(network("blocks"), (4, 4)))
    pool, flatten = found["blocks.0.pool"], found["fc_flatten"]
    assert isinstance(pool, QMaxPool) and isinstance(flatten, QFlatten)
    assert pool.act is found["blocks.0.conv"].act and flatten.act is found["blocks.2.conv"].act
    assert {type(m) for m in units(quantize(network("dense"), (4, 4))).values()} == {
        *(QConv, QMaxPool, QConcat, QAvgPool, QPool, QLinear)
    }


@pytest.mark.parametrize(("bits", "peak", "clip"), [(8, 9.0, 255 / 32), (8, 3.0, 255 / 64), (4, 9.0, 7.5)])
def test_relu6_saturates_at_the_largest_code_of_a_range_that_covers_at_most_6(
    bits: int, peak: float, clip: float
) -> None:
    act = ActQuant(bits, signed=False, percentile=100, ceiling=6.0)
    act.mode = Mode.OBSERVE
    seen = act(torch.tensor([-1.0, 2.0, peak]))
    assert seen.tolist() == [0, 2, min(peak, 6)]
    act.calibrate()
    act.mode = Mode.INTEGER
    assert act(torch.tensor([100.0])).item() == clip


def test_conv_bias_in_front_of_batch_norm_is_not_lost() -> None:
    found = network("resnet8_mlperf")
    with torch.no_grad():
        for module in found.body.modules():
            if isinstance(module, nn.Conv2d):
                module.bias += 0.7  # type: ignore[operator]
    some = images(found.input_shape, 16)
    expected = exit_logits(found, some)[-1]
    assert np.corrcoef(expected.ravel(), exit_logits(quantize(found, (8, 8)), some)[-1].ravel())[0, 1] > 0.99


def test_operands_of_additions_are_aligned_without_touching_the_image() -> None:
    found = network("plain")
    with torch.no_grad():
        found.body.get_submodule("conv3").weight.mul_(1e-6)  # type: ignore[operator, union-attr]
        found.body.get_submodule("conv3").bias.mul_(1e-6)  # type: ignore[operator, union-attr]
    quantize(found, (8, 8))
    (add,) = (m for m in found.body.modules() if isinstance(m, QAdd))
    exponents = [int(act.exponent) for act in add.sources]
    assert max(exponents) - min(exponents) == 7 and int(found.image.exponent) == -7


class _Padded(nn.Module):
    def __init__(self, *behind: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.behind = nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), *behind)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.behind(self.conv(x)).mean((2, 3)))


def test_padding_merges_into_what_reads_it() -> None:
    spec = QuantSpec(4, 8, 8)
    for reader in (
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AvgPool2d(3, 1, 1),
        nn.Sequential(nn.ZeroPad2d(0), nn.Conv2d(4, 4, 3, padding=1)),
    ):
        found = Network.of(_Padded(reader), (3, 9, 9), 10)
        found.quantize(spec)
        pads = [m.pads for m in units(found).values() if isinstance(m, QConv | QAvgPool)]
        assert pads[1] == (3, 1, 1, 2)


@pytest.mark.parametrize("name", [*USER, "mobilenet_v2"])
def test_evaluation_leaves_every_unit_as_it_was(name: str) -> None:
    """A body that is frozen in integer mode beside heads in training, and every other mixture."""
    found = quantize(network(name), (4, 8))
    given = [unit for unit in found.modules() if isinstance(unit, qat.UNITS)]
    for start, mode in enumerate(Mode):
        for i, unit in enumerate(given):
            unit.set_mode(list(Mode)[(i + start) % len(Mode)])  # type: ignore[operator]
        found.train(mode is Mode.TRAIN)
        before = [(unit.mode, unit.training) for unit in given]
        with evaluating(found):
            assert all(unit.mode is Mode.INTEGER and not unit.training for unit in given)
        assert [(unit.mode, unit.training) for unit in given] == before


@pytest.mark.parametrize("reader", [nn.MaxPool2d(3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))])
def test_padding_that_its_reader_cannot_do_is_a_layer(reader: nn.Module) -> None:
    found = quantize(settled(Network.of(_Padded(reader), (3, 9, 9), 10)), (8, 8))
    given: dict[str, torch.Tensor] = {}
    for name in ("conv", "behind.0"):
        unit = found.body.get_submodule(name)
        unit.register_forward_hook(lambda m, x, y, name=name: given.update({name: y}))
    with evaluating(found):
        found(to_input(images((3, 9, 9))))
    unit = found.body.get_submodule("behind.0")
    assert isinstance(unit, QConv)
    largest = 127 * 2.0 ** int(unit.act.exponent)
    expected = f.pad(given["conv"], (0, 1, 2, 0)).clamp(-largest - 2.0 ** int(unit.act.exponent), largest)
    assert expected.min() < 0 and given["behind.0"].shape == expected.shape
    torch.testing.assert_close(given["behind.0"], expected, rtol=0, atol=2.0 ** int(unit.act.exponent))


RECIPE = """\
chain = "DPQE"
data = "digits"
batch = 32
[original]
model = "nets.py:make"
epochs = 8
[d]
model = "nets.py:make"
epochs = 8
[p]
ratio = 0.4
round_to = 1
epochs = 4
[q]
bits = "4x8"
epochs = 4
[e]
positions = [0.5]
head_channels = 4
epochs = 1
"""
SOURCE = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 9, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(9, 14, 3, padding=1, bias=False), nn.BatchNorm2d(14), nn.ReLU6(), nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(14 * 4, 20), nn.ReLU(), nn.Dropout(0.2), nn.Linear(20, classes)
        )

    def forward(self, x):
        return self.classifier(self.features(x))

def make(classes, channels):
    return Net(classes, channels)
"""


def test_a_whole_chain_runs_on_a_users_file_and_the_model_no_longer_needs_it(tmp_path: Path) -> None:
    from coc_deploy.cli import main

    (tmp_path / "nets.py").write_text(SOURCE)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    out = tmp_path / "run"
    assert main([str(tmp_path / "recipe.toml"), "--out", str(out), "--threads", "1"]) == 0
    (tmp_path / "nets.py").unlink()
    loaded = checkpoint.load(out / "model.pt")
    assert loaded.network.arch.name == "nets.py:make"
    history = json.loads((out / "history.json").read_text())
    assert history[-1]["model"] == "make" and history[-1]["accuracy"] > 30
    assert history[0]["accuracy"] > 60


@pytest.mark.parametrize("part", ["nn.ConvTranspose2d(9, 9, 1)", "nn.AvgPool2d(1, divisor_override=5)"])
def test_what_a_users_file_may_not_do_is_told_before_any_training(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from coc_deploy.cli import main

    (tmp_path / "nets.py").write_text(SOURCE.replace("nn.ReLU(), nn.MaxPool2d", f"{part}, nn.MaxPool2d"))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    out = tmp_path / "run"
    assert main([str(tmp_path / "recipe.toml"), "--out", str(out), "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert "features.1: " in error and error.count("\n") == 1
    assert not list(out.glob("00-*"))
