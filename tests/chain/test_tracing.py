"""Users' modules in canonical form compute what they computed; what is not supported is refused by name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from coc_deploy import models
from coc_deploy.kinds import KINDS
from coc_deploy.models import Architecture
from coc_deploy.network import Network
from coc_deploy.quantizers import QuantSpec
from coc_runtime.errors import CocError
from usernets import USER


class Net(nn.Module):
    """A convolution, what the case does, and a linear layer behind the mean."""

    def __init__(self, middle: nn.Module | None = None, **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = middle or nn.Identity()
        self.fc = nn.Linear(4, 10)
        for name, module in modules.items():
            setattr(self, name, module)

    def inside(self, x: Tensor) -> Tensor:
        return self.middle(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inside(self.conv(x)).mean((2, 3)))


def of(module: nn.Module, size: tuple[int, int] = (16, 16)) -> Network:
    return Network.of(module, (3, *size), 10)


def refusal(module: nn.Module, traced: bool) -> str:
    """What is said where a module is traced or, once it is traced, quantized."""
    network = of(module) if traced else None
    with pytest.raises(CocError) as error:
        network.quantize(QuantSpec(4, 8, 8)) if network else of(module)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(module: nn.Module, size: tuple[int, int] = (16, 16)) -> Network:
    """The network of a module, which gives the module's logits."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module.eval()(x.clone())
        network = of(module, size)
        torch.testing.assert_close(network.eval()(x)[-1], expected)
    return network


@pytest.mark.parametrize("name", USER)
def test_users_networks_compute_the_same(name: str) -> None:
    cls, shape = USER[name]
    module = cls().eval()
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected = module(x).softmax(1)
        found = Network.of(module, shape, 10).eval()(x)[-1].softmax(1)  # a softmax at the end is left out
    torch.testing.assert_close(found, expected)
    kinds = {type(m) for m in Network.of(module, shape, 10).body.modules() if not list(m.children())}
    assert kinds <= {kind.cls for kind in KINDS.values()}


class InPlace(Net):
    """Readers behind an in-place operation see what it left."""

    def inside(self, x: Tensor) -> Tensor:
        y = f.relu(x, inplace=True)
        z = self.middle(x)
        z += x
        return z + x + y


class Spelled(Net):
    """Operations as functions and methods."""

    def inside(self, x: Tensor) -> Tensor:
        x = torch.relu(f.pad(x, (1, 0, 2, 1)))
        y = torch.add(x, f.relu6(self.middle(x)).contiguous())
        y = f.avg_pool2d(torch.concat((y, x), dim=-3), 2, stride=2, padding=1)
        y = torch.clamp(f.max_pool2d(f.dropout(y, 0.2, self.training), (3, 2), 1), min=0)
        return self.last(f.adaptive_max_pool2d(y, 1)).clamp(0, 6)


class Squeezed(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = f.adaptive_avg_pool2d(self.middle(self.conv(x)), (1, 1))
        x = x.squeeze(-1).squeeze(-1)
        return self.fc(x.reshape(x.shape[0], -1))


class Optional(Net):
    """Arguments with defaults take them; branches on them are decided when the network is traced."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        features: bool = False,
        mask: Tensor | None = None,
        *,
        mode: str = "relu",
        **more: int,
    ) -> Tensor:
        x = self.conv(x)
        if features:
            return x
        if mask is not None:
            x = x * mask
        return self.fc((torch.relu(x) if mode == "relu" else x).mean((2, 3)))


class Flattened(nn.Module):
    """ReLU behind pooling, dropout and flattening; batch-norm without weights; a final layer on pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding="valid")
        self.bn = nn.BatchNorm2d(4, affine=False)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.drop = nn.Dropout2d(0.1)
        self.fc = nn.Linear(4 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(torch.flatten(self.drop(self.pool(self.bn(self.conv(x)))), 1)))


class _Function(Net):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def inside(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator]


