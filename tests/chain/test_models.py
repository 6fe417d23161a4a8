"""CIFAR ResNets: costs of the literature, shortcuts, sizes, and pretrained weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coc_deploy import models, qat
from coc_deploy.calibration import calibrate
from coc_deploy.counting import cumulative_share, segment_layers
from coc_deploy.models import Architecture, BasicBlock
from coc_deploy.network import Network, to_input
from coc_deploy.qat import Mode, QConv
from coc_deploy.quantizers import QuantSpec
from coc_runtime.errors import CocError
from everywhere import assert_parity
from tiny import float_network

WEIGHTS = Path(__file__).parents[3] / "shared/weights"
RESNET56 = WEIGHTS / "resnet56_optA_akamaster_cifar10.pt"
RESNET20 = WEIGHTS / "resnet20_optB_distiller_dense_cifar10.pt"
given = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no pretrained weights in {WEIGHTS}")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "macs", "weights"), [("resnet20", 40_813_184, 270_896), ("resnet56", 125_747_840, 851_504)]
)
def test_costs_with_shortcut_b_are_those_of_the_design(name: str, macs: int, weights: int) -> None:
    network = Network(Architecture(name, 16, "B", 3, 10), (32, 32))
    (layers,) = segment_layers(network)
    assert sum(layer.macs for layer in layers) == macs
    assert sum(layer.weights for layer in layers) == weights
    assert sum(layer.bitops for layer in layers) == 1024 * macs


def test_every_parameter_of_a_float_network_is_counted_once() -> None:
    network = float_network(shortcut="B", channels=3)
    (layers,) = segment_layers(network)
    counted = sum(layer.weights + layer.parameters for layer in layers)
    assert counted == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 12), (32, 32)])
def test_any_channels_sizes_and_shortcuts_give_logits(
    shortcut: str, channels: int, size: tuple[int, int]
) -> None:
    network = float_network(shortcut=shortcut, channels=channels, size=size)
    (logits,) = network(torch.zeros(2, channels, *size))
    assert logits.shape == (2, 10)
    assert network.input_shape == (channels, *size)


def test_shortcut_a_takes_every_second_pixel_and_pads_channels_evenly() -> None:
    x = torch.arange(2 * 4 * 5 * 5, dtype=torch.float32).reshape(2, 4, 5, 5)
    y = models.ShortcutA(4, 8, 2)(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any() and not y[:, 6:].any()


def test_shortcut_a_has_no_parameters_and_b_a_convolution_where_the_shape_changes() -> None:
    for shortcut, kind in (("A", models.ShortcutA), ("B", nn.Sequential)):
        built = models.build(Architecture("resnet14", 8, shortcut, 3, 10))
        blocks = {name: m for name, m in built.named_modules() if isinstance(m, BasicBlock)}
        assert len(blocks) == 6
        for name, block in blocks.items():
            changes = name in ("layer2.0", "layer3.0")
            assert isinstance(block.downsample, kind) if changes else block.downsample is None


@pytest.mark.parametrize("name", ["resnet", "resnet2", "resnet9", "resnet-8", "xresnet8", "resnet8x", ""])
def test_a_depth_that_is_not_6n_plus_2_is_unknown(name: str) -> None:
    assert models.depth(name) is None
    with pytest.raises(CocError, match="resnet8, resnet14"):
        models.build(Architecture(name, 16, "B", 3, 10))


def test_shares_of_bitops_rise_to_one_over_the_blocks() -> None:
    shares = cumulative_share(float_network(name="resnet14", channels=3))
    assert list(shares) == [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
    values = list(shares.values())
    assert values == sorted(values) and values[0] > 0 and 0.99 < values[-1] < 1


@given
@pytest.mark.parametrize(
    ("path", "name", "shortcut"), [(RESNET56, "resnet56", "A"), (RESNET20, "resnet20", "B")]
)
def test_pretrained_weights_load(path: Path, name: str, shortcut: str) -> None:
    network = Network(Architecture(name, 16, shortcut, 3, 10), (32, 32))
    before = network.state_dict()["body.fc.weight"].clone()
    models.load_weights(network.body, path, (0.5,) * 3, (0.5,) * 3)
    assert not torch.equal(before, network.state_dict()["body.fc.weight"])


@given
@pytest.mark.parametrize("wrong", [("resnet20", "A"), ("resnet56", "B"), ("resnet14", "B")])
def test_weights_of_another_network_are_refused_in_one_line(wrong: tuple[str, str]) -> None:
    model = models.build(Architecture(wrong[0], 16, wrong[1], 3, 10))
    with pytest.raises(CocError, match=r"distiller.*does not fit the model") as error:
        models.load_weights(model, RESNET20, (0.5,) * 3, (0.5,) * 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mean_std", [((0.5,) * 3, (0.5,) * 3), IMAGENET, ((0.4, 0.6, 0.5), (0.2, 1.5, 0.7))])
def test_folded_normalisation_computes_what_the_original_did(
    tmp_path: Path, mean_std: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    """Padding differs (mid-grey for mean), so the whole network is compared with that padding in both."""
    mean, std = (torch.tensor(v)[None, :, None, None] for v in mean_std)
    original = float_network(channels=3, size=(16, 16))
    torch.nn.init.normal_(original.body.bn1.running_mean)  # type: ignore[arg-type, union-attr]
    torch.nn.init.uniform_(original.body.bn1.running_var, 0.5, 2)  # type: ignore[arg-type, union-attr]
    torch.save(original.body.state_dict(), tmp_path / "weights.pt")
    folded = float_network(channels=3, size=(16, 16), seed=1)
    models.load_weights(folded.body, tmp_path / "weights.pt", *mean_std)

    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    pixels = torch.from_numpy(images)
    grey = torch.nn.functional.pad(pixels, (1, 1, 1, 1), value=128)
    body = original.body.eval().double()
    stem = torch.nn.functional.conv2d((grey / 255.0 - mean).double() / std.double(), body.conv1.weight)  # type: ignore[arg-type, union-attr]
    expected = body.bn1(stem)  # type: ignore[operator]
    found = folded.body.bn1(folded.body.conv1(to_input(images)))  # type: ignore[operator]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


class Padded(nn.Module):
    """The image is padded by two convolutions of its own and by a layer in front of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 5, 2, 2)
        self.pad, self.third = nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(3, 4, 3, 2, bias=False)
        self.fc = nn.Linear(13, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x), self.second(x), self.third(self.pad(x))]
        return self.fc(torch.cat([torch.relu(part).mean((2, 3)) for part in parts], 1))


