"""The search: Optuna proposes settings, the tree of stages says what they are worth, until a budget is spent.

- The recipe itself comes first, then it with one setting changed at the end of its chain: those share all
  stages in front of the change. From there on the tree-structured Parzen estimator proposes.
- A setting that could not win even if every image left at its first exit costs nothing: its BitOps are known
  from its untrained networks. A chain that has lost too much accuracy in the middle ends there.
- An epoch is charged to the first trial that asks for its stage. So the same command gives the same trials
  whether it is interrupted or not: the sampler is seeded, hears the same values, and as much budget is left.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coc_deploy import chain, keys
from coc_deploy.counting import segment_layers
from coc_deploy.keys import Identity, Node
from coc_deploy.recipe import Recipe
from coc_deploy.sections import Prune
from coc_deploy.store import Store
from coc_runtime import cost
from coc_runtime.errors import CocError

from .. import run, work
from . import goal as goals
from .goal import Choice, Goal, Point
from .log import Asked, Log, State, Trial
from .space import Picked, Space, text

if TYPE_CHECKING:
    import optuna

POINTS = 24
"""Operating points of a chain with exits."""
TRIES = 20
"""Proposals that were tried before or are too dear, before the space is gone through instead."""
LOOKED_THROUGH = 5_000
IDLE = 200
"""Trials in a row that cost nothing, after which the search ends."""

SHOWN = 6
"""Points of the frontier on a line."""

Print = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """kind, amount: the goal. budget: epochs. seed: of the sampler. threads: of torch."""

    kind: goals.Kind
    amount: float
    budget: int
    seed: int
    threads: int | None = None


@dataclass(frozen=True)
class Found:
    """What a search ended with, or has so far. best, by_hand: trials, chosen for the goal. why: it ended."""

    best: Trial
    by_hand: Trial
    trials: tuple[Trial, ...]
    goal: Goal
    epochs: int
    why: str


def default_budget(chosen: Recipe) -> int:
    """Epochs: twenty times the recipe's own."""
    return 20 * max(1, sum(node.epochs for node in Identity("", "").path(chosen)))


