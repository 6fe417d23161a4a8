"""RUN: the folder that a run leaves to people, with a link NN-stage to each of its stages in a store."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coc_runtime.errors import CocError

from . import machine
from .keys import Node
from .stages import NAMES
from .store import Stage, Store


@dataclass(frozen=True)
class RunFolder:
    """A run's folder. A link that leads to the right stage is followed, whichever store that lies in."""

    path: Path

    def code(self) -> str | None:
        """Version of the code that computed what is here; None where nothing is known of it."""
        return self._linked("00-original").basis().get("code")

    def check(self, nodes: Sequence[Node]) -> None:
        """Raise CocError where the run holds results that these stages would take the place of."""
        for node in nodes:
            link = self.path / _name(node)
            if link.is_symlink():
                self._check_other(link, self._linked(link.name), node)
            elif link.is_dir():
                Stage(link).record()
                raise CocError(
                    f"{link} is of an older coc-deploy, which did not record images and code: choose another "
                    "--out to compute it again"
                )
            elif link.exists():
                raise CocError(f"{link} is in the way of a stage's folder: remove it or choose another --out")

    def stage(self, node: Node, store: Store) -> Stage:
        """The folder of a stage, with a link to it in the run."""
        link = self.path / _name(node)
        linked = self._linked(link.name)
        if linked.key == node.key and linked.folder.is_dir():
            return linked
        stage = store.stage(node.key)
        machine.once(_link, link, stage.folder, self.path.resolve())
        return stage

    def _linked(self, name: str) -> Stage:
        return Stage((self.path / name).resolve())

    def _check_other(self, link: Path, other: Stage, node: Node) -> None:
        if other.key == node.key:
            return
        found = other.basis()
        if found.get("code") != node.basis["code"] and other.begun:
            raise CocError(
                f"{link} was computed by coc-deploy {found.get('code')}, this is {node.basis['code']}: "
                "choose another --out to compute it again, or --same-code to go on with it as it is"
            )
        if not other.finished:
            return
        if found.get("data") != node.basis["data"]:
            raise CocError(
                f"{link} holds the result of other images or labels than data '{node.recipe.data}' now are: "
                "choose another --out"
            )
        raise CocError(
            f"{link} holds the result of another recipe: choose another --out (with --store "
            f"{other.folder.parent} what both share is taken over)"
        )


def _name(node: Node) -> str:
    return f"{node.index:02d}-{NAMES[node.chain[-1]] if node.chain else 'original'}"


def _link(link: Path, target: Path, out: Path) -> None:
    """Into the run's own folder a relative one, so that the run can be moved."""
    shown = os.path.relpath(target, out) if target.is_relative_to(out) else target
    temporary = link.with_name(f".{link.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(shown)
        temporary.replace(link)
    except OSError as error:
        raise CocError(f"{link}: cannot be linked ({error.strerror}): choose another place") from error
