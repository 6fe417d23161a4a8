"""The zoo: costs of the literature, names of torchvision, and MLPerf Tiny's weights."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from coc_deploy import models
from coc_deploy.counting import cumulative_share, segment_layers
from coc_deploy.models import Architecture
from coc_deploy.network import Network, exit_logits
from coc_runtime.errors import CocError
from usernets import ZOO, network

SHARED = Path(__file__).parents[3] / "shared"
RESNET8 = SHARED / "weights/resnet8_mlperftiny_cifar10.pt"
JPEGS = SHARED / "data/cifar10-jpeg.tar.xz"


@pytest.mark.parametrize(
    ("name", "macs", "weights"),
    [
        ("resnet18", 555_422_720, 11_164_352),
        ("resnet34", 1_159_402_496, 21_265_088),
        ("vgg19_bn", 398_136_320, 20_024_000),
        ("mobilenet_v2", 87_976_448, 2_202_560),
        ("resnet8_mlperf", 12_501_632, 77_360),
    ],
)
def test_costs_are_those_of_the_design(name: str, macs: int, weights: int) -> None:
    (layers,) = segment_layers(Network(Architecture(name, 0, "B", 3, 10), (32, 32)))
    assert sum(layer.macs for layer in layers) == macs
    assert sum(layer.weights for layer in layers) == weights


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_is_counted_once(name: str) -> None:
    found = network(name)
    (layers,) = segment_layers(found)
    counted = sum(layer.weights + layer.parameters for layer in layers)
    assert counted == sum(parameter.numel() for parameter in found.parameters())


@pytest.mark.parametrize(
    ("name", "build", "small"),
    [
        ("resnet18_imagenet", torchvision.models.resnet18, False),
        ("resnet18", torchvision.models.resnet18, True),
        ("mobilenet_v2_imagenet", torchvision.models.mobilenet_v2, False),
        ("mobilenet_v2", torchvision.models.mobilenet_v2, False),
        ("vgg11_bn", torchvision.models.vgg11_bn, True),
    ],
)
def test_parameters_have_torchvisions_names_and_shapes(name: str, build: object, small: bool) -> None:
    """small: the stem or the classifier is CIFAR's and differs."""
    with torch.device("meta"):
        theirs = build(num_classes=10).state_dict()  # type: ignore[operator]
    ours = models.build(Architecture(name, 0, "B", 3, 10)).state_dict()
    differs = ("conv1.weight", "classifier") if small else ()
    shapes = [{n: t.shape for n, t in s.items() if not n.startswith(differs)} for s in (theirs, ours)]
    assert shapes[0] == shapes[1]


def test_the_network_on_imagenet_sized_images_computes_what_torchvision_does() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(num_classes=10).eval()
    ours = Network(Architecture("mobilenet_v2_imagenet", 0, "B", 3, 10), (64, 96)).eval()
    ours.body.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[-1], theirs(x))


@pytest.mark.parametrize(("width", "stem"), [(32, 32), (16, 16), (48, 48), (3, 8)])
def test_width_of_mobilenet_is_its_multiplier_times_32(width: int, stem: int) -> None:
    built = models.build(Architecture("mobilenet_v2", width, "B", 1, 10))
    theirs = torchvision.models.mobilenet_v2(width_mult=width / 32)
    shape = built.state_dict()["features.0.0.weight"].shape
    assert shape == (stem, 1, 3, 3)
    assert built.state_dict()["classifier.1.weight"].shape[1] == theirs.last_channel


@pytest.mark.parametrize("name", ["vgg12_bn", "vgg11", "resnet18_tiny", "mobilenet", "file.py", "a.txt:f"])
def test_unknown_names_are_refused_with_all_known_ones(name: str) -> None:
    assert not models.known(name)
    with pytest.raises(CocError, match=rf"model '{name}' is not known: use .*vgg16_bn.*file\.py:factory"):
        models.build(Architecture(name, 16, "B", 3, 10))


def test_the_listing_describes_every_family_in_a_line() -> None:
    assert len(models.listing()) == len(models.FAMILIES)
    assert all(text and "\n" not in text and len(text) < 100 for _, text in models.listing())
    for name in ("resnet20", *ZOO):
        assert models.family(name) in models.FAMILIES


@pytest.mark.parametrize(
    ("name", "first"),
    [("mobilenet_v2", "features.1"), ("vgg11_bn", "features.2"), ("resnet18_imagenet", "layer1.0")],
)
def test_exits_may_sit_at_blocks_or_in_plain_networks_at_activations(name: str, first: str) -> None:
    shares = cumulative_share(network(name))
    assert next(iter(shares)) == first and list(shares.values()) == sorted(shares.values())


def test_images_too_small_for_a_network_are_refused_by_the_module_that_fails() -> None:
    with pytest.raises(CocError, match=r"features\.\d+: fails on images of this size"):
        Network(Architecture("vgg11_bn", 4, "B", 3, 10), (16, 16))


def test_mlperfs_weights_classify_jpegs_as_published() -> None:
    """Raw pixels give 75.5 % on the whole split; grey instead of black padding costs 3.4 points of it."""
    if not (RESNET8.exists() and JPEGS.exists()):
        pytest.skip(f"needs {RESNET8.name} and {JPEGS.name} beside the checkout")
    pixels, labels = _jpegs(100)
    plain = models.build(Architecture("resnet8_mlperf", 0, "B", 3, 10)).eval()
    plain.load_state_dict(torch.load(RESNET8, weights_only=True))
    with torch.no_grad():
        raw = plain(torch.from_numpy(pixels).float()).argmax(1).numpy()
    assert 0.72 < (raw == labels).mean() < 0.79
    folded = Network(Architecture("resnet8_mlperf", 0, "B", 3, 10), (32, 32))
    models.load_weights(folded.body, RESNET8, (0.0,) * 3, (1 / 255,) * 3)
    found = exit_logits(folded, pixels)[-1].argmax(1)
    assert 0.69 < (found == labels).mean() < 0.76
    assert (found == raw).mean() > 0.8


def _jpegs(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test images of every class, uint8 [N, 3, 32, 32], and their labels."""
    found: dict[str, list[np.ndarray]] = {}
    with tarfile.open(JPEGS) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if folder.startswith("test/") and name.endswith(".jpg"):
                images = found.setdefault(folder, [])
                if len(images) < per_class:
                    content = archive.extractfile(member)
                    assert content is not None
                    images.append(np.asarray(Image.open(io.BytesIO(content.read()))).transpose(2, 0, 1))
            if len(found) == 10 and all(len(images) == per_class for images in found.values()):
                break
    arrays = [np.stack(found[folder]) for folder in sorted(found)]
    return np.concatenate(arrays), np.repeat(np.arange(10), per_class)
