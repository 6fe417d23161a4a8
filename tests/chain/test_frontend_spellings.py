"""The ways in which people write a network, and the few canonical modules that all of them become."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.nn.utils import parametrizations

from coc_deploy.frontend.modules import Activation, Scale, Select, Shift, Slice
from frontends import CLASSES, SHAPE, Net, count, kinds, same, traced


class Inside(Net):
    """A function of the feature map."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], channels: int = 8, out: int | None = None
    ) -> None:
        super().__init__(None, channels, out)
        self.function = function

    def inside(self, x: Tensor) -> Tensor:
        return self.function(x)


def _in_place(x: Tensor) -> Tensor:
    y = x.add_(1)
    x *= 2
    return f.hardtanh(y * 2, 0, 3, inplace=True) + x.neg() * 0.5


def _in_place_behind_dropout(x: Tensor) -> Tensor:
    y = f.dropout(x, 0.5, training=False)
    x.mul_(2)
    return x + y


def _in_place_on_a_part(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :4] += x[:, 4:]
    x[:, 4:].relu_()
    return x


def _in_place_on_a_view(x: Tensor) -> Tensor:
    flat = x.clone().flatten(2)
    flat.neg_()
    return flat.view_as(x).contiguous()


def _copied(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    y.copy_(x)
    return y.add_(x, alpha=2)


@pytest.mark.parametrize(
    "function",
    [_in_place, _in_place_behind_dropout, _in_place_on_a_part, _in_place_on_a_view, _copied],
)
def test_operations_in_place_come_out_right(function: Callable[[Tensor], Tensor]) -> None:
    same(Inside(function))


def _shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)


def _shuffled_over_the_batch(x: Tensor) -> Tensor:
    """As ShuffleNetV2 is published: halves of a batch that is folded into the channels for a moment."""
    n, c, h, w = x.shape
    y = x.reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
    return torch.cat([y[0], y[1].relu()], 1)


def _halves(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    c, d, e = torch.split(b, [1, 2, 1], dim=1)
    return torch.cat([c, a.relu(), e, d.narrow(1, 0, 2)], 1)


def _unbound(x: Tensor) -> Tensor:
    a, b = x.unflatten(1, (2, 4)).unbind(1)
    return torch.stack((a, b.relu()), 2).flatten(1, 2)


def _permuted(x: Tensor) -> Tensor:
    return x[:, [3, 1, 0, 2, 7, 6, 5, 4]].relu() + x.index_select(1, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6]))


def _cropped(x: Tensor) -> Tensor:
    return x[:, :, 1:-1, 2:] + f.pad(x, (-2, 0, -1, -1)) + x[..., 1:11, :10]


def _subsampled(x: Tensor) -> Tensor:
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def _shortcut(x: Tensor) -> Tensor:
    return f.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))


def _shortcut_of_zeros(x: Tensor) -> Tensor:
    x = f.avg_pool2d(x, 2)
    return torch.cat([x, x.mul(0)], 1) + torch.cat((x, torch.zeros_like(x)), dim=1)


def _pixels(x: Tensor) -> Tensor:
    return f.pixel_unshuffle(f.pixel_shuffle(x, 2).relu(), 2)