@pytest.mark.parametrize(
    "module",
    [
        InPlace(nn.Conv2d(4, 4, 1)),
        Spelled(nn.BatchNorm2d(4), last=nn.Conv2d(8, 4, 1)),
        Squeezed(nn.Sequential(nn.ReLU(inplace=True), nn.ReLU6(), nn.ZeroPad2d(1), nn.ConstantPad2d(0, 1.0))),
        Flattened(),
        Optional(),
        _Function(lambda x: 3 - 2 * x),
        Net(nn.AdaptiveAvgPool2d((8, 1))),
        Net(nn.AdaptiveAvgPool2d(16)),
        Net(nn.Conv2d(4, 4, (2, 5), padding="same", bias=False)),
        Net(nn.AvgPool2d((2, 3), (5, 5), ceil_mode=False)),
    ],
    ids=lambda module: f"{type(module).__name__} {type(getattr(module, 'middle', None)).__name__}",
)
def test_every_spelling_computes_the_same(module: nn.Module) -> None:
    network = same(module)
    functions = {n.target for n in network.body.graph.nodes if n.op == "call_function"}
    assert all(getattr(function, "__name__", "") in ("add", "cat") for function in functions)


def test_activations_move_in_front_of_pooling_so_that_they_fuse() -> None:
    network = same(Flattened())
    kinds = [
        type(network.body.get_submodule(str(node.target))).__name__
        for node in network.body.graph.nodes
        if node.op == "call_module"
    ]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Dropout2d", "Flatten", "Linear"]
    assert network.exit_places() == ["relu"]


class _Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x if x.sum() > 0 else x


class _Recurrent(Net):
    def inside(self, x: Tensor) -> Tensor:
        return self.middle(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, (16, 16))


class _Twice(Net):
    def inside(self, x: Tensor) -> Tensor:
        return self.middle(self.middle(x))


class _Scaled(Net):
    def inside(self, x: Tensor) -> Tensor:
        return x * self.scale


class _Framed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return f.pad(x, (1, 1), value=2.0)


class _Gated(Net):
    def inside(self, x: Tensor) -> Tensor:
        return x * self.middle(x)


class _NoLinear(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.middle(x).mean((2, 3))


class _Pair(Net):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x + y)


