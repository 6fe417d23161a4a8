"""Thresholds with a promise: it is kept by new images, and what few images cannot show is not promised."""

from statistics import NormalDist

import numpy as np
import pytest

from coc_runtime import promise, thresholds
from coc_runtime.arithmetic import Task, confidence, confidence_error, exits_taken
from coc_runtime.promise import Kept, Promise

COSTS = (1.0, 2.0, 4.0)
NEVER = thresholds.NEVER[Task.CLASSIFICATION]


def outcome(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits [3, count, 5] of exits that are right the more often the later, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    logits = rng.standard_normal((3, count, 5))
    easy = rng.exponential(1.0, count)
    for k in range(3):
        logits[k, np.arange(count), labels] += (2.0 + 1.2 * k) * easy + 0.5
    return logits.astype(np.float32), labels


def numbers(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [3, count, 1] whose errors fall from exit to exit, and targets."""
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((count, 1)).astype(np.float32)
    hard = rng.exponential(1.0, (count, 1))
    errors = [hard * rng.standard_normal((count, 1)) / (k + 2) ** 2 for k in range(3)]
    return np.stack([targets + error for error in errors]).astype(np.float32), targets


def lost(logits: np.ndarray, labels: np.ndarray, limits: tuple[float, ...], task: Task) -> float:
    """Points, or percent of error, below the last exit."""
    taken = exits_taken(logits, limits, task)
    chosen = logits[taken, np.arange(len(taken))]
    if task is Task.CLASSIFICATION:
        right = [(answers.argmax(axis=1) == labels).mean() for answers in (logits[-1], chosen)]
        return float(100 * (right[0] - right[1]))
    error = [np.abs(answers - labels).mean() for answers in (logits[-1], chosen)]
    return float(100 * (error[1] / error[0] - 1))


@pytest.mark.parametrize(("max_drop", "count"), [(2.0, 400), (5.0, 150)])
def test_a_promise_is_kept_by_new_images(max_drop: float, count: int) -> None:
    """By all there are, which tell the mean, and by as many as it was tested by."""
    everywhere = outcome(99, 40_000)
    early, broken, broken_where_measured = 0, 0, 0
    for seed in range(20):
        kept = promise.choose(*outcome(seed, count), COSTS, Promise(max_drop, 0.9))
        early += kept.early
        broken += lost(*everywhere, kept.thresholds, Task.CLASSIFICATION) > max_drop
        measured = lost(*outcome(1000 + seed, count), kept.thresholds, Task.CLASSIFICATION)
        broken_where_measured += measured > max_drop
        assert kept.bound <= max_drop
    assert early >= 10, "exits are of use"
    assert broken <= 2 and broken_where_measured <= 4


def test_a_promise_about_errors_is_kept_by_new_images() -> None:
    everywhere = numbers(99, 40_000)
    found = [
        promise.choose(*numbers(seed, 800), COSTS, Promise(30.0, 0.9), Task.REGRESSION) for seed in range(20)
    ]
    assert sum(kept.early for kept in found) >= 10
    broken = [lost(*everywhere, kept.thresholds, Task.REGRESSION) > 30 for kept in found]
    assert sum(broken) <= 2
    assert all(kept.bound <= 30 and kept.thresholds[0] == 0 for kept in found)


def test_exits_whose_confidence_means_nothing_are_not_trusted() -> None:
    """Too sure by far: the frontier of few images may believe them, a promise does not."""
    logits, labels = outcome(3, 600)
    logits[0] = np.random.default_rng(0).standard_normal(logits[0].shape) * 8
    kept = promise.choose(logits, labels, COSTS, Promise(2.0, 0.9))
    assert (exits_taken(logits, kept.thresholds) == 0).mean() < 0.02
    assert (exits_taken(logits, kept.thresholds) == 1).mean() > 0.2, "the other exit is still used"


def test_more_images_more_allowed_and_less_confidence_buy_more() -> None:
    logits, labels = outcome(4, 3000)

    def cost(images: int, max_drop: float, sure: float) -> float:
        kept = promise.choose(logits[:, :images], labels[:images], COSTS, Promise(max_drop, sure))
        return float(np.asarray(COSTS)[exits_taken(logits, kept.thresholds)].mean())

    assert cost(3000, 1.0, 0.9) < cost(300, 1.0, 0.9)
    assert cost(3000, 3.0, 0.9) < cost(3000, 1.0, 0.9) < cost(3000, 1.0, 0.999)


def test_too_few_images_let_none_leave_and_say_how_many_would_do() -> None:
    kept = promise.choose(*outcome(0, 100), COSTS, Promise(0.5, 0.9))
    assert kept.thresholds == (NEVER, NEVER) and not kept.early and kept.bound == 0
    assert kept.needed is not None and 460 < kept.needed < 10_000
    text = kept.line()
    assert text is not None
    assert text.startswith(
        "no image leaves early: 100 held-out images do not guarantee a loss of at most 0.5 "
    )
    assert text.endswith(f"about {kept.needed:,} would") and kept.record()["images_needed"] == kept.needed
    enough = promise.choose(*outcome(0, 4 * kept.needed), COSTS, Promise(0.5, 0.9))
    assert enough.early and enough.line() is None and "images_needed" not in enough.record()


def test_where_no_number_of_images_would_do_it_says_so() -> None:
    logits, labels = outcome(0, 300)
    logits[:2] = np.random.default_rng(0).standard_normal(logits[:2].shape)
    for wanted in (Promise(0.0, 0.9), Promise(0.5, 0.9)):
        kept = promise.choose(logits, labels, COSTS, wanted)
        assert kept.needed is None and "no number of such images would" in str(kept.line())


def test_an_exit_dearer_than_the_end_is_never_taken() -> None:
    kept = promise.choose(*outcome(3, 500), (9.0, 8.0, 4.0), Promise(10.0, 0.9))
    assert kept.thresholds == (NEVER, NEVER)


def test_everything_leaves_at_once_where_everything_may_be_lost() -> None:
    logits, labels = outcome(2, 300)
    kept = promise.choose(logits, labels, COSTS, Promise(100.0, 0.9))
    assert (exits_taken(logits, kept.thresholds) == 0).mean() > 0.95


def test_a_network_without_early_exits_has_nothing_to_promise() -> None:
    logits, labels = outcome(0, 50)
    kept = promise.choose(logits[-1:], labels, (1.0,), Promise(1.0, 0.9))
    assert kept.thresholds == () and not kept.early


def test_images_that_test_do_not_shape() -> None:
    shaping, testing = promise.split(500)
    assert len(shaping) == 100 and sorted([*shaping, *testing]) == list(range(500))
    logits, labels = outcome(5, 500)
    turned = labels.copy()
    turned[testing] = (turned[testing] + 1) % 5
    points = list(promise.path(logits, logits[:, shaping], Task.CLASSIFICATION))
    assert points == list(promise.path(logits, logits[:, shaping], Task.CLASSIFICATION))
    assert points[0] > points[60] > points[-1], "from the safest to the cheapest"
    assert promise.choose(logits, turned, COSTS, Promise(5.0, 0.9)).thresholds in [*points, (NEVER, NEVER)]


def test_thresholds_keep_clear_of_confidences_and_are_float32() -> None:
    logits, labels = outcome(6, 3000)
    kept = promise.choose(logits, labels, COSTS, Promise(5.0, 0.9))
    for k, limit in enumerate(kept.thresholds):
        assert limit == float(np.float32(limit))
        assert np.abs(confidence(logits[k]).astype(np.float64) - limit).min() >= 1.9 * confidence_error(5)


def test_the_more_classes_the_further_thresholds_keep_clear() -> None:
    rng = np.random.default_rng(9)
    logits = np.multiply.outer([1, 2], rng.normal(0, 6, (400, 1000))).astype(np.float32)
    sure = np.sort(confidence(logits[0]).astype(np.float64))
    kept = [limits[0] for limits in promise.path(logits, logits, Task.CLASSIFICATION) if limits[0] <= 1]
    assert np.diff(sure).min() < confidence_error(1000) and kept
    for limit in kept:
        assert np.abs(sure - limit).min() >= 1.9 * confidence_error(1000)


def test_a_measured_mean_is_covered_by_the_square_root_of_two() -> None:
    assert promise.for_measured(0.9) == pytest.approx(NormalDist().cdf(2**0.5 * NormalDist().inv_cdf(0.9)))
    assert promise.for_measured(0.5) == pytest.approx(0.5)


def test_a_bound_of_given_thresholds_is_above_what_the_images_lose() -> None:
    for task, (logits, labels) in (
        (Task.CLASSIFICATION, outcome(8, 900)),
        (Task.REGRESSION, numbers(8, 900)),
    ):
        limits = (0.7, 0.6) if task is Task.CLASSIFICATION else (0.0, 0.3)
        bounds = [promise.bound(logits, labels, limits, sure, task) for sure in (0.6, 0.9, 0.99)]
        assert lost(logits, labels, limits, task) < bounds[0] < bounds[1] < bounds[2]


def test_a_record_holds_what_was_promised() -> None:
    kept = Kept((0.5,), Promise(1.5, 0.95), 500, 400, 1.25, True)
    assert kept.record() == {
        "max_drop": 1.5,
        "confidence": 0.95,
        "held_out": 500,
        "images": 400,
        "bound": 1.25,
    }
