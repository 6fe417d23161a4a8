"""The training loop: continued from any epoch, reproducible for a seed, augmentation in one gather.

With several processes each takes its part of every batch, and gradients are averaged in the loop, not by
a wrapped module, since a loss is a closure over networks of its own. Batch-norm normalises with the part's
statistics; the running ones are averaged at an epoch's end.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from coc_runtime import quality
from coc_runtime.arithmetic import Task
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

from . import machine, norms
from .checkpoint import write_torch
from .convolution import guarded
from .network import Network, exit_logits, to_input

MAX_NORM = 1.0
"""The gradient is cut to this norm while batch-norm rests: nothing else bounds steps in steep layers."""

HELD_OUT = {Task.CLASSIFICATION: "calibration_accuracy", Task.REGRESSION: "calibration_mae"}
"""What an epoch's record calls the quality of the last exit on held-out images."""

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Augment:
    """Random shift by up to `pad` pixels (grey border) and, if `flip`, random mirroring."""

    pad: int
    flip: bool


@dataclass(frozen=True)
class Schedule:
    """Cosine from `lr` to zero; from five epochs on, the first warms up. batch: of all processes together.

    optimizer: "sgd" with Nesterov momentum 0.9, or "adam" with decoupled weight decay (AdamW).
    share: of the training images that an epoch takes, other ones each time.
    """

    epochs: int
    lr: float
    batch: int
    weight_decay: float = 1e-4
    optimizer: str = "sgd"
    share: float = 1.0

    def rate(self, progress: float) -> float:
        """Learning rate at `progress` epochs."""
        warm = min(1.0, progress + 0.05) if self.epochs >= 5 else 1.0
        return warm * self.lr * 0.5 * (1 + float(np.cos(np.pi * progress / self.epochs)))


@dataclass(frozen=True)
class Job:
    """One training: what is trained, on what, how, and where its progress is kept.

    prepare(epoch) sets the network's modes before an epoch and says whether it may run in bfloat16.
    """

    name: str
    key: str
    network: Network
    parameters: list[nn.Parameter]
    loss: Loss
    prepare: Callable[[int], bool]
    schedule: Schedule
    seed: int
    folder: Path
    train: Dataset
    held_out: Dataset
    augment: Augment

    @property
    def images_per_epoch(self) -> int:
        return max(1, round(self.schedule.share * len(self.train.images)))


@dataclass(frozen=True)
class Share:
    """Which part of every batch a process takes, and where its pixels are."""

    rank: int = 0
    processes: int = 1
    device: torch.device = torch.device("cpu")

    def of(self, job: Job) -> int:
        """Images of one step in this process, the same number in each."""
        images = min(job.schedule.batch, job.images_per_epoch)
        if images < 2 * self.processes:
            raise CocError(f"a batch of {images} images is too small for {self.processes} processes")
        return images // self.processes


