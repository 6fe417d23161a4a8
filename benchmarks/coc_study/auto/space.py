"""What a search may change: axes of choices, derived from the recipe or given by its [auto] table.

The first choice of every axis is the recipe's own, so that the hand-made recipe is a point of the space.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coc_deploy import models, recipe
from coc_deploy.models import Architecture
from coc_deploy.recipe import Recipe
from coc_deploy.sections import Distill, Exit, Original, Prune, Quantize, Stage
from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError

from .. import settings
from ..settings import Choice

TABLE = recipe.SEARCH
RATIOS = (0.5, 1.0, 1.5, 2.0, 2.5)
"""Default axes: the recipe's pruning ratio times these, at most MOST_PRUNED."""
MOST_PRUNED = 0.75
BITS = ("1x4", "1x8", "2x8", "4x8")
SIZES = (0.5, 0.75, 1.0, 1.25)
"""The student's width, or its share of channels, times these."""
EARLIER = (1.0, 0.75, 0.5)
"""The exits' fractions of the BitOps times these."""
NEAR = 2

Picked = tuple[int, ...]
"""A setting: of each axis the number of the choice that was made."""


@dataclass(frozen=True)
class Axis:
    """name: "p.ratio", or a section whose keys change together. choices: settings by their full names, the
    recipe's own first."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Space:
    """values: the recipe's plain values; folder: what its paths are relative to. axes: in the chain's
    order."""

    values: Mapping[str, Any]
    folder: Path
    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        return math.prod(len(axis.choices) for axis in self.axes)

    @property
    def by_hand(self) -> Picked:
        """The recipe itself."""
        return (0,) * len(self.axes)

    def choice(self, picked: Picked) -> dict[str, Any]:
        """The settings that were picked, by their full names."""
        chosen: dict[str, Any] = {}
        for axis, number in zip(self.axes, picked, strict=True):
            chosen |= axis.choices[number]
        return chosen

    def recipe(self, picked: Picked) -> Recipe:
        """CocError where the settings do not go together."""
        return settings.varied(self.values, self.choice(picked), self.folder)

    def neighbours(self) -> Iterator[Picked]:
        """The recipe with one of its last NEAR axes changed, the last one first: the stages before it are
        shared."""
        for at in reversed(range(len(self.axes))[-NEAR:]):
            for number in range(1, len(self.axes[at].choices)):
                yield (*self.by_hand[:at], number, *self.by_hand[at + 1 :])

    def all(self) -> Iterator[Picked]:
        """Every point; the end of the chain changes fastest."""
        return itertools.product(*(range(len(axis.choices)) for axis in self.axes))

    def lines(self) -> list[str]:
        """The space as text, a line per axis."""
        shown = [
            f"{axis.name:<14}{'  '.join(text(c) or 'as it is' for c in axis.choices)}" for axis in self.axes
        ]
        return [*shown, f"{self.size:,} settings, the recipe's own first"]


def text(choice: Choice) -> str:
    """Settings on a line: p.ratio=0.25 q.bits=1x8."""
    return " ".join(f"{name}={_short(value)}" for name, value in choice.items())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace(" ", "")


def load(path: Path, changes: list[str]) -> tuple[Recipe, Space]:
    """Read a recipe with its [auto] table and apply `--set` changes."""
    values = recipe.changed(path, changes)
    given = values.pop(TABLE, {})
    folder = path.parent.resolve()
    chosen = settings.varied(values, {}, folder)
    if Task(chosen.task) is not Task.CLASSIFICATION:
        raise CocError(f"{path}: task = '{chosen.task}': --auto compares accuracies, of classifications only")
    return chosen, Space(values, folder, _axes(chosen, values, folder, given))


def _axes(chosen: Recipe, values: Mapping[str, Any], folder: Path, given: Any) -> tuple[Axis, ...]:
    grid = settings.read_grid(given, TABLE, TABLE)
    names = [chosen.section_name(index) for index in range(1, len(chosen.chain) + 1)]
    for name in grid:
        recipe.check_known(name, names, f"{TABLE}.", f"{TABLE}: chain {chosen.chain}")
    axes = []
    for index, name in enumerate(names, start=1):
        section = chosen.section(index)
        assert not isinstance(section, Original)
        if name in grid:
            found = [Axis(_name(name, choices), choices) for choices in grid[name]]
        elif name in values or not name[1:]:
            found = _defaults(name, section)
        else:
            found = []  # as the section before, which it inherits from
        axes += [Axis(axis.name, _own_first(axis, section)) for axis in found]
    for choice in (choice for axis in axes for choice in axis.choices):
        settings.varied(values, choice, folder)
    return tuple(axis for axis in axes if len(axis.choices) > 1)


def _name(section: str, choices: tuple[Choice, ...]) -> str:
    keys = {key for choice in choices for key in choice}
    return keys.pop() if len(keys) == 1 else section


def _own_first(axis: Axis, section: Stage) -> tuple[Choice, ...]:
    """The choices with the recipe's own in front; that is no change at all if none of them equals it."""
    equal = [choice for choice in axis.choices if choice and _is(choice, section)]
    own: Choice = equal[0] if equal else {}
    if not own and len(keys := {key for choice in axis.choices for key in choice}) == 1:
        (name,) = keys
        key = name.partition(".")[2]
        own = {name: _plain(getattr(section, key))} if hasattr(section, key) else {}
    return (own, *(choice for choice in axis.choices if choice != own and not _is(choice, section)))


def _is(choice: Choice, section: Stage) -> bool:
    """Whether these are the section's own settings."""
    return all(
        _plain(getattr(section, name.partition(".")[2], None)) == _plain(value)
        for name, value in choice.items()
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _defaults(name: str, section: Stage) -> list[Axis]:
    """The axis that a section's own settings suggest, if any."""
    match section:
        case Distill():
            return _student(name, section)
        case Prune():
            around = [round(min(section.ratio * factor, MOST_PRUNED), 4) for factor in RATIOS]
            ratios = around if section.ratio else [0.0, 0.125, 0.25, 0.375, 0.5]
            return [_axis(f"{name}.ratio", ratios)]
        case Quantize():
            return [_axis(f"{name}.bits", BITS)]
        case Exit():
            return _exits(name, section)


def _axis(name: str, values: Any) -> Axis:
    unique = list({json.dumps(value): value for value in values}.values())
    return Axis(name, tuple({name: value} for value in unique))


def _student(name: str, section: Distill) -> list[Axis]:
    """Width of a student of the zoo, or the share of channels of a narrowed copy; none of a user's network or
    where weights fix its shape."""
    if not section.model:
        return [_axis(f"{name}.narrow", [round(min(section.narrow * factor, 1.0), 4) for factor in SIZES])]
    if section.weights or models.is_user(section.model):
        return []
    width = models.resolved(Architecture(section.model, section.width, section.shortcut, 1, 1)).width
    return [
        _axis(f"{name}.width", [section.width, *(max(4, round(width * f / 4) * 4) for f in SIZES if f != 1)])
    ]


def _exits(name: str, section: Exit) -> list[Axis]:
    """All exits earlier, or the last one alone; exits that are named stay where they are."""
    places = [place for place in section.positions if not isinstance(place, str)]
    if len(places) < len(section.positions):
        return []
    earlier = [[round(place * factor, 4) for place in places] for factor in EARLIER]
    return [_axis(f"{name}.positions", [*earlier, [places[-1]]])]
