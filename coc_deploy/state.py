"""What stages receive and return."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from coc_runtime import cost, promise
from coc_runtime.arithmetic import Task
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

from . import layer_bits, losses, machine, norms, qat, train
from .calibration import align_additions
from .convolution import fold_batch_norm
from .counting import segment_layers
from .network import Network, exit_logits, to_input
from .qat import ActQuant, Mode, QConv
from .recipe import Recipe
from .sections import Finetune, Quantize, Training


@dataclass(frozen=True)
class State:
    """The network so far, the original it came from, and one record per finished stage."""

    network: Network
    original: Network
    history: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Inputs(Sequence[Tensor]):
    """Images uint8 [N, C, H, W] as `most` batches of network input at most, each made when asked for."""

    images: np.ndarray
    size: int
    most: int

    def __len__(self) -> int:
        return min(self.most, -(-len(self.images) // self.size))

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = index % len(self) * self.size
        return to_input(self.images[at : at + self.size])


@dataclass(frozen=True)
class Context:
    """Where a stage works: the recipe as it sees it (`Recipe.at`), data, its folder, its key, a seed of its
    own, and how many epochs the stages behind it will take."""

    recipe: Recipe
    name: str
    key: str
    seed: int
    folder: Path
    training: Dataset
    held_out: Dataset
    augment: train.Augment
    later_epochs: int = 0

    @property
    def task(self) -> Task:
        return Task(self.recipe.task)

    @property
    def low_precision(self) -> bool:
        precision = self.recipe.precision
        return precision == "bfloat16" or (precision == "auto" and machine.bfloat16_pays())

    def calibration_batches(self, count: int = 8) -> "Inputs":
        """Held-out images as network input, batches of 128."""
        return Inputs(self.held_out.images, 128, count)

    def fit(
        self,
        network: Network,
        config: Training,
        loss: train.Loss,
        prepare: Callable[[int], bool],
        parameters: list[nn.Parameter] | None = None,
    ) -> list[dict[str, float]]:
        """Train a network as `train.fit` does, with this stage's data, seed and folder; then round its
        weights and, where it has exits, choose their thresholds."""
        log = train.fit(
            train.Job(
                name=self.name,
                key=self.key,
                network=network,
                parameters=list(network.parameters()) if parameters is None else parameters,
                loss=loss,
                prepare=self._announcing(prepare),
                schedule=train.Schedule(
                    config.epochs,
                    config.lr,
                    self.recipe.batch,
                    config.weight_decay,
                    config.optimizer,
                    self.recipe.epoch_share,
                ),
                seed=self.seed,
                folder=self.folder,
                train=self.training,
                held_out=self.held_out,
                augment=self.augment,
            )
        )
        qat.round_masters(network)
        if network.exits is not None:
            self._set_thresholds(network)
        return log

    def modes(self, network: Network, config: Training) -> Callable[[int], bool]:
        """Plain training mode, in bfloat16 where it pays; for a quantized network fake quantization, in the
        last epochs with every rounding of the exported integers.

        Running statistics follow weights that flip between two values late: before those last epochs, in
        which they are constants, they are taken anew.
        """
        narrow = _narrow_units(network)
        exact_from = config.epochs - self.recipe.q.folded_epochs if network.quant else config.epochs

        def prepare(epoch: int) -> bool:
            if epoch == max(exact_from, 0):
                network.eval()
                qat.set_mode(network, Mode.TRAIN)
                align_additions(network, [m for m in network.modules() if isinstance(m, ActQuant)])
                norms.renew(network, self.calibration_batches(count=40))
            if isinstance(config, Quantize):
                for unit in narrow:
                    unit.weight_bits = weight_bits(config, epoch / max(config.epochs, 1))
            exact = epoch >= exact_from
            network.train(not exact)
            qat.set_mode(network, Mode.FOLDED if exact else Mode.TRAIN)
            return self.low_precision and not exact

        return prepare

    def _announcing(self, prepare: Callable[[int], bool]) -> Callable[[int], bool]:
        """Says before every epoch but the first how long the stages behind this one may take."""
        started: dict[int, float] = {}

        def announce(epoch: int) -> bool:
            started[epoch] = time.perf_counter()
            if self.later_epochs and epoch - 1 in started:
                minutes = (started[epoch] - started[epoch - 1]) * self.later_epochs / 60
                if minutes >= 1:
                    tqdm.write(
                        f"  after {self.name} {self.later_epochs} epochs remain in the chain, "
                        f"at most about {minutes:.0f} min at this pace"
                    )
            return prepare(epoch)

        return announce

    def say(self, line: str) -> None:
        """A line about the stage, beside progress bars."""
        tqdm.write(f"  {self.name}: {line}")

    def _set_thresholds(self, network: Network) -> None:
        """Those of the recipe, or those that the held-out images show to keep its promise."""
        config = self.recipe.e
        network.kept = None
        if config.thresholds:
            if len(config.thresholds) != len(network.heads):
                raise CocError(f"e.thresholds: {len(config.thresholds)} for {len(network.heads)} exits")
            network.thresholds = config.thresholds
            return
        logits = exit_logits(network, self.held_out.images)
        spent = cost.exit_bitops(segment_layers(network))
        kept = promise.choose(logits, self.held_out.labels, spent, config.promise, self.task)
        network.thresholds, network.kept = kept.thresholds, kept
        if line := kept.line():
            self.say(line)


def _narrow_units(network: Network) -> list[QConv]:
    """Those with the chain's bits, which the recipe does not set for them alone."""
    spec = network.quant
    if spec is None:
        return []
    named = {u for n, u in network.body.named_modules() if layer_bits.of(spec.layers, n)[0] is not None}
    units = (u for u in network.modules() if isinstance(u, QConv) and u not in named)
    return [unit for unit in units if unit.weight_bits == spec.weight_bits]


def weight_bits(config: Quantize, progress: float) -> int:
    """The bits of the chain's weights after this share of QAT: progressive ones first, an eighth each."""
    at = int(8 * progress)
    return int(config.progressive[at]) if at < len(config.progressive) else config.spec.weight_bits


def frozen(network: Network) -> Network:
    """A copy for evaluation only: a teacher. Faster with float batch-norm folded into the convolutions, or
    with the integers of a quantized network, which are computed once."""
    teacher = copy.deepcopy(network).eval()
    if network.quant is None:
        for part in (teacher.body, *teacher.heads):
            fold_batch_norm(part)
    qat.set_mode(teacher, Mode.INTEGER)
    return teacher.to(machine.fabric().device)


def finetune_loss(
    network: Network, state: State, config: Finetune, task: Task = Task.CLASSIFICATION
) -> train.Loss:
    """Distillation from the original or from the network before the stage, or the labels alone, over all
    exits."""
    objective = losses.OBJECTIVES[task]
    teachers = {"original": state.original, "before": state.network}
    teacher = frozen(teachers[config.teacher]) if config.teacher in teachers else None

    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = network(x)
        if teacher is None:
            return objective.plain(logits, y)
        with torch.no_grad():
            *_, target = teacher(x)
        return objective.distilled(logits, target, y, config.temperature, config.alpha)

    return loss
