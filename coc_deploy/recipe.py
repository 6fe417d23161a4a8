"""recipe.toml as a frozen dataclass; every value is checked before anything runs."""

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from coc_runtime.errors import CocError

from . import models
from .network import HEAD_KINDS
from .rewriting import QuantSpec

ORDER = "DPQE"
PRECISIONS = ("auto", "float32", "bfloat16")
TEACHERS = ("original", "none")
IMPORTANCES = ("l1", "l2", "bn")


def _require(section: str, key: str, value: Any, valid: bool, allowed: str) -> None:
    if not valid:
        raise CocError(f"recipe: {section}{key} = {value!r} is not allowed: {allowed}")


@dataclass(frozen=True)
class Training:
    """What every stage's training takes: epochs, initial learning rate of the cosine, weight decay."""

    epochs: int = 10
    lr: float = 0.1
    weight_decay: float = 1e-4

    def check(self, section: str) -> None:
        _require(section, "epochs", self.epochs, 0 <= self.epochs <= 10_000, "0 to 10000")
        _require(section, "lr", self.lr, 0 < self.lr <= 10, "a number above 0, at most 10")
        _require(section, "weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "0 to 1")


@dataclass(frozen=True)
class Model(Training):
    """A network: depth 6n+2, width of its first stage, shortcut A or B, and weights to start from.

    mean, std: the normalisation, of pixels in 0..1, that the weights were trained with.
    """

    model: str = "resnet20"
    width: int = 16
    shortcut: str = "B"
    weights: str = ""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def check(self, section: str) -> None:
        super().check(section)
        depth = models.depth(self.model)
        _require(section, "model", self.model, depth is not None, "resnet8, resnet14, resnet20 ... (6n+2)")
        _require(section, "width", self.width, 1 <= self.width <= 1024, "1 to 1024")
        _require(section, "shortcut", self.shortcut, self.shortcut in models.SHORTCUTS, "A or B")
        _require(section, "std", self.std, all(s > 0 for s in self.std), "positive numbers")


@dataclass(frozen=True)
class Distill(Model):
    """D: the student, and Hinton distillation's temperature and weight of the teacher's term."""

    temperature: float = 4.0
    alpha: float = 0.9

    def check(self, section: str) -> None:
        super().check(section)
        _check_distillation(section, self)


@dataclass(frozen=True)
class Finetune(Training):
    """Fine-tuning by distillation from the original model ("original") or on labels alone ("none")."""

    lr: float = 0.01
    teacher: str = "original"
    temperature: float = 4.0
    alpha: float = 0.9

    def check(self, section: str) -> None:
        super().check(section)
        _require(section, "teacher", self.teacher, self.teacher in TEACHERS, "original or none")
        _check_distillation(section, self)


def _check_distillation(section: str, stage: Any) -> None:
    _require(
        section,
        "temperature",
        stage.temperature,
        0 < stage.temperature <= 1000,
        "a number above 0, at most 1000",
    )
    _require(section, "alpha", stage.alpha, 0 <= stage.alpha <= 1, "0 to 1")


@dataclass(frozen=True)
class Prune(Finetune):
    """P: share of channels to remove everywhere, what they are rounded to, and how they are ranked."""

    ratio: float = 0.25
    round_to: int = 4
    importance: str = "l2"

    def check(self, section: str) -> None:
        super().check(section)
        _require(section, "ratio", self.ratio, 0 <= self.ratio < 1, "0 to below 1")
        _require(section, "round_to", self.round_to, 1 <= self.round_to <= 256, "1 to 256")
        _require(section, "importance", self.importance, self.importance in IMPORTANCES, "l1, l2 or bn")


@dataclass(frozen=True)
class Quantize(Finetune):
    """Q: bits of weights x activations, bits of stem and linear layers ("8" or "same"), QAT's last epochs
    with batch-norm folded and all rounding seen (`folded_epochs`), percentile that ranges cover."""

    lr: float = 0.02
    bits: str = "1x8"
    first_last: str = "8"
    folded_epochs: int = 1
    percentile: float = 99.9

    def check(self, section: str) -> None:
        super().check(section)
        valid = re.fullmatch(r"[1248]x[48]", self.bits) is not None
        _require(section, "bits", self.bits, valid, "WxA with W in 1, 2, 4, 8 and A in 4, 8, e.g. 1x8")
        _require(section, "first_last", self.first_last, self.first_last in ("8", "same"), "8 or same")
        _require(section, "folded_epochs", self.folded_epochs, self.folded_epochs >= 0, "0 or more")
        _require(section, "percentile", self.percentile, 50 <= self.percentile <= 100, "50 to 100")

    @property
    def spec(self) -> QuantSpec:
        weight_bits, act_bits = (int(part) for part in self.bits.split("x"))
        ends = weight_bits if self.first_last == "same" else 8
        return QuantSpec(weight_bits, act_bits, ends, self.percentile)


@dataclass(frozen=True)
class Exit(Finetune):
    """E: where the heads sit (fractions of the cumulative BitOps, or module names), their kind, and how
    many points of held-out accuracy the chosen thresholds may cost."""

    lr: float = 0.1
    teacher: str = "none"
    alpha: float = 0.5
    positions: tuple[float | str, ...] = (0.35, 0.65)
    head: str = "conv"
    head_channels: int = 32
    max_drop: float = 0.5

    def check(self, section: str) -> None:
        super().check(section)
        fractions = all(isinstance(p, str) or 0 < p < 1 for p in self.positions)
        valid = fractions and 1 <= len(self.positions) <= 8
        _require(
            section, "positions", list(self.positions), valid, "1 to 8 fractions in (0, 1) or module names"
        )
        _require(section, "head", self.head, self.head in HEAD_KINDS, "conv or linear")
        _require(section, "head_channels", self.head_channels, 1 <= self.head_channels <= 1024, "1 to 1024")
        _require(section, "max_drop", self.max_drop, 0 <= self.max_drop <= 100, "0 to 100 points")


@dataclass(frozen=True)
class Recipe:
    """A whole run. data: digits, cifar10[:PATH], imagefolder:PATH. pad, flip: augmentation (-1: the
    data set's usual one)."""

    chain: str = "DPQE"
    data: str = "digits"
    seed: int = 0
    batch: int = 128
    precision: str = "auto"
    pad: int = -1
    flip: bool | None = None
    original: Model = field(default_factory=Model)
    d: Distill = field(default_factory=Distill)
    p: Prune = field(default_factory=Prune)
    q: Quantize = field(default_factory=Quantize)
    e: Exit = field(default_factory=Exit)

    def __post_init__(self) -> None:
        positions = [ORDER.find(letter) for letter in self.chain]
        valid = bool(positions) and min(positions) >= 0 and positions == sorted(set(positions))
        _require(
            "",
            "chain",
            self.chain,
            valid,
            "DPQE or what is left of it when letters are left out, in that order",
        )
        _require("", "seed", self.seed, 0 <= self.seed < 2**31, "0 to 2147483647")
        _require("", "batch", self.batch, 2 <= self.batch <= 65536, "2 to 65536")
        _require("", "precision", self.precision, self.precision in PRECISIONS, "auto, float32 or bfloat16")
        _require("", "pad", self.pad, -1 <= self.pad <= 64, "0 to 64, or -1 for the data set's usual")
        for name in ("original", "d", "p", "q", "e"):
            getattr(self, name).check(f"{name}.")

    def key(self, stages: str) -> str:
        """Hash of all that leads to the result of the given prefix of the chain ("" is the original)."""
        used: dict[str, Any] = {
            name: getattr(self, name) for name in ("data", "seed", "batch", "precision", "pad", "flip")
        }
        for section in ("original", *stages.lower()):
            config = dataclasses.asdict(getattr(self, section))
            if config.get("weights"):
                config["weights"] = _file_hash(Path(config["weights"]))
            used[section] = config
        text = json.dumps([stages, used], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


M = TypeVar("M", bound=Model)


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CocError(f"{path}: cannot be read ({error.strerror}); set 'weights' to a state dict") from error


def load(path: Path, changes: list[str]) -> Recipe:
    """Read a recipe and apply `--set section.key=value` changes; paths in it are relative to its folder."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CocError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CocError(f"{path}: not valid TOML: {error}") from error
    for change in changes:
        _apply(data, change)
    recipe = parse(data)
    return dataclasses.replace(
        recipe,
        original=_resolve(recipe.original, path.parent),
        d=_resolve(recipe.d, path.parent),
        data=_resolve_data(recipe.data, path.parent),
    )


def _resolve(section: M, folder: Path) -> M:
    return dataclasses.replace(section, weights=str(folder / section.weights)) if section.weights else section


def _resolve_data(spec: str, folder: Path) -> str:
    kind, separator, path = spec.partition(":")
    return f"{kind}:{folder / path}" if separator else spec


def _apply(data: dict[str, Any], change: str) -> None:
    name, separator, text = change.partition("=")
    keys = name.strip().split(".")
    if not separator or len(keys) > 2:
        raise CocError(f"--set {change}: expected key=value or section.key=value, e.g. --set q.bits=1x8")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    target = data
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise CocError(f"--set {change}: '{key}' is not a section")
    target[keys[-1]] = value


def parse(data: dict[str, Any]) -> Recipe:
    """A Recipe from plain values; raises CocError that names the key, the value and what is allowed."""
    return _parse(Recipe, data, "")


def _parse(cls: Any, data: dict[str, Any], section: str) -> Any:
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"; did you mean {section}{near[0]}?" if near else f"; known are {', '.join(hints)}"
            raise CocError(f"recipe: unknown key {section}{key}{hint}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise CocError(f"recipe: {key} must be a section, [{key}]")
            values[key] = _parse(hints[key], value, f"{key}.")
        else:
            values[key] = _convert(section + key, value, hints[key])
    return cls(**values)


def _convert(name: str, value: Any, hint: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if str(hint).startswith("tuple"):
        allowed: tuple[type, ...] = (int, float, str) if "str" in str(hint) else (int, float)
        values = value if isinstance(value, list) else [value]
        if all(isinstance(v, allowed) and not isinstance(v, bool) for v in values):
            return tuple(float(v) if isinstance(v, int) else v for v in values)
    elif hint == bool | None:
        if isinstance(value, bool):
            return value
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    kind = (
        getattr(hint, "__name__", str(hint)).replace("tuple", "list").replace("bool | None", "true or false")
    )
    raise CocError(f"recipe: {name} = {value!r} has the wrong type: expected {kind}")
