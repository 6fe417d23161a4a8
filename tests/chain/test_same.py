"""The network that is compressed is the one that was given: what a trace would change is refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from coc_deploy import checkpoint, models, same
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.cli import main
from coc_deploy.frontend.trace import trace_network
from coc_deploy.models import Architecture
from coc_deploy.network import Network
from coc_runtime.errors import CocError
from tiny import float_network, quantized_network, write_recipe

Inside = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A convolution, what the case does behind it, and a linear layer behind the mean."""

    def __init__(self, middle: nn.Module | None = None, inside: Inside | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = nn.Identity() if middle is None else middle
        self.fc = nn.Linear(4, 10)
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.inside(self, x) if self.inside else self.middle(x)
        return self.fc(x.mean((2, 3)))


def pointwise() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 1)


def of(module: nn.Module) -> Network:
    return Network.of(module, (3, 16, 16), 10)


def statement(change: Callable[[Tensor], object]) -> nn.Module:
    """A network that changes a tensor and then reads it by its old name."""

    def inside(net: Net, x: Tensor) -> Tensor:
        change(x)
        return x

    return Net(inside=inside)


def other_name(net: Net, x: Tensor) -> Tensor:
    y = f.relu(x)
    w = y
    w += net.middle(x)
    return f.relu(y) + x


def after_clone(net: Net, x: Tensor) -> Tensor:
    y = x.clone()
    y.clamp_(0, 6)
    return y + x


def view(net: Net, x: Tensor) -> Tensor:
    f.relu_(x.flatten(1))
    return x


TRACED: dict[str, Callable[[], nn.Module]] = {
    "relu6": lambda: Net(inside=lambda net, x: f.relu6(x, inplace=True) + x),
    "relu6 as a statement": lambda: statement(lambda x: f.relu6(x, inplace=True)),
    "hardtanh": lambda: Net(inside=lambda net, x: f.hardtanh(x, 0, 6, inplace=True) + x),
    "hardtanh as a statement": lambda: statement(lambda x: f.hardtanh(x, 0, 6, True)),
    "hardtanh_": lambda: statement(lambda x: f.hardtanh_(x, 0, 6)),
    "clamp_": lambda: statement(lambda x: x.clamp_(min=0)),
    "relu_": lambda: statement(f.relu_),
    "module": lambda: Net(nn.ReLU(inplace=True), lambda net, x: net.middle(x) + x),
    "dropout": lambda: Net(nn.Dropout(0.5, inplace=True), lambda net, x: net.middle(x) + x),
    "dropout as a function": lambda: Net(inside=lambda net, x: f.dropout(x, 0.5, net.training, True) + x),
    "+=": lambda: Net(pointwise(), other_name),
    "clone": lambda: Net(inside=after_clone),
    "keyword": lambda: Net(inside=lambda net, x: f.relu(input=x, inplace=True) + x),
    "view": lambda: Net(inside=view),
}


@pytest.mark.parametrize("case", TRACED)
def test_changes_in_place_are_traced_as_what_they_do(case: str) -> None:
    """Values pass 6, or the clamp would not show."""
    module = TRACED[case]().eval()
    with torch.no_grad():
        module.conv.weight *= 30  # type: ignore[union-attr, operator]
    network = of(module).eval()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)[-1], module(x.clone()))


def hooked(kind: str, place: str, hook: Callable[..., object]) -> nn.Module:
    net = Net(pointwise())
    getattr(net.get_submodule(place), f"register_{kind}")(hook)
    return net


class Doubled(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, 2 * weight, bias)


def own_method(name: str) -> nn.Module:
    net = Net(pointwise())
    original = getattr(net.middle, name)
    setattr(net.middle, name, lambda *inputs: 2 * original(*inputs))
    return net


class Unlearned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = pointwise()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.conv(x)


class Resting(nn.Sequential):
    """Batch-norm that never follows its batches."""

    def train(self, mode: bool = True) -> "Resting":
        super().train(mode)
        self[1].eval()
        return self


class InTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = pointwise()

    def forward(self, x: Tensor) -> Tensor:
        return f.relu(self.conv(x)) if self.training else self.conv(x)


class Pair(Net):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return (logits, logits) if self.training else logits  # type: ignore[return-value]


