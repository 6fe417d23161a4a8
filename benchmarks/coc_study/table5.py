"""Table 5: our points beside published methods that combine several techniques."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import frontier
from .published import Row, published
from .results import Results
from .table import Sample, Table, chains, unique
from .verdict import Status

SMALLEST_LOSS = 0.2
"""Points: methods that lose less are compared at this loss, the smallest of Table 1. Below it, the order of
two accuracies says more about the test images than about the methods."""


@dataclass(frozen=True)
class Rivalry:
    """A published row and what our chain reaches at its loss."""

    row: Row
    ours: Sample | None
    """most compression, in the row's own measure, at its loss; None where we do not reach that loss"""

    @property
    def measure(self) -> str:
        """BitOpsCR where the row gives it, else CR."""
        return "BitOpsCR" if self.row.bitops_cr is not None else "CR"

    @property
    def theirs(self) -> float:
        value = self.row.bitops_cr if self.row.bitops_cr is not None else self.row.cr
        assert value is not None
        return value

    @property
    def ahead(self) -> bool:
        return self.ours is not None and ratio(self.ours, self.measure) > self.theirs


def ratio(sample: Sample, measure: str) -> float:
    """A sample's BitOpsCR or CR."""
    return sample.bitops_cr if measure == "BitOpsCR" else sample.cr


def dataset(table: Table) -> str:
    """The test set in the words of Table 5: "cifar10" for cifar10:DIR as for imagefolder:data/cifar10."""
    text = table.samples[0].data if table.samples else ""
    match = re.search(r"cifar-?(100|10)(?!\d)", text.lower())
    return f"cifar{match[1]}" if match else text.partition(":")[0]


def own_points(table: Table) -> tuple[Sample, ...]:
    """Samples of the published order; of the sequences measured, if it is not among them."""
    sequences = table.of("sequences") or table.of("repeat")
    chosen = tuple(s for s in sequences if s.chain == published().order)
    return chosen or tuple(s for s in sequences if len(s.chain) == max(map(len, chains(sequences))))


def own_rows(table: Table) -> tuple[Sample, ...]:
    """Our rows: the point with most BitOpsCR under each of Table 1's losses, each once."""
    points = own_points(table)
    found = (frontier.best_point(points, loss) for loss in frontier.LOSSES)
    return tuple(unique(sample for sample in found if sample is not None))


def rivalries(table: Table) -> tuple[Rivalry, ...]:
    """Every published row of other methods on the same data set."""
    rows = [row for row in published().table5 if row.dataset == dataset(table) and not row.own]
    return tuple(_rivalry(row, own_points(table)) for row in rows)


def _rivalry(row: Row, points: Sequence[Sample]) -> Rivalry:
    plain = Rivalry(row, None)
    kept = [s for s in points if s.loss <= max(-row.change, SMALLEST_LOSS) + frontier.ROUNDING]
    return Rivalry(row, max(kept, key=lambda s: ratio(s, plain.measure), default=None))


def verdict(results: Results) -> tuple[Status, str]:
    """Claim 7. Falling short with another network than the published ones contradicts nothing."""
    table = results.table
    ours, found = own_points(table), rivalries(table)
    if not ours:
        return Status.UNDECIDED, "No chain of all techniques was measured."
    name = dataset(table)
    if not found:
        return Status.UNDECIDED, f"Table 5 has no row on {name}, so that nothing can be compared."
    behind = [rivalry for rivalry in found if not rivalry.ahead]
    text = (
        f"At the loss of each published row on {name} (at least {SMALLEST_LOSS:g} points), {ours[0].chain} "
        f"compresses more than {len(found) - len(behind)} of {len(found)}; networks and originals differ, "
        f"the original here has {ours[0].original_accuracy:.2f} %"
    )
    if not behind:
        return Status.SUPPORTED, f"{text}."
    named = ", ".join(_short(rivalry) for rivalry in behind[:4])
    more = f" and {len(behind) - 4} more" if len(behind) > 4 else ""
    return Status.UNDECIDED, f"{text}. Not ahead of {named}{more}."


def _short(rivalry: Rivalry) -> str:
    ours = f"{ratio(rivalry.ours, rivalry.measure):.1f}x" if rivalry.ours else "loss not reached"
    return f"{rivalry.row.method} ({rivalry.measure} {rivalry.theirs:g}x, here {ours})"
