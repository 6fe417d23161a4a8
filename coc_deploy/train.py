"""The training loop: continued from any epoch, reproducible for a seed, augmentation in one gather."""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

from .checkpoint import write_torch
from .network import Network, exit_logits, to_input

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Augment:
    """Random shift by up to `pad` pixels (grey border) and, if `flip`, random mirroring."""

    pad: int
    flip: bool


@dataclass(frozen=True)
class Schedule:
    """SGD with Nesterov momentum 0.9, cosine from `lr` to zero; from five epochs on, the first warms up."""

    epochs: int
    lr: float
    batch: int
    weight_decay: float = 1e-4

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
    calibration: Dataset
    augment: Augment


def batches(job: Job, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches of (input, label); one gather does shift and mirror for a whole batch."""
    images = torch.from_numpy(job.train.images)
    labels = torch.from_numpy(job.train.labels)
    pad = job.augment.pad
    padded = functional.pad(images, (pad,) * 4, value=128)
    height, width = images.shape[2:]
    order = torch.randperm(len(images), generator=generator)
    size = min(job.schedule.batch, len(images))
    for start in range(0, len(order) - size + 1, size):
        index = order[start : start + size]
        shift = torch.randint(0, 2 * pad + 1, (2, len(index), 1), generator=generator)
        rows = shift[0] + torch.arange(height)
        columns = shift[1] + torch.arange(width)
        if job.augment.flip:
            mirrored = torch.rand(len(index), 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        pixels = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        yield to_input(pixels.permute(0, 3, 1, 2)), labels[index]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent of rows of logits [N, classes] whose largest entry is the label."""
    return float((logits.argmax(axis=-1) == labels).mean() * 100)


def fit(job: Job) -> list[dict[str, float]]:
    """Train, continuing from the last finished epoch; returns one record per epoch.

    Random numbers depend on seed and epoch alone and the rate on the step, so a continued run repeats
    an undisturbed one bit for bit.
    """
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in job.parameters if p.dim() > 1], "weight_decay": job.schedule.weight_decay},
            {"params": [p for p in job.parameters if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=job.schedule.lr,
        momentum=0.9,
        nesterov=True,
    )
    log: list[dict[str, float]] = []
    progress = job.folder / "progress.pt"
    if progress.exists():
        saved = torch.load(progress, weights_only=True)
        if saved["key"] == job.key:
            job.network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            log = saved["log"]
    for epoch in range(len(log), job.schedule.epochs):
        log.append(_epoch(job, optimizer, epoch))
        write_torch(
            progress,
            {
                "key": job.key,
                "network": job.network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "log": log,
            },
        )
    return log


def _epoch(job: Job, optimizer: torch.optim.Optimizer, epoch: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(job.seed * 100_003 + epoch)
    torch.manual_seed(job.seed * 100_003 + epoch)
    low_precision = job.prepare(epoch)
    steps = max(1, len(job.train.images) // min(job.schedule.batch, len(job.train.images)))
    started, total = time.perf_counter(), 0.0
    bar = tqdm(
        batches(job, generator),
        total=steps,
        desc=f"{job.name} {epoch + 1}/{job.schedule.epochs}",
        unit="batch",
        leave=False,
        mininterval=1.0,
    )
    for step, (x, y) in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = job.schedule.rate(epoch + step / steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            loss = job.loss(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += float(loss.detach())
    if not math.isfinite(total):
        raise CocError(f"{job.name}: the loss is not finite after epoch {epoch + 1}: lower the learning rate")
    seconds = time.perf_counter() - started
    logits = exit_logits(job.network, job.calibration.images)
    record: dict[str, Any] = {
        "epoch": epoch + 1,
        "loss": total / steps,
        "calibration_accuracy": accuracy(logits[-1], job.calibration.labels),
        "seconds": seconds,
        "images_per_s": steps * min(job.schedule.batch, len(job.train.images)) / seconds,
    }
    tqdm.write(
        f"  {job.name} epoch {epoch + 1}/{job.schedule.epochs}: loss {record['loss']:.4f}, held-out "
        f"{record['calibration_accuracy']:.2f} %, {record['images_per_s']:.0f} images/s"
    )
    return record


def bfloat16_pays() -> bool:
    """True where the CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    if os.environ.get("COC_PRECISION") == "float32":
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


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