def _space_to_depth(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).contiguous()
    return x.view(n, c * 4, h // 2, w // 2)


def _depth_to_space(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, h * 2, w * 2).relu()


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("function", "out", "expected"),
    [
        (_shuffled, 8, ["ChannelShuffle"]),
        (_shuffled_over_the_batch, 8, ["Select", "Select", "ReLU", "cat"]),
        (_halves, 8, ["Slice", "Slice", "ReLU", "Slice", "Slice", "cat"]),
        (_unbound, 8, ["Slice", "Slice", "ReLU", "cat", "ChannelShuffle"]),
        (_permuted, 8, ["Select", "ReLU", "Select", "add"]),
        (_cropped, 8, ["Crop", "Crop", "add", "Crop", "add"]),
        (_subsampled, 32, None),
        (_shortcut, 12, ["ShortcutA"]),
        (_shortcut_of_zeros, 16, None),
        (_pixels, 8, ["PixelShuffle", "ReLU", "PixelUnshuffle"]),
        (_space_to_depth, 32, ["PixelUnshuffle", "ChannelShuffle"]),
        (_depth_to_space, 2, ["ChannelShuffle", "PixelShuffle", "ReLU"]),
        (_channels_last, 8, ["ReLU"]),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_rearrangements_become_modules_that_move_channels_and_pixels(
    function: Callable[[Tensor], Tensor], out: int, expected: list[str] | None
) -> None:
    found = same(Inside(function, out=out))
    if expected is not None:
        assert sorted(kinds(found)[1:-3]) == sorted(expected)


class Head(nn.Module):
    """Feature maps to logits in some way."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.fc = nn.Linear(4 if "mean" in way else 100, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        ways: dict[str, Callable[[], Tensor]] = {
            "size": lambda: x.view(x.size(0), -1),
            "features": lambda: x.view(-1, 100),
            "reshape": lambda: x.reshape(len(x), 4 * 25),
            "start": lambda: torch.flatten(x, start_dim=1),
            "flattened twice": lambda: x.flatten(2).flatten(1),
            "transposed": lambda: x.permute(0, 2, 3, 1).flatten(1),
            "mean in two steps": lambda: x.mean(3).mean(2),
            "mean of pixels": lambda: x.view(x.size(0), x.size(1), -1).mean(dim=2),
            "mean kept": lambda: x.mean(dim=(-2, -1), keepdim=True).squeeze(-1).squeeze(-1),
            "mean of a sum": lambda: x.sum((2, 3)) / (x.shape[2] * x.shape[3]),
            "mean as a pool": lambda: f.avg_pool2d(x, x.shape[2:])[:, :, 0, 0],
            "maximum of means": lambda: x.amax((2, 3)),
        }
        return self.fc(ways[self.way]())


@pytest.mark.parametrize(
    "way",
    [
        *("size", "features", "reshape", "start", "flattened twice", "transposed"),
        *("mean in two steps", "mean of pixels", "mean kept", "mean of a sum", "mean as a pool"),
        "maximum of means",
    ],
)
def test_feature_maps_become_vectors_in_every_spelling(way: str) -> None:
    found = kinds(same(Head(way)))
    assert found.count("Flatten") == 1 and not {"Reshape", "Select"} & set(found)


def _hardswish(x: Tensor) -> Tensor:
    return x * f.relu6(x + 3.0) / 6.0


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (f.hardswish, ["Activation"]),
        (lambda x: f.gelu(x, approximate="tanh"), ["Activation"]),
        (lambda x: f.leaky_relu(f.elu(f.celu(x, 0.7), 0.5), 0.2), ["Activation"] * 3),
        (lambda x: f.softplus(f.selu(x)) + f.mish(x), ["Activation"] * 3 + ["add"]),
        (lambda x: torch.tanh(x) - torch.sigmoid(x), ["Activation"] * 2 + ["Scale", "add"]),
        (lambda x: x.clamp(-1, 2).clamp(min=0).clamp(max=1), ["Activation", "ReLU", "Activation"]),
        (lambda x: torch.maximum(x, torch.tensor(0.0)).pow(2), ["ReLU", "Activation"]),
        (lambda x: x * f.hardsigmoid(x), ["Activation", "mul"]),
        (_hardswish, ["Shift", "ReLU6", "mul", "Scale"]),
        (lambda x: x / (1 + x.abs()), ["Activation", "Shift", "Activation", "mul"]),
        (lambda x: f.softsign(x) ** 2, None),
        (lambda x: x * x, ["mul"]),
        (lambda x: f.interpolate(x, scale_factor=2), ["Upsample"]),
        (lambda x: f.max_pool2d(x, 3, (1, 2), 1), ["MaxPool2d"]),
        (lambda x: f.avg_pool2d(x, 3, 2, 1, count_include_pad=False), ["AvgPool2d"]),
        (lambda x: f.avg_pool2d(x, 5, 3, ceil_mode=True), ["AvgPool2d"]),
        (lambda x: f.adaptive_avg_pool2d(x, (5, 7)), ["AdaptiveAvgPool2d"]),
        (lambda x: f.adaptive_max_pool2d(x, 5), ["AdaptiveMaxPool2d"]),
        (lambda x: f.pad(x, (1, 2, 0, 1), value=-1.0), ["ConstantPad2d"]),
        (lambda x: f.pad(f.pad(x, (1, 1, 0, 0), mode="reflect"), (0, 0, 1, 2), mode="replicate"), None),
        (lambda x: x.max(dim=3, keepdim=True)[0] * x.mean((2, 3), keepdim=True).expand_as(x), None),
    ],
)
def test_functions_become_modules(function: Callable[[Tensor], Tensor], expected: list[str] | None) -> None:
    found = same(Inside(function))
    if expected is not None:
        assert sorted(kinds(found)[1:-3]) == sorted(expected)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(8, 8, 3, stride=(1, 2), dilation=2, padding=2),
        nn.Conv2d(8, 8, (2, 4), padding="same", groups=4),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=2),
        nn.Sequential(nn.PReLU(8), nn.PReLU()),
        nn.ChannelShuffle(4),
        nn.Sequential(nn.Upsample(scale_factor=2), nn.LeakyReLU(0.1, inplace=True)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_of_torch_stay_what_they_are(module: nn.Module) -> None:
    found = same(Net(module))
    assert type(found.body.get_submodule(found.positions["middle"].replace("_", "."))) is not nn.Identity


class Squeezed(Net):
    """Squeeze and excitation with linear layers on vectors, and with convolutions of a single channel."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8, bias=False)
        self.line = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def inside(self, x: Tensor) -> Tensor:
        n, c, _, _ = x.size()
        if self.way == "linear":
            y = f.adaptive_avg_pool2d(x, 1).view(n, c)
            y = torch.sigmoid(self.up(f.relu(self.down(y), inplace=True))).view(n, c, 1, 1)
            return x * y.expand_as(x)
        y = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
        return x * self.line(y).transpose(-1, -2).unsqueeze(-1).sigmoid()


@pytest.mark.parametrize("way", ["linear", "efficient"])
def test_gates_multiply_images_by_images_of_one_pixel(way: str) -> None:
    found = kinds(same(Squeezed(way)))
    assert "mul" in found and ("AsImage" if way == "linear" else "Reshape") in found


class Sequence(nn.Module):
    """A network of one-dimensional layers on images that are one pixel high."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 5, stride=2, padding=2, bias=False)
        self.bn = nn.BatchNorm1d(6)
        self.depthwise = nn.Conv1d(6, 6, 3, dilation=2, groups=6)
        self.pool = nn.MaxPool1d(2)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(f.relu(self.bn(self.conv(x.squeeze(2)))))
        x = f.avg_pool1d(self.pool(x), 3, 1)
        return self.fc(f.adaptive_avg_pool1d(x, 1).squeeze(-1))


def test_sequences_are_images_of_one_row() -> None:
    found = same(Sequence(), (2, 1, 40))
    assert kinds(found) == [
        *("Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "MaxPool2d", "AvgPool2d"),
        *("AdaptiveAvgPool2d", "Flatten", "Linear"),
    ]
    assert found.body.conv.kernel_size == (1, 5)  # type: ignore[union-attr]


class Standardised(nn.Conv2d):
    """Weights that are standardised and scaled each time (Brock et al. 2021)."""

    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(8, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.view(1, 8, -1)
        weight = f.batch_norm(flat, None, None, self.gain.view(-1) * 0.1, training=True, momentum=0.0)
        return f.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


class SamePadded(nn.Conv2d):
    """TensorFlow's padding, which depends on the size of the image."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in x.shape[-2:])
        x = f.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return f.conv2d(x, self.weight, self.bias, self.stride)


class Blur(nn.Module):
    """A fixed filter on every channel behind mirrored borders."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer(
            "filter", (line[:, None] * line)[None, None].repeat(8, 1, 1, 1), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return f.conv2d(f.pad(x, (1, 1, 1, 1), "reflect"), self.filter, stride=2, groups=x.shape[1])


class NormAct(nn.BatchNorm2d):
    """Batch-norm with an activation inside, as timm has it."""

    def __init__(self) -> None:
        super().__init__(8)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 4 and x.shape[1] == self.num_features, "a static test of shapes"
        x = f.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
        return self.act(x)


def _hooked() -> nn.Module:
    module = nn.Conv2d(8, 8, 1)
    module.register_forward_pre_hook(lambda m, given: (given[0] * 2,))
    module.register_forward_hook(lambda m, given, result: result.relu())
    return module


def _old_weight_norm() -> nn.Module:
    return nn.utils.weight_norm(nn.Conv2d(8, 8, 3, padding=1))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Standardised, ["Conv2d"]),
        (lambda: SamePadded(8, 8, 3, stride=2), ["ZeroPad2d", "Conv2d"]),
        (Blur, ["ReflectionPad2d", "Conv2d"]),
        (NormAct, ["BatchNorm2d", "ReLU"]),
        (_hooked, ["Conv2d", "ReLU"]),
        (_old_weight_norm, ["Conv2d"]),
        (lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)), ["Conv2d"]),
        (lambda: parametrizations.orthogonal(nn.Conv2d(8, 8, 1)), ["Conv2d"]),
    ],
)
def test_subclasses_hooks_and_parametrizations_are_what_they_compute(
    make: Callable[[], nn.Module], expected: list[str]
) -> None:
    found = same(Net(make()))
    assert kinds(found)[1:-3] == expected
    assert "middle" in found.positions


def test_spectral_norm_is_baked_in_as_evaluation_mode_has_it() -> None:
    module = Net(parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)))
    module.train()
    for _ in range(3):
        module(torch.zeros(1, *SHAPE))
    found = same(module, training=False)
    assert torch.equal(found.body.middle.weight, module.eval().middle.weight)  # type: ignore[union-attr]


class Frozen(nn.Module):
    """Batch-norm of buffers, as torchvision's detection networks have it."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight * (self.running_var + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
        return x * scale + (self.bias.reshape(1, -1, 1, 1) - self.running_mean.reshape(1, -1, 1, 1) * scale)


class Resting(nn.BatchNorm2d):
    """Batch-norm that keeps its statistics in training mode."""

    def train(self, mode: bool = True) -> "Resting":
        return super().train(False)


@pytest.mark.parametrize("norm", [Frozen, lambda: Resting(8)])
def test_frozen_batch_norm_is_folded_into_the_convolution(norm: Callable[[], nn.Module]) -> None:
    found = same(Net(norm()))
    assert kinds(found) == ["Conv2d", "AdaptiveAvgPool2d", "Flatten", "Linear"]


def test_frozen_batch_norm_behind_anything_else_is_a_scale_and_a_shift() -> None:
    found = same(Net(nn.Sequential(nn.ReLU(), Frozen(), nn.ReLU())))
    assert kinds(found)[2:4] == ["Scale", "Shift"]


def test_frozen_parameters_are_trained() -> None:
    module = Net(nn.BatchNorm2d(8)).requires_grad_(False)
    assert all(parameter.requires_grad for parameter in traced(module).body.parameters())
    assert not any(parameter.requires_grad for parameter in module.parameters())


class Branches(nn.Module):
    """A block of RepVGG before its branches are merged."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.BatchNorm2d(8)
        self.large = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.small = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            merged = sum([self.large(x), self.small(x)])
        return torch.relu(self.identity(x) + merged)


def test_branches_stay_additions_and_blocks_without_gradients_are_read() -> None:
    module = Net(Branches())
    settled = same(module, gradient=False)
    assert count(settled) == {
        **{"Conv2d": 3, "BatchNorm2d": 3, "add": 2, "ReLU": 1, "AdaptiveAvgPool2d": 1, "Flatten": 1},
        "Linear": 1,
    }


class Learned(Net):
    """Constants that are trained: a layer scale, a bias, one factor."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(8, 1, 1))
        self.beta = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.factor = nn.Parameter(torch.tensor(0.3))

    def inside(self, x: Tensor) -> Tensor:
        return x + self.factor * (self.gamma * x.relu() + self.beta)


def test_learned_constants_stay_learned() -> None:
    found = same(Learned())
    constants = [m for m in found.body.modules() if isinstance(m, Scale | Shift)]
    assert [tuple(m.shape) for m in constants] == [(8, 1, 1), (8, 1, 1), (1,)]
    assert all(isinstance(m.constant, nn.Parameter) for m in constants)
    assert "gamma.weight" in found.body.state_dict()


class Constants(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, bias=False)

    def inside(self, x: Tensor) -> Tensor:
        return (self.last(self.norm(x) * 0.5 + 1) - 2) / 3


def test_constants_behind_layers_become_part_of_them() -> None:
    found = kinds(same(Constants()))
    assert found == ["Conv2d", "BatchNorm2d", "Conv2d", "AdaptiveAvgPool2d", "Flatten", "Linear"]


class Classifier(nn.Module):
    """Logits from a 1x1 convolution."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = f.relu(self.conv(x))
        if self.way == "pooled":
            return self.fc(x.mean((2, 3), keepdim=True)).flatten(1)
        x = self.fc(x)
        if self.way == "relu":
            x = f.relu(x)
        return f.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1)


@pytest.mark.parametrize("way", ["pooled", "behind", "relu"])
def test_logits_of_a_convolution_come_from_a_linear_layer_where_that_is_the_same(way: str) -> None:
    found = same(Classifier(way))
    last = ["Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten"]
    assert kinds(found)[2:] == (last if way == "relu" else ["AdaptiveAvgPool2d", "Flatten", "Linear"])
    assert "fc.weight" in found.body.state_dict()


def test_modules_say_what_they_are() -> None:
    assert (
        repr(Activation("elu", (1, 1, 2))) == "Activation(elu, 1, 1, 2)"
        and repr(Slice(1, 3)) == "Slice(1, 3)"
    )
    x = torch.arange(12.0).reshape(1, 12, 1, 1)
    assert Select((3, 3, 0))(x).flatten().tolist() == [3, 3, 0]
    assert copy.deepcopy(Scale.of(torch.tensor([2.0])))(x).sum() == 2 * x.sum()
