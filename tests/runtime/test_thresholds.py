"""Thresholds: the frontier is that of all combinations, and each budget takes its point of it."""

import itertools

import numpy as np
import pytest

from coc_runtime import thresholds
from coc_runtime.arithmetic import Task, confidence, exits_taken
from coc_runtime.thresholds import frontier, gate

BITOPS = (100, 220, 400)
NEVER = thresholds.NEVER[Task.CLASSIFICATION]


def outcome(seed: int, exits: int = 2, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Logits [exits + 1, count, 5] and labels; later exits are right more often."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    logits = rng.standard_normal((exits + 1, count, 5)).astype(np.float32)
    for k in range(exits + 1):
        strength = rng.exponential(1.0 + k, count)
        logits[k, np.arange(count), labels] += strength
    return logits, labels


def choose(
    logits: np.ndarray, labels: np.ndarray, costs: tuple[float, ...], max_drop: float
) -> tuple[float, ...]:
    """The frontier's cheapest thresholds within a drop in points."""
    found = frontier(logits, labels, costs)
    within = np.flatnonzero(found.loss <= max_drop / 100)
    return tuple(found.thresholds[within[0]].tolist())


def one_by_one(logits: np.ndarray, labels: np.ndarray, limits: tuple[float, ...]) -> tuple[float, list[int]]:
    """Percent right and the exit of each image, the slow way."""
    taken, right = [], 0
    for i in range(len(labels)):
        exit_ = 0
        while exit_ < len(limits) and confidence(logits[exit_, i : i + 1])[0] < np.float32(limits[exit_]):
            exit_ += 1
        taken.append(exit_)
        right += int(logits[exit_, i].argmax() == labels[i])
    return 100 * right / len(labels), taken


@pytest.mark.parametrize("limits", [(0.5, 0.5), (0.0, 0.0), (2.0, 2.0), (2.0, 0.4), (0.9, 0.3)])
def test_gate_agrees_with_a_loop_over_images(limits: tuple[float, float]) -> None:
    logits, labels = outcome(0)
    accuracy, taken = one_by_one(logits, labels, limits)
    gated = gate(logits, labels, limits, BITOPS)
    assert gated.accuracy == pytest.approx(accuracy)
    assert gated.bitops == pytest.approx(np.mean([BITOPS[k] for k in taken]))
    np.testing.assert_allclose(gated.shares, np.bincount(taken, minlength=3) / len(labels))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("exits", [1, 2, 3])
@pytest.mark.parametrize("max_drop", [0.0, 1.0, 5.0])
def test_the_drop_is_kept_and_the_cost_never_above_that_of_staying(
    seed: int, exits: int, max_drop: float
) -> None:
    logits, labels = outcome(seed, exits)
    bitops = tuple(100 * (k + 1) for k in range(exits + 1))
    limits = choose(logits, labels, bitops, max_drop)
    accuracy, taken = one_by_one(logits, labels, limits)
    last = float((logits[-1].argmax(axis=1) == labels).mean() * 100)
    assert accuracy >= last - max_drop - 1e-9
    assert np.mean([bitops[k] for k in taken]) <= bitops[-1]
    if max_drop == 5.0:
        assert min(taken) < exits, "five points buy some exits"


def test_a_larger_budget_never_costs_more() -> None:
    logits, labels = outcome(1)
    costs = [
        gate(logits, labels, choose(logits, labels, BITOPS, d), BITOPS).bitops for d in (0, 1, 3, 10, 100)
    ]
    assert costs == sorted(costs, reverse=True) and costs[-1] < costs[0]


def test_with_every_drop_allowed_all_but_one_candidate_leave_at_the_cheapest_exit() -> None:
    logits, labels = outcome(2)
    assert gate(logits, labels, choose(logits, labels, BITOPS, 100), BITOPS).shares[0] > 0.95


def test_exits_that_are_always_wrong_are_never_taken() -> None:
    logits, labels = outcome(3)
    logits[:2] = -10
    logits[:2, np.arange(len(labels)), (labels + 1) % 5] = np.linspace(0, 9, len(labels))
    assert choose(logits, labels, BITOPS, 0.0) == (NEVER, NEVER)


def test_an_exit_dearer_than_the_end_is_never_taken() -> None:
    logits, labels = outcome(3, exits=1)
    assert choose(logits, labels, (500, 400), 5.0) == (NEVER,)


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_lie_in_the_middle_of_gaps_among_the_images_that_reach_the_exit(seed: int) -> None:
    logits, labels = outcome(seed)
    staying = np.ones(len(labels), bool)
    for k, limit in enumerate(choose(logits, labels, BITOPS, 3.0)):
        scores = np.sort(confidence(logits[k]).astype(np.float64)[staying])
        above = int(np.searchsorted(scores, limit))
        assert 0 < above < len(scores)
        low, high = scores[above - 1], scores[above]
        assert limit == pytest.approx((low + high) / 2, abs=1e-7) and high - low > 4e-7
        assert limit == float(np.float32(limit)), "files store float32"
        staying &= confidence(logits[k]) < np.float32(limit)


@pytest.mark.parametrize(("first", "limit"), [(0, 0.1), (1, NEVER)])
def test_equal_confidences_leave_all_together_or_not_at_all(first: int, limit: float) -> None:
    logits = np.zeros((2, 10, 5), np.float32)
    logits[0, :, first] = 1e-7
    limits = choose(logits, np.zeros(10, np.int64), (1, 2), 0.0)
    assert limits == pytest.approx((limit,), abs=1e-4)


def reference(
    logits: np.ndarray, labels: np.ndarray, costs: tuple[float, ...], task: Task
) -> list[tuple[float, float]]:
    """The frontier (cost, loss) by trying every set of thresholds."""
    if task is Task.CLASSIFICATION:
        gain = (logits.argmax(axis=2) == labels).astype(float)
        scores = [np.unique(confidence(exit_)) for exit_ in logits[:-1]]
        grids = [[0.0, *(s[:-1] + s[1:]) / 2, NEVER] for s in scores]
    else:
        gain = -np.abs(logits.astype(float) - labels).mean(axis=2)
        distances = [np.unique(np.abs(b - a).max(axis=1)) for a, b in itertools.pairwise(logits[:-1])]
        grids = [[0.0], *([0.0, *(d[:-1] + d[1:]) / 2, 1e9] for d in distances)]
    points = []
    for limits in itertools.product(*grids):
        taken = exits_taken(logits, limits, task)
        lost = gain[-1] - gain[taken, np.arange(len(taken))]
        points.append((np.asarray(costs)[taken].mean(), lost.mean() + lost.std() / len(lost) ** 0.5))
    best, kept = np.inf, []
    for cost, loss in sorted(points):
        if loss < best - 1e-12:
            best = loss
            kept.append((cost, loss))
    return kept


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize(("exits", "count"), [(1, 60), (2, 25), (3, 9)])
def test_the_frontier_is_that_of_all_combinations(exits: int, count: int, task: Task) -> None:
    logits, labels = outcome(exits, exits, count)
    costs = (1.0, 2.5, 3.0, 7.0)[: exits + 1]
    if task is Task.REGRESSION:
        logits, labels = numbers(exits, count)
    found = frontier(logits, labels, costs, task)
    expected = np.array(reference(logits, labels, costs, task))
    assert found.exact
    np.testing.assert_allclose(found.cost, expected[:, 0], atol=1e-12)
    np.testing.assert_allclose(found.loss, expected[:, 1], atol=1e-12)


def numbers(exits: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [exits + 1, count, 2] of a regression and targets; later exits err less."""
    rng = np.random.default_rng(exits)
    targets = rng.standard_normal((count, 2)).astype(np.float32)
    errors = [rng.standard_normal((count, 2)) / (k + 1) for k in range(exits + 1)]
    return np.stack([targets + error for error in errors]).astype(np.float32), targets


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize(("exits", "combinations"), [(1, 100), (3, 100), (3, 10**6), (5, 50)])
def test_every_threshold_of_the_frontier_does_what_its_point_says(
    exits: int, combinations: int, task: Task
) -> None:
    logits, labels = outcome(7, exits, 40) if task is Task.CLASSIFICATION else numbers(exits, 40)
    costs = np.arange(1.0, exits + 2) ** 2
    found = frontier(logits, labels, costs, task, combinations)
    gain = (logits.argmax(axis=2) == labels) if task is Task.CLASSIFICATION else None
    for limits, cost, loss in zip(found.thresholds, found.cost, found.loss, strict=True):
        taken = exits_taken(logits, limits.tolist(), task)
        assert costs[taken].mean() == pytest.approx(cost)
        if gain is not None:
            lost = gain[-1].astype(float) - gain[taken, np.arange(len(taken))]
            assert lost.mean() + lost.std() / len(lost) ** 0.5 == pytest.approx(loss, abs=1e-9)
    assert (np.diff(found.cost) > 0).all() and (np.diff(found.loss) < 0).all()


def test_with_too_many_combinations_the_frontier_is_nearly_that_of_all() -> None:
    logits, labels = outcome(11, 3, 120)
    costs = (1.0, 2.0, 3.0, 4.0)
    best = frontier(logits, labels, costs, combinations=10**7)
    found = frontier(logits, labels, costs, combinations=100)
    assert best.exact and not found.exact
    for cost, loss in zip(best.cost, best.loss, strict=True):
        assert ((found.cost <= cost * 1.03) & (found.loss <= loss + 0.01)).any(), (cost, loss)


def test_budgets_take_the_cheapest_and_the_best_point_and_neighbours_differ() -> None:
    logits, labels = outcome(5)
    found = frontier(logits, labels, BITOPS)
    for limit in (150.0, 180.0, float(found.cost[-2])):
        point = found.at_cost(limit)
        assert point is not None and found.cost[point] <= limit < found.cost[point + 1]
        cheaper, dearer = found.neighbours(float(found.cost[point]))
        assert cheaper is None or found.cost[cheaper] < found.cost[point]
        assert dearer is None or found.cost[dearer] > found.cost[point]
    assert found.at_cost(99.0) is None, "no image costs less than the first exit"
    ends = (float(found.cost[at]) for at in (0, -1))
    assert found.neighbours(next(ends))[0] is None and found.neighbours(next(ends))[1] is None
    assert found.spread(9)[0] == 0 and found.spread(9)[-1] == len(found) - 1


def test_a_network_without_exits_has_one_point() -> None:
    logits, labels = outcome(0, exits=0)
    found = frontier(logits, labels, (7,))
    assert len(found) == 1 and found.thresholds.shape == (1, 0) and found.cost[0] == 7


def test_thresholds_found_are_the_best_of_all_gaps_for_one_exit() -> None:
    logits, labels = outcome(4, exits=1, count=600)
    limits = choose(logits, labels, (1, 2), 2.0)
    allowed = [cost for cost, loss in reference(logits, labels, (1, 2), Task.CLASSIFICATION) if loss <= 0.02]
    assert gate(logits, labels, limits, (1, 2)).bitops == pytest.approx(min(allowed))


def test_a_frontier_is_priced_anew_by_other_images() -> None:
    chosen, labels = outcome(5)
    others, _ = outcome(6)
    found = frontier(chosen, labels, BITOPS)
    priced = found.priced(others, Task.CLASSIFICATION)
    assert (
        1 < len(priced) <= len(found)
        and (np.diff(priced.cost) > 0).all()
        and (np.diff(priced.loss) < 0).all()
    )
    for limits, cost in zip(priced.thresholds.tolist(), priced.cost, strict=True):
        assert np.asarray(BITOPS)[exits_taken(others, limits)].mean() == pytest.approx(cost)
        assert priced.price(others, limits, Task.CLASSIFICATION) == pytest.approx(cost)
