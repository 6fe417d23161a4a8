"""What a worker does: one stage of the tree, in the store that all workers share."""

import contextlib
import os
import platform
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from coc_deploy import chain, keys
from coc_deploy.chain import Data
from coc_deploy.keys import Node
from coc_deploy.network import exit_logits
from coc_deploy.store import Stage, Store
from coc_runtime.errors import CocError

from . import points

LOG = "log.txt"
"""The file in a stage's folder that holds what its training printed."""
_ONE = threading.Lock()
"""Torch's random numbers are the process's: one stage at a time draws from them."""
_HELD: dict[str, Data] = {}
"""The data of this process's last stage, by their version."""


@dataclass(frozen=True)
class Task:
    """One stage to do. store: the folder of all stages. points: how many operating points to measure, 0
    unless a case ends here. code, data: versions that the worker must have."""

    node: Node
    store: Path
    points: int
    code: str
    data: str
    threads: int | None = None


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


def load_data(spec: str) -> Data:
    """A data set as it is on disk now; the stages of this process that want its version get it, too."""
    data = Data.load(spec)
    _HELD.clear()
    _HELD[data.version] = data
    return data


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
    if task.code != keys.code_version():
        raise CocError(
            f"{_me()} has coc-deploy {keys.code_version()}, the study {task.code}: install the same"
        )
    if not task.store.is_dir():
        raise CocError(f"{_me()} does not see {task.store}: workers must share the study's folder")
    stage = Store(task.store).stage(task.node.key)
    with stage.hold():
        cached = stage.finished
        if cached and (not task.points or points.is_measured(stage.folder, task.points)):
            return Outcome(task.node.key, cached, float(stage.record()["seconds"]), _me())
        with (stage.folder / LOG).open("a", buffering=1) as log, contextlib.redirect_stdout(log):
            seconds = _train_and_measure(task, stage)
        return Outcome(task.node.key, cached, seconds, _me())


def _train_and_measure(task: Task, stage: Stage) -> float:
    """Seconds of the stage's training."""
    store, node = Store(task.store), task.node
    data = _data_of(node.recipe.data, task.data)
    original = None if node.parent is None else store.stage(node.path[0]).load()
    begun = chain.start(node.recipe, data) if original is None else chain.started_from(original)
    before = original if node.index < 2 else store.stage(node.path[-2]).load()
    result, logits = chain.finished_or_run(node.recipe, node, stage, before, begun, data)
    if task.points:
        tested = exit_logits(result.network, data.test.images) if logits is None else logits
        points.save(stage.folder, points.measure(result, begun, data, tested, task.points))
    return float(result.history[-1]["seconds"])


def _data_of(spec: str, version: str) -> Data:
    """The data of this version, which the process may hold already; CocError where the name means others."""
    if version not in _HELD:
        load_data(spec)
    if version not in _HELD:
        raise CocError(f"{_me()} has other images than the study under {spec}: copy the same to all workers")
    return _HELD[version]


def _me() -> str:
    return f"{platform.node()}:{os.getpid()}"
