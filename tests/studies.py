"""A study of seconds: what its tests share."""

import sqlite3
from pathlib import Path
from typing import Any

TEXT = """\
data = "digits"
batch = 256
[original]
model = "resnet8"
width = 4
epochs = 2
[p]
round_to = 1
epochs = 1
[q]
epochs = 2
[e]
head_channels = 4
epochs = 1
[study]
seeds = [1]
points = 3
[study.grid]
p.ratio = [0.25, 0.5]
q.bits = ["1x8"]
e.positions = [[0.4, 0.7]]
[study.pairs]
of = ["PQ", "QE"]
[study.insert]
of = ["PE+Q"]
[study.sequences]
of = ["PQE"]
[study.repeat]
of = ["QQ"]
"""
TIMES = ("seconds",)
"""Columns of `samples` that differ between runs."""


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def rows(out: Path, table: str = "samples") -> list[dict[str, Any]]:
    """All rows of a study's table."""
    connection = sqlite3.connect(out / "study.sqlite")
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
    finally:
        connection.close()


def lasting(out: Path) -> set[tuple[Any, ...]]:
    """All samples without the times."""
    return {tuple(value for name, value in row.items() if name not in TIMES) for row in rows(out)}