class PairOfNorm(Pair):
    """Statistics that every batch moves, in front of two heads or of one that takes larger images only."""

    def __init__(self, large: bool = False) -> None:
        super().__init__(nn.BatchNorm2d(4))
        self.large = nn.Conv2d(10, 2, 30) if large else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits = Net.forward(self, x)
        return (logits, self.large(logits[:, :, None, None])) if self.training else logits  # type: ignore


def shared_weights() -> nn.Module:
    net = Net(nn.Sequential(pointwise(), pointwise()))
    net.middle[1].weight = net.middle[0].weight  # type: ignore[index]
    return net


def clamps_elsewhere() -> nn.Module:
    relu = nn.ReLU6()
    relu.max_val = 3.0
    return Net(relu)


COMPUTED: dict[str, Callable[[], nn.Module]] = {
    "hook": lambda: hooked("forward_hook", "middle", lambda m, i, o: 2 * o),
    "hook of the whole": lambda: hooked("forward_hook", "", lambda m, i, o: 2 * o),
    "pre-hook": lambda: hooked("forward_pre_hook", "fc", lambda m, i: (2 * i[0],)),
    "_conv_forward": lambda: Net(Doubled(4, 4, 1)),
    "own _conv_forward": lambda: own_method("_conv_forward"),
    "own forward": lambda: own_method("forward"),
    "weight_norm": lambda: Net(parametrizations.weight_norm(pointwise())),
    "spectral_norm": lambda: Net(parametrizations.spectral_norm(pointwise())),
    "orthogonal": lambda: Net(parametrizations.orthogonal(pointwise())),
    "old weight_norm": lambda: Net(weight_norm(pointwise())),
    "old spectral_norm": lambda: Net(spectral_norm(pointwise())),
    "pruning mask": lambda: Net(prune.l1_unstructured(pointwise(), "weight", 0.5)),
    "ReLU6": clamps_elsewhere,
    "dropout never": lambda: Net(inside=lambda net, x: f.dropout(x, 0.5, False)),
    "resting batch-norm": lambda: Net(Resting(pointwise(), nn.BatchNorm2d(4))),
    "training pair": lambda: Pair().eval(),
    "training pair behind batch-norm": PairOfNorm,
    "training fails behind batch-norm": lambda: PairOfNorm(large=True),
}


