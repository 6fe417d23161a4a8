"""STUDY.toml: a recipe with a [study] section that says which chains run, over which settings and seeds."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coc_deploy import recipe
from coc_deploy.recipe import LETTERS, Recipe
from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError

from . import KINDS

STUDY_KEYS = ("seeds", "cases", "points", "resources", "images_per_s", "grid", *KINDS)
KIND_KEYS = ("of", "cases", "seeds", "grid")
ONCE = "once"
"""Key of [study.repeat]: the grid of the one application that a repeated one is compared with."""
PERMUTATIONS = tuple("".join(order) for order in itertools.permutations(LETTERS))
D_FIRST = tuple(order for order in PERMUTATIONS if order[0] == "D")
DEFAULT_OF: Mapping[str, tuple[str, ...]] = {
    "pairs": tuple("".join(pair) for pair in itertools.combinations(LETTERS, 2)),
    "insert": ("PQ+E", "PE+Q", "QE+P"),
    "sequences": D_FIRST,
    "repeat": ("DD", "PP", "QQ", "DPQED", "DPQEP", "DPQEQ"),
}
SEQUENCES: Mapping[str, tuple[str, ...]] = {"D-first": D_FIRST, "all": PERMUTATIONS}
SECTION = re.compile(r"[dpqe]|" + recipe.REPEAT.pattern)

Choice = Mapping[str, Any]
"""Settings by their full names: {"p.ratio": 0.25}."""
Grid = Mapping[str, tuple[tuple[Choice, ...], ...]]
"""The axes of each section; an axis is what is chosen from, one choice at a time."""


@dataclass(frozen=True)
class Kind:
    """One of KINDS: which groups of chains it compares, how many choices of each grid, with which seeds.

    once: the grid of the single, stronger application that PP is compared with; empty but for repeats. DPQEP
    is compared with DPQE of the same settings.
    """

    of: tuple[str, ...]
    cases: int
    seeds: tuple[int, ...]
    grid: Grid
    once: Grid = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A whole study. values: the base recipe's plain values; folder: what its paths are relative to.

    points: operating points that a chain with exits is measured at. resources: what a worker must have.
    images_per_s: pace of training by model, for plans.
    """

    text: str
    folder: Path
    values: Mapping[str, Any]
    kinds: Mapping[str, Kind]
    points: int
    resources: Mapping[str, float]
    images_per_s: Mapping[str, float]

    def recipe(self, chain: str, choice: Choice, seed: int) -> Recipe:
        """The base recipe with this chain, settings and seed; CocError where they are not allowed."""
        return varied({**self.values, "chain": chain, "seed": seed}, choice, self.folder)


def varied(values: Mapping[str, Any], choice: Choice, folder: Path) -> Recipe:
    """The recipe of plain values with these settings, its paths relative to the folder; CocError where they
    are not allowed."""
    changed = dict(values)
    for name, value in choice.items():
        section, _, key = name.partition(".")
        changed[section] = {**changed.get(section, {}), key: value}
    return recipe.resolved(recipe.parse(changed), folder)


def load(path: Path) -> Study:
    """Read and check a study; CocError that names the key and what is allowed."""
    values = recipe.read(path)
    table = _table(values.pop("study", {}), "study")
    _known(table, STUDY_KEYS, "study.")
    if "chain" in values:
        raise CocError(
            f"{path}: chain: a study chooses its chains: say which in study.pairs, study.sequences ..."
        )
    base = recipe.parse(values)
    if Task(base.task) is not Task.CLASSIFICATION:
        raise CocError(f"{path}: task = '{base.task}': a study compares accuracies, of classifications only")
    seeds = _seeds(table.get("seeds", [base.seed]), "study.seeds")
    cases = _count(table.get("cases", 20), "study.cases")
    grid = read_grid(table.get("grid", {}), "study.grid")
    kinds = {name: _kind(name, table.get(name, {}), seeds, cases, grid) for name in KINDS}
    study = Study(
        text=recipe.read_text(path),
        folder=path.parent.resolve(),
        values=values,
        kinds=kinds,
        points=_count(table.get("points", 12), "study.points"),
        resources=_numbers(table.get("resources", {}), "study.resources"),
        images_per_s=_numbers(table.get("images_per_s", {}), "study.images_per_s"),
    )
    for kind in kinds.values():
        _check_choices(study, kind)
    return study


def _check_choices(study: Study, kind: Kind) -> None:
    """Raise the recipe's own complaint about a value of a grid."""
    for grid in (kind.grid, kind.once):
        for axis in (axis for axes in grid.values() for axis in axes):
            for choice in axis:
                study.recipe(LETTERS, choice, kind.seeds[0])


