"""Stages on disk: a folder per stage, named by its key, which runs, studies and searches share."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coc_runtime import files
from coc_runtime.errors import CocError

from . import checkpoint, locking, machine
from .checkpoint import Checkpoint
from .keys import Node

FOLDER = "stages"
"""The folder that is the store of a run, a study or a search where no other is given."""
MODEL, RESULT, PROGRESS, BASIS = "model.pt", "result.json", "progress.pt", "key.json"
"""Files of a stage: its result, written last its record, the last finished epoch of one that is at work, and
what its key is a hash of."""


@dataclass(frozen=True)
class Stage:
    """The folder of one stage; it need not be there yet."""

    folder: Path

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def begun(self) -> bool:
        """Whether there is something that a later run could use."""
        return self.finished or (self.folder / PROGRESS).exists()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Make the folder and keep others out of it, once they have left it."""
        with locking.hold(self.folder, wait=True):
            yield

    def load(self) -> Checkpoint:
        """The result of a finished stage, or of one whose result is not recorded yet."""
        return checkpoint.load(self.model)

    def record(self) -> dict[str, Any]:
        """What a finished stage recorded, and its key; CocError where that cannot be read."""
        try:
            found = json.loads((self.folder / RESULT).read_text(encoding="utf-8"))
            if not isinstance(found["key"], str):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CocError(
                f"{self.folder / RESULT}: unreadable; remove this folder to compute it again"
            ) from error
        return dict(found)

    def basis(self) -> dict[str, Any]:
        """What the key is a hash of; empty where that is not known."""
        try:
            found = json.loads((self.folder / BASIS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def begin(self, node: Node) -> None:
        """Write down, once, what the key is a hash of."""
        if not (self.folder / BASIS).exists():
            files.write_json(self.folder / BASIS, dict(node.basis))


@dataclass(frozen=True)
class Store:
    """A folder of stages. Any number of processes may use it at once; each stage has a lock of its own."""

    folder: Path

    @classmethod
    def of(cls, out: Path, shared: Path | None = None) -> "Store":
        """The shared store, or else the one of a run, a study or a search itself."""
        return cls((out / FOLDER if shared is None else shared).resolve())

    def make(self) -> None:
        """The folder; CocError where it cannot be made."""
        machine.once(files.make_folder, self.folder)

    def stage(self, key: str) -> Stage:
        return Stage(self.folder / key)

    def finished(self) -> set[str]:
        """Keys of all stages that are finished."""
        return {path.parent.name for path in self.folder.glob(f"*/{RESULT}")}

    def codes(self) -> set[str]:
        """Versions of the code that computed what is finished."""
        return {str(self.stage(key).basis().get("code")) for key in self.finished()}

    def of_other_code(self, code: str) -> str | None:
        """A line for whoever finds that this code computes again what is there; None where it does not."""
        others = self.codes() - {code}
        if not others or code in self.codes():
            return None
        return (
            f"{self.folder} holds stages of coc-deploy {', '.join(sorted(others))}; this is {code}, which "
            "computes its stages again"
        )
