"""RUN/auto.json: every trial of a search, written after each; the same command goes on behind them."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from coc_runtime import files
from coc_runtime.errors import CocError

from .goal import Choice, Point

FILE = "auto.json"
SCHEMA = 2


class State(StrEnum):
    """done: the whole chain ran. stopped: given up after a stage. skipped: it could not win, so nothing ran.
    failed: a stage cannot work with these settings."""

    DONE = "done"
    STOPPED = "stopped"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """One setting. key: of the chain's last stage. ran: stages that it needed, the original included. epochs:
    of those that no trial before it had needed. points: the frontier on the held-out images, and
    the chosen point. chosen: the point that serves the goal best."""

    number: int
    settings: Mapping[str, Any]
    key: str
    state: State
    why: str
    ran: int = 0
    epochs: int = 0
    points: tuple[Point, ...] = ()
    chosen: Choice | None = None


@dataclass(frozen=True)
class Asked:
    """What a search was asked for; another question begins another log."""

    goal: str
    amount: float
    seed: int
    space: Mapping[str, Any]


class Log:
    """The file, and what an earlier run of the same command left in it.

    before: keys of the stages that were finished when the search began; they cost it nothing. kept: trials of
    the earlier run by their settings.
    """

    def __init__(self, out: Path, asked: Asked, finished: set[str]) -> None:
        self.path = out / FILE
        self._asked = json.loads(json.dumps(dataclasses.asdict(asked)))
        self.trials: list[Trial] = []
        found = self._read()
        self.replaced = found is not None and found["asked"] != self._asked
        fresh: dict[str, Any] = {"before": sorted(finished), "trials": []}
        mine = fresh if found is None or self.replaced else found
        self.before: set[str] = set(mine["before"])
        self.kept = {_name(t["settings"]): _trial(t) for t in mine["trials"]}

    def earlier(self, settings: Mapping[str, Any], key: str) -> Trial | None:
        """What an earlier run found for these settings, if data and code are still the same."""
        found = self.kept.get(_name(settings))
        return found if found is not None and found.key == key else None

    def add(self, trial: Trial, more: Mapping[str, Any]) -> None:
        """A trial, and what is known so far beside it."""
        self.trials.append(trial)
        self.write(more)

    def write(self, more: Mapping[str, Any]) -> None:
        """Trials of the earlier run that this one has not come to yet stay in the file."""
        now = {_name(trial.settings) for trial in self.trials}
        later = [trial for name, trial in self.kept.items() if name not in now]
        files.write_json(
            self.path,
            {
                "schema": SCHEMA,
                "asked": self._asked,
                **more,
                "before": sorted(self.before),
                "trials": [dataclasses.asdict(trial) for trial in (*self.trials, *later)],
            },
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["schema"] != SCHEMA:
                raise ValueError
            [_trial(trial) for trial in found["trials"]]
            _ = found["before"], found["asked"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CocError(
                f"{self.path}: unreadable; remove it: finished stages beside it are taken over"
            ) from error
        return dict(found)


def _name(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _trial(values: Mapping[str, Any]) -> Trial:
    chosen = values["chosen"]
    return Trial(
        **{
            **values,
            "state": State(values["state"]),
            "points": tuple(_point(point) for point in values["points"]),
            "chosen": chosen and Choice(**{**chosen, "point": _point(chosen["point"])}),
        }
    )


def _point(values: Mapping[str, Any]) -> Point:
    return Point(**{**values, "thresholds": tuple(values["thresholds"])})
