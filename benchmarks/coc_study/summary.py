"""All that was concluded: as plain values for conclusions.json and the report, as text for a terminal."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from . import bootstrap, claims, effort, frontier, table5
from .bootstrap import Estimate
from .compare import Comparison
from .published import published
from .results import RIVALS_LEVEL, Results
from .table import Sample, chains, unique
from .verdict import Claim

SCHEMA = 1
WIDTH = 110


def values(results: Results, found: Sequence[Claim], stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """JSON values. Accuracies and losses in percent and points; ratios as multiples of the original; a ratio
    under a loss that is not reached is None. stages: records of the chain of which each is shown."""
    table = results.table
    first = table.samples[0]
    return {
        "schema": SCHEMA,
        "data": first.data,
        "images": len(first.correct),
        "seeds": sorted(unique(s.seed for s in table.samples)),
        "original_accuracy": _range([s.original_accuracy for s in table.samples]),
        "statistics": {
            "draws": bootstrap.DRAWS,
            "level": bootstrap.LEVEL,
            "rivals_level": RIVALS_LEVEL,
            "originals_drawn": first.original_correct is not None,
            "losses": list(frontier.LOSSES),
            "depth": frontier.DEPTH,
            "fewest": bootstrap.FEWEST,
            "little": claims.LITTLE,
        },
        "claims": [asdict(claim) | {"status": claim.status.value} for claim in found],
        "law": asdict(results.law) | {"order": results.law.order, "published": published().order},
        "pairs": [
            {"published": p.published, "better": p.better, "comparison": _comparison(p.measured)}
            for p in results.pairs
        ],
        "insertions": [
            {
                "pair": i.pair,
                "inserted": i.inserted,
                "better": i.better,
                "pair_better": i.pair_better,
                "comparison": _comparison(i.measured),
            }
            for i in results.insertions
        ],
        "table1": [
            {
                "chain": row.chain,
                "points": row.points,
                "ratios": [_reached(ratio) for ratio in row.ratios],
                "area": asdict(row.area),
                "published": list(published().table1.get(row.chain, ())),
            }
            for row in results.table1
        ],
        "rivals": [
            {
                "chain": rival.chain,
                "whole": _comparison(rival.whole),
                "near": _comparison(rival.near),
            }
            for rival in results.rivals
        ],
        "repeats": [
            {
                "group": repeat.group,
                "gain": claims.gain(repeat),
                "agrees": claims.agrees(repeat).value,
                "comparison": _comparison(repeat.measured),
            }
            for repeat in results.repeats
        ],
        "table5": _table5(results),
        "stages": list(stages),
        "frontiers": _frontiers(table.samples),
        "cost": asdict(effort.cost(table)),
        "failures": list(table.failures),
        "meta": table.meta,
    }


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"low": min(values), "high": max(values)}


def _comparison(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    values = asdict(found) | {"better": found.better, "few": found.few}
    if found.same:
        values["same"]["sign_test"] = found.same.sign_test
    return values


def _reached(ratio: Estimate) -> dict[str, float | None]:
    return {name: value if value > 1 else None for name, value in asdict(ratio).items()}


def _table5(results: Results) -> dict[str, Any]:
    table = results.table
    ours = table5.own_rows(table)
    return {
        "dataset": table5.dataset(table),
        "ours": [_point(sample) | {"chain": sample.chain} for sample in ours],
        "rows": [
            asdict(rivalry.row)
            | {"ahead": rivalry.ahead, "ours": _point(rivalry.ours) if rivalry.ours else None}
            for rivalry in table5.rivalries(table)
        ],
        "own": [
            asdict(row) for row in published().table5 if row.own and row.dataset == table5.dataset(table)
        ],
    }


def _point(sample: Sample) -> dict[str, Any]:
    return {
        "accuracy": sample.accuracy,
        "change": -sample.loss,
        "bitops_cr": sample.bitops_cr,
        "bitops_cr_uniform": sample.bitops_cr_uniform,
        "cr": sample.cr,
        "setting": sample.setting,
        "seed": sample.seed,
        "thresholds": sample.thresholds,
    }


def _frontiers(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The frontier of every chain of every group, as pairs [BitOpsCR, accuracy]."""
    result = []
    for kind, group in unique((s.kind, s.group) for s in samples):
        own = [s for s in samples if (s.kind, s.group) == (kind, group)]
        for chain in chains(own):
            points = [s for s in own if s.chain == chain]
            line = [[ratio, accuracy] for ratio, accuracy in frontier.curve(points)]
            result.append(
                {"kind": kind, "group": group, "chain": chain, "points": len(points), "frontier": line}
            )
    return result


def text(found: dict[str, Any]) -> str:
    """`values` for a terminal."""
    law = found["law"]
    lines = [
        f"{found['cost']['cases']} cases, {found['cost']['points']} points on {found['images']} test "
        f"images of {found['data']}, seeds {', '.join(map(str, found['seeds']))}",
        "",
        *_table1_text(found),
        f"better orders: {', '.join(law['edges']) or 'none'}; cycles: "
        f"{', '.join(law['cycles']) or 'none'}; orders that agree: "
        f"{', '.join(law['orders'][:6]) or 'none'}{' ...' if len(law['orders']) > 6 else ''}",
        "",
    ]
    for claim in found["claims"]:
        lines.append(f"{claim['number']}. {claim['status'].upper()}: {claim['title']}")
        lines += textwrap.wrap(claim["evidence"], WIDTH, initial_indent="   ", subsequent_indent="   ")
    if found["failures"]:
        lines += ["", f"cases failed: {len(found['failures'])}, named in the report"]
    return "\n".join(lines)


def _table1_text(found: dict[str, Any]) -> list[str]:
    """BitOpsCR under each loss, a line per sequence."""
    if not found["table1"]:
        return []
    head = "".join(f"{f'<= {loss:g}':>10}" for loss in found["statistics"]["losses"])
    lines = [f"{'loss':8}{head}"]
    for row in found["table1"]:
        values = (ratio["value"] for ratio in row["ratios"])
        lines.append(f"{row['chain']:8}" + "".join(f"{f'{v:,.0f}x' if v else '-':>10}" for v in values))
    return [*lines, ""]
