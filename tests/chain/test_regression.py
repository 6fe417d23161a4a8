"""What trains and measures numbers: squared errors, MAE and R2, and tolerances chosen on held-out images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics

from coc_deploy import chain, recipe
from coc_deploy.losses import distilled_squares, exit_distillation, mean_squares
from coc_deploy.recipe import Recipe
from coc_runtime import CocError, datasets, promise, quality
from coc_runtime.graph import Task
from coc_runtime.promise import Promise
from coc_runtime.thresholds import gate
from tiny import stage_key, write_recipe

BITOPS = (100, 220, 400, 500)


def outcome(seed: int, exits: int = 3, outputs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [exits + 1, 300, outputs] that come nearer to their targets from exit to exit."""
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((300, outputs)).astype(np.float32)
    difficulty = rng.exponential(0.3, (1, 300, 1))
    noise = (
        rng.standard_normal((exits + 1, 300, outputs)) * difficulty / np.arange(1, exits + 2)[:, None, None]
    )
    return (targets + noise).astype(np.float32), targets


def test_errors_are_those_of_scikit_learn() -> None:
    every, targets = outcome(0)
    for outputs in every:
        found = quality.measure(outputs, targets, Task.REGRESSION)
        assert found["accuracy"] is None
        assert found["mae"] == pytest.approx(metrics.mean_absolute_error(targets, outputs))
        assert found["r2"] == pytest.approx(metrics.r2_score(targets, outputs))
    assert quality.r2(np.zeros((4, 1)), np.ones((4, 1))) == 0


def test_students_learn_from_targets_and_teacher_by_alpha() -> None:
    student = [torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])]
    teacher, y = torch.tensor([[2.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    assert float(mean_squares(student, y)) == pytest.approx(((1 + 4) / 2 + (0 + 1) / 2) / 2)
    assert float(mean_squares(student, teacher)) == pytest.approx(((1 + 1) / 2 + (4 + 4) / 2) / 2)
    both = distilled_squares(student, teacher, y, 4.0, 0.25)
    assert float(both) == pytest.approx(0.75 * 1.5 + 0.25 * 2.5)
    exits = exit_distillation(student, [y, teacher], y, 4.0, 1.0, distilled_squares)
    early = (2.5 + 1) / 2  # half from the teacher's exit of its number, half from its last
    assert float(exits) == pytest.approx((early + 4) / 2)


@pytest.mark.parametrize("exits", [1, 2, 3])
@pytest.mark.parametrize("max_drop", [0.0, 5.0, 50.0])
def test_the_error_rises_by_no_more_than_the_percent_allowed(exits: int, max_drop: float) -> None:
    every, targets = outcome(exits, exits)
    wanted = Promise(max_drop, 0.9)
    tolerances = promise.choose(every, targets, BITOPS[: exits + 1], wanted, Task.REGRESSION).thresholds
    gated = gate(every, targets, tolerances, BITOPS[: exits + 1], Task.REGRESSION)
    last = quality.mean_absolute_error(every[-1], targets)
    mae = gated.quality["mae"]
    assert mae is not None and mae <= last * (1 + max_drop / 100) + 1e-9
    assert tolerances[0] == 0 and min(tolerances) >= 0 and gated.shares[0] == 0
    if exits > 1 and max_drop == 50:
        assert gated.shares[1] > 0.1
    if exits == 1:
        assert gated.shares == (0, 1)


def test_rotated_digits_are_the_same_every_time_and_share_no_digit_between_splits() -> None:
    parts = {split: datasets.load("rotated-digits", split) for split in datasets.SPLITS}
    again = datasets.load("rotated-digits", "held-out")
    np.testing.assert_array_equal(again.images, parts["held-out"].images)
    assert sum(len(part.labels) for part in parts.values()) == 3 * 1797
    for split, part in parts.items():
        upright = datasets.load("digits", split)
        assert part.task is Task.REGRESSION and upright.task is Task.CLASSIFICATION
        assert part.labels.dtype == np.float32 and part.labels.shape == (3 * len(upright.labels), 1)
        assert part.images.shape == (3 * len(upright.labels), 1, 8, 8) and part.images.dtype == np.uint8
        assert 0.9 < np.abs(part.labels).max() <= 1 and abs(part.labels.mean()) < 0.1
        ink = part.images.sum(axis=(1, 2, 3)).reshape(3, -1) / upright.images.sum(axis=(1, 2, 3))
        assert 0.7 < np.median(ink) < 1.1  # corners are cut off


@pytest.mark.parametrize(
    ("task", "data", "words"),
    [
        ("regression", "digits", 'leave task = "regression" out, or name data of numbers'),
        ("classification", "rotated-digits", 'set task = "regression", or name data of classes'),
    ],
)
def test_data_that_do_not_hold_what_the_task_predicts_are_refused(task: str, data: str, words: str) -> None:
    chosen = Recipe(task=task, data=data)
    with pytest.raises(CocError, match=words):
        chain.plan(chosen, chain.Data.load(data))


def test_the_task_is_checked_and_counts_for_a_stage_only_where_it_is_not_the_usual(tmp_path: Path) -> None:
    plain, numbers = Recipe(), Recipe(task="regression")
    assert stage_key(plain, "D") != stage_key(numbers, "D")
    assert stage_key(plain, "D") == stage_key(
        recipe.load(write_recipe(tmp_path, 'task = "classification"'), []), "D"
    )
    with pytest.raises(CocError, match="task = 'ranking' is not allowed: classification or regression"):
        Recipe(task="ranking")
    with pytest.raises(CocError, match=r"d\.crd = 0\.8 is not allowed: 0 for a regression"):
        recipe.load(write_recipe(tmp_path, 'task = "regression"\n[d]\ncrd = 0.8'), [])
