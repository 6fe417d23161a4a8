"""What a recipe can name, for `coc-compress --list`."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, get_type_hints

from .recipe import Recipe
from .stages import STAGES


@dataclass(frozen=True)
class Stage:
    """A stage as a recipe sees it: its letter, section, what it does, and its keys with their defaults."""

    letter: str
    section: str
    summary: str
    keys: tuple[tuple[str, str], ...]


def stages() -> list[Stage]:
    """The original's training, then the stages in the order of their table."""
    original = Stage("-", "original", "what the chain starts from, trained first", _keys("original"))
    rest = [
        Stage(letter, letter.lower(), _summary(module.__doc__), _keys(letter.lower()))
        for letter, module in STAGES.items()
    ]
    return [original, *rest]


def _summary(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).partition(": ")[2].rstrip(".")


def _keys(section: str) -> tuple[tuple[str, str], ...]:
    default: Any = get_type_hints(Recipe)[section]()
    return tuple((f.name, json.dumps(getattr(default, f.name))) for f in dataclasses.fields(default))
