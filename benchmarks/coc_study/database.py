"""DIR/study.sqlite: the samples of all cases, the stages, what failed, and how it was computed.

A case's rows are written in one transaction: a reader or a killed study never sees a part of them.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from coc_deploy import keys
from coc_deploy.keys import Node
from coc_runtime.errors import CocError

from .cases import Case
from .points import Measured

FILE = "study.sqlite"
TABLES = """
CREATE TABLE IF NOT EXISTS samples (
 kind TEXT, grp TEXT, chain TEXT, case_id TEXT, point INTEGER, setting TEXT, seed INTEGER, thresholds TEXT,
 accuracy REAL, original_accuracy REAL, bitops_cr REAL, bitops_cr_uniform REAL, cr REAL, expected_bitops REAL,
 exit_share TEXT, images INTEGER, correct BLOB, exits BLOB, exit_bitops TEXT, original_bitops REAL,
 epochs INTEGER, seconds REAL, data TEXT, PRIMARY KEY (kind, grp, case_id, point));
CREATE TABLE IF NOT EXISTS stages (
 key TEXT PRIMARY KEY, parent TEXT, stage TEXT, chain TEXT, seconds REAL, cached INTEGER, worker TEXT,
 epochs INTEGER);
CREATE TABLE IF NOT EXISTS failures (
 kind TEXT, grp TEXT, chain TEXT, case_id TEXT, setting TEXT, seed INTEGER, stage TEXT, error TEXT,
 PRIMARY KEY (kind, grp, case_id));
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);
"""
KEYS = "2"
"""The version, in `meta`, of what keys of stages are made of. Keys of version 1 held paths."""
Name = tuple[str, str, str]
"""(kind, group, case_id): what names a case's rows."""


def name(case: Case, case_id: str) -> Name:
    return case.kind, case.group, case_id


class Database:
    """The table of a study's folder; one process at a time writes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with self._errors():
            # WAL needs shared memory, which folders on a network do not have.
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            self._connection.executescript(TABLES)

    def close(self) -> None:
        self._connection.close()

    def finished(self) -> set[Name]:
        """Cases whose rows are there."""
        with self._errors():
            return set(self._connection.execute("SELECT DISTINCT kind, grp, case_id FROM samples"))

    def meta(self, key: str) -> str | None:
        with self._errors():
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def code(self, same: bool) -> str:
        """The version of the code that keys hold: of this code, or where they count as the same of that which
        the study's results are from; CocError where those have keys of another kind."""
        then = self.meta("code") if same else None
        if then is not None and self.meta("keys") != KEYS:
            raise CocError(
                f"{self.path.parent}: stages of coc-deploy {then} cannot be taken over, their keys differ: "
                "leave --same-code out to compute them again"
            )
        return then or keys.code_version()

    def set_meta(self, values: Mapping[str, object]) -> None:
        with self._transaction() as connection:
            rows = [(key, str(value)) for key, value in values.items()]
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def keep_only(self, kinds: Iterable[str], planned: set[Name]) -> None:
        """Drop rows of these kinds that the study no longer asks for, and what failed last time."""
        with self._transaction() as connection:
            for kind in kinds:
                rows = connection.execute(
                    "SELECT DISTINCT kind, grp, case_id FROM samples WHERE kind = ?", (kind,)
                ).fetchall()
                gone = [row for row in rows if row not in planned]
                connection.executemany("DELETE FROM samples WHERE kind = ? AND grp = ? AND case_id = ?", gone)
                connection.execute("DELETE FROM failures WHERE kind = ?", (kind,))

    def add_stage(self, node: Node, seconds: float, cached: bool, worker: str) -> None:
        """A stage's row; one that was finished before keeps the time and the worker of its training."""
        letter = node.chain[-1] if node.chain else ""
        values = (node.key, node.parent, letter, node.chain, seconds, int(cached), worker, node.epochs)
        keep = " ON CONFLICT (key) DO UPDATE SET cached = 1" if cached else ""
        verb = "INSERT" if cached else "INSERT OR REPLACE"
        with self._transaction() as connection:
            connection.execute(f"{verb} INTO stages VALUES (?, ?, ?, ?, ?, ?, ?, ?){keep}", values)

    def add_case(self, case: Case, case_id: str, measured: Measured) -> None:
        """All rows of a case, one per operating point."""
        rows = [
            (
                case.kind,
                case.group,
                case.chain,
                case_id,
                number,
                case.setting,
                case.recipe.seed,
                json.dumps(point.thresholds),
                point.accuracy,
                measured.original_accuracy,
                point.bitops_cr,
                point.bitops_cr_uniform,
                measured.cr,
                point.expected_bitops,
                json.dumps(point.exit_share),
                measured.taken.shape[1],
                np.packbits(measured.correct[number]).tobytes(),
                measured.taken[number].tobytes(),
                json.dumps(measured.exit_bitops),
                measured.original_bitops,
                measured.epochs,
                measured.seconds,
                measured.data,
            )
            for number, point in enumerate(measured.points)
        ]
        with self._transaction() as connection:
            connection.execute(
                "DELETE FROM samples WHERE kind = ? AND grp = ? AND case_id = ?", name(case, case_id)
            )
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO samples VALUES ({marks})", rows)

    def add_failure(self, case: Case, case_id: str, stage: str, error: str) -> None:
        """stage: key of the one that failed."""
        recipe = case.recipe
        row = (case.kind, case.group, recipe.chain, case_id, case.setting, recipe.seed, stage, error)
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CocError(
                f"{self.path}: {error}: if it is damaged remove it; finished stages are kept"
            ) from error
