"""Weights that cannot be right are refused by the tensor's name, those that fit load whatever modules are
called, and layers too wide for their bits fail before any training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from coc_deploy import checkpoint, models
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.cli import main
from coc_deploy.network import Network
from coc_runtime.errors import CocError
from tiny import float_network, quantized_network, same_state, write_recipe

INF = float("inf")


class Net(nn.Module):
    """Sub-modules whose names mean something elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.linear = nn.Linear(4, 6)
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.linear(torch.flatten(self.module(x), 1)))


def network(module: nn.Module) -> Network:
    return Network.of(module, (1, 8, 8), 10)


def load(path: Path, into: Network) -> None:
    models.load_weights(into.body, path, (128 / 255,), (128 / 255,))  # which changes nothing


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_that_fit_are_not_renamed(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    given, empty = Net(), network(Net())
    torch.save({f"{prefix}{name}": t for name, t in given.state_dict().items()}, tmp_path / "weights.pt")
    load(tmp_path / "weights.pt", empty)
    assert same_state(empty.body.state_dict(), dict(given.state_dict()))


HELD = [
    lambda state: {f"model.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(3)},
    lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    lambda state: {"epoch": 3, "state_dict": {f"model._orig_mod.{name}": v for name, v in state.items()}},
    lambda state: {"model": dict(state), "optimizer": {"lr": 0.1}},
    lambda state: {"model_state_dict": dict(state), "best": 0.5},
]
"""As Lightning, torch.compile inside of DataParallel, and scripts of trainings keep weights."""


@pytest.mark.parametrize("held", HELD)
def test_weights_are_found_in_what_trainings_save(
    held: Callable[[Mapping[str, Tensor]], Any], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    given, empty = Net(), network(Net())
    torch.save(held(given.state_dict()), tmp_path / "weights.pt")
    load(tmp_path / "weights.pt", empty)
    assert same_state(empty.body.state_dict(), dict(given.state_dict()))


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    given, empty, path = Net(), network(Net()), tmp_path / "w.safetensors"
    save_file({f"module.{name}": value for name, value in given.state_dict().items()}, path)
    load(path, empty)
    assert same_state(empty.body.state_dict(), dict(given.state_dict()))
    path.write_bytes(b"no such thing")
    with pytest.raises(CocError, match=r"w\.safetensors: not a PyTorch state dict"):
        load(path, empty)


def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weights": Net().state_dict()}, tmp_path / "weights.pt")
    with pytest.raises(CocError, match=r"not a plain state dict .*, nor one under 'state_dict', "):
        load(tmp_path / "weights.pt", network(Net()))


def test_a_linear_layer_becomes_the_fc_that_the_model_has(tmp_path: Path) -> None:
    torch.manual_seed(1)
    found, empty = float_network(seed=1), float_network(seed=2)
    state = {f"module.{n.replace('fc.', 'linear.')}": t for n, t in found.body.state_dict().items()}
    torch.save(state, tmp_path / "weights.pt")
    load(tmp_path / "weights.pt", empty)
    assert same_state(empty.body.state_dict(), dict(found.body.state_dict()))


def test_names_that_do_not_fit_are_still_refused(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["other.weight"] = state.pop("fc.weight")
    torch.save(dict(state), tmp_path / "weights.pt")
    with pytest.raises(CocError, match="does not fit the model: .*other.weight"):
        load(tmp_path / "weights.pt", network(Net()))


WRONG = [
    ("module.0.weight", float("nan"), "tensor 'module.0.weight' holds NaN or infinity"),
    ("fc.bias", -INF, "tensor 'fc.bias' holds NaN or infinity"),
    ("module.1.running_mean", INF, "tensor 'module.1.running_mean' holds NaN or infinity"),
    ("module.1.running_var", -1e-3, "tensor 'module.1.running_var' holds a negative variance"),
]


def spoilt(name: str, value: float) -> Net:
    module = Net()
    module.state_dict()[name].view(-1)[-1] = value
    return module


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_values_of_no_network_are_refused_by_name(
    name: str, value: float, words: str, tmp_path: Path
) -> None:
    """In a weights file, in what a user's function gives, and in model.pt."""
    module = spoilt(name, value)
    with pytest.raises(CocError) as error:
        network(module)
    assert str(error.value).startswith(f"Net: {words}") and "\n" not in str(error.value)

    found, path = network(Net()), tmp_path / "weights.pt"
    torch.save(module.state_dict(), path)
    with pytest.raises(CocError, match=f"weights.pt: {words}"):
        load(path, found)

    found.body.load_state_dict(module.state_dict())
    checkpoint.save(tmp_path / "model.pt", Checkpoint(found))
    with pytest.raises(CocError, match=f"model.pt: .*tensor 'body.{name}' holds "):
        checkpoint.load(tmp_path / "model.pt")


def test_values_of_a_quantized_network_are_looked_at_too(tmp_path: Path) -> None:
    found = quantized_network(head="conv")
    found.heads[1].get_submodule("conv.bn").running_var[0] = -1.0  # type: ignore[operator, index]
    checkpoint.save(tmp_path / "model.pt", Checkpoint(found))
    with pytest.raises(CocError, match="tensor 'heads.1.conv.bn.running_var' holds a negative variance"):
        checkpoint.load(tmp_path / "model.pt")


WIDE = """\
from torch import nn

def _net(channels, wide, *behind):
    return nn.Sequential(nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU(), nn.Flatten(), *behind)

def hidden(classes, channels):
    return _net(channels, 392, nn.Linear(25088, 3), nn.ReLU(), nn.Linear(3, classes))

def last(classes, channels):
    return _net(channels, 392, nn.Linear(25088, classes))

def widest(classes, channels):
    return _net(channels, 1024, nn.Linear(65536, classes))

def wider(classes, channels):
    return _net(channels, 1050, nn.Linear(67200, 3), nn.ReLU(), nn.Linear(3, classes))
"""


def check(folder: Path, factory: str, *changes: str) -> int:
    """What `coc-compress --check` says to Q on a network with a wide linear layer."""
    (folder / "net.py").write_text(WIDE)
    recipe = write_recipe(folder, f'chain = "Q"\ndata = "digits"\n[original]\nmodel = "net.py:{factory}"\n')
    options = [part for change in changes for part in ("--set", change)]
    return main([str(recipe), "--check", "--threads", "1", *options])


@pytest.mark.parametrize(
    ("factory", "changes", "inputs"),
    [
        ("widest", ["q.bits=8x8"], "65,536"),
        ("wider", ["q.bits=8x8"], "67,200"),
    ],
)
def test_layers_too_wide_for_32_bits_fail_before_training(
    factory: str, changes: list[str], inputs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, factory, *changes) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"3: sums of {inputs} inputs in 8 bits at 8-bit weights reach 2,1" in line and "32 bits" in line


@pytest.mark.parametrize(
    ("factory", "changes"),
    [
        ("hidden", ["q.bits=8x8"]),
        ("hidden", ["q.bits=4x8"]),
        ("hidden", ["q.bits=1x8", "q.progressive=[4]"]),
        ("last", ["q.bits=4x8", "q.first_last=same"]),
        ("widest", ["q.bits=4x8", "q.first_last=same"]),
    ],
)
def test_what_fits_passes(factory: str, changes: list[str], tmp_path: Path) -> None:
    assert check(tmp_path, factory, *changes) == 0
