"""What stages receive and return."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from coc_runtime.datasets import Dataset

from . import qat, train
from .network import Network, to_input
from .recipe import Finetune, Recipe, Training


@dataclass(frozen=True)
class State:
    """The network so far, the original it came from, and one record per finished stage."""

    network: Network
    original: Network
    history: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Context:
    """Where a stage works: recipe, data, its folder, its key, and a seed of its own."""

    recipe: Recipe
    name: str
    key: str
    seed: int
    folder: Path
    training: Dataset
    calibration: Dataset
    augment: train.Augment

    @property
    def low_precision(self) -> bool:
        precision = self.recipe.precision
        return precision == "bfloat16" or (precision == "auto" and train.bfloat16_pays())

    def calibration_batches(self, count: int = 8) -> list[Tensor]:
        """Held-out images as network input, batches of 128."""
        images = self.calibration.images
        return [to_input(images[i : i + 128]) for i in range(0, min(len(images), 128 * count), 128)]

    def fit(
        self,
        network: Network,
        config: Training,
        loss: train.Loss,
        prepare: Callable[[int], bool],
        parameters: list[nn.Parameter] | None = None,
    ) -> list[dict[str, float]]:
        """Train a network as `train.fit` does, with this stage's data, seed and folder; round its weights."""
        log = train.fit(
            train.Job(
                name=self.name,
                key=self.key,
                network=network,
                parameters=list(network.parameters()) if parameters is None else parameters,
                loss=loss,
                prepare=prepare,
                schedule=train.Schedule(config.epochs, config.lr, self.recipe.batch, config.weight_decay),
                seed=self.seed,
                folder=self.folder,
                train=self.training,
                calibration=self.calibration,
                augment=self.augment,
            )
        )
        qat.round_masters(network)
        return log

    def float_mode(self, network: Network) -> Callable[[int], bool]:
        """Plain training mode, in bfloat16 where it pays."""

        def prepare(epoch: int) -> bool:
            network.train()
            return self.low_precision

        return prepare


def frozen(network: Network) -> nn.Module:
    """The body for evaluation only, float batch-norm folded into the convolutions: a faster teacher.

    Gives (taps of exits ..., logits).
    """
    body = copy.deepcopy(network.eval()).body
    return body if network.quant else fuse(body)


def finetune_loss(network: Network, original: Network, config: Finetune) -> train.Loss:
    """Distillation from the original model, or cross-entropy alone, over all exits."""
    teacher = frozen(original) if config.teacher == "original" else None

    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = network(x)
        if teacher is None:
            return train.cross_entropy(logits, y)
        with torch.no_grad():
            *_, target = teacher(x)
        return train.distillation(logits, target, y, config.temperature, config.alpha)

    return loss
