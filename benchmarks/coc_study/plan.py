"""What a study would cost before it runs: the tree with its shared prefixes, epochs, images, hours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from coc_deploy import keys, models
from coc_deploy.chain import Data
from coc_deploy.counting import segment_layers
from coc_deploy.keys import Identity, Node
from coc_deploy.recipe import Recipe
from coc_deploy.sections import Distill, Original, Prune
from coc_deploy.stages import distill
from coc_deploy.store import Store
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

from . import KINDS, tree, work
from .cases import Case, cases
from .database import FILE, Database
from .settings import Study

KNOWN: Mapping[str, tuple[tuple[int, int, int], int, int]] = {
    "cifar10": ((45_000, 5_000, 10_000), 32, 10),
    "cifar100": ((45_000, 5_000, 10_000), 32, 100),
    "svhn": ((68_257, 5_000, 26_032), 32, 10),
    "cinic10": ((85_000, 5_000, 90_000), 32, 10),
}
"""Images of the splits, their side, and classes of data that need not be there to plan with them."""
FORWARD = 1 / 3
"""A pass without gradients takes this share of a training step's work."""
QUANTIZED = 1.3
"""How much longer a step with fake quantization takes."""


@dataclass(frozen=True)
class Stage:
    """One stage of the plan. images: passes of training images. work: MACs per training image, a teacher's
    included, as if all were trained. hours: None without a pace."""

    node: Node
    done: bool
    images: int
    work: float
    hours: float | None


@dataclass(frozen=True)
class Plan:
    """alone: stages if every case ran on its own."""

    cases: tuple[Case, ...]
    paths: tuple[tuple[Node, ...], ...]
    stages: Mapping[str, Stage]

    @property
    def alone(self) -> int:
        return sum(len(path) for path in self.paths)

    @property
    def left(self) -> list[Stage]:
        return [stage for stage in self.stages.values() if not stage.done]

    def hours(self) -> tuple[float, float]:
        """All that is left on one worker, and its longest chain of stages."""
        ending: dict[str | None, float] = {None: 0.0}
        for key, stage in self.stages.items():
            own = 0.0 if stage.done else stage.hours or 0.0
            ending[key] = ending[stage.node.parent] + own
        return sum(stage.hours or 0.0 for stage in self.left), max(ending.values())


def make(
    study: Study,
    kinds: Sequence[str],
    out: Path | None,
    pace: Mapping[str, float],
    same_code: bool = False,
    store: Path | None = None,
) -> Plan:
    """Plan these kinds; out: the study's folder, if it has one, store: that of its stages, if it is another.
    pace: training images/s by model."""
    planned = cases(study, kinds)
    first = planned[0].recipe
    begun = store is not None or (out is not None and (out / FILE).exists())
    data, known = _data(first.data, begun)
    code = _code(out) if out and same_code else keys.code_version()
    identity = Identity("" if known else data.version, code)
    paths = tuple(identity.path(case.recipe) for case in planned)
    estimate = _Estimate(data, {**study.images_per_s, **pace}, first)
    kept = Store.of(out or Path(), store) if begun else None
    stages = {}
    for key, node in tree.unite(paths).items():
        done = kept is not None and kept.stage(key).finished
        stages[key] = estimate.stage(node, done)
    return Plan(tuple(planned), paths, stages)


def _code(out: Path) -> str:
    if not (out / FILE).exists():
        return keys.code_version()
    database = Database(out)
    try:
        return database.code(same=True)
    finally:
        database.close()


def _data(spec: str, begun: bool) -> tuple[Data, bool]:
    """The data; before a study has begun, if their sizes are known, blank images of those sizes."""
    kind = spec.partition(":")[0]
    if begun or kind not in KNOWN:
        return work.load_data(spec), False
    counts, side, classes = KNOWN[kind]
    names = tuple(str(number) for number in range(classes))
    parts = [
        Dataset(kind, np.broadcast_to(np.uint8(0), (count, 3, side, side)), np.zeros(count, np.int64), names)
        for count in counts
    ]
    return Data(*parts), True