class Search:
    """A search in the folder of a run, its stages in a store; show gets a line per trial and one for each
    frontier that is better than the one before, draw what was found then."""

    def __init__(
        self,
        space: Space,
        wanted: Wanted,
        out: Path,
        store: Store,
        show: Print,
        draw: Callable[[Found], None],
    ) -> None:
        self.space, self.wanted, self.show, self.draw = space, wanted, show, draw
        self.store = store
        hand = space.recipe(space.by_hand)
        self.data = work.load_data(hand.data)
        self.identity = Identity(self.data.version, keys.code_version())
        chain.rehearse(hand, chain.start(hand, self.data))
        axes = {axis.name: [dict(choice) for choice in axis.choices] for axis in space.axes}
        asked = {"recipe": hand.as_dict(), "axes": axes}
        self.log = Log(out, Asked(wanted.kind.value, wanted.amount, wanted.seed, asked), store.finished())
        self.paid, self.spent, self.idle = set(self.log.before), 0, 0
        self.seen: set[Picked] = set()
        self.best: Trial | None = None
        self.goal: Goal | None = None
        self.original_bitops = 0
        self.original_right = np.zeros(0, bool)

    def go(self) -> Found:
        own = self._price(self.space.by_hand)
        if own > self.wanted.budget:
            raise CocError(
                f"--budget-epochs {self.wanted.budget}: the recipe itself, the first trial, takes {own}"
            )
        if self.log.replaced:
            self.show(f"{self.log.path} was another search's: it is replaced, its finished stages are used")
        if line := self.store.of_other_code(self.identity.code):
            self.show(line)
        proposals = _Proposals(self.space, self.wanted.seed)
        while (why := self._ended()) is None:
            proposal = proposals.next(
                lambda picked: picked not in self.seen and self._price(picked) <= self._left
            )
            if proposal is None:
                why = "nothing untried fits the epochs that are left"
                break
            asked, picked = proposal
            trial = self._trial(picked)
            proposals.tell(asked, trial)
        return self._found(why)

    def _found(self, why: str) -> Found:
        by_hand = self.log.trials[0]
        assert self.best is not None and self.goal is not None
        return Found(self.best, by_hand, tuple(self.log.trials), self.goal, self.spent, why)

    def finish(self, more: Mapping[str, object]) -> None:
        """Add to auto.json what came of it."""
        self.log.write({**self._so_far(), **more})

    @property
    def _left(self) -> int:
        return self.wanted.budget - self.spent

    def _ended(self) -> str | None:
        if len(self.seen) == self.space.size:
            return "the whole space was tried"
        if self.idle >= IDLE:
            return f"{IDLE} settings in a row could not win"
        return None

    def _path(self, chosen: Recipe) -> tuple[Node, ...]:
        return self.identity.path(chosen)

    def _price(self, picked: Picked) -> int:
        """Epochs that a setting adds, 0 if it is not even a recipe."""
        try:
            return sum(
                node.epochs for node in self._path(self.space.recipe(picked)) if node.key not in self.paid
            )
        except CocError:
            return 0

    def _trial(self, picked: Picked) -> Trial:
        first = not self.seen
        self.seen.add(picked)
        number, settings = len(self.log.trials), self.space.choice(picked)
        try:
            chosen = self.space.recipe(picked)
            path = self._path(chosen)
            self._know_the_original(chosen, path)
            trial = self.log.earlier(settings, path[-1].key) or self._evaluated(chosen, path, settings, first)
            epochs = self._pay(path[: trial.ran])
        except CocError as error:
            if first:
                raise
            trial, epochs = Trial(number, settings, "", State.FAILED, str(error)), 0
        trial = dataclasses.replace(trial, number=number, epochs=epochs)
        self.idle = 0 if trial.epochs else self.idle + 1
        if trial.chosen and goals.better(trial.chosen, self._best):
            self.best = trial
        self.log.add(trial, self._so_far())
        self.show(self._line(trial))
        self._show_frontier(trial)
        return trial

    def _show_frontier(self, trial: Trial) -> None:
        """The frontier of all trials, if the last one has moved it."""
        line = frontier([point for one in self.log.trials for point in one.points])
        if not set(line) & set(trial.points):
            return
        at = np.unique(np.linspace(0, len(line) - 1, SHOWN).round().astype(int)).tolist()
        self.show(f"     frontier: {', '.join(_shown(line[number]) for number in at)}")
        self.draw(self._found(""))

    def _know_the_original(self, chosen: Recipe, path: Sequence[Node]) -> None:
        """What the goal is relative to. The first stage comes with it; its epochs are the first trial's."""
        if self.goal is not None:
            return
        found = self._run(chosen, 1)
        self.original_bitops = found.measured.original_bitops
        model = self.store.stage(path[0].key).model
        self.original_right = goals.answers(model, self.data.held_out)
        accuracy = 100 * float(self.original_right.mean())
        self.goal = Goal(self.wanted.kind, self.wanted.amount, accuracy)
        self.show(f"original: held-out {accuracy:.2f} %; {len(self.original_right)} held-out images")

    def _run(self, chosen: Recipe, stages: int) -> run.Evaluation:
        """The chain so far, from the tree where it is there."""
        part = dataclasses.replace(chosen, chain=chosen.chain[:stages])
        return run.evaluate(part, self.store, POINTS, self.wanted.threads, self.identity)

    def _evaluated(
        self, chosen: Recipe, path: Sequence[Node], settings: dict[str, object], first: bool
    ) -> Trial:
        """A setting's trial; the recipe itself, the first one, runs to its end in any case."""
        assert self.goal is not None
        key = path[-1].key
        most = _most_ratio(chosen, self.data, self.original_bitops)
        if not first and most is not None and self.goal.cannot_win(most, self._best):
            why = f"{most:.1f}x if every image left at the first exit"
            return Trial(0, settings, key, State.SKIPPED, why)
        for stages in range(1, len(path)):
            found = self._run(chosen, stages)
            limits = [point.thresholds for point in found.measured.points]
            points = goals.measure(
                found.model, limits, self.original_bitops, self.original_right, self.data.held_out
            )
            most_accurate = max(point.accuracy for point in points)
            if not first and stages < len(path) - 1 and self.goal.has_lost(most_accurate, self._best):
                why = f"held-out {most_accurate:.2f} % after {chosen.chain[:stages]}"
                return Trial(0, settings, key, State.STOPPED, why, stages + 1)
        choice = self.goal.choose(points)
        shown = tuple(frontier_with(choice.point, points))
        return Trial(0, settings, key, State.DONE, "", len(path), 0, shown, choice)

    def _pay(self, ran: Sequence[Node]) -> int:
        """Charge a trial for those of its stages that no trial before it asked for: their epochs."""
        epochs = sum(node.epochs for node in ran if node.key not in self.paid)
        self.paid |= {node.key for node in ran}
        self.spent += epochs
        return epochs

    @property
    def _best(self) -> Choice | None:
        return self.best.chosen if self.best else None

    def _so_far(self) -> dict[str, object]:
        assert self.goal is not None
        return {
            "original": {"held_out_accuracy": self.goal.original, "bitops": self.original_bitops},
            "held_out_images": len(self.data.held_out.labels),
            "budget_epochs": self.wanted.budget,
            "epochs": self.spent,
            "best": self.best.number if self.best else None,
        }

    def _line(self, trial: Trial) -> str:
        if trial.chosen:
            found = f"held-out {_shown(trial.chosen.point)}" + ("" if trial.chosen.met else ", not enough")
        else:
            found = f"{trial.state}: {trial.why}"
        best = ""
        if self.best and self.best.chosen:
            best = f"; best {_shown(self.best.chosen.point)} (#{self.best.number})"
        settings = text(trial.settings) or "the recipe"
        return f"#{trial.number:<3} {settings}: {found}{best}; {trial.epochs} epochs, {self._left} left"


