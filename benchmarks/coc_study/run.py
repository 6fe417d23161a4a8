"""Runs a study: the stages that are not done yet, the rows of every case that ends, what failed."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from coc_deploy import chain, keys, locking
from coc_deploy.keys import Identity, Node
from coc_deploy.recipe import Recipe
from coc_deploy.store import Store
from coc_runtime.errors import CocError

from . import executor, points, tree, work
from .cases import ORIGINAL, Case, cases, original
from .database import KEYS, Database, name
from .executor import Where
from .points import Measured
from .settings import Study
from .work import Outcome, Task

Print = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """threads: of torch in each process. same_code: results of the folder's older code count as those of this
    one. store: a folder of stages to share, in place of the study's own."""

    where: Where = field(default_factory=Where)
    threads: int | None = None
    same_code: bool = False
    store: Path | None = None


@dataclass(frozen=True)
class Summary:
    """What a run of a study did. alone: stages if every case ran on its own. stages: of the tree. trained: of
    these in this run. failures: (chain, setting, error) of each case without a result."""

    cases: int
    before: int
    alone: int
    stages: int
    trained: int
    seconds: float
    failures: tuple[tuple[str, str, str], ...]

    @property
    def text(self) -> str:
        return (
            f"{self.cases} cases, {self.before} of them from before; {self.alone} stages if each ran alone, "
            f"{self.stages} in the tree, {self.trained} trained now; {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Evaluation:
    """What one recipe is worth. model: the finished chain's model.pt. trained: prefixes of the chain that
    were trained for it now, in so many epochs; the others were there."""

    measured: Measured
    model: Path
    trained: tuple[str, ...]
    epochs: int


def evaluate(
    recipe: Recipe,
    store: Store,
    count: int = 12,
    threads: int | None = None,
    identity: Identity | None = None,
) -> Evaluation:
    """The operating points of one recipe's chain, up to `count` if it has exits, in this process.

    store: where its stages are, or come to. identity: of data and code, if it is known already. Raises
    CocError where a stage fails.
    """
    store.make()
    identity = identity or identify(recipe)
    path = identity.path(recipe)
    outcome, trained = None, []
    for task in _tasks(path, {path[-1].key}, store, count, identity, threads):
        outcome = work.run(task, outcome)
        if outcome.error:
            raise CocError(outcome.error)
        if not outcome.cached:
            trained.append(task.node)
    stage = store.stage(path[-1].key)
    measured = points.load(stage.folder)
    assert measured is not None
    epochs = sum(node.epochs for node in trained)
    return Evaluation(measured, stage.model, tuple(node.chain for node in trained), epochs)


def identify(recipe: Recipe) -> Identity:
    """The identity of the recipe's data as they are now, and of this code."""
    return Identity(work.load_data(recipe.data).version, keys.code_version())


def run(study: Study, kinds: Sequence[str], out: Path, options: Options, show: Print = print) -> Summary:
    """Run all cases of these kinds that the folder does not hold yet; show gets a line per finished case."""
    started = time.perf_counter()
    planned = cases(study, kinds)
    with locking.hold(out):
        store = Store.of(out, options.store)
        store.make()
        database = Database(out)
        try:
            summary = _run(study, kinds, planned, store, options, database, show, started)
            database.set_meta(
                {f"summary {'+'.join(kinds)}": summary.text, "finished": datetime.now(UTC).isoformat()}
            )
        finally:
            database.close()
    return summary


def _run(
    study: Study,
    kinds: Sequence[str],
    planned: Sequence[Case],
    store: Store,
    options: Options,
    database: Database,
    show: Print,
    started: float,
) -> Summary:
    data = work.load_data(planned[0].recipe.data)
    identity = Identity(data.version, database.code(options.same_code))
    if line := store.of_other_code(identity.code):
        show(f"{line}: --same-code takes them over")
    paths = [identity.path(case.recipe) for case in planned]
    names = [name(case, path[-1].key) for case, path in zip(planned, paths, strict=True)]
    finished = database.finished() if database.meta("points") == str(study.points) else set()
    database.keep_only(kinds, set(names))
    database.set_meta(_meta(study, identity, options))
    pending = [at for at, case_name in enumerate(names) if case_name not in finished]
    ends: dict[str, list[Case]] = {}
    for at in pending:
        ends.setdefault(paths[at][-1].key, []).append(planned[at])
    nodes = tree.unite(paths[at] for at in pending)
    rehearse(ends, nodes, store, data)
    for case, path in zip(planned, paths, strict=True):
        start = original(case)
        if path[0].key not in ends and name(start, path[0].key) not in finished:
            ends[path[0].key] = [start]
            nodes.setdefault(path[0].key, path[0])
    progress = _Progress(database, store, nodes, ends, show)
    tasks = _tasks(tuple(nodes.values()), set(ends), store, study.points, identity, options.threads)
    executor.execute(tasks, options.where, progress.done)
    return Summary(
        cases=len(planned),
        before=len(planned) - len(pending),
        alone=sum(len(path) for path in paths),
        stages=len(tree.unite(paths)),
        trained=progress.trained,
        seconds=time.perf_counter() - started,
        failures=tuple(progress.failures),
    )


def rehearse(
    ends: Mapping[str, Sequence[Case]], nodes: Mapping[str, Node], store: Store, data: chain.Data
) -> None:
    """Build one chain of every group untrained, if no stage is there yet: what cannot work fails at once."""
    if any(store.stage(key).finished for key in nodes):
        return
    first: dict[tuple[str, str], Recipe] = {}
    for case in (case for ended in ends.values() for case in ended):
        first.setdefault((case.kind, case.group), case.recipe)
    for recipe in first.values():
        chain.rehearse(recipe, chain.start(recipe, data))


def _tasks(
    nodes: Sequence[Node],
    ends: set[str],
    store: Store,
    count: int,
    identity: Identity,
    threads: int | None,
) -> list[Task]:
    return [
        Task(
            node=node,
            store=store.folder,
            points=count if node.key in ends else 0,
            code=keys.code_version(),
            data=identity.data,
            threads=threads,
        )
        for node in nodes
    ]


def _meta(study: Study, identity: Identity, options: Options) -> dict[str, object]:
    machine = f"{platform.node()}, {platform.machine()}, {platform.system()} {platform.release()}"
    return {
        "study": study.text,
        "points": study.points,
        "code": identity.code,
        "keys": KEYS,
        "data": identity.data,
        "machine": machine,
        "workers": options.where.workers or options.where.scheduler or "this process",
        "threads": options.threads or torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(),
        "finished": "",
        **{f"version {package}": version for package, version in tree.versions().items()},
    }


class _Progress:
    """Takes the outcomes: into the table, and as lines on screen."""

    def __init__(
        self,
        database: Database,
        store: Store,
        nodes: Mapping[str, Node],
        ends: Mapping[str, Sequence[Case]],
        show: Print,
    ) -> None:
        self.database, self.store, self.nodes, self.ends, self.show = database, store, nodes, ends, show
        self.trained, self.failures = 0, list[tuple[str, str, str]]()
        self._cases = 0
        self._of = sum(case.kind != ORIGINAL for ended in ends.values() for case in ended)
        self._epochs_left = sum(node.epochs for node in nodes.values())
        self._epochs, self._started = 0, time.perf_counter()

    def done(self, outcome: Outcome) -> None:
        node = self.nodes[outcome.key]
        self._epochs_left -= node.epochs
        if outcome.error:
            self._failed(outcome)
            return
        if not outcome.cached:
            self.trained += 1
            self._epochs += node.epochs
        self.database.add_stage(node, outcome.seconds, outcome.cached, outcome.worker)
        if outcome.key in self.ends:
            folder = self.store.stage(outcome.key).folder
            measured = points.load(folder)
            if measured is None:
                raise CocError(f"{folder}: this stage is finished but cannot be seen here")
            for case in self.ends[outcome.key]:
                self.database.add_case(case, outcome.key, measured)
                if case.kind != ORIGINAL:
                    self._line(case, _found(measured))

    def _failed(self, outcome: Outcome) -> None:
        for case in (case for case in self.ends.get(outcome.key, ()) if case.kind != ORIGINAL):
            self.database.add_failure(case, outcome.key, outcome.failed, outcome.error)
            self.failures.append((case.recipe.chain, case.setting, outcome.error))
            self._line(case, f"failed: {outcome.error}")

    def _line(self, case: Case, found: str) -> None:
        self._cases += 1
        setting = case.setting.strip("{}").replace('"', "").replace(": ", "=").replace(",", "")
        place = f"[{self._cases}/{self._of}] {case.kind} {case.group}"
        self.show(
            f"{place:<28} {case.recipe.chain:<6} {setting} seed={case.recipe.seed}: {found}{self._left()}"
        )

    def _left(self) -> str:
        if not self._epochs or not self._epochs_left:
            return ""
        seconds = (time.perf_counter() - self._started) / self._epochs * self._epochs_left
        return f", about {seconds / 60:.0f} min left" if seconds >= 60 else ""


def _found(measured: Measured) -> str:
    best = max(measured.points, key=lambda point: point.accuracy)
    least = min(measured.points, key=lambda point: point.expected_bitops)
    ends = [f"{point.accuracy:.2f} % at {point.bitops_cr:.1f}x" for point in dict.fromkeys((best, least))]
    return " ... ".join(ends)
