"""Thresholds: accuracy within the budget on the images they are chosen on, cost as low as that allows."""

import numpy as np
import pytest

from coc_deploy import thresholds
from coc_deploy.thresholds import choose, gate
from coc_runtime.arithmetic import confidence

BITOPS = (100, 220, 400)


def outcome(seed: int, exits: int = 2, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Logits [exits + 1, count, 5] and labels; later exits are right more often."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    logits = rng.standard_normal((exits + 1, count, 5)).astype(np.float32)
    for k in range(exits + 1):
        strength = rng.exponential(1.0 + k, count)
        logits[k, np.arange(count), labels] += strength
    return logits, labels


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
    assert choose(logits, labels, BITOPS, 0.0) == (thresholds.NEVER, thresholds.NEVER)


def test_an_exit_dearer_than_the_end_is_never_taken() -> None:
    logits, labels = outcome(3, exits=1)
    assert choose(logits, labels, (500, 400), 5.0) == (thresholds.NEVER,)


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_lie_in_the_middle_of_gaps(seed: int) -> None:
    logits, labels = outcome(seed)
    for k, limit in enumerate(choose(logits, labels, BITOPS, 3.0)):
        if limit == thresholds.NEVER:
            continue
        scores = np.sort(np.unique(confidence(logits[k]).astype(np.float64)))
        above = int(np.searchsorted(scores, limit))
        assert 0 < above < len(scores)
        low, high = scores[above - 1], scores[above]
        assert limit == pytest.approx((low + high) / 2, abs=1e-12) and high - low > 4e-7


def test_equal_confidences_everywhere_mean_no_exit() -> None:
    logits = np.zeros((2, 10, 5), np.float32)
    assert choose(logits, np.zeros(10, np.int64), (1, 2), 0.0) == (thresholds.NEVER,)


def test_thresholds_found_are_the_best_of_all_gaps_for_one_exit() -> None:
    logits, labels = outcome(4, exits=1, count=600)
    limits = choose(logits, labels, (1, 2), 2.0)
    scores = np.sort(np.unique(confidence(logits[0]).astype(np.float64)))
    early, late = ((logits[k].argmax(axis=1) == labels).astype(float) for k in (0, 1))
    allowed = []
    for low, high in zip(scores, scores[1:], strict=False):
        leaving = confidence(logits[0]).astype(np.float64) >= (low + high) / 2
        lost = np.where(leaving, late - early, 0)
        if lost.mean() + lost.std() / len(lost) ** 0.5 <= 0.02:
            allowed.append(gate(logits, labels, ((low + high) / 2,), (1, 2)).bitops)
    best = min(allowed)
    # Candidates take the widest gap among nine neighbours, so a few images may be missed.
    assert gate(logits, labels, limits, (1, 2)).bitops <= best + 8 / 60
