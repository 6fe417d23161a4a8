"""What students learn from: exits from exits, and CRD's contrastive loss as its formula says."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coc_deploy import losses, recipe, train
from coc_deploy.cli import main
from coc_deploy.losses import contrasting, contrastive, exit_distillation
from coc_deploy.network import ExitSpec, to_input
from coc_runtime.errors import CocError
from tiny import digits, float_network, quantized_network, same_state, write_recipe

TEXT = """\
chain = "D"
batch = 512
[original]
model = "resnet8"
width = 4
epochs = 1
[d]
model = "resnet8"
width = 4
epochs = 3
crd = 0.8
crd_dim = 16
"""


def random_logits(exits: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 5, generator=generator) for _ in range(exits)]


def test_each_exit_learns_from_the_teachers_exit_and_from_its_last() -> None:
    student, teacher, y = random_logits(3, 0), random_logits(3, 1), torch.tensor([0, 1, 2, 3, 4, 0])

    def pair(k: int, target: int) -> Tensor:
        return train.distillation([student[k]], teacher[target], y, 3.0, 0.7)

    by_hand = (pair(2, 2) + (pair(0, 0) + pair(0, 2)) / 2 + (pair(1, 1) + pair(1, 2)) / 2) / 3
    torch.testing.assert_close(exit_distillation(student, teacher, y, 3.0, 0.7), by_hand)


def test_without_exits_it_is_plain_distillation() -> None:
    student, teacher, y = random_logits(1, 0), random_logits(1, 1), torch.zeros(6, dtype=torch.int64)
    expected = train.distillation(student, teacher[0], y, 4.0, 0.9)
    assert torch.equal(exit_distillation(student, teacher, y, 4.0, 0.9), expected)


def by_formula(student: Tensor, teacher: Tensor, y: Tensor, temperature: float, images: int) -> float:
    """Tian et al. 2020: h = e^(t.s/tau)/Z / (e^(t.s/tau)/Z + N/M), one pair at a time."""
    s = [row / row.norm() for row in student.double()]
    t = [row / row.norm() for row in teacher.double()]
    count = len(y)
    powers = [[math.exp(float(s[i] @ t[j]) / temperature) for j in range(count)] for i in range(count)]
    normaliser = images * sum(map(sum, powers)) / count**2
    total = 0.0
    for i in range(count):
        negatives = [j for j in range(count) if y[j] != y[i]]

        def h(i: int, j: int, n: int = len(negatives)) -> float:
            return powers[i][j] / normaliser / (powers[i][j] / normaliser + n / images)

        total -= 2 * math.log(h(i, i))
        total -= sum(math.log(1 - h(i, j)) + math.log(1 - h(j, i)) for j in negatives)
    return total / count


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("images", [6, 50_000])
def test_the_contrastive_loss_is_that_of_the_formula(temperature: float, images: int) -> None:
    """The number of images M cancels, because the normaliser is proportional to it."""
    torch.manual_seed(0)
    student, teacher, y = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 0])
    found = float(contrastive(student, teacher, y, temperature))
    assert found == pytest.approx(by_formula(student, teacher, y, temperature, images), rel=1e-4)


def test_equal_features_cost_less_than_those_of_other_images() -> None:
    torch.manual_seed(0)
    features, y = torch.randn(32, 16), torch.arange(32) % 8
    same, mixed = contrastive(features, features, y, 0.1), contrastive(features, features.roll(1, 0), y, 0.1)
    assert same < mixed
    assert torch.isfinite(contrastive(features, features, torch.zeros(32, dtype=torch.int64), 0.07))


@pytest.mark.parametrize("quantized", [False, True])
def test_gradients_reach_the_student_and_both_maps_and_nothing_is_left_behind(quantized: bool) -> None:
    student = quantized_network() if quantized else float_network(width=6)
    teacher = float_network(seed=1)
    before = set(student.state_dict())
    config = recipe.parse({"d": {"crd": 2.0, "crd_dim": 5}}).d
    x, y = to_input(digits("train").images[:32]), torch.from_numpy(digits("train").labels[:32])

    def plain(x: Tensor, y: Tensor) -> Tensor:
        teacher(x)
        return train.cross_entropy(student(x), y)

    with contrasting(student, teacher, plain, config) as loss:
        assert set(student.state_dict()) - before == {
            f"embeddings.{side}.{part}" for side in ("student", "teacher") for part in ("weight", "bias")
        }
        value = loss(x, y)
        value.backward()
        assert float(value.detach()) > float(plain(x, y).detach())
        maps = student.get_submodule("embeddings")
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in maps.parameters())
        first = next(student.body.parameters())
        assert first.grad is not None and first.grad.abs().sum() > 0
    assert set(student.state_dict()) == before
    assert not any(m._forward_pre_hooks for net in (student, teacher) for m in net.modules())


def test_a_network_without_a_last_linear_layer_is_refused() -> None:
    network = float_network()
    network.add_exits(ExitSpec(("layer1.0",), "linear", 4))
    assert losses._last_linear(network) is network.body.get_submodule("fc")
    network.body.add_submodule("fc", torch.nn.Identity())
    with pytest.raises(CocError, match="resnet8 does not end in a linear layer"):
        losses._last_linear(network)


def test_a_contrastive_run_that_dies_between_epochs_ends_with_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path, TEXT)
    assert main([str(path), "--out", str(tmp_path / "whole"), "--threads", "1"]) == 0
    plain, calls = contrastive, 0

    class Killed(BaseException):
        pass

    def dying(*arguments: object) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:  # two steps an epoch: in the second one
            raise Killed
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(losses, "contrastive", dying)
    command = [str(path), "--out", str(tmp_path / "parts"), "--threads", "1"]
    with pytest.raises(Killed):
        main(command)
    assert (tmp_path / "parts/01-distill/progress.pt").exists()
    assert main(command) == 0
    a, b = (torch.load(tmp_path / run / "model.pt", weights_only=True)["state"] for run in ("whole", "parts"))
    assert same_state(a, b) and not any("embeddings" in name for name in a)
