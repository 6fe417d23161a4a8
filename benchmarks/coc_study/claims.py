"""The paper's claims held against what was measured: supported, contradicted or undecided, and why."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from . import frontier, table5
from .bootstrap import Estimate
from .compare import Comparison
from .law import Law
from .published import published
from .results import Insertion, Pair, Reached, Repeat, Results, Rival
from .verdict import Claim, Status

T = TypeVar("T")
LITTLE = 1.2
"""A repeat brings little if it surely compresses less than this many times more at the same accuracy."""


def claims(results: Results) -> tuple[Claim, ...]:
    """Claims 1 to 5 and 7."""
    table: tuple[tuple[int, str, Callable[[Results], tuple[Status, str]]], ...] = (
        (1, "Of each pair of techniques one order is better: DP, DQ, DE, PQ, PE, QE", _pairs),
        (2, "A third technique between two leaves their order as it was", _insertions),
        (3, "The pairs form an acyclic graph with one topological order, DPQE", _law),
        (4, "Of the chains that begin with D, DPQE compresses most at every tolerated loss", _sequences),
        (5, "Repeating brings little, except quantizing again; after DPQE it brings nothing", _repeats),
        (7, "DPQE is ahead of other methods that combine techniques", table5.verdict),
    )
    return tuple(Claim(number, title, *judge(results)) for number, title, judge in table)


def factor(estimate: Estimate) -> str:
    """A ratio of compression with its interval."""
    return f"{estimate.value:.2f}x ({estimate.low:.2f} to {estimate.high:.2f})"


def before(order: str) -> str:
    """An order of two in words."""
    return f"{order[0]} before {order[1]}"


def _pairs(results: Results) -> tuple[Status, str]:
    as_published = [p for p in results.pairs if p.better == p.published]
    reversed_ = [p for p in results.pairs if p.better == p.published[::-1]]
    few = [p for p in results.pairs if p.measured and p.measured.few]
    level = [p for p in results.pairs if p.measured and p.better is None and p not in few]
    missing = [p for p in results.pairs if p.measured is None]
    parts = [
        _listed(f"{len(as_published)} of {len(results.pairs)} pairs as published", as_published, _ahead),
        _listed("the other way round", reversed_, _ahead),
        _listed("no difference", level, _ahead),
        _listed("too few cases", few, _ahead),
        _listed("not measured", missing, lambda pair: pair.published),
    ]
    return _status(reversed_, (*level, *few, *missing)), _sentence(parts)


def _status(against: Sequence[object], left_open: Sequence[object]) -> Status:
    """The status of a claim about several comparisons, by those against it and those that leave it open."""
    if against:
        return Status.CONTRADICTED
    return Status.UNDECIDED if left_open else Status.SUPPORTED


def _ahead(pair: Pair) -> str:
    """ "D before P 1.80x (1.50 to 2.10)", of the order with the larger area."""
    assert pair.measured is not None
    return ahead(pair.measured, pair.published)


def ahead(measured: Comparison, pair: str) -> str:
    """Which order of a pair has the larger area, and its factor; in the first chain the order is `pair`."""
    if measured.difference.value >= 0:
        return f"{before(pair)} {factor(measured.factor)}"
    return f"{before(pair[::-1])} {factor(inverse(measured.factor))}"


def inverse(estimate: Estimate) -> Estimate:
    """A ratio seen from the other side."""
    return Estimate(1 / estimate.value, 1 / estimate.high, 1 / estimate.low)


def _insertions(results: Results) -> tuple[Status, str]:
    if not results.insertions:
        return Status.UNDECIDED, "No insertion was measured."
    settled = [i for i in results.insertions if i.better and i.pair_better]
    kept = [i for i in settled if i.better == i.pair_better]
    broken = [i for i in settled if i.better != i.pair_better]
    unclear = [i for i in results.insertions if i not in settled]
    missing = [pair for pair in published().insertions if pair not in {i.pair for i in results.insertions}]
    parts = [
        _listed(f"order kept in {len(kept)} of {len(results.insertions)} insertions", kept, _inserted),
        _listed("turned round", broken, _inserted),
        _listed("unclear, with or without the third technique", unclear, _inserted),
        _listed("not measured", missing, before),
    ]
    return _status(broken, (*unclear, *missing)), _sentence(parts)


def _inserted(insertion: Insertion) -> str:
    return f"{ahead(insertion.measured, insertion.pair)} with {insertion.inserted} between"


def _law(results: Results) -> tuple[Status, str]:
    law, order = results.law, published().order
    edges = ", ".join(before(edge) for edge in law.edges)
    if law.cycles:
        found = "; ".join(" before ".join((*cycle, cycle[0])) for cycle in law.cycles)
        return Status.CONTRADICTED, f"The better orders go round in a circle: {found}."
    if not law.edges:
        return Status.UNDECIDED, "No pair has a better order, so every order fits."
    if law.order == order:
        return Status.SUPPORTED, f"{edges}: no cycle, and {order} is the only order that fits."
    if order not in law.orders:
        fitting = _choice(law.orders)
        return Status.CONTRADICTED, f"{edges}: no cycle, but {fitting} and {order} does not."
    others = [other for other in law.orders if other != order]
    also = f"so does {others[0]}" if len(others) == 1 else f"so do {len(others)} other orders"
    return Status.UNDECIDED, f"{edges}: no cycle, and {order} fits, but {also}; open: {_open(law)}."


def _open(law: Law) -> str:
    return ", ".join(f"{pair[0]} and {pair[1]}" for pair in law.open_pairs)


def _choice(orders: Sequence[str]) -> str:
    if len(orders) == 1:
        return f"{orders[0]} is the order that fits,"
    return f"{', '.join(orders[:4])}{' and others' if len(orders) > 4 else ''} fit,"


def _sequences(results: Results) -> tuple[Status, str]:
    best, losses = published().order, frontier.LOSSES
    rows = {row.chain: row for row in results.table1}
    rivals = [rival for rival in results.rivals if rival.chain.startswith(best[0])]
    if best not in rows or not rivals:
        return (
            Status.UNDECIDED,
            f"{best} and other sequences that begin with {best[0]} were not both measured.",
        )
    names = [rival.chain for rival in rivals]
    reached = [
        k for k in range(len(losses)) if any(rows[chain].ratios[k].value > 1 for chain in (best, *names))
    ]
    leading = [k for k in reached if all(_at(rows, best, k) >= _at(rows, name, k) for name in names)]
    beaten = [rival for rival in rivals if rival.near.better == best]
    better = [rival for rival in rivals if rival.near.better == rival.chain]
    behind = [rival for rival in rivals if rival.whole.better == best]
    ahead = [rival for rival in rivals if rival.whole.better == rival.chain]
    parts = [
        f"up to {losses[-1]:g} points of loss {best} is surely ahead of {len(beaten)} of {len(rivals)} "
        f"chains that begin with {best[0]}",
        _listed(f"over all accuracies of {len(behind)}", behind, _overall) or "over all accuracies of none",
        f"it compresses most at {len(leading)} of {len(losses)} tolerated losses",
        *(_at_loss(rows, k, names) for k in reached if k not in leading),
        f"no chain loses at most {losses[-1]:g} points" if not reached else "",
        _listed("surely better than it", better, lambda rival: rival.chain),
        _listed("over all accuracies surely better than it", ahead, _overall),
        _published_exceptions(),
    ]
    if better:
        return Status.CONTRADICTED, _sentence(parts)
    complete = len(beaten) == len(rivals) == len(published().table1) - 1 and len(leading) == len(losses)
    return Status.SUPPORTED if complete else Status.UNDECIDED, _sentence(parts)


def _overall(rival: Rival) -> str:
    """A rival, and how many times more the better of the two compresses at the same accuracy, on average."""
    ratio = rival.whole.factor
    return f"{rival.chain} {factor(ratio if rival.whole.better != rival.chain else inverse(ratio))}"


def _at(rows: Mapping[str, Reached], chain: str, k: int) -> float:
    """BitOpsCR under the k-th loss."""
    return rows[chain].ratios[k].value


def _at_loss(rows: Mapping[str, Reached], k: int, names: Sequence[str]) -> str:
    """The best chain at a loss that the published order does not lead."""
    best = published().order
    winner = max(names, key=lambda name: _at(rows, name, k))
    own = f"{_at(rows, best, k):.0f}x" if _at(rows, best, k) > 1 else "does not reach it"
    return f"at {frontier.LOSSES[k]:g} points {winner} has {_at(rows, winner, k):.0f}x, {best} {own}"


def _published_exceptions() -> str:
    """Losses at which the published table itself has another chain ahead."""
    known, best = published(), published().order
    others = {chain: row for chain, row in known.table1.items() if chain != best}
    parts = []
    for k, loss in enumerate(known.losses):
        chain = max(others, key=lambda name: others[name][k] or 0)
        theirs, own = others[chain][k] or 0, known.table1[best][k] or 0
        if theirs > own:
            parts.append(f"at {loss:g} points {chain} has {theirs:g}x, {best} {own:g}x")
    return f"in the published table {', '.join(parts)}" if parts else ""


def gain(repeat: Repeat) -> str:
    """What a repeat brings: more, little, less or unclear."""
    bounds = repeat.measured.factor
    if repeat.measured.few:
        return "unclear"
    if bounds.high < 1:
        return "less"
    if bounds.low > LITTLE:
        return "much more"
    if bounds.low > 1:
        return "more"
    return "little" if bounds.high < LITTLE else "unclear"


def _repeats(results: Results) -> tuple[Status, str]:
    if not results.repeats:
        return Status.UNDECIDED, "No repeat was measured."
    agreeing = [r for r in results.repeats if agrees(r) is Status.SUPPORTED]
    against = [r for r in results.repeats if agrees(r) is Status.CONTRADICTED]
    unclear = [r for r in results.repeats if agrees(r) is Status.UNDECIDED]
    groups = {repeat.group for repeat in results.repeats}
    missing = [group for group in published().repeats if group not in groups]
    if not any(repeat.after_all for repeat in results.repeats):
        missing.append(f"a repeat after {published().order}")
    parts = [
        _listed(f"{len(agreeing)} of {len(results.repeats)} repeats as published", agreeing, _repeated),
        _listed("against it", against, _repeated),
        _listed("unclear", unclear, _repeated),
        _listed("not measured", missing, str),
    ]
    return _status(against, (*unclear, *missing)), _sentence(parts)


def agrees(repeat: Repeat) -> Status:
    """Whether a repeat does what the paper says: quantizing again brings more, all others do not."""
    found = gain(repeat)
    if published().repeats.get(repeat.group) == "more":
        if found in ("more", "much more"):
            return Status.SUPPORTED
        return Status.CONTRADICTED if found == "less" else Status.UNDECIDED
    if found in ("little", "less"):
        return Status.SUPPORTED
    return Status.CONTRADICTED if found == "much more" else Status.UNDECIDED


def _repeated(repeat: Repeat) -> str:
    found = repeat.measured
    few = " of too few cases" if found.few else ""
    return f"{found.first} against {found.second} {factor(found.factor)}{few}"


def _listed(head: str, items: Sequence[T], name: Callable[[T], str]) -> str:
    return f"{head}: {', '.join(name(item) for item in items)}" if items else ""


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}."
