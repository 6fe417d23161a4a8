"""recipe.toml as a frozen dataclass; every value is checked before anything runs."""

import codecs
import dataclasses
import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from coc_runtime import datasets, files
from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError

from . import models
from .sections import GENTLE, Distill, Exit, Model, Original, Prune, Quantize, Stage, require

LETTERS = "DPQE"
LONGEST = 15
"""Stages of a chain: each has a seed of its own, recipe.seed * 16 + its number."""
MOST_BYTES = 1 << 22
"""A recipe's file has at most so many bytes."""
TASKS = tuple(task.value for task in Task)
PRECISIONS = ("auto", "float32", "bfloat16")
SEARCH = "auto"
"""Table of a recipe that a run does not read: what `--auto` tries."""
CARRIED_IMAGES = 64
SPOKEN = {"tuple": "list", "bool | None": "true or false", "dict": "a table of names and bits"}
"""Of types, in messages."""
REPEAT = re.compile(r"[dpq](?:[2-9]|1[0-5])")
"""Sections of a letter's second, third ... stage."""


@dataclass(frozen=True)
class Recipe:
    """A whole run. data: digits, cifar10[:PATH], imagefolder:PATH. pad, flip: augmentation (-1: the
    data set's usual one). task: "classification", or "regression" of the real numbers that data hold.
    epoch_share: of the training images that an epoch takes, other ones each time. carried_images: held-out
    images that a model.pt carries, at most.

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
    carried_images: int = CARRIED_IMAGES
    original: Original = field(default_factory=Original)
    d: Distill = field(default_factory=Distill)
    p: Prune = field(default_factory=Prune)
    q: Quantize = field(default_factory=Quantize)
    e: Exit = field(default_factory=Exit)
    repeats: Mapping[str, Stage] = field(default_factory=dict)
    pruned: tuple[Prune, ...] = ()

    def __post_init__(self) -> None:
        letters = bool(self.chain) and set(self.chain) <= set(LETTERS)
        require("", "chain", self.chain, letters, "letters D, P, Q and E in any order, e.g. DPQE")
        once = self.chain.count("E") <= 1
        require("", "chain", self.chain, once, "E at most once, the exits stay in all later stages")
        require("", "chain", self.chain, len(self.chain) <= LONGEST, f"at most {LONGEST} stages")
        require("", "task", self.task, self.task in TASKS, " or ".join(TASKS))
        require("", "seed", self.seed, 0 <= self.seed < 2**31, "0 to 2147483647")
        require("", "batch", self.batch, 2 <= self.batch <= 65536, "2 to 65536")
        require("", "precision", self.precision, self.precision in PRECISIONS, "auto, float32 or bfloat16")
        require("", "pad", self.pad, -1 <= self.pad <= 64, "0 to 64, or -1 for the data set's usual")
        share = 0 < self.epoch_share <= 1
        require("", "epoch_share", self.epoch_share, share, "a share above 0, at most 1")
        require("", "carried_images", self.carried_images, 0 <= self.carried_images <= 1000, "0 to 1000")
        for name in ("original", "d", "p", "q", "e"):
            getattr(self, name).check(f"{name}.")
        for name, section in self.repeats.items():
            section.check(f"{name}.")
        for name, section in {"d": self.d, **self.repeats}.items():
            crd = getattr(section, "crd", 0.0) if self.task == "regression" else 0.0
            require(
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

    def as_dict(self) -> dict[str, Any]:
        """What recipe.json holds: every section, later ones by their names."""
        values = dataclasses.asdict(self)
        del values["pruned"]
        return values | values.pop("repeats")


def _section_name(letter: str, occurrence: int) -> str:
    return letter if occurrence == 1 else f"{letter}{occurrence}"


M = TypeVar("M", bound=Model)
S = TypeVar("S")


def load(path: Path, changes: list[str]) -> Recipe:
    """Read a recipe and apply `--set section.key=value` changes; paths in it are relative to its folder.

    Its table SEARCH, which says what a search tries, is left out.
    """
    data = changed(path, changes)
    data.pop(SEARCH, None)
    return resolved(parse(data), path.parent)


def changed(path: Path, changes: list[str]) -> dict[str, Any]:
    """A recipe's plain values with `--set` changes."""
    data = read(path)
    for change in changes:
        apply_change(data, change)
    return data


def read(path: Path) -> dict[str, Any]:
    """A TOML file's values; CocError where it cannot be read."""
    files.require_regular(path, "give a TOML file")
    try:
        values = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise CocError(f"{path}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise CocError(f"{path}: not valid TOML: lists or tables are nested too deeply") from error
    if not values:
        raise CocError(f"{path}: says nothing: give it a chain and its settings, e.g. as recipes/digits.toml")
    return values


def read_text(path: Path) -> str:
    """A recipe's text, which may begin with UTF-8's byte order mark; CocError where it is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CocError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a NUL in the name
        raise CocError(f"{str(path)!r}: cannot be read ({error})") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CocError(f"{path}: not valid TOML: it is in UTF-16: save it as UTF-8")
    if len(data) > MOST_BYTES or b"\0" in data:
        raise CocError(f"{path}: not valid TOML: it is no text: give a recipe, e.g. recipes/digits.toml")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CocError(f"{path}: not valid TOML: {error}: save it as UTF-8") from error


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
    paths: dict[str, Any] = {key: str(folder / name) for key, name in named.items() if name}
    return dataclasses.replace(section, **paths)


def _resolve_data(spec: str, folder: Path) -> str:
    data, held_out = datasets.parse_held_out(spec)
    kind, separator, path = data.partition(":")
    return f"{kind}:{folder / path}{held_out.text}" if separator else spec


def apply_change(data: dict[str, Any], change: str) -> None:
    """Set a value as `--set key=value` or `--set section.key=value` says; CocError for anything else."""
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
        repeats[name] = _section(hints[letter], whole[letter], name)
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
            values[key] = _section(hints[key], _table(value, key), key)
        else:
            values[key] = _convert(section + key, value, hints[key])
    return values


def _section(cls: type[S], table: dict[str, Any], name: str) -> S:
    values = _parse(get_type_hints(cls), table, f"{name}.")
    trained = issubclass(cls, Model) and (values.get("weights") or models.is_trained(values.get("model", "")))
    return cls(**{**GENTLE, **values} if trained else values)


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
    elif str(hint).startswith("dict"):
        if isinstance(value, dict) and all(type(v) in (int, str) for v in value.values()):
            return {key: str(v) for key, v in value.items()}
    elif hint == bool | None:
        if isinstance(value, bool):
            return value
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    kind = getattr(hint, "__name__", str(hint))
    for word, meaning in SPOKEN.items():
        kind = kind.replace(word, meaning)
    raise CocError(f"recipe: {name} = {value!r} has the wrong type: expected {kind}")
