"""Training beside evaluation mode: drops are found however they are written, other differences refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torchvision.ops import StochasticDepth as TorchvisionsDepth

from coc_deploy.frontend.modules import StochasticDepth
from coc_deploy.frontend.trace import trace_network
from coc_runtime.errors import CocError
from frontends import CLASSES, SHAPE, Net, kinds, same, traced


class Inside(Net):
    """A function of the feature map and of whether the network is trained."""

    def __init__(self, function: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.function = function

    def inside(self, x: Tensor) -> Tensor:
        return self.function(x, self.training)


def _path(x: Tensor, training: bool, keep: float = 0.75) -> Tensor:
    """Drop path as timm writes it."""
    if not training:
        return x
    noise = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
    if keep > 0.0:
        noise.div_(keep)
    return x * noise


def _path_of_uniform(x: Tensor, training: bool) -> Tensor:
    """Drop path as EfficientNet's first ports write it."""
    if not training:
        return x
    noise = 0.75 + torch.rand([x.shape[0], 1, 1, 1], dtype=x.dtype, device=x.device)
    return x / 0.75 * torch.floor(noise)


def _path_of_comparison(x: Tensor, training: bool) -> Tensor:
    if not training:
        return x
    return x * (torch.rand(x.size(0), 1, 1, 1) < 0.75).to(x.dtype).div(0.75)


def _batch_path(x: Tensor, training: bool) -> Tensor:
    return x * torch.empty(1, 1, 1, 1).bernoulli_(0.75) if training else x


@pytest.mark.parametrize(
    ("function", "mode", "rescaled"),
    [
        (_path, "row", True),
        (_path_of_uniform, "row", True),
        (_path_of_comparison, "row", True),
        (_batch_path, "batch", False),
    ],
)
def test_dropped_paths_are_stochastic_depth(
    function: Callable[[Tensor, bool], Tensor], mode: str, rescaled: bool
) -> None:
    found = same(Inside(lambda x, training: x.relu() + function(x, training)), training=function is _path)
    (depth,) = (m for m in found.body.modules() if isinstance(m, StochasticDepth))
    assert (depth.p, depth.mode, depth.rescaled) == (0.25, mode, rescaled)
    assert kinds(found)[1:-3] == ["ReLU", "StochasticDepth", "add"]


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_of_torchvision_keeps_its_name(mode: str) -> None:
    module = Net(nn.Sequential(nn.ReLU(), TorchvisionsDepth(0.4, mode), TorchvisionsDepth(0.0, mode)))
    found = same(module)
    depth = found.body.get_submodule("middle.1")
    assert isinstance(depth, StochasticDepth) and (depth.p, depth.mode) == (0.4, mode)
    assert found.positions["middle.1"] == "middle_1" and found.positions["middle"] == "middle_1"


class Residual(nn.Module):
    """The same tensor read with and without dropout, and dropped twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Dropout(0.3), nn.Dropout2d(0.2)
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        return self.left(y) + self.conv(self.right(self.left(y))) + x.relu() + y


def test_only_the_readers_of_a_drop_read_it() -> None:
    found = same(Net(Residual()))
    assert kinds(found).count("Dropout") == 2 and kinds(found).count("Dropout2d") == 1


def test_dropout_functions_in_every_spelling_are_modules() -> None:
    def dropped(x: Tensor, training: bool) -> Tensor:
        x = f.dropout2d(f.dropout(x, 0.1, training, inplace=True), 0.2, training)
        if training:
            x = x * torch.empty_like(x).bernoulli_(0.5).div_(0.5)
            x = x * x.new_empty(x.shape[:2] + (1, 1)).bernoulli_(0.8) / 0.8
        return x

    module = Inside(dropped)
    with pytest.raises(CocError, match="dropping parts of shape|dropping with probability"):
        traced(module)

    def written_out(x: Tensor, training: bool) -> Tensor:
        x = f.dropout2d(f.dropout(x, 0.1, training), 0.2, training)
        return x * torch.empty_like(x).bernoulli_(0.5).div_(0.5) if training else x

    assert kinds(same(Inside(written_out)))[1:4] == ["Dropout", "Dropout2d", "Dropout"]


class Auxiliary(Net):
    """A second classifier that only training has, with dropout of its own."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(8))
        self.second = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.middle(self.conv(x))
        logits = self.fc(x.mean((2, 3)))
        return (logits, self.second(x)) if self.training else logits


def test_auxiliary_heads_are_left_out_and_a_line_says_so() -> None:
    found = same(Auxiliary())
    assert found.notes == ("1 auxiliary output of training mode left out",)
    assert not any(name.startswith("second") for name in found.body.state_dict())


class TooSmall(Auxiliary):
    """The head of training mode does not take images of this size."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Dropout(0.4)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 15), nn.Flatten(), nn.Linear(8, CLASSES))


def test_where_training_mode_fails_as_a_whole_that_of_the_modules_is_taken() -> None:
    found = same(TooSmall(), training=False)
    assert kinds(found)[1] == "Dropout"
    (note,) = found.notes
    assert "training mode was taken from the modules alone" in note and "second.0: fails on images" in note


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (lambda x, training: x + 0.1 * torch.randn_like(x) if training else x, ("randn_like",)),
        (lambda x, training: x * torch.rand_like(x) if training else x, ("mul of random numbers",)),
        (lambda x, training: x.relu() if training else x, ("ReLU computes something in training mode",)),
        (lambda x, training: x * 2 if training else x * 3, ("Scale computes something in training mode",)),
        (lambda x, training: f.rrelu(x, training=training), ("rrelu",)),
        (
            lambda x, training: f.alpha_dropout(x, 0.5, training),
            ("alpha_dropout is not supported: use Dropout",),
        ),
    ],
)
def test_what_training_does_otherwise_is_refused_by_name(
    function: Callable[[Tensor, bool], Tensor], parts: tuple[str, ...]
) -> None:
    with pytest.raises(CocError) as error:
        traced(Inside(function))
    message = str(error.value)
    assert all(part in message for part in parts) and "(frontends.py:" in message, message
    assert "\n" not in message


def test_tracing_draws_no_random_numbers_and_leaves_the_module_as_it_was() -> None:
    module = Auxiliary()
    module.second.eval()
    before = torch.get_rng_state()
    trace_network(module, SHAPE, CLASSES)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.training and not module.second.training
    assert module(torch.zeros(2, 3, 12, 12))[0].shape == (2, CLASSES)


def test_stochastic_depth_drops_whole_images_or_all_of_them() -> None:
    x = torch.ones(400, 2, 1, 1)
    torch.manual_seed(0)
    rows = StochasticDepth(0.25, "row")(x)
    kept = rows[:, 0, 0, 0] > 0
    assert 250 < int(kept.sum()) < 350 and torch.allclose(rows[kept], torch.tensor(4 / 3))
    assert torch.equal(rows[:, 0], rows[:, 1])
    together = {float(StochasticDepth(0.5, "batch", rescaled=False)(x).mean()) for _ in range(20)}
    assert together == {0.0, 1.0}
    assert torch.equal(StochasticDepth(0.25, "row").eval()(x), x)
