"""What a worker does: one stage of the tree, in the folder that all workers share."""

import contextlib
import json
import os
import platform
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from coc_runtime import files
from coc_runtime.errors import CocError

from .. import chain, checkpoint, locking
from ..checkpoint import Checkpoint
from ..network import exit_logits
from . import points, tree
from .tree import Node

STAGES = "stages"
"""Folder of DIR that holds a folder per stage."""
MODEL, RESULT, LOG = "model.pt", "result.json", "log.txt"
"""In a stage's folder; the first two as in a run of coc-compress."""
_ONE = threading.Lock()
"""Torch's random numbers are the process's: one stage at a time draws from them."""


@dataclass(frozen=True)
class Task:
    """One stage to do. stages: the folder of all stages. points: how many operating points to measure, 0
    unless a case ends here. code, data: versions that the worker must have."""

    node: Node
    stages: Path
    points: int
    code: str
    data: str
    threads: int | None = None

    @property
    def folder(self) -> Path:
        return self.stages / self.node.key


@dataclass(frozen=True)
class Outcome:
    """cached: the stage was finished already. error: why it has no result, of it or of the stage `failed`
    before it."""

    key: str
    cached: bool = False
    seconds: float = 0.0
    worker: str = ""
    error: str = ""
    failed: str = ""


def run(task: Task, before: Outcome | None = None) -> Outcome:
    """Do a stage, unless it is done; what goes wrong is told in the outcome."""
    key = task.node.key
    if before is not None and before.error:
        return Outcome(key, error=before.error, failed=before.failed)
    try:
        with _ONE:
            if task.threads is not None:
                torch.set_num_threads(task.threads)
            return _run(task)
    except CocError as error:
        return Outcome(key, worker=_me(), error=str(error), failed=key)
    except Exception as error:  # Out of memory, a lost device: other cases may do.
        text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return Outcome(key, worker=_me(), error=text, failed=key)


def _run(task: Task) -> Outcome:
    if task.code != tree.code_version():
        raise CocError(
            f"{_me()} has coc-deploy {tree.code_version()}, the study {task.code}: install the same"
        )
    if not task.stages.is_dir():
        raise CocError(f"{_me()} does not see {task.stages}: workers must share the study's folder")
    files.make_folder(task.folder)
    with locking.hold(task.folder, wait=True):
        cached = is_finished(task.folder)
        if cached and (not task.points or points.is_measured(task.folder, task.points)):
            return Outcome(task.node.key, cached, _seconds(task.folder), _me())
        with (task.folder / LOG).open("a", buffering=1) as log, contextlib.redirect_stdout(log):
            seconds = _train_and_measure(task, cached)
        return Outcome(task.node.key, cached, seconds, _me())


def _train_and_measure(task: Task, trained: bool) -> float:
    """Seconds of the stage's training."""
    spec = task.node.recipe.data
    if tree.data_version(spec) != task.data:
        raise CocError(f"{_me()} has other images than the study under {spec}: copy the same to all workers")
    data, node = tree.load_data(spec), task.node
    original = None if node.parent is None else checkpoint.load(task.stages / node.path[0] / MODEL)
    begun = chain.start(node.recipe, data) if original is None else chain.started_from(original)
    if trained:
        stage = checkpoint.load(task.folder / MODEL)
        logits = exit_logits(stage.network, data.test.images)
    else:
        before = original if node.index == 1 else _result(task.stages, node.parent)
        recipe, key = node.recipe, node.key
        stage, logits = chain.run_stage(recipe, node.index, before, begun, data, task.folder, key)
    if task.points:
        points.save(task.folder, points.measure(stage, begun, data, logits, task.points))
    return float(stage.history[-1]["seconds"])


def _result(stages: Path, key: str | None) -> Checkpoint | None:
    return None if key is None else checkpoint.load(stages / key / MODEL)


def is_finished(folder: Path) -> bool:
    """Whether a stage's folder holds its result: result.json is written last."""
    return (folder / RESULT).exists()


def _seconds(folder: Path) -> float:
    """Of a finished stage's training."""
    try:
        return float(json.loads((folder / RESULT).read_text())["seconds"])
    except (OSError, ValueError, KeyError) as error:
        raise CocError(f"{folder / RESULT}: unreadable; remove this folder to compute it again") from error


def _me() -> str:
    return f"{platform.node()}:{os.getpid()}"
