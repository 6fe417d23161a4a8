"""What a study took, what its tree of stages saved, and what each stage of one chain did."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coc_deploy.store import RESULT

from .table import Sample, Table, unique

RECORDED = ("stage", "model", "bits", "accuracy", "bitops_cr", "bitops_cr_uniform", "cr", "seconds")


@dataclass(frozen=True)
class Cost:
    """Totals of a study. Times are of training and evaluation, summed over all workers."""

    cases: int
    """chains with one setting and seed, each counted once for every group it stands in"""
    points: int
    stages: int
    """results in the tree, originals included"""
    stages_alone: int
    """what the cases would train if they shared nothing"""
    cached: int
    """stages that were found finished when the study was last run"""
    epochs: int
    epochs_alone: int
    seconds: float
    workers: int
    failures: int


def cost(table: Table) -> Cost:
    """Totals from the table file alone; without stages of an earlier grid that no case uses any more."""
    cases = {(s.kind, s.group, s.case, s.seed): s for s in table.samples}
    used = {key for case in unique(s.case for s in table.samples) for key in _path(table, case)}
    stages = [stage for stage in table.stages if stage.get("key") in used]
    return Cost(
        len(cases),
        len(table.samples),
        len(stages),
        sum(len(s.chain) + 1 for s in cases.values()),
        sum(int(stage.get("cached") or 0) for stage in stages),
        sum(int(stage.get("epochs") or 0) for stage in stages),
        sum(s.epochs for s in cases.values()),
        sum(float(stage.get("seconds") or 0) for stage in stages),
        len(unique(stage["worker"] for stage in stages if stage.get("worker"))),
        len(table.failures),
    )


def stages_of(store: Path, table: Table, sample: Sample) -> tuple[dict[str, Any], ...]:
    """Records of a case's stages, the original first, from their store; none where those folders are gone."""
    keys = _path(table, sample.case)
    records = [_record(store / key / RESULT) for key in reversed(keys)]
    if len(records) != len(sample.chain) + 1 or not all(records):
        return ()
    return tuple({name: record.get(name) for name in RECORDED} for record in records if record)


def _path(table: Table, case: str) -> list[str]:
    """Keys of a case's stages, the last one first."""
    keys: list[str] = []
    key: str | None = case
    while key is not None and key in table.parents and key not in keys:
        keys.append(key)
        key = table.parents[key]
    return keys


def _record(path: Path) -> Mapping[str, Any] | None:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("bitops_cr") else None
