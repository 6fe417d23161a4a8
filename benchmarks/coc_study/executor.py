"""Where the stages of a tree run: one after another in this process, or on dask.distributed."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coc_runtime.errors import CocError

from . import work
from .work import Outcome, Task

Done = Callable[[Outcome], None]
CONNECT_SECONDS = 15


@dataclass(frozen=True)
class Where:
    """workers: processes of a cluster on this machine; scheduler: address of another; neither: this process.

    resources: what a worker must offer to be given a stage, e.g. {"GPU": 1}.
    """

    workers: int = 0
    scheduler: str = ""
    resources: Mapping[str, float] | None = None


def execute(tasks: Sequence[Task], where: Where, done: Done) -> None:
    """Run the tasks, each after its parent's; `done` is called with every outcome, in this thread."""
    if where.workers or where.scheduler:
        _on_cluster(tasks, where, done)
    else:
        _here(tasks, done)


def _here(tasks: Sequence[Task], done: Done) -> None:
    outcomes: dict[str | None, Outcome] = {}
    for task in tasks:
        outcome = work.run(task, outcomes.get(task.node.parent))
        outcomes[task.node.key] = outcome
        done(outcome)


def _on_cluster(tasks: Sequence[Task], where: Where, done: Done) -> None:
    """Dask runs a stage anew whose worker is lost: its folder continues after the last finished epoch."""
    from distributed import as_completed

    with _client(where) as client:
        print(f"dashboard: {client.dashboard_link}, workers now: {len(client.nthreads())}", flush=True)
        futures: dict[str | None, Any] = {}
        for task in tasks:
            futures[task.node.key] = client.submit(
                work.run,
                task,
                futures.get(task.node.parent),
                key=task.node.key,
                # Deep stages first, so that cases finish instead of all beginning.
                priority=task.node.index,
                resources=dict(where.resources or {}) or None,
            )
        for future, result in as_completed(list(futures.values()), with_results=True, raise_errors=False):
            done(_outcome(future.key, future.status, result))


def _outcome(key: str, status: str, result: Any) -> Outcome:
    if status == "finished":
        assert isinstance(result, Outcome)
        return result
    error = result[1] if isinstance(result, tuple) else result
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return Outcome(key, error=f"the worker was lost again and again: {text}", failed=key)


@contextlib.contextmanager
def _client(where: Where) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise CocError("--workers and --scheduler need dask: pip install 'coc-deploy[cluster]'") from error
    if where.scheduler:
        try:
            client = Client(where.scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, ImportError) as error:
            text = " ".join(str(error).split())
            raise CocError(f"--scheduler {where.scheduler}: cannot be reached ({text})") from error
        with client:
            yield client
        return
    with _local_cluster(where) as cluster, Client(cluster) as client:
        yield client


def _local_cluster(where: Where) -> Any:
    """Workers that leave Ctrl-C, which a terminal sends to them, too, to this process: they end with it."""
    from distributed import LocalCluster

    # What then removes their semaphores need not say so.
    given = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (given, "ignore:resource_tracker:UserWarning")))
    return LocalCluster(
        n_workers=where.workers,
        threads_per_worker=1,
        resources=dict(where.resources or {}) or None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
    )
