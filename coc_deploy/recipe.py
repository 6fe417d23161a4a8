"""recipe.toml as a frozen dataclass; every value is checked before anything runs."""

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError

from . import models
from .network import HEAD_KINDS
from .rewriting import QuantSpec

LETTERS = "DPQE"
LONGEST = 15
"""Stages of a chain: each has a seed of its own, recipe.seed * 16 + its number."""
TASKS = tuple(task.value for task in Task)
PRECISIONS = ("auto", "float32", "bfloat16")
OPTIMIZERS = ("sgd", "adam")
RANGES = ("calibrated", "learned")
SCALES = ("channel", "layer")
TEACHERS = ("original", "before", "none")
IMPORTANCES = ("l1", "l2", "bn")
SCOPES = ("uniform", "global")
REPEAT = re.compile(r"[dpq](?:[2-9]|1[0-5])")
"""Sections of a letter's second, third ... stage."""
LATER: Mapping[str, Any] = {"later": True}
"""Metadata of a key that came after the first release: at its default it is left out of a stage's hash,
so that finished stages of older runs stay valid."""


def _require(section: str, key: str, value: Any, valid: bool, allowed: str) -> None:
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
        _require(section, "epochs", self.epochs, 0 <= self.epochs <= 10_000, "0 to 10000")
        _require(section, "lr", self.lr, 0 < self.lr <= 10, "a number above 0, at most 10")
        _require(section, "weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "0 to 1")
        _require(section, "optimizer", self.optimizer, self.optimizer in OPTIMIZERS, "sgd or adam")


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
        _require(section, "model", self.model, narrowed or models.known(self.model), models.NAMES)
        _require(section, "width", self.width, 0 <= self.width <= 1024, "1 to 1024, or 0 for its own")
        _require(section, "shortcut", self.shortcut, self.shortcut in models.SHORTCUTS, "A or B")
        _require(section, "std", self.std, all(s > 0 for s in self.std), "positive numbers")


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
        _require(section, "weights", self.weights, named, "name the model that they belong to, too")
        _require(section, "narrow", self.narrow, 0 < self.narrow <= 1, "a share above 0, at most 1")
        _require(section, "crd", self.crd, 0 <= self.crd <= 1000, "0 to 1000")
        _require(section, "crd_dim", self.crd_dim, 1 <= self.crd_dim <= 4096, "1 to 4096")
        _require(
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
        _require(section, "teacher", self.teacher, self.teacher in TEACHERS, "original, before or none")
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
    """P: share of channels to remove, what they are rounded to, how they are ranked, and among whom: within
    each layer ("uniform": the same share everywhere) or in the whole network ("global")."""

    ratio: float = 0.25
    round_to: int = 4
    importance: str = "l2"
    scope: str = field(default="uniform", metadata=LATER)

    def check(self, section: str) -> None:
        super().check(section)
        _require(section, "ratio", self.ratio, 0 <= self.ratio < 1, "0 to below 1")
        _require(section, "round_to", self.round_to, 1 <= self.round_to <= 256, "1 to 256")
        _require(section, "importance", self.importance, self.importance in IMPORTANCES, "l1, l2 or bn")
        _require(section, "scope", self.scope, self.scope in SCOPES, "uniform or global")


@dataclass(frozen=True)
class Quantize(Finetune):
    """Q: bits of weights x activations, bits of stem and linear layers ("8" or "same"), QAT's last epochs
    with batch-norm folded and all rounding seen (`folded_epochs`), percentile that ranges cover.

    ranges: "calibrated" before training or "learned" in it. scale: of weights, one per "channel" or "layer".
    progressive: wider weight bits that come first, each for an eighth of the epochs.
    """

    lr: float = 0.02
    bits: str = "1x8"
    first_last: str = "8"
    folded_epochs: int = 1
    percentile: float = 99.9
    ranges: str = field(default="calibrated", metadata=LATER)
    scale: str = field(default="channel", metadata=LATER)
    progressive: tuple[int, ...] = field(default=(), metadata=LATER)

    def check(self, section: str) -> None:
        super().check(section)
        valid = re.fullmatch(r"[1248]x[48]", self.bits) is not None
        _require(section, "bits", self.bits, valid, "WxA with W in 1, 2, 4, 8 and A in 4, 8, e.g. 1x8")
        _require(section, "first_last", self.first_last, self.first_last in ("8", "same"), "8 or same")
        _require(section, "folded_epochs", self.folded_epochs, self.folded_epochs >= 0, "0 or more")
        _require(section, "ranges", self.ranges, self.ranges in RANGES, "calibrated or learned")
        _require(section, "scale", self.scale, self.scale in SCALES, "channel or layer")
        falling = list(self.progressive) == sorted({*self.progressive} & {2, 4}, reverse=True)
        _require(section, "progressive", list(self.progressive), falling, "[4], [2] or [4, 2]")
        _require(section, "percentile", self.percentile, 50 <= self.percentile <= 100, "50 to 100")

    @property
    def spec(self) -> QuantSpec:
        weight_bits, act_bits = (int(part) for part in self.bits.split("x"))
        ends = weight_bits if self.first_last == "same" else 8
        learned, per_layer = self.ranges == "learned", self.scale == "layer"
        return QuantSpec(weight_bits, act_bits, ends, self.percentile, learned, per_layer)


@dataclass(frozen=True)
class Exit(Finetune):
    """E: where the heads sit (fractions of the cumulative BitOps, or module names), their kind, and how
    many points of held-out accuracy (of a regression: by how many percent the mean absolute error) the chosen
    thresholds may cost; or the thresholds, one per exit."""

    lr: float = 0.1
    teacher: str = "none"
    alpha: float = 0.5
    positions: tuple[float | str, ...] = (0.35, 0.65)
    head: str = "conv"
    head_channels: int = 32
    max_drop: float = 0.5
    thresholds: tuple[float, ...] = field(default=(), metadata=LATER)

    def check(self, section: str) -> None:
        super().check(section)
        fractions = all(isinstance(p, str) or 0 < p < 1 for p in self.positions)
        valid = fractions and 1 <= len(self.positions) <= 8
        _require(
            section, "positions", list(self.positions), valid, "1 to 8 fractions in (0, 1) or module names"
        )
        _require(section, "head", self.head, self.head in HEAD_KINDS, "conv or linear")
        _require(section, "head_channels", self.head_channels, 1 <= self.head_channels <= 1024, "1 to 1024")
        _require(section, "max_drop", self.max_drop, 0 <= self.max_drop <= 100, "0 to 100")
        valid = len(self.thresholds) in (0, len(self.positions)) and all(t >= 0 for t in self.thresholds)
        allowed = (
            f"[] (chosen by max_drop) or {len(self.positions)} confidences, one per position "
            "(tolerances of a regression)"
        )
        _require(section, "thresholds", list(self.thresholds), valid, allowed)


Stage = Distill | Prune | Quantize | Exit


@dataclass(frozen=True)
class Recipe:
    """A whole run. data: digits, cifar10[:PATH], imagefolder:PATH. pad, flip: augmentation (-1: the
    data set's usual one). task: "classification", or "regression" of the real numbers that data hold.
    epoch_share: of the training images that an epoch takes, other ones each time.

    repeats: sections of second and later stages of a letter, by name ("p2"), whole: with what they
    inherit from the section before. pruned: the settings of all P stages so far, which `at` fills in.
    """

    chain: str = "DPQE"
    data: str = "digits"
    task: str = "classification"
    seed: int = 0
    batch: int = 128
    precision: str = "auto"
    pad: int = -1
    flip: bool | None = None
    epoch_share: float = 1.0
    original: Original = field(default_factory=Original)
    d: Distill = field(default_factory=Distill)
    p: Prune = field(default_factory=Prune)
    q: Quantize = field(default_factory=Quantize)
    e: Exit = field(default_factory=Exit)
    repeats: Mapping[str, Stage] = field(default_factory=dict)
    pruned: tuple[Prune, ...] = ()

    def __post_init__(self) -> None:
        letters = bool(self.chain) and set(self.chain) <= set(LETTERS)
        _require("", "chain", self.chain, letters, "letters D, P, Q and E in any order, e.g. DPQE")
        once = self.chain.count("E") <= 1
        _require("", "chain", self.chain, once, "E at most once, the exits stay in all later stages")
        _require("", "chain", self.chain, len(self.chain) <= LONGEST, f"at most {LONGEST} stages")
        _require("", "task", self.task, self.task in TASKS, " or ".join(TASKS))
        _require("", "seed", self.seed, 0 <= self.seed < 2**31, "0 to 2147483647")
        _require("", "batch", self.batch, 2 <= self.batch <= 65536, "2 to 65536")
        _require("", "precision", self.precision, self.precision in PRECISIONS, "auto, float32 or bfloat16")
        _require("", "pad", self.pad, -1 <= self.pad <= 64, "0 to 64, or -1 for the data set's usual")
        share = 0 < self.epoch_share <= 1
        _require("", "epoch_share", self.epoch_share, share, "a share above 0, at most 1")
        for name in ("original", "d", "p", "q", "e"):
            getattr(self, name).check(f"{name}.")
        for name, section in self.repeats.items():
            section.check(f"{name}.")
        for name, section in {"d": self.d, **self.repeats}.items():
            crd = getattr(section, "crd", 0.0) if self.task == "regression" else 0.0
            _require(
                f"{name}.", "crd", crd, crd == 0, "0 for a regression: it contrasts images of other classes"
            )

    def section_name(self, index: int) -> str:
        """Where stage `index` (from 1; 0 is the original) of the chain has its settings: d, p, p2 ..."""
        if index == 0:
            return "original"
        letter = self.chain[index - 1]
        return _section_name(letter.lower(), self.chain[:index].count(letter))

    def section(self, index: int) -> Original | Stage:
        """The settings of stage `index`: its own section, or that of its letter's occurrence before."""
        if index == 0:
            return self.original
        letter = self.chain[index - 1].lower()
        count = self.chain[:index].count(self.chain[index - 1])
        names = [_section_name(letter, number) for number in range(count, 1, -1)]
        found = next((self.repeats[name] for name in names if name in self.repeats), None)
        return getattr(self, letter) if found is None else found

    def at(self, index: int) -> "Recipe":
        """The recipe as stage `index` sees it: the chain so far; of each letter the section last used."""
        last = {letter.lower(): number for number, letter in enumerate(self.chain[:index], start=1)}
        sections: dict[str, Any] = {letter: self.section(number) for letter, number in last.items()}
        stages = (self.section(number) for number in range(1, index + 1))
        sections["pruned"] = tuple(stage for stage in stages if isinstance(stage, Prune))
        return dataclasses.replace(self, chain=self.chain[:index] or self.chain, repeats={}, **sections)

    def key(self, stages: str) -> str:
        """Hash of all that leads to the result of the given prefix of the chain ("" is the original)."""
        text = json.dumps([stages, self.leading_to(stages)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def leading_to(self, stages: str) -> dict[str, Any]:
        """The settings that the result of a prefix of the chain depends on, files by their content."""
        used: dict[str, Any] = {
            name: getattr(self, name) for name in ("data", "seed", "batch", "precision", "pad", "flip")
        }
        if self.task != Task.CLASSIFICATION.value:
            used["task"] = self.task
        if self.epoch_share != 1:
            used["epoch_share"] = self.epoch_share
        prefix = self if not stages else dataclasses.replace(self, chain=stages)
        for index in range(len(stages) + 1):
            used[prefix.section_name(index)] = _hashed(prefix.section(index))
        return used

    def as_dict(self) -> dict[str, Any]:
        """What recipe.json holds: every section, later ones by their names."""
        values = dataclasses.asdict(self)
        del values["pruned"]
        return values | values.pop("repeats")


def _section_name(letter: str, occurrence: int) -> str:
    return letter if occurrence == 1 else f"{letter}{occurrence}"


def _hashed(section: Any) -> dict[str, Any]:
    """What of a section goes into a stage's hash: its values, and the content of the files it names."""
    config = dataclasses.asdict(section)
    for key in ("weights", "checkpoint"):
        if config.get(key):
            config[key] = _file_hash(Path(config[key]), key)
    if models.is_user(config.get("model", "")):
        path, _, factory = config["model"].rpartition(":")
        config["model"] = f"{_file_hash(Path(path), 'model')}:{factory}"
    later = [f for f in dataclasses.fields(section) if f.metadata.get("later")]
    return {k: v for k, v in config.items() if not any(f.name == k and f.default == v for f in later)}


M = TypeVar("M", bound=Model)


def _file_hash(path: Path, key: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        wanted = {"weights": "a state dict", "model": "file.py:factory"}.get(
            key, "a model.pt of coc-compress"
        )
        raise CocError(f"{path}: cannot be read ({error.strerror}); set '{key}' to {wanted}") from error


def load(path: Path, changes: list[str]) -> Recipe:
    """Read a recipe and apply `--set section.key=value` changes; paths in it are relative to its folder."""
    data = read(path)
    for change in changes:
        _apply(data, change)
    return resolved(parse(data), path.parent)


def read(path: Path) -> dict[str, Any]:
    """A TOML file's values; CocError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CocError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CocError(f"{path}: not valid TOML: {error}") from error


def resolved(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its paths, which are relative to the given folder, as paths from here."""
    repeats = {
        name: _resolve(section, folder) if isinstance(section, Distill) else section
        for name, section in recipe.repeats.items()
    }
    return dataclasses.replace(
        recipe,
        original=_resolve(recipe.original, folder),
        d=_resolve(recipe.d, folder),
        repeats=repeats,
        data=_resolve_data(recipe.data, folder),
    )


def _resolve(section: M, folder: Path) -> M:
    named = {key: getattr(section, key, "") for key in ("weights", "checkpoint")}
    if models.is_user(section.model):
        named["model"] = section.model
    files: dict[str, Any] = {key: str(folder / name) for key, name in named.items() if name}
    return dataclasses.replace(section, **files)


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
    names = sorted((name for name in data if REPEAT.fullmatch(name)), key=lambda name: int(name[1:]))
    hints = get_type_hints(Recipe)
    del hints["repeats"], hints["pruned"]
    values = _parse(hints, {k: v for k, v in data.items() if k not in names}, "")
    whole = {letter: _table(data.get(letter, {}), letter) for letter in ("d", "p", "q")}
    repeats = {}
    for name in names:
        letter = name[0]
        whole[letter] = {**whole[letter], **_table(data[name], name)}
        repeats[name] = hints[letter](**_parse(get_type_hints(hints[letter]), whole[letter], f"{name}."))
    return Recipe(**values, repeats=repeats)


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CocError(f"recipe: {name} must be a section, [{name}]")
    return value


def check_known(key: str, known: Collection[str], section: str, where: str = "recipe") -> None:
    """Raise a CocError that names the nearest key, unless this one is known."""
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {section}{near[0]}?" if near else f"; known are {', '.join(known)}"
        raise CocError(f"{where}: unknown key {section}{key}{hint}")


def _parse(hints: dict[str, Any], data: dict[str, Any], section: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in data.items():
        check_known(key, hints, section)
        if dataclasses.is_dataclass(hints[key]):
            table = _parse(get_type_hints(hints[key]), _table(value, key), f"{key}.")
            values[key] = hints[key](**table)
        else:
            values[key] = _convert(section + key, value, hints[key])
    return values


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
