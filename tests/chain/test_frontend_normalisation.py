"""The normalisation of images, in a forward and in a recipe: folded where that is exact, else kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coc_deploy import models
from coc_deploy.frontend.modules import Shift
from coc_deploy.models import Architecture
from coc_deploy.network import Network, exit_logits, to_input, traced
from coc_deploy.sections import Model
from coc_deploy.stages import distill
from frontends import CLASSES, kinds, same
from usernets import images, quantize

MEAN, STD = (0.485, 0.2, 0.406), (0.229, 0.5, 0.225)


class Normalised(nn.Module):
    """A network that normalises what it gets in one of the usual ways, in front of a convolution."""

    def __init__(self, way: str = "imagenet", padding: int = 1) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 6, 3, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        ways: dict[str, Callable[[], Tensor]] = {
            "imagenet": lambda: (x - self.mean) / self.std,
            "sub_": lambda: x.clone().sub_(self.mean).div_(self.std),
            "symmetric": lambda: x * 2 - 1,
            "bytes": lambda: (x / 255 - 0.5) / 0.25,
            "scaled": lambda: x / 255,
            "channels": lambda: torch.cat([(x[:, i : i + 1] - MEAN[i]) / STD[i] for i in range(3)], 1),
        }
        return self.fc(torch.relu(self.bn(self.conv(ways[self.way]()))).mean((2, 3)))


REST = ["Conv2d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]


@pytest.mark.parametrize("way", ["imagenet", "sub_", "symmetric", "bytes"])
def test_a_shift_in_front_of_zero_padding_is_kept_and_everything_else_folded(way: str) -> None:
    """What the border shows is the network's own: zeros behind the normalisation."""
    assert kinds(same(Normalised(way))) == ["Shift", *REST]
    assert kinds(same(Normalised(way, padding=0))) == REST


def test_a_scale_alone_is_folded_whatever_the_padding_is() -> None:
    assert kinds(same(Normalised("scaled"))) == REST


def test_channels_that_are_normalised_one_by_one_are_computed_as_written() -> None:
    found = kinds(same(Normalised("channels")))
    assert found.count("Slice") == 3 and found[-6:] == REST


@pytest.mark.parametrize("padding", [0, 1])
def test_the_recipes_normalisation_goes_in_front_of_the_networks_own(padding: int) -> None:
    """Exactly with zero padding as well: the border is the network's own."""
    torch.manual_seed(0)
    module = Normalised("imagenet", padding).eval()
    network = Network.of(module, (3, 12, 12), CLASSES).eval()
    models.fold_normalisation(network.body, (0.1, 0.0, 0.3), (1.0, 2.0, 0.5))
    pixels = torch.from_numpy(images((3, 12, 12), 4))
    mean, std = torch.tensor((0.1, 0.0, 0.3)).view(3, 1, 1), torch.tensor((1.0, 2.0, 0.5)).view(3, 1, 1)
    with torch.no_grad():
        expected = module((pixels / 255 - mean) / std)
        torch.testing.assert_close(network(to_input(pixels))[-1], expected, rtol=1e-4, atol=1e-4)


def test_a_shift_of_the_image_has_an_integer_form() -> None:
    torch.manual_seed(0)
    network = Network.of(Normalised("imagenet").eval(), (3, 16, 16), CLASSES).eval()
    models.fold_normalisation(network.body, (0.0,) * 3, (1.0,) * 3)
    some = images(network.input_shape, 32)
    expected = exit_logits(network, some)[-1]
    found = exit_logits(quantize(network, (8, 8)), some)[-1]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99
    assert not any(isinstance(module, Shift) for module in network.body.modules())


FACTORY = """\
from torch import nn

def make():
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return nn.Sequential(*layers)
"""


def test_a_recipes_mean_and_std_are_not_ignored_when_the_factory_brings_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    built = {}
    for std in (0.5, 0.25):
        torch.manual_seed(0)
        section = Model(model=f"{path}:make", std=(std,) * 3)
        built[std] = distill.build(section, 3, 5, (8, 8)).body.get_submodule("0").weight
    torch.testing.assert_close(built[0.25], built[0.5] * (128 / 255 / 0.25))


def test_weights_are_loaded_into_the_users_module_before_it_is_traced(tmp_path: Path) -> None:
    """Under the names that they have there, whatever the traced body calls or folds."""
    torch.manual_seed(0)
    module = Normalised("scaled").eval()
    torch.save({f"module.{name}": value for name, value in module.state_dict().items()}, tmp_path / "w.pt")
    other = Normalised("scaled").eval()
    models.load_state(other, tmp_path / "w.pt")
    arch = Architecture("net.py:make", 0, "B", 3, CLASSES)
    network = Network(arch, (12, 12), traced(other, arch, (12, 12))).eval()
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(network(x)[-1], module(x))