class _Estimate:
    """Hours of a stage from the MACs of what it trains and of its teacher; heads of exits are not counted."""

    def __init__(self, data: Data, pace: Mapping[str, float], recipe: Recipe) -> None:
        _, channels, height, width = data.training.images.shape
        self._data, self._pace = data, pace
        self._shape = (channels, height, width, len(data.training.classes))
        for name in pace:
            if not models.known(name):
                raise CocError(f"images per second of '{name}': not a model: use {models.NAMES}")
        self._references = {
            name: _macs(replace(recipe.original, model=name, weights="", checkpoint=""), self._shape)
            for name in pace
        }

    def stage(self, node: Node, done: bool) -> Stage:
        images = node.epochs * round(node.recipe.epoch_share * len(self._data.training.images))
        macs = self._trained(node.recipe, node.index) * (QUANTIZED if "Q" in node.chain else 1)
        work_ = macs + FORWARD * self._taught_by(node)
        if node.chain.endswith("E"):
            work_ = FORWARD * macs
        return Stage(node, done, images, work_, self._hours(node, images, work_))

    def _hours(self, node: Node, images: int, work_: float) -> float | None:
        if not self._pace:
            return None
        name = self._model(node)
        if name not in self._pace:
            name = min(self._references, key=lambda other: abs(np.log(self._references[other] / work_)))
        evaluated = (node.epochs + 1) * len(self._data.held_out.images) + len(self._data.test.images)
        return (images + evaluated * FORWARD) * work_ / self._references[name] / self._pace[name] / 3600

    def _model(self, node: Node) -> str:
        """The name of the model that a stage's network was built as."""
        names = [node.recipe.original.model]
        for index in range(1, node.index + 1):
            section = node.recipe.section(index)
            if isinstance(section, Distill) and section.model:
                names.append(section.model)
        return names[-1]

    def _trained(self, recipe: Recipe, index: int) -> float:
        """MACs of the network after stage `index`: a pruned layer loses inputs and outputs alike."""
        macs, kept = float(_macs(recipe.original, self._shape)), 1.0
        for number in range(1, index + 1):
            section = recipe.section(number)
            if isinstance(section, Distill):
                macs = _macs(section, self._shape) * kept if section.model else macs * section.narrow**2
            elif isinstance(section, Prune):
                kept *= (1 - section.ratio) ** 2
                macs *= (1 - section.ratio) ** 2
        return macs

    def _taught_by(self, node: Node) -> float:
        section = node.recipe.section(node.index)
        if isinstance(section, Original):
            return 0.0
        if isinstance(section, Distill) or section.teacher == "before":
            return self._trained(node.recipe, node.index - 1)
        return self._trained(node.recipe, 0) if section.teacher == "original" else 0.0


def _macs(section: Original | Distill, shape: tuple[int, int, int, int]) -> int:
    return _built_macs(section.model, section.width, section.shortcut, shape)


@cache
def _built_macs(model: str, width: int, shortcut: str, shape: tuple[int, int, int, int]) -> int:
    channels, height, side, classes = shape
    network = distill.build(
        Original(model=model, width=width, shortcut=shortcut), channels, classes, (height, side)
    )
    return sum(layer.macs for segment in segment_layers(network) for layer in segment)


def lines(plan: Plan, pace: Mapping[str, float], workers: int) -> Iterator[str]:
    """The plan for people."""
    yield f"{'kind':<12}{'groups':>8}{'cases':>8}{'alone':>9}{'tree':>7}"
    for kind in KINDS:
        chosen = [
            (case, path) for case, path in zip(plan.cases, plan.paths, strict=True) if case.kind == kind
        ]
        if chosen:
            groups = len({case.group for case, _ in chosen})
            alone, own = (
                sum(len(path) for _, path in chosen),
                len({n.key for _, path in chosen for n in path}),
            )
            yield f"{kind:<12}{groups:>8}{len(chosen):>8}{alone:>9}{own:>7}"
    yield f"{'in all':<12}{'':>8}{len(plan.cases):>8}{plan.alone:>9}{len(plan.stages):>7}"
    yield ""
    yield from _tree(plan)
    left = plan.left
    images = sum(stage.images for stage in left)
    epochs = sum(stage.node.epochs for stage in left)
    yield (
        f"{plan.alone:,} stages if every case ran alone, {len(plan.stages):,} in the tree, "
        f"{len(plan.stages) - len(left):,} done already"
    )
    yield f"left: {len(left):,} stages, {epochs:,} epochs, {images:,} passes of training images"
    if not pace:
        yield "hours: give --images-per-second MODEL=RATE or [study.images_per_s]"
        return
    hours, longest = plan.hours()
    rates = ", ".join(f"{name} {rate:g}" for name, rate in pace.items())
    yield f"{_time(hours)} on one worker at images/s {rates}, scaled by MACs"
    yield f"{_time(longest)} for the longest chain, however many workers there are"
    if workers > 1:
        yield f"at least {_time(max(hours / workers, longest))} on {workers} workers"


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"


def _tree(plan: Plan) -> Iterator[str]:
    """A line per prefix: how many stages end there, how many cases share each, what they cost."""
    prefixes: dict[str, list[Stage]] = {}
    for stage in plan.stages.values():
        prefixes.setdefault(stage.node.chain, []).append(stage)
    uses: dict[str, int] = {}
    for path in plan.paths:
        for node in path:
            uses[node.chain] = uses.get(node.chain, 0) + 1
    timed = any(stage.hours is not None for stage in plan.stages.values())
    yield f"{'prefix':<16}{'stages':>8}{'done':>7}{'shared by':>11}{'epochs':>9}" + (
        "  hours" if timed else ""
    )
    for prefix in sorted(prefixes, key=lambda chain: ["DPQE".index(letter) for letter in chain]):
        stages = prefixes[prefix]
        done = sum(stage.done for stage in stages)
        epochs = sum(stage.node.epochs for stage in stages)
        hours = f"{sum(stage.hours or 0.0 for stage in stages):>7.2f}" if timed else ""
        shared = f"{uses[prefix] / len(stages):.1f} cases"
        label = "  " * len(prefix) + (prefix or "original")
        yield f"{label:<16}{len(stages):>8}{done:>7}{shared:>11}{epochs:>9}{hours}"