def _kind(name: str, value: Any, seeds: tuple[int, ...], cases: int, grid: Grid) -> Kind:
    where = f"study.{name}"
    table = _table(value, where)
    _known(table, (*KIND_KEYS, ONCE) if name == "repeat" else KIND_KEYS, f"{where}.")
    own = {**grid, **read_grid(table.get("grid", {}), f"{where}.grid")}
    return Kind(
        of=_of(name, table.get("of", list(DEFAULT_OF[name]))),
        cases=_count(table.get("cases", cases), f"{where}.cases"),
        seeds=_seeds(table["seeds"], f"{where}.seeds") if "seeds" in table else seeds,
        grid=own,
        once={**own, **read_grid(table.get(ONCE, {}), f"{where}.{ONCE}")} if name == "repeat" else {},
    )


def _of(kind: str, value: Any) -> tuple[str, ...]:
    if kind == "sequences" and isinstance(value, str) and value in SEQUENCES:
        return SEQUENCES[value]
    groups = value if isinstance(value, list) else [value]
    allowed = {
        "pairs": "two different letters of D, P, Q, E each, e.g. 'DP'",
        "insert": "two letters and a third that goes between them, e.g. 'PQ+E'",
        "sequences": "'D-first', 'all', or chains, e.g. ['DPQE', 'DEPQ']",
        "repeat": "chains whose last letter occurs before, e.g. 'PP' or 'DPQEQ' (E occurs once)",
    }[kind]
    for group in groups:
        if not isinstance(group, str) or not _valid_group(kind, group):
            raise CocError(f"study: {kind}.of = {group!r} is not allowed: {allowed}")
    return tuple(dict.fromkeys(groups))


def _valid_group(kind: str, group: str) -> bool:
    letters = group.replace("+", "", 1) if kind == "insert" else group
    if not letters or not set(letters) <= set(LETTERS) or len(letters) > recipe.LONGEST:
        return False
    distinct = len(set(letters)) == len(letters)
    if kind == "pairs":
        return distinct and len(letters) == 2
    if kind == "insert":
        return distinct and len(letters) == 3 and group[2] == "+"
    if kind == "sequences":
        return letters.count("E") <= 1
    return letters.count("E") <= 1 and letters[-1] in letters[:-1]


def read_grid(value: Any, where: str, owner: str = "study") -> dict[str, tuple[tuple[Choice, ...], ...]]:
    """[study.grid]: `p.ratio = [...]` is an axis; `d = [{...}, {...}]` one whose keys change together.

    owner: what errors begin with.
    """
    result: dict[str, tuple[tuple[Choice, ...], ...]] = {}
    for section, axes in _table(value, where, owner).items():
        if SECTION.fullmatch(section) is None:
            raise CocError(
                f"{owner}: unknown section {where}.{section}; known are d, p, q, e, and d2, p2, q2 ..."
            )
        if isinstance(axes, dict):
            result[section] = tuple(
                tuple({f"{section}.{key}": v} for v in _values(values, f"{where}.{section}.{key}", owner))
                for key, values in axes.items()
            )
            continue
        choices = _values(axes, f"{where}.{section}", owner)
        tables = [_table(choice, f"an entry of {where}.{section}", owner) for choice in choices]
        result[section] = (tuple({f"{section}.{k}": v for k, v in table.items()} for table in tables),)
    return result


def _values(value: Any, where: str, owner: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise CocError(
            f"{owner}: {where} = {value!r} is not allowed: a list of what to try, e.g. [0.1, 0.25]"
        )
    return value


def _table(value: Any, where: str, owner: str = "study") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CocError(f"{owner}: {where} = {value!r} is not allowed: it must be a table")
    return value


def _known(table: Mapping[str, Any], keys: tuple[str, ...], section: str) -> None:
    for key in table:
        recipe.check_known(key, keys, section, "study")


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or not 0 <= s < 2**31 for s in seeds):
        raise CocError(f"study: {where} = {value!r} is not allowed: a list of numbers, 0 to 2147483647")
    return tuple(dict.fromkeys(seeds))


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise CocError(f"study: {where} = {value!r} is not allowed: a number from 1")
    return value


def _numbers(value: Any, where: str) -> dict[str, float]:
    table = _table(value, where)
    for key, number in table.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            raise CocError(f"study: {where}.{key} = {number!r} is not allowed: a number above 0")
    return {key: float(number) for key, number in table.items()}