def _shown(point: Point) -> str:
    return f"{point.accuracy:.2f} % at {point.bitops_cr:.1f}x"


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both, the most compressed first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (-point.bitops_cr, -point.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def frontier_with(chosen: Point, points: Sequence[Point]) -> list[Point]:
    """The frontier and the chosen point, which lies behind it where its smaller standard error decided."""
    kept = {*frontier(points), chosen}
    return sorted(kept, key=lambda point: (-point.bitops_cr, point.accuracy))


def _most_ratio(chosen: Recipe, data: chain.Data, original_bitops: int) -> float | None:
    """BitOpsCR if every image left at the first exit, from the untrained networks; None where the structure
    depends on the weights."""
    stages = [chosen.section(index) for index in range(1, len(chosen.chain) + 1)]
    last = chain.rehearse(chosen, chain.start(chosen, data))[-1]
    if any(isinstance(stage, Prune) and stage.scope == "global" for stage in stages):
        return None
    return goals.most_ratio([cost.bitops(layers) for layers in segment_layers(last)], original_bitops)


class _Proposals:
    """Settings to try, from Optuna's sampler."""

    def __init__(self, space: Space, seed: int) -> None:
        optuna = load_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        first = [space.by_hand, *space.neighbours()]
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(first))
        self.space = space
        self._states = optuna.trial.TrialState
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        for picked in first:
            self._enqueue(picked)

    def next(self, wanted: Callable[[Picked], bool]) -> "tuple[optuna.trial.Trial, Picked] | None":
        """A setting that is wanted, None if there is none among LOOKED_THROUGH."""
        for _ in range(TRIES):
            trial, picked = self._ask()
            if wanted(picked):
                return trial, picked
            self._study.tell(trial, state=self._states.FAIL)
        for picked in itertools.islice(self.space.all(), LOOKED_THROUGH):
            if wanted(picked):
                self._enqueue(picked)
                while (proposal := self._ask())[1] != picked:
                    self._study.tell(proposal[0], state=self._states.FAIL)
                return proposal
        return None

    def tell(self, asked: "optuna.trial.Trial", trial: Trial) -> None:
        if trial.chosen:
            self._study.tell(asked, trial.chosen.value)
        else:
            failed = trial.state is State.FAILED
            self._study.tell(asked, state=self._states.FAIL if failed else self._states.PRUNED)

    def _ask(self) -> "tuple[optuna.trial.Trial, Picked]":
        trial = self._study.ask()
        picked = [
            trial.suggest_categorical(axis.name, list(range(len(axis.choices)))) for axis in self.space.axes
        ]
        return trial, tuple(int(number) for number in picked)

    def _enqueue(self, picked: Picked) -> None:
        names = [axis.name for axis in self.space.axes]
        self._study.enqueue_trial(dict(zip(names, picked, strict=True)))


def load_optuna() -> Any:
    """The optimiser's module; CocError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise CocError(
            "--auto needs Optuna, which is not installed: pip install 'coc-deploy[auto]'"
        ) from None
    return optuna