@pytest.mark.parametrize("case", COMPUTED)
def test_what_a_module_computes_is_traced_however_it_does_that(case: str) -> None:
    module = COMPUTED[case]().eval()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(of(module).eval()(x)[-1], module(x.clone()))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "backward hook": (
        lambda: hooked("full_backward_hook", "middle", lambda m, i, o: tuple(2 * g for g in i)),
        "another gradient of 'conv.weight' in training mode (backward hooks of middle",
    ),
    "scripted": (lambda: Net(torch.jit.script(pointwise())), "middle: a scripted module"),
    "scripted whole": (lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 10))), "a scripted module is not"),
    "wrapped": (lambda: nn.DataParallel(Net()), "DataParallel is not supported: give the module"),
    "lazy": (lambda: Net(nn.LazyConv2d(4, 1)), "middle: has no weights yet"),
    "shared weights": (shared_weights, "middle.1: sharing weights with middle.0"),
    "dropout always": (lambda: Net(inside=lambda net, x: f.dropout(x)), "active outside of training"),
    "no_grad": (lambda: Net(Unlearned()), "another gradient of 'conv.weight'"),
    "training branch": (lambda: Net(InTraining()).eval(), "middle: ReLU computes something in training"),
    "softmax over images": (lambda: nn.Sequential(Net(), nn.Softmax(0)), "1: softmax inside the network"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_trace_would_change_is_refused_by_name(case: str) -> None:
    build, part = REFUSED[case]
    with pytest.raises(CocError) as error:
        of(build())
    assert part in str(error.value) and "\n" not in str(error.value)


def test_hooks_that_change_nothing_are_left_out() -> None:
    seen: list[tuple[int, ...]] = []
    net = hooked("forward_hook", "middle", lambda m, i, o: seen.append(tuple(o.shape)))
    network = of(net)
    seen.clear()
    network(torch.zeros(1, 3, 16, 16))
    assert seen == [] and not any(m._forward_hooks for m in network.modules())


def test_comparing_changes_neither_side_nor_random_numbers() -> None:
    net = Net(nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    network = of(net)
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(network.body.state_dict()[name], before[name])
    assert net.training


@pytest.mark.parametrize("wrong", ["momentum", "eps", "parameter", "probability"])
def test_any_pair_of_modules_is_compared(wrong: str) -> None:
    """What no output in evaluation mode shows, and what one does."""

    def model(eps: float = 1e-5, momentum: float = 0.1, p: float = 0.5) -> nn.Module:
        torch.manual_seed(0)
        return Net(nn.Sequential(nn.BatchNorm2d(4, eps, momentum), nn.Dropout(p)))

    same.check(model(), model(), (3, 16, 16))
    others = {"momentum": model(momentum=0.2), "eps": model(eps=1e-3), "probability": model(p=0.4)}
    other = others.get(wrong, model())
    if wrong == "parameter":
        nn.init.zeros_(other.fc.bias)  # type: ignore[union-attr, arg-type]
    with pytest.raises(CocError) as error:
        same.check(model(), other, (3, 16, 16))
    names = {"momentum": "middle.0: ", "eps": "middle.0: ", "probability": "middle.1: ", "parameter": "fc: "}
    assert str(error.value).startswith(names[wrong])


HOOKED = """\
from torch import nn

def make(classes, channels):
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(4, classes))
    net[1].register_full_backward_hook(lambda module, inputs, outputs: tuple(2 * x for x in inputs))
    return net
"""


def test_a_recipe_with_such_a_model_stops_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(HOOKED)
    recipe = write_recipe(tmp_path, 'chain = "Q"\ndata = "digits"\n[original]\nmodel = "net.py:make"\n')
    assert main([str(recipe), "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "0: the network traced from Sequential computes something else, another gradient" in line
    assert not list((tmp_path / "run").rglob("*.pt"))


IMAGES = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["float", "quantized", "exits"])
def test_a_file_gives_what_the_network_gave(kind: str, tmp_path: Path) -> None:
    builders = {
        "float": lambda: float_network(width=8, steps=3),
        "quantized": lambda: quantized_network((4, 8)),
        "exits": lambda: quantized_network(head="conv"),
    }
    network, path = builders[kind](), tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(network))
    loaded = checkpoint.load(path).network
    checkpoint.refuse_other(path, network, loaded, IMAGES)
    weight = next(p for p in loaded.parameters() if p.dim() == 2)
    with torch.no_grad():
        weight[0, 0] += 0.5
    with pytest.raises(CocError, match="model.pt: gives other logits than the network that was measured"):
        checkpoint.refuse_other(path, network, loaded, IMAGES)


def test_other_thresholds_are_noticed(tmp_path: Path) -> None:
    network, path = quantized_network(head="linear"), tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(network))
    network.thresholds = (0.5, 0.5)
    with pytest.raises(CocError, match="gives other thresholds"):
        checkpoint.refuse_other(path, network, checkpoint.load(path).network, IMAGES)


def test_a_stage_whose_file_gives_something_else_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a layer that does more in memory than its description says."""
    original = checkpoint.load

    def load(path: Path) -> Checkpoint:
        found = original(path)
        found.network.body.get_submodule("fc").bias.data += 1  # type: ignore[operator]
        return found

    monkeypatch.setattr(checkpoint, "load", load)
    recipe = write_recipe(
        tmp_path, 'chain = "Q"\ndata = "digits"\n[original]\nmodel = "resnet8"\nwidth = 4\nepochs = 1\n'
    )
    assert main([str(recipe), "--out", str(tmp_path / "run"), "--threads", "1"]) == 2
    assert "/model.pt: gives other logits" in capsys.readouterr().err.splitlines()[-1]
    assert list((tmp_path / "run").rglob("model.pt")) and not list((tmp_path / "run").rglob("result.json"))


def test_networks_of_the_zoo_are_traced_as_what_they_are() -> None:
    for name in ("resnet8", "resnet18", "vgg11_bn", "mobilenet_v2", "resnet8_mlperf"):
        for shortcut in "AB":
            module = models.build(Architecture(name, 4 if name == "resnet8" else 8, shortcut, 3, 10))
            traced = trace_network(module, (3, 32, 32), 10)
            same.check(module, traced.body, (3, 32, 32))
