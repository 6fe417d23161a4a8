"""`coc-bench --compare OLD NEW`: what became slower, faster, better or worse between two reports."""

from dataclasses import dataclass
from typing import Any

from .intervals import Ratio, Verdict, independent_ratio
from .tables import aligned, backend

MACHINE = ("cpu", "machine", "flags", "cores", "os", "python")
KEY = ("artifact", "kind", "backend", "data", "threads")
"""What two runs must share to be compared."""
NOT_COMPARED = ("date",)


@dataclass(frozen=True)
class Pair:
    """The same run in two reports."""

    old: dict[str, Any]
    new: dict[str, Any]

    @property
    def ratio(self) -> Ratio:
        """Mean latency, new over old; without recorded intervals, those of no width."""
        values = [run["latency_us"]["mean"] for run in (self.new, self.old)]
        bounds = [
            tuple(run.get("mean_latency_interval_us") or (value, value))
            for run, value in zip((self.new, self.old), values, strict=True)
        ]
        return independent_ratio(values[0], bounds[0], values[1], bounds[1])

    def slower_than(self, limit: float) -> bool:
        """Slower for certain, and by more than this share."""
        ratio = self.ratio
        return ratio.verdict is Verdict.SLOWER and ratio.value > 1 + limit


@dataclass(frozen=True)
class Comparison:
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]
    """one line each"""

    def slower(self, limit: float) -> list[Pair]:
        return [pair for pair in self.pairs if pair.slower_than(limit)]


def compare(old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    """Pair the runs of two reports (`report.read`) that measure the same."""
    warnings = _environment(old, new)
    left = {_key(run, old["runs"][:index]): run for index, run in enumerate(old["runs"])}
    right = {_key(run, new["runs"][:index]): run for index, run in enumerate(new["runs"])}
    pairs = tuple(Pair(left[key], right[key]) for key in left if key in right)
    for name, these, those in (("old", left, right), ("new", right, left)):
        warnings += [f"only in the {name} report: {_name(these[key])}" for key in these if key not in those]
    for pair in pairs:
        if not all(run.get("mean_latency_interval_us") for run in (pair.old, pair.new)):
            warnings.append(f"{_name(pair.new)}: no interval recorded, so noise may look like a difference")
        if pair.old.get("thresholds", pair.new.get("thresholds")) != pair.new.get("thresholds"):
            warnings.append(f"{_name(pair.new)}: its thresholds differ")
        if pair.old.get("cpu_level") != pair.new.get("cpu_level"):
            levels = [run.get("cpu_level") for run in (pair.old, pair.new)]
            warnings.append(f"{_name(pair.new)}: the level of kernels was {levels[0]}, is {levels[1]}")
    return Comparison(pairs, tuple(warnings))


def text(comparison: Comparison) -> str:
    """The pairs as a table; ratios are new over old."""
    rows = [
        ["artifact", "backend", "old us", "new us", "ratio", "95 % interval", "it is", "accuracy", "BitOps"]
    ]
    for pair in comparison.pairs:
        ratio = pair.ratio
        means = [f"{run['latency_us']['mean']:.1f}" for run in (pair.old, pair.new)]
        interval = "{:.3f} to {:.3f}".format(*ratio.interval)
        rows.append(
            [
                pair.new["artifact"],
                backend(pair.new),
                *means,
                f"{ratio.value:.3f}",
                interval,
                ratio.verdict.value,
                _points(pair),
                _bitops(pair),
            ]
        )
    return "\n".join(aligned(rows, left=2))


def failures(comparison: Comparison, limit: float) -> list[str]:
    """One line for each run that is slower than the limit allows."""
    return [
        f"{_name(pair.new)} is {pair.ratio.value - 1:.1%} slower, {limit:.1%} allowed"
        for pair in comparison.slower(limit)
    ]


def _key(run: dict[str, Any], before: list[dict[str, Any]]) -> tuple[Any, ...]:
    """What is measured; equal runs of one report are told apart by their order."""
    key = tuple(run.get(name) for name in KEY)
    return (*key, sum(_key(other, []) == (*key, 0) for other in before))


def _name(run: dict[str, Any]) -> str:
    return f"{run['artifact']}, {backend(run)}, {run['data']}"


def _points(pair: Pair) -> str:
    """How the accuracy changed, in points; a regression's error in its units."""
    old, new = pair.old["accuracy"], pair.new["accuracy"]
    if old is not None and new is not None:
        return f"{100 * (new - old):+.2f} points"
    old, new = pair.old.get("mae"), pair.new.get("mae")
    return "-" if old is None or new is None else f"MAE {new - old:+.4f}"


def _bitops(pair: Pair) -> str:
    old, new = pair.old["expected_bitops"], pair.new["expected_bitops"]
    return f"{new / old - 1:+.1%}" if old and new else "-"


def _environment(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between the machines: figures of two machines say nothing about a change of code."""
    before, after = old["environment"], new["environment"]
    keys = [key for key in (*before, *(key for key in after if key not in before)) if key not in NOT_COMPARED]
    lines = [
        f"{'the machines differ' if key in MACHINE else 'versions differ'}: {key} was "
        f"{_plain(before.get(key))}, is {_plain(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key)
    ]
    samples = {(run["samples"], run["rounds"]) for report in (old, new) for run in report["runs"]}
    if len(samples) > 1:
        lines.append("the numbers of images or rounds differ")
    return lines


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