class _Two(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = super().forward(x)
        return y, y


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (_Recurrent(nn.LSTM(4, 4, batch_first=True)), ("middle: LSTM is not supported",)),
        (Net(_Branch()), ("middle: _Branch cannot be traced", "data-dependent")),
        (Net(nn.GroupNorm(2, 4)), ("middle: GroupNorm is not supported",)),
        (Net(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")), ("middle: padding mode 'circular'",)),
        (Net(nn.BatchNorm2d(4, track_running_stats=False)), ("middle: BatchNorm2d without running",)),
        (Net(nn.Conv2d(5, 4, 3)), ("middle: fails on images of this size", "5 channels")),
        (_Twice(nn.Conv2d(4, 4, 1)), ("middle: calling a Conv2d twice",)),
        (_Function(lambda x: torch.cat([x, x], 2)), ("cat: concatenation of anything but channels",)),
        (_Function(lambda x: f.softmax(x, 1)), ("softmax: softmax inside the network",)),
        (_Function(lambda x: x + torch.rand_like(x)), ("rand_like: random numbers outside of training",)),
        (_Function(f.dropout), ("dropout: dropout that is active outside of training",)),
        (_Two(), ("must return one tensor",)),
        (_Pair(), ("_Pair: forward must take one tensor of images",)),
        (Net(fc=nn.Linear(4, 7)), ("fc: gives 7 logits, the data has 10 classes",)),
    ],
)
def test_what_is_not_supported_is_refused_by_name(module: nn.Module, parts: tuple[str, ...]) -> None:
    message = refusal(module, traced=False)
    assert all(part in message for part in parts), message
    about_whole = ("must return one tensor", "must take one tensor")
    assert "(test_tracing.py:" in message or any(part in message for part in about_whole), message


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (Net(nn.ConvTranspose2d(4, 4, 2, 2)), ("middle: ConvTranspose2d cannot be quantized", "Conv2d")),
        (
            Net(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
            ("middle_pad: ReflectionPad2d cannot be quantized",),
        ),
        (Net(nn.AvgPool2d(3, 2, 1, ceil_mode=True)), ("middle: ceil_mode with padding that counts",)),
        (Net(nn.AvgPool2d(3, 2, divisor_override=5)), ("middle: average pooling with divisor_override",)),
        (_Scaled(scale=nn.Parameter(torch.ones(4, 16, 16))), ("scale: Scale cannot be quantized",)),
        (_Gated(nn.Conv2d(4, 1, 1)), ("mul: product of shapes [4, 16, 16] and [1, 16, 16]",)),
        (_Function(lambda x: x + x.mean((2, 3), keepdim=True)), ("add: addition of shapes [4, 16, 16] and",)),
        (_Function(lambda x: x.view(x.size(0), 4, 8, 32).relu()), ("view: Reshape cannot be quantized",)),
        (_Function(lambda x: f.pad(x, (1, 1), value=2.0)), ("pad: ConstantPad2d cannot be quantized",)),
        (Net(nn.Sequential(_Framed())), ("middle.0: ConstantPad2d cannot be quantized",)),
    ],
)
def test_what_has_no_integer_form_is_traced_and_refused_by_name(
    module: nn.Module, parts: tuple[str, ...]
) -> None:
    same(module)
    message = refusal(module, traced=True)
    assert all(part in message for part in parts), message
    assert "(test_tracing.py:" in message or "Linear layer" in message, message


def write(folder: Path, text: str) -> Path:
    path = folder / "mynet.py"
    path.write_text(text)
    return path


FACTORY = """\
from torch import nn
from mypart import act

def make({signature}):
    return nn.Sequential(nn.Conv2d({channels}, 4, 3), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, {classes}))
"""


@pytest.mark.parametrize(
    ("signature", "channels", "classes"),
    [
        ("classes, channels", "channels", "classes"),
        ("channels=1, *, classes=1", "channels", "classes"),
        ("n, c", "c", "n"),
        ("n", "2", "n"),
        ("", "2", "5"),
    ],
)
def test_a_factory_gets_what_its_signature_asks_for(
    signature: str, channels: str, classes: str, tmp_path: Path
) -> None:
    (tmp_path / "mypart.py").write_text("from torch.nn import ReLU as act\n")
    text = FACTORY.format(signature=signature, channels=channels, classes=classes)
    name = f"{write(tmp_path, text)}:make"
    network = Network(Architecture(name, 0, "B", 2, 5), (8, 8))
    assert network.arch.name == "mynet.py:make" and network.input_shape == (2, 8, 8)
    assert network(torch.zeros(1, 2, 8, 8))[-1].shape == (1, 5)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "mynet.py: no such file"),
        ("import nothing_like_this", "mynet.py: cannot be imported: ModuleNotFoundError"),
        ("def other(): pass", "mynet.py: has no function or class 'make'"),
        ("def make(classes): return 3", "mynet.py:make: gives a int"),
        ("def make(classes): raise ValueError('no')", "mynet.py:make: fails with ValueError: no"),
        ("def make(a, b, c): return 3", "mynet.py:make: fails with TypeError"),
    ],
)
def test_a_factory_that_fails_is_told_in_one_line(text: str | None, part: str, tmp_path: Path) -> None:
    path = write(tmp_path, text) if text else tmp_path / "mynet.py"
    with pytest.raises(CocError) as error:
        models.build(Architecture(f"{path}:make", 0, "B", 3, 10))
    assert part in str(error.value) and "\n" not in str(error.value)
