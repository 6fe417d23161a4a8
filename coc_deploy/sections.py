"""The sections of a recipe as frozen dataclasses; each checks its own values."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coc_runtime.errors import CocError
from coc_runtime.promise import Promise

from . import layer_bits, models
from .network import HEAD_KINDS
from .quantizers import QuantSpec

OPTIMIZERS = ("sgd", "adam")
RANGES = ("calibrated", "learned")
SCALES = ("channel", "layer")
TEACHERS = ("original", "before", "none")
IMPORTANCES = ("l1", "l2", "bn")
SCOPES = ("uniform", "global")
LATER: Mapping[str, Any] = {"later": True}
"""Metadata of a key that came after the first release: at its default it is left out of a stage's key, so
that `--same-code` finds the stages of code that did not have it."""


def require(section: str, key: str, value: Any, valid: bool, allowed: str) -> None:
    """Raise a CocError that names the key, its value and what is allowed, unless the value is valid."""
    if not valid:
        raise CocError(f"recipe: {section}{key} = {value!r} is not allowed: {allowed}")


@dataclass(frozen=True)
class Training:
    """What every stage's training takes: epochs, initial learning rate of the cosine, weight decay,
    optimizer ("sgd": Nesterov momentum 0.9; "adam": with decoupled weight decay)."""

    epochs: int = 10
    lr: float = 0.1
    weight_decay: float = 1e-4
    optimizer: str = "sgd"

    def check(self, section: str) -> None:
        require(section, "epochs", self.epochs, 0 <= self.epochs <= 10_000, "0 to 10000")
        require(section, "lr", self.lr, 0 < self.lr <= 10, "a number above 0, at most 10")
        require(section, "weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "0 to 1")
        require(section, "optimizer", self.optimizer, self.optimizer in OPTIMIZERS, "sgd or adam")


GENTLE: Mapping[str, Any] = {"epochs": 3, "lr": 0.01}
"""Defaults for a network that is given with its weights, whose training goes on."""


@dataclass(frozen=True)
class Model(Training):
    """A network: its name or file.py:factory, width of its first stage (0: the model's own), shortcut A or B
    of CIFAR ResNets, and weights to start from.

    mean, std: the normalisation, of pixels in 0..1, that the weights were trained with.
    """

    model: str = "resnet20"
    width: int = 0
    shortcut: str = "B"
    weights: str = ""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def check(self, section: str) -> None:
        super().check(section)
        narrowed = section.startswith("d") and not self.model
        require(section, "model", self.model, narrowed or models.known(self.model), models.NAMES)
        require(section, "width", self.width, 0 <= self.width <= 1024, "1 to 1024, or 0 for its own")
        require(section, "shortcut", self.shortcut, self.shortcut in models.SHORTCUTS, "A or B")
        require(section, "mean", list(self.mean), all(map(math.isfinite, self.mean)), "finite numbers")
        positive = all(0 < s < math.inf for s in self.std)
        require(section, "std", list(self.std), positive, "finite numbers above 0")


@dataclass(frozen=True)
class Original(Model):
    """What the chain starts from: a network to train, or the model.pt of another run, taken as it is."""

    checkpoint: str = field(default="", metadata=LATER)


@dataclass(frozen=True)
class Distill(Model):
    """D: the student, Hinton distillation's temperature and weight of the teacher's term, and the weight
    of the contrastive term (0: none) with its embeddings' size and temperature (Tian et al. 2020).

    No model: a copy of the network with `narrow` of its channels everywhere, trained from scratch.
    """

    model: str = ""
    narrow: float = field(default=0.5, metadata=LATER)
    temperature: float = 4.0
    alpha: float = 0.9
    crd: float = field(default=0.0, metadata=LATER)
    crd_dim: int = field(default=128, metadata=LATER)
    crd_temperature: float = field(default=0.07, metadata=LATER)

    def check(self, section: str) -> None:
        super().check(section)
        _check_distillation(section, self)
        named = bool(self.model) or not self.weights
        require(section, "weights", self.weights, named, "name the model that they belong to, too")
        require(section, "narrow", self.narrow, 0 < self.narrow <= 1, "a share above 0, at most 1")
        require(section, "crd", self.crd, 0 <= self.crd <= 1000, "0 to 1000")
        require(section, "crd_dim", self.crd_dim, 1 <= self.crd_dim <= 4096, "1 to 4096")
        require(
            section, "crd_temperature", self.crd_temperature, 0.01 <= self.crd_temperature <= 10, "0.01 to 10"
        )


@dataclass(frozen=True)
class Finetune(Training):
    """Fine-tuning by distillation from the original model ("original") or from the network as it was before
    the stage ("before"), or on labels alone ("none")."""

    lr: float = 0.01
    teacher: str = "original"
    temperature: float = 4.0
    alpha: float = 0.9

    def check(self, section: str) -> None:
        super().check(section)
        require(section, "teacher", self.teacher, self.teacher in TEACHERS, "original, before or none")
        _check_distillation(section, self)


def _check_distillation(section: str, stage: Any) -> None:
    require(
        section,
        "temperature",
        stage.temperature,
        0 < stage.temperature <= 1000,
        "a number above 0, at most 1000",
    )
    require(section, "alpha", stage.alpha, 0 <= stage.alpha <= 1, "0 to 1")


@dataclass(frozen=True)
class Prune(Finetune):
    """P: share of channels to remove, what they are rounded to, how they are ranked, and among whom: within
    each layer ("uniform": the same share everywhere) or in the whole network ("global")."""

    ratio: float = 0.25
    round_to: int = 4
    importance: str = "l2"
    scope: str = field(default="uniform", metadata=LATER)

    def check(self, section: str) -> None:
        super().check(section)
        require(section, "ratio", self.ratio, 0 <= self.ratio < 1, "0 to below 1")
        require(section, "round_to", self.round_to, 1 <= self.round_to <= 256, "1 to 256")
        require(section, "importance", self.importance, self.importance in IMPORTANCES, "l1, l2 or bn")
        require(section, "scope", self.scope, self.scope in SCOPES, "uniform or global")


@dataclass(frozen=True)
class Quantize(Finetune):
    """Q: bits of weights x activations, bits of stem and linear layers ("8" or "same"), QAT's last epochs
    with batch-norm folded and all rounding seen (`folded_epochs`), percentile that ranges cover.

    ranges: "calibrated" before training or "learned" in it. scale: of weights, one per "channel" or "layer".
    progressive: wider weight bits that come first, each for an eighth of the epochs. layers: names or
    patterns of the body's layers -> their bits, where they are not the chain's.
    """

    lr: float = 0.02
    bits: str = "1x8"
    first_last: str = "8"
    folded_epochs: int = 1
    percentile: float = 99.9
    ranges: str = field(default="calibrated", metadata=LATER)
    scale: str = field(default="channel", metadata=LATER)
    progressive: tuple[int, ...] = field(default=(), metadata=LATER)
    layers: dict[str, str] = field(default_factory=dict, metadata=LATER)

    def check(self, section: str) -> None:
        super().check(section)
        layer_bits.check(self.layers, section)
        valid = re.fullmatch(r"[1248]x[48]", self.bits) is not None
        require(section, "bits", self.bits, valid, "WxA with W in 1, 2, 4, 8 and A in 4, 8, e.g. 1x8")
        require(section, "first_last", self.first_last, self.first_last in ("8", "same"), "8 or same")
        require(section, "folded_epochs", self.folded_epochs, self.folded_epochs >= 0, "0 or more")
        require(section, "ranges", self.ranges, self.ranges in RANGES, "calibrated or learned")
        require(section, "scale", self.scale, self.scale in SCALES, "channel or layer")
        falling = list(self.progressive) == sorted({*self.progressive} & {2, 4}, reverse=True)
        require(section, "progressive", list(self.progressive), falling, "[4], [2] or [4, 2]")
        require(section, "percentile", self.percentile, 50 <= self.percentile <= 100, "50 to 100")

    @property
    def spec(self) -> QuantSpec:
        weight_bits, act_bits = (int(part) for part in self.bits.split("x"))
        ends = weight_bits if self.first_last == "same" else 8
        learned, per_layer = self.ranges == "learned", self.scale == "layer"
        return QuantSpec(weight_bits, act_bits, ends, self.percentile, learned, per_layer, self.layers)


@dataclass(frozen=True)
class Exit(Finetune):
    """E: where the heads sit (fractions of the cumulative BitOps, or module names), their kind, and how
    many points of accuracy (of a regression: by how many percent the mean absolute error) the chosen
    thresholds lose on new images at most, with which confidence; or the thresholds, one per exit."""

    lr: float = 0.1
    teacher: str = "none"
    alpha: float = 0.5
    positions: tuple[float | str, ...] = (0.35, 0.65)
    head: str = "conv"
    head_channels: int = 32
    max_drop: float = 0.5
    confidence: float = 0.9
    thresholds: tuple[float, ...] = field(default=(), metadata=LATER)

    def check(self, section: str) -> None:
        super().check(section)
        fractions = all(isinstance(p, str) or 0 < p < 1 for p in self.positions)
        valid = fractions and 1 <= len(self.positions) <= 8
        require(
            section, "positions", list(self.positions), valid, "1 to 8 fractions in (0, 1) or module names"
        )
        require(section, "head", self.head, self.head in HEAD_KINDS, "conv or linear")
        require(section, "head_channels", self.head_channels, 1 <= self.head_channels <= 1024, "1 to 1024")
        require(section, "max_drop", self.max_drop, 0 <= self.max_drop <= 100, "0 to 100")
        sure = 0.5 <= self.confidence < 1
        require(section, "confidence", self.confidence, sure, "0.5 to below 1, e.g. 0.9")
        finite = all(0 <= t < math.inf for t in self.thresholds)
        valid = finite and len(self.thresholds) in (0, len(self.positions))
        allowed = (
            f"[] (chosen by max_drop) or {len(self.positions)} confidences, one per position "
            "(tolerances of a regression)"
        )
        require(section, "thresholds", list(self.thresholds), valid, allowed)

    @property
    def promise(self) -> Promise:
        return Promise(self.max_drop, self.confidence)


Stage = Distill | Prune | Quantize | Exit
