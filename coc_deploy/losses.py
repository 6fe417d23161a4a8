"""What students learn from: the teacher's exits (Hinton et al. 2015), its features (Tian et al. 2020)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError

from .network import Network
from .sections import Distill
from .train import Loss, cross_entropy, distillation

Distillation = Callable[[list[Tensor], Tensor, Tensor, float, float], Tensor]


@dataclass(frozen=True)
class Objective:
    """What a task is trained by, means over the exits: plain(exits, y), and distilled(exits, teacher's last
    exit, y, temperature, alpha)."""

    plain: Callable[[list[Tensor], Tensor], Tensor]
    distilled: Distillation


def mean_squares(outputs: list[Tensor], y: Tensor) -> Tensor:
    """Mean over the exits of the mean squared error against targets y, float32 [N, outputs]."""
    return torch.stack([functional.mse_loss(exit_.float(), y) for exit_ in outputs]).mean()


def distilled_squares(
    student: list[Tensor], teacher: Tensor, y: Tensor, temperature: float, alpha: float
) -> Tensor:
    """(1 - alpha) MSE(y) + alpha MSE(teacher), mean over the exits. Numbers have no temperature."""
    return (1 - alpha) * mean_squares(student, y) + alpha * mean_squares(student, teacher.float())


OBJECTIVES = {
    Task.CLASSIFICATION: Objective(cross_entropy, distillation),
    Task.REGRESSION: Objective(mean_squares, distilled_squares),
}


def exit_distillation(
    student: list[Tensor],
    teacher: list[Tensor],
    y: Tensor,
    temperature: float,
    alpha: float,
    distilled: Distillation = distillation,
) -> Tensor:
    """Mean over the exits of `distilled`: the last exit learns from the teacher's last one, each earlier exit
    half from the teacher's exit of its number and half from the teacher's last one."""
    *early, final = student
    *targets, last = teacher
    losses = [distilled([final], last, y, temperature, alpha)]
    for logits, target in zip(early, targets, strict=True):
        own, end = (distilled([logits], t, y, temperature, alpha) for t in (target, last))
        losses.append((own + end) / 2)
    return torch.stack(losses).mean()


def contrastive(student: Tensor, teacher: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Contrastive representation distillation (Tian et al. 2020, eq. 10, 18, 19) with a batch's negatives.

    student, teacher: embeddings [B, dim] of the same images, y int64 [B]. Images of other classes are the
    N negatives of an image, whose own two embeddings are the positive pair:
        h(t, s) = e^(t.s / tau) / Z / (e^(t.s / tau) / Z + N / M)
        loss    = mean_i of -log h(t_i, s_i) - sum_j log(1 - h(t_j, s_i)),
    plus the same with the roles of t and s exchanged. The normaliser Z / M is the batch's mean of
    e^(t.s / tau), so that M, the number of images, cancels; the authors' code takes it from the first batch.
    """
    s, t = functional.normalize(student.float(), dim=1), functional.normalize(teacher.float(), dim=1)
    similarity = torch.exp(s @ t.T / temperature)
    other = y[:, None] != y[None, :]
    noise = other.sum(dim=1) * similarity.detach().mean()
    return _estimation(similarity, other, noise) + _estimation(similarity.T, other, noise)


def _estimation(similarity: Tensor, other: Tensor, noise: Tensor) -> Tensor:
    """Noise contrast, h = e / (e + noise): -log h = log(1 + noise / e), -log(1 - h) = log(1 + e / noise)."""
    positive = torch.log1p(noise / similarity.diagonal())
    negative = torch.log1p(similarity / noise.clamp_min(1e-12)[:, None])
    return (positive + (negative * other).sum(dim=1)).mean()


class Embeddings(nn.Module):
    """The two linear maps of CRD, from the features of student and teacher to embeddings of one size."""

    def __init__(self, student: int, teacher: int, size: int) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(student, size), nn.Linear(teacher, size)


@contextmanager
def contrasting(student: Network, teacher: Network, loss: Loss, config: Distill) -> Iterator[Loss]:
    """`loss`, which calls student and teacher once, plus config.crd times their features' contrastive loss.

    While the block lasts the embeddings' maps are a part of the student, so that they are trained,
    saved and continued with it.
    """
    layers = _last_linear(student), _last_linear(teacher)
    maps = Embeddings(*(int(layer.weight.shape[1]) for layer in layers), config.crd_dim)  # type: ignore
    features: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        features[layer] = inputs[0]

    def total(x: Tensor, y: Tensor) -> Tensor:
        plain = loss(x, y)
        embedded = maps.student(features[layers[0]]), maps.teacher(features[layers[1]])
        return plain + config.crd * contrastive(*embedded, y, config.crd_temperature)

    student.add_module("embeddings", maps)
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield total
    finally:
        del student.embeddings
        for hook in hooks:
            hook.remove()


def _last_linear(network: Network) -> nn.Module:
    """The layer whose output the logits are, and whose input are the features."""
    (output,) = network.body.graph.find_nodes(op="output")
    logits = output.args[0][-1]
    layer = network.body.get_submodule(str(logits.target)) if logits.op == "call_module" else None
    weight = getattr(layer, "weight", None)
    if layer is None or weight is None or weight.dim() != 2:
        raise CocError(f"d.crd: {network.arch.name} does not end in a linear layer, whose input it compares")
    return layer