@pytest.mark.parametrize(
    ("mean", "std", "kinds"),
    [
        ((0.0,) * 3, (1.0,) * 3, (0, 8)),  # pixels of 0 to 1, as ToTensor gives them
        ((0.0,) * 3, (1 / 255,) * 3, (0, 8)),  # pixels of 0 to 255
        ((0.1, 0.9, 0.3), (0.2, 1.5, 0.7), (128, 8)),
    ],
)
def test_padding_that_is_not_grey_stays_what_it_was(
    tmp_path: Path, mean: tuple[float, ...], std: tuple[float, ...], kinds: tuple[int, int]
) -> None:
    """On every pixel, the borders too; in integers, too, where padding is black: nothing is lost there."""
    torch.manual_seed(0)
    module = Padded().eval()
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    found = Network.of(Padded(), (3, 9, 8), 10).eval()
    models.load_weights(found.body, tmp_path / "weights.pt", mean, std)
    pixels = torch.randint(0, 256, (24, 3, 9, 8), dtype=torch.uint8)
    normalised = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        expected = module(normalised)
        torch.testing.assert_close(found(to_input(pixels))[-1], expected, rtol=1e-4, atol=1e-4)
    found.quantize(QuantSpec(4, 8, 8))
    calibrate(found, [to_input(pixels)])
    assert_parity(found, tmp_path)
    shift = found.body.get_submodule("image_shift")
    assert isinstance(shift, QConv) and (shift.act.zero_point, shift.act.bits) == kinds
    qat.set_mode(found, Mode.INTEGER)
    stems = [found.body.get_submodule(name) for name in ("first", "second", "third")]
    assert [stem.weight_bits for stem in stems] == [8, 8, 8]
    if not shift.act.signed:
        assert torch.equal(shift(to_input(pixels)), pixels / 128)


class Stems(nn.Module):
    """Convolutions that read the image in every way: with batch-norm, with bias, with neither, grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.biased = nn.Conv2d(3, 6, 3, groups=3)
        self.bare = nn.Conv2d(3, 5, 3, bias=False)
        self.fc = nn.Linear(15, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.normed(x), self.biased(x), self.bare(x)]
        return self.fc(torch.relu(torch.cat(parts, 1)).mean((2, 3)))


def test_normalisation_is_folded_into_every_convolution_that_reads_the_image(tmp_path: Path) -> None:
    """Exactly, as nothing is padded."""
    torch.manual_seed(0)
    module = Stems().eval()
    nn.init.normal_(module.normed[1].running_mean)  # type: ignore[arg-type]
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    network = Network.of(Stems(), (3, 9, 9), 10).eval()
    models.load_weights(network.body, tmp_path / "weights.pt", *IMAGENET)
    pixels = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[None, :, None, None] for v in IMAGENET)
    with torch.no_grad():
        expected = module((pixels / 255 - mean) / std)
        torch.testing.assert_close(network(to_input(pixels))[-1], expected, rtol=1e-4, atol=1e-4)


def test_normalisation_cannot_be_folded_into_anything_else(tmp_path: Path) -> None:
    parts = [nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)]
    network = Network.of(nn.Sequential(*parts), (3, 9, 9), 10)
    torch.save(network.body.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        CocError, match="0: reads the image; mean and std can be folded into convolutions only"
    ):
        models.load_weights(network.body, tmp_path / "weights.pt", *IMAGENET)


@pytest.mark.parametrize("count", [1, 4])
def test_normalisation_of_another_channel_count_is_refused(tmp_path: Path, count: int) -> None:
    network = float_network(channels=3)
    torch.save(network.body.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CocError, match="mean and std must have 3 numbers"):
        models.load_weights(network.body, tmp_path / "weights.pt", (0.5,) * count, (0.5,) * count)


@pytest.mark.parametrize("content", ["missing", "text", "list", "numbers", "no names", "folder"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pt"
    if content == "text":
        path.write_text("hello")
    elif content == "folder":
        path.mkdir()
    elif content != "missing":
        values = {"list": [1], "numbers": {"a": 1}, "no names": {1: torch.zeros(1)}}
        torch.save(values[content], path)
    with pytest.raises(CocError, match=r"weights\.pt: (no such weights file|not a|is a directory)") as error:
        models.load_weights(float_network().body, path, (0.5,), (0.5,))
    assert "\n" not in str(error.value)


@given
def test_the_prefix_of_parallel_training_is_ignored(tmp_path: Path) -> None:
    state = torch.load(RESNET20, weights_only=True)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "weights.pt")
    plain = Network(Architecture("resnet20", 16, "B", 3, 10), (32, 32)).body
    prefixed = Network(Architecture("resnet20", 16, "B", 3, 10), (32, 32)).body
    models.load_weights(plain, RESNET20, *IMAGENET)
    models.load_weights(prefixed, tmp_path / "weights.pt", *IMAGENET)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), prefixed.parameters(), strict=True))
