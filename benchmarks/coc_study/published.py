"""The published figures that ours are set beside: published.toml, read once."""

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Row:
    """A method of Table 5."""

    dataset: str
    model: str
    method: str
    accuracy: float
    """percent"""
    change: float
    """percentage points against its original"""
    bitops_cr: float | None
    cr: float | None
    own: bool
    """whether it is the paper's chain"""


@dataclass(frozen=True)
class Published:
    """What the paper reports."""

    source: str
    pairs: tuple[str, ...]
    order: str
    insertions: tuple[str, ...]
    repeats: dict[str, str]
    table1_model: str
    table1_original: float
    losses: tuple[float, ...]
    table1: dict[str, tuple[float | None, ...]]
    """per chain the BitOpsCR under each loss; None where not reached"""
    table5: tuple[Row, ...]


@functools.cache
def published() -> Published:
    """The figures that come with the package."""
    raw = tomllib.loads((resources.files(__package__) / "published.toml").read_text())
    one = raw["table1"]
    return Published(
        raw["source"],
        tuple(raw["pairs"]),
        raw["order"],
        tuple(raw["insertions"]),
        raw["repeats"],
        one["model"],
        one["original_accuracy"],
        tuple(one["losses"]),
        {chain: tuple(value or None for value in row) for chain, row in one["chains"].items()},
        tuple(
            Row(part["dataset"], model, method, accuracy, change, bitops_cr or None, cr or None, own)
            for part in raw["table5"]
            for own in (False, True)
            for model, method, accuracy, change, bitops_cr, cr in part["own" if own else "rows"]
        ),
    )