def batches(
    job: Job, generator: torch.Generator, share: Share | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches of (input, label); one gather does shift and mirror for a whole batch.

    Every process draws the numbers of the whole batch, so that what happens to an image does not depend on
    the number of processes.
    """
    share = share or Share()
    images = torch.from_numpy(job.train.images).to(share.device)
    labels = torch.from_numpy(job.train.labels).to(share.device)
    pad = job.augment.pad
    padded = functional.pad(images, (pad,) * 4, value=128)
    height, width = images.shape[2:]
    order = torch.randperm(len(images), generator=generator)[: job.images_per_epoch]
    part = share.of(job)
    mine = slice(share.rank * part, (share.rank + 1) * part)
    size = part * share.processes
    for start in range(0, len(order) - size + 1, size):
        index = order[start : start + size]
        shift = torch.randint(0, 2 * pad + 1, (2, size, 1), generator=generator)
        rows = shift[0] + torch.arange(height)
        columns = shift[1] + torch.arange(width)
        if job.augment.flip:
            mirrored = torch.rand(size, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        index, rows, columns = (indices[mine].to(share.device) for indices in (index, rows, columns))
        pixels = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        yield to_input(pixels.permute(0, 3, 1, 2)), labels[index]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent of rows of logits [N, classes] whose largest entry is the label."""
    return quality.accuracy(logits, labels)


def fit(job: Job) -> list[dict[str, float]]:
    """Train, continuing from the last finished epoch; returns one record per epoch.

    Random numbers depend on seed and epoch alone and the rate on the step, so a continued run repeats
    an undisturbed one bit for bit. The network trains on the machine's device and returns to the CPU, where
    alone its integer mode is exact: a convolution on CUDA may be a transformed one, which rounds.
    """
    assert guarded(job.network)
    job.network.to(machine.fabric().device)
    try:
        return _fit(job)
    finally:
        job.network.to("cpu")


def _fit(job: Job) -> list[dict[str, float]]:
    optimizer = _optimizer(job)
    progress = job.folder / "progress.pt"
    log: list[dict[str, float]] = []
    if (saved := _saved(progress, job.key)) is not None:
        job.network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        log = saved["log"]
    started, first = time.perf_counter(), len(log)
    for epoch in range(first, job.schedule.epochs):
        log.append(_epoch(job, optimizer, epoch))
        state = {
            "key": job.key,
            "network": job.network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "log": log,
        }
        machine.once(write_torch, progress, state)
        per_epoch = (time.perf_counter() - started) / (len(log) - first)
        _report(job, log[-1], per_epoch * (job.schedule.epochs - len(log)))
    return log


def _optimizer(job: Job) -> torch.optim.Optimizer:
    decay = job.schedule.weight_decay
    groups = [
        {"params": [p for p in job.parameters if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in job.parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if job.schedule.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=job.schedule.lr)
    return torch.optim.SGD(groups, lr=job.schedule.lr, momentum=0.9, nesterov=True)


def _saved(progress: Path, key: str) -> dict[str, Any] | None:
    """What the last finished epoch left, if it is this training's."""
    if not progress.exists():
        return None
    try:
        saved = torch.load(progress, weights_only=True, map_location="cpu")
    except Exception as error:
        raise CocError(f"{progress}: unreadable; remove it to train this stage from its start") from error
    return saved if saved["key"] == key else None


def _epoch(job: Job, optimizer: torch.optim.Optimizer, epoch: int) -> dict[str, float]:
    fabric = machine.fabric()
    generator = torch.Generator().manual_seed(job.seed * 100_003 + epoch)
    torch.manual_seed(job.seed * 100_003 + epoch)
    low_precision = job.prepare(epoch)
    bounded = norms.at_rest(job.network)
    share = Share(fabric.global_rank, fabric.world_size, fabric.device)
    size = share.of(job) * share.processes
    steps = job.images_per_epoch // size
    bar = tqdm(
        batches(job, generator, share),
        total=steps,
        desc=f"{job.name} {epoch + 1}/{job.schedule.epochs}",
        unit="batch",
        leave=False,
        mininterval=1.0,
        # None: only on a terminal, so that redirected output holds nothing but lines.
        disable=None if fabric.is_global_zero else True,
    )
    started, loss_sum = time.perf_counter(), torch.zeros((), dtype=torch.float64, device=share.device)
    for step, (x, y) in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = job.schedule.rate(epoch + step / steps)
        with fabric.autocast() if low_precision else nullcontext():
            loss = job.loss(x, y)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        machine.average([p.grad for p in job.parameters if p.grad is not None])
        if bounded:
            nn.utils.clip_grad_norm_(job.parameters, MAX_NORM)
        optimizer.step()
        loss_sum += loss.detach()
    mean = machine.total(float(loss_sum)) / share.processes / steps
    if not math.isfinite(mean):
        raise CocError(f"{job.name}: the loss is not finite after epoch {epoch + 1}: lower the learning rate")
    seconds = time.perf_counter() - started
    machine.average(_running_statistics(job.network))
    return {
        "epoch": epoch + 1,
        "loss": mean,
        HELD_OUT[job.held_out.task]: _held_out(job, share),
        "seconds": seconds,
        "images_per_s": steps * size / seconds,
    }


def _running_statistics(network: nn.Module) -> list[Tensor]:
    """The running statistics of those batch-norms that are learning them."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    return [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]


def _held_out(job: Job, share: Share) -> float:
    """Percent of the held-out images that the last exit gets right, of numbers its mean absolute error.

    Each process looks at a part of it.
    """
    labels = job.held_out.labels[share.rank :: share.processes]
    images = job.held_out.images[share.rank :: share.processes]
    count = len(job.held_out.labels)
    outputs = exit_logits(job.network, images)[-1] if len(labels) else labels
    if job.held_out.task is Task.REGRESSION:
        return machine.total(float(np.abs(outputs - labels).mean(axis=1).sum())) / count
    right = (outputs.argmax(axis=-1) == labels).sum() if len(labels) else 0
    return machine.total(float(right)) / count * 100


def _report(job: Job, record: dict[str, float], left: float) -> None:
    estimate = f", {tqdm.format_interval(left)} left" if left else ""
    tqdm.write(
        f"  {job.name} epoch {record['epoch']}/{job.schedule.epochs}: loss {record['loss']:.4f}, held-out "
        f"{held_out(record)}, {record['images_per_s']:.0f} images/s{estimate}"
    )


def held_out(record: dict[str, float]) -> str:
    """The quality on held-out images of an epoch's record, for people."""
    if "calibration_mae" in record:
        return f"MAE {record['calibration_mae']:.4f}"
    return f"{record['calibration_accuracy']:.2f} %"


def distillation(
    student: list[Tensor], teacher: Tensor, y: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Hinton et al. 2015: (1 - alpha) CE(y) + alpha T^2 KL(teacher_T || student_T), mean over the exits."""
    target = functional.log_softmax(teacher.float() / temperature, dim=1)
    losses = [
        (1 - alpha) * functional.cross_entropy(logits.float(), y)
        + alpha
        * temperature**2
        * functional.kl_div(
            functional.log_softmax(logits.float() / temperature, dim=1),
            target,
            reduction="batchmean",
            log_target=True,
        )
        for logits in student
    ]
    return torch.stack(losses).mean()


def cross_entropy(logits: list[Tensor], y: Tensor) -> Tensor:
    """Mean over the exits of the cross-entropy with labels y, int64 [N]."""
    return torch.stack([functional.cross_entropy(exit_.float(), y) for exit_ in logits]).mean()
