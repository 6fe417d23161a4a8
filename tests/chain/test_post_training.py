"""Quantization without training: steps, corrected biases, and the chain with no epochs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coc_deploy import checkpoint, post_training, qat
from coc_deploy.calibration import calibrate
from coc_deploy.cli import main
from coc_deploy.network import ExitSpec, Network, exit_logits, to_input
from coc_deploy.qat import ActQuant, Mode, QConv, QLinear
from coc_deploy.quantizers import QuantSpec
from everywhere import assert_parity
from tiny import write_recipe
from usernets import images, network


def calibrated(bits: tuple[int, int], exits: bool = False) -> tuple[Network, Tensor]:
    """A network with weights whose means are not zero, in front of batch-norms that have seen images."""
    found = network("dense")
    if exits:
        found.add_exits(ExitSpec(("relu_2",), "conv", 3))
    found.quantize(QuantSpec(*bits, 8))
    x = to_input(images(found.input_shape, 32))
    calibrate(found, [x])
    return found.eval(), x


def given(found: Network, x: Tensor, mode: Mode) -> dict[ActQuant | QLinear, Tensor]:
    """What every activation is given, and the logits of linear layers."""
    seen: dict[ActQuant | QLinear, Tensor] = {}
    acts = [m for m in found.modules() if isinstance(m, ActQuant) and m is not found.image]
    hooks = [a.register_forward_pre_hook(lambda m, y: seen.update({m: y[0].clone()})) for a in acts]
    linear = [m for m in found.modules() if isinstance(m, QLinear)]
    hooks += [m.register_forward_hook(lambda m, _, y: seen.update({m: y.clone()})) for m in linear]
    qat.set_mode(found, mode)
    with torch.no_grad():
        found(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("bits", [(8, 8), (4, 4)])
def test_steps_err_least_of_all_around(bits: tuple[int, int]) -> None:
    found, x = calibrated(bits)
    before = {a: int(a.exponent) for a in found.modules() if isinstance(a, ActQuant)}
    post_training.choose_steps(found, [x[:20], x[20:]])
    seen = {a: y for a, y in given(found, x, Mode.OBSERVE).items() if isinstance(a, ActQuant)}
    assert len(seen) > 5
    for act, y in seen.items():
        y = y.double() if act.signed else y.double().clamp(0, act.ceiling)
        low, high = -act.zero_point, (1 << act.bits) - 1 - act.zero_point
        errors = {
            e: float((torch.clamp(torch.round(y / 2.0**e), low, high) * 2.0**e - y).square().sum())
            for e in range(before[act] - 3, before[act] + 2)
        }
        assert errors[int(act.exponent)] <= min(errors.values()) * (1 + 1e-6)
    assert any(int(a.exponent) != before[a] for a in seen)


@pytest.mark.parametrize("exits", [False, True])
def test_biases_bring_the_means_of_all_channels_back(exits: bool) -> None:
    found, x = calibrated((2, 8), exits)
    layers = [m for m in found.modules() if isinstance(m, QConv | QLinear)]

    float_sides = given(found, x, Mode.OBSERVE)

    def shifts() -> list[float]:
        """Of layers, how far the mean of a channel lies from the float network's."""
        moved = given(found, x, Mode.INTEGER)
        wanted = {layer.act if isinstance(layer, QConv) else layer for layer in layers}
        found_ = []
        for key in wanted & moved.keys():
            difference = float_sides[key] - moved[key]
            dims = tuple(i for i in range(difference.dim()) if i != 1)
            found_.append(float(difference.mean(dims).abs().max()))
        return found_

    before = shifts()
    post_training.correct_biases(found, x)
    after = shifts()
    assert len(layers) > 5 and max(before) > 0.1
    assert max(after) < 0.1 * max(before) and sum(after) < 0.1 * sum(before)


def test_a_quantized_network_goes_through_every_back_end(tmp_path: Path) -> None:
    found, x = calibrated((4, 8))
    assert post_training.fit(found, [x]) == len(x)
    assert_parity(found.eval(), tmp_path)


RECIPE = """\
chain = "Q"
data = "digits"
batch = 32
[original]
model = "resnet8"
width = 8
epochs = 6
[q]
bits = "4x8"
epochs = 0
"""


def test_a_chain_without_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = write_recipe(tmp_path, RECIPE), tmp_path / "run"
    assert main([str(recipe), "--out", str(out), "--threads", "1"]) == 0
    assert "steps and biases from 126 held-out images" in "".join(capsys.readouterr())
    original, quantized = json.loads((out / "history.json").read_text())
    assert quantized["epochs"] == [] and quantized["bits"] == "4x8"
    assert original["accuracy"] > 0.8 and quantized["accuracy"] > original["accuracy"] - 0.05
    loaded = checkpoint.load(out / "model.pt").network
    units = [m for m in loaded.modules() if isinstance(m, nn.Module) and isinstance(m, QConv)]
    assert units and np.isfinite(exit_logits(loaded, images(loaded.input_shape, 4))[-1]).all()
