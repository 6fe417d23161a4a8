"""What a study's samples come to, kind by kind: pairs, insertions, sequences, repeats."""

from collections.abc import Sequence
from dataclasses import dataclass

from . import frontier
from .bootstrap import Estimate, draw, reflected
from .compare import Comparison, compare
from .law import Law, law
from .published import published
from .table import Sample, Table, chains

RIVALS_LEVEL = 0.99
"""Intervals against each of five rivals have this level: at 95 % one would win by chance too often."""


@dataclass(frozen=True)
class Pair:
    """Both orders of two techniques."""

    published: str
    """the order that the paper found better"""
    measured: Comparison | None

    @property
    def name(self) -> str:
        return f"{self.published[0]} and {self.published[1]}"

    @property
    def better(self) -> str | None:
        return self.measured.better if self.measured else None


@dataclass(frozen=True)
class Insertion:
    """Both orders of two techniques with a third between them."""

    pair: str
    inserted: str
    measured: Comparison
    """first: the chain in which the pair stands as the paper has it"""
    pair_better: str | None
    """the better order without the third technique, as measured here"""

    @property
    def better(self) -> str | None:
        """The better order of the pair, with the third technique between."""
        if self.measured.better is None:
            return None
        return self.pair if self.measured.better == self.measured.first else self.pair[::-1]


@dataclass(frozen=True)
class Reached:
    """One chain's row of Table 1."""

    chain: str
    points: int
    ratios: tuple[Estimate, ...]
    """BitOpsCR under each of frontier.LOSSES; 1.0 = not reached"""
    area: Estimate


@dataclass(frozen=True)
class Rival:
    """The published order against another sequence."""

    chain: str
    whole: Comparison
    """over all accuracies that count"""
    near: Comparison
    """over the losses of Table 1 alone"""


@dataclass(frozen=True)
class Repeat:
    """A chain with a technique applied once more, against the chain itself."""

    measured: Comparison
    """first: the longer chain"""

    @property
    def group(self) -> str:
        return self.measured.group

    @property
    def after_all(self) -> bool:
        """Whether the repeat follows a longer chain, rather than the technique itself."""
        return len(self.measured.first) > 2


@dataclass(frozen=True)
class Results:
    """All of it."""

    table: Table
    pairs: tuple[Pair, ...]
    law: Law
    insertions: tuple[Insertion, ...]
    table1: tuple[Reached, ...]
    """of the sequences, most area first"""
    rivals: tuple[Rival, ...]
    repeats: tuple[Repeat, ...]


def results(table: Table) -> Results:
    """Everything that the samples allow; parts that were not measured are empty."""
    pairs = tuple(_pair(table, name) for name in published().pairs)
    better = {"".join(sorted(pair.published)): pair.better for pair in pairs}
    insertions = (_insertion(table, group, better) for group in table.groups("insert"))
    letters = sorted(published().order)
    sequences = [s for s in table.of("sequences") if sorted(s.chain) == letters]
    best = published().order
    rivals = (_rival(sequences, best, chain) for chain in chains(sequences) if chain != best)
    groups = sorted(table.groups("repeat"), key=len)
    repeats = (_repeat(table, group) for group in groups)
    return Results(
        table,
        pairs,
        law(pair.better for pair in pairs if pair.better),
        tuple(found for found in insertions if found),
        tuple(sorted(_table1(sequences), key=lambda row: -row.area.value)),
        tuple(found for found in rivals if found),
        tuple(found for found in repeats if found),
    )


def _pair(table: Table, name: str) -> Pair:
    samples = [s for s in table.of("pairs") if set(s.chain) == set(name) and len(s.chain) == 2]
    return Pair(name, compare(samples, name, name[::-1]))


def _insertion(table: Table, group: str, better: dict[str, str | None]) -> Insertion | None:
    """The conclusion about a group such as "PQ+D"."""
    pair, _, inserted = group.partition("+")
    known = {"".join(sorted(name)): name for name in published().pairs}
    pair = known.get("".join(sorted(pair)), pair)
    measured = compare(table.of("insert", group), inserted.join(pair), inserted.join(pair[::-1]))
    if measured is None:
        return None
    return Insertion(pair, inserted, measured, better.get("".join(sorted(pair))))


def _table1(sequences: Sequence[Sample]) -> list[Reached]:
    if not sequences:
        return []
    rows, corner = [], frontier.reference(sequences)
    for chain in chains(sequences):
        drawn = draw([s for s in sequences if s.chain == chain])
        ratios = tuple(frontier.ratio_estimate(drawn.retrained(), loss) for loss in frontier.LOSSES)
        rows.append(Reached(chain, len(drawn.samples), ratios, reflected(frontier.area(drawn, corner))))
    return rows


def _rival(sequences: Sequence[Sample], best: str, chain: str) -> Rival | None:
    whole = compare(sequences, best, chain, level=RIVALS_LEVEL)
    near = compare(sequences, best, chain, depth=frontier.LOSSES[-1], level=RIVALS_LEVEL)
    return Rival(chain, whole, near) if whole and near else None


def _repeat(table: Table, group: str) -> Repeat | None:
    """The conclusion about a group such as "QQ" or "DPQE+D"; the shorter chain may be among the sequences."""
    repeated = group.replace("+", "")
    single = repeated[:-1]
    samples = table.of("repeat", group)
    if single not in chains(samples):
        samples += tuple(s for s in table.of("sequences") if s.chain == single)
    measured = compare(samples, repeated, single, matched=False)
    return Repeat(measured) if measured else None
