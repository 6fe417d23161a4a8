"""Which differences are told from chance: draws of images and trainings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from coc_study import frontier, table
from coc_study.bootstrap import draw, percentile, reflected
from coc_study.compare import Comparison, compare
from coc_study.table import Sample
from synthetic_study import World, exactly, grid, row, sample, write

IMAGES = 400


def samples(folder: Path, rows: list[dict[str, object]]) -> Sequence[Sample]:
    return table.read(write(folder, rows) / table.NAME).samples


def measured(folder: Path, world: World, pair: str = "PQ", seeds: Sequence[int] = (0,)) -> Comparison:
    """Both orders of a pair in a world."""
    cases = [(chain, s, seed) for chain in (pair, pair[::-1]) for s in grid(pair, 8) for seed in seeds]
    rows = [r for chain, setting, seed in cases for r in world.case(chain, setting, seed, "pairs", pair)]
    found = compare(samples(folder, rows), pair, pair[::-1])
    assert found is not None
    return found


def world(seed: int, penalty: dict[str, float], images: int = IMAGES, noise: float = 0.15) -> World:
    return World(np.random.default_rng([seed, 3]).standard_normal(images), penalty, noise, seed)


def test_an_order_that_dominates_is_better(tmp_path: Path) -> None:
    found = measured(tmp_path, world(1, {"QP": 3.0}))
    assert found.better == "PQ"
    assert found.factor.low > 1
    assert found.same is not None
    assert (found.same.wins, found.same.contested) == (8, 8)
    assert found.same.accuracy.low < 3.0 < found.same.accuracy.high
    assert found.same.sign_test == 2 / 2**8


def test_the_reverse_order_is_found_as_well(tmp_path: Path) -> None:
    assert measured(tmp_path, world(1, {"PQ": 3.0})).better == "QP"


def test_equal_answers_are_no_difference_and_no_width(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    answers = [rng.random(IMAGES) < 0.92 for _ in range(6)]
    rows = [
        row(chain, given, 10.0 * (k + 1), setting={"p.ratio": k / 10})
        for chain in ("PQ", "QP")
        for k, given in enumerate(answers)
    ]
    found = compare(samples(tmp_path, rows), "PQ", "QP")
    assert found is not None and found.better is None
    assert found.difference.low == found.difference.high == 0
    assert found.same is not None and found.same.contested == 0 and found.same.sign_test == 1


def test_luck_of_single_trainings_is_rarely_taken_for_an_order(tmp_path: Path) -> None:
    """With many images and one seed: drawing images alone would take luck for merit."""
    fair = [measured(tmp_path / str(k), world(k, {}, 2000, noise=0.5)) for k in range(12)]
    assert sum(found.better is not None for found in fair) <= 2


def test_intervals_of_areas_cover_what_more_images_would_show(tmp_path: Path) -> None:
    """Many points against few: the many profit from chance, and only the reflected interval allows for it."""
    true = {"PQ": [(92.5, 4.0 * 1.15**k) for k in range(16)], "QP": [(92.5, 4.0), (92.5, 4.0 * 1.15**15)]}
    covered = {reflected: 0, percentile: 0}
    corner = frontier.Reference(np.log10(2.0), 10.0)
    exact = [np.log10(4.0 * 1.15**15) - corner.ratio] * 2  # both are one rectangle, (92.5 - 83) high
    for trial in range(20):
        rng = np.random.default_rng(trial)
        drawn = draw(_independent(true, rng), draws=100, seed=trial)
        gap = frontier.area(drawn.of("PQ"), corner) - frontier.area(drawn.of("QP"), corner)
        for interval in covered:
            found = interval(gap)
            covered[interval] += found.low <= 9.5 * (exact[0] - exact[1]) <= found.high
    assert covered[reflected] >= 15
    assert covered[reflected] > covered[percentile]


def _independent(true: dict[str, list[tuple[float, float]]], rng: np.random.Generator) -> list[Sample]:
    """Samples of these accuracies and ratios, answers independent of each other."""
    result = []
    for chain, points in true.items():
        for k, (accuracy, ratio) in enumerate(points):
            correct = rng.random(IMAGES) < accuracy / 100
            result.append(sample(chain, correct, ratio, f"{k}"))
    return result


def test_the_same_draws_serve_every_chain(tmp_path: Path) -> None:
    rows = [row(chain, exactly(360, IMAGES), 10.0) for chain in ("PQ", "QP")]
    drawn = draw(samples(tmp_path, rows))
    assert (drawn.margin[0] == drawn.margin[1]).all() and drawn.margin[0, 1:].std() > 0


def test_cost_is_drawn_with_the_images_that_leave_early(tmp_path: Path) -> None:
    exits = np.arange(IMAGES) % 3
    drawn = draw(samples(tmp_path, [row("PE", exactly(360, IMAGES), 4.0, exits=exits)]))
    expected = 4.0 / np.array([0.25, 0.5, 1.0])[exits].mean()
    assert 10 ** drawn.ratio[0, 0] == np.float32(expected) or abs(10 ** drawn.ratio[0, 0] - expected) < 1e-4
    assert drawn.ratio[0, 1:].std() > 0
    assert abs(10 ** drawn.ratio[0, 1:].mean() / expected - 1) < 0.02


def test_an_original_with_answers_is_drawn_with_the_chain(tmp_path: Path) -> None:
    given = exactly(372, IMAGES)
    rows = [row("", given, 1.0, kind="original", original_accuracy=93.0), row("PQ", given, 10.0)]
    drawn = draw(samples(tmp_path, rows))
    assert [s.chain for s in drawn.samples] == ["PQ"]
    assert np.abs(drawn.margin).max() < 1e-4


def test_several_seeds_are_drawn_and_widen_the_interval(tmp_path: Path) -> None:
    def rows(shift: int) -> list[dict[str, object]]:
        """Three seeds whose gaps are equal, or differ by `shift` answers around the same mean."""
        gaps = {0: 8 - shift, 1: 8, 2: 8 + shift}
        return [
            row(chain, exactly(right + (gap if chain == "PQ" else 0), IMAGES), ratio, seed=seed)
            for seed, gap in gaps.items()
            for chain in ("PQ", "QP")
            for right, ratio in ((360, 10.0), (320, 11.0))
        ]

    widths = []
    for shift in (0, 7):
        found = compare(samples(tmp_path / str(shift), rows(shift)), "PQ", "QP")
        assert found is not None and found.trainings == 3
        widths.append(found.difference.high - found.difference.low)
    assert widths[1] > 1.5 * widths[0]


def test_a_case_that_one_order_lacks_is_left_out_of_both(tmp_path: Path) -> None:
    rows = [
        row("PQ", exactly(370, IMAGES), 10.0, setting={"p.ratio": 0.1}),
        row("QP", exactly(360, IMAGES), 10.0, setting={"p.ratio": 0.1}),
        row("QP", exactly(380, IMAGES), 900.0, setting={"p.ratio": 0.5}),
    ]
    found = compare(samples(tmp_path, rows), "PQ", "QP")
    assert found is not None
    assert found.points == (1, 1) and found.left_out == 1
    assert found.difference.value > 0


def test_where_all_lose_much_accuracies_count_from_the_best_point_on(tmp_path: Path) -> None:
    rows = [
        row(chain, exactly(right - 4 * k, IMAGES), 10.0 * 2**k, setting={"p.ratio": k})
        for chain, right in (("PQ", 300), ("QP", 200))
        for k in range(4)
    ]
    found = compare(samples(tmp_path, rows), "PQ", "QP")
    assert found is not None and found.better == "PQ"


def test_below_a_given_depth_nothing_is_decided(tmp_path: Path) -> None:
    rows = [
        row(chain, exactly(right, IMAGES), 10.0, setting={"p.ratio": k})
        for chain, right in (("PQ", 300), ("QP", 200))
        for k in range(4)
    ]
    found = compare(samples(tmp_path, rows), "PQ", "QP", depth=2.0)
    assert found is not None and found.better is None


@pytest.mark.parametrize(("cases", "better"), [(1, None), (2, None), (3, "PQ")])
def test_few_trainings_decide_nothing(tmp_path: Path, cases: int, better: str | None) -> None:
    rows = [
        row(chain, exactly(right, IMAGES), 10.0, setting={"p.ratio": k})
        for chain, right in (("PQ", 380), ("QP", 340))
        for k in range(cases)
    ]
    found = compare(samples(tmp_path, rows), "PQ", "QP")
    assert found is not None and found.trainings == cases
    assert found.better == better


def test_chains_of_other_settings_are_drawn_apart(tmp_path: Path) -> None:
    rows = [row("P", exactly(372, IMAGES), 10.0 * k, setting={"p.ratio": k}) for k in (1, 2, 3)]
    rows += [row("PP", exactly(372, IMAGES), 10.0 * k, setting={"p2.ratio": k}) for k in (1, 2, 3, 4, 5)]
    found = compare(samples(tmp_path, rows), "PP", "P", matched=False)
    assert found is not None and found.same is None
    assert found.trainings == 3 and found.points == (5, 3)
