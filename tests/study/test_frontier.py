"""What an order reaches, against figures worked out by hand."""

import math
from pathlib import Path

import pytest

from coc_study import frontier, table
from coc_study.bootstrap import draw
from coc_study.frontier import Reference
from coc_study.results import results
from coc_study.table import Sample
from synthetic_study import exactly, row, sample, write

HAND = {  # chain: (right of 1000, BitOpsCR); the original has 93.0 %
    "DPQE": [(931, 100), (928, 400), (924, 800), (921, 900), (911, 1500)],
    "DEQP": [(927, 300), (915, 700), (908, 2000)],
}
TABLE1 = {"DPQE": [400, 800, 900, 1500], "DEQP": [None, 300, 300, 700]}


def sequences(seeds: dict[int, float] | None = None) -> list[dict[str, object]]:
    """HAND as rows; seeds: seed -> what its BitOpsCR is multiplied by."""
    return [
        row(chain, exactly(right, 1000), ratio * times, kind="sequences", group="sequences", seed=seed)
        for seed, times in (seeds or {0: 1.0}).items()
        for chain, points in HAND.items()
        for right, ratio in points
    ]


def read(folder: Path, rows: list[dict[str, object]]) -> table.Table:
    return table.read(write(folder, rows) / table.NAME)


def table1(found: table.Table) -> dict[str, list[int | None]]:
    rows = results(found).table1
    return {row.chain: [round(r.value) if r.value > 1 else None for r in row.ratios] for row in rows}


def test_table_1_is_the_largest_bitopscr_under_each_loss(tmp_path: Path) -> None:
    assert table1(read(tmp_path, sequences())) == TABLE1


def test_of_several_seeds_table_1_takes_the_median(tmp_path: Path) -> None:
    found = read(tmp_path, sequences({0: 0.5, 1: 1.0, 2: 4.0}))
    assert table1(found) == TABLE1


def test_a_loss_that_most_seeds_do_not_keep_is_not_reached(tmp_path: Path) -> None:
    rows = [
        row("DPQE", exactly(right, 1000), 100, kind="sequences", group="sequences", seed=seed)
        for seed, right in enumerate((930, 925, 925))
    ]
    assert table1(read(tmp_path, rows)) == {"DPQE": [None, 100, 100, 100]}


def chain(points: list[tuple[int, float]], seed: int = 0) -> list[Sample]:
    return [sample("DP", exactly(right, 1000), ratio, seed=seed) for right, ratio in points]


def test_hypervolume_is_the_area_of_the_staircase() -> None:
    drawn = draw(chain([(920, 10.0), (900, 100.0), (890, 50.0)]), draws=0)
    area = frontier.hypervolume(drawn, Reference(0.0, 10.0))[0]
    assert area == pytest.approx(1 * 9 + 1 * 7)  # one decade at 92 %, one at 90 %, over a floor of 83 %


def test_points_below_the_reference_point_add_nothing() -> None:
    corner = Reference(math.log10(20), 2.0)
    few, more = chain([(920, 100.0)]), chain([(920, 100.0), (900, 9000.0), (930, 10.0)])
    assert frontier.hypervolume(draw(few, 0), corner) == frontier.hypervolume(draw(more, 0), corner)


def test_the_curve_holds_the_points_that_no_other_beats() -> None:
    assert frontier.curve(chain([(920, 10), (915, 9), (900, 100), (900, 50)])) == [(10, 92.0), (100, 90.0)]


def test_the_curve_of_several_seeds_is_their_median() -> None:
    three = [s for seed, ratio in enumerate((10, 30, 90)) for s in chain([(920, ratio)], seed)]
    assert frontier.curve(three) == [(30, 92.0)]


def test_the_reference_point_lies_below_the_frontier_that_ends_lowest() -> None:
    points = chain([(928, 10.0), (921, 100.0)])
    corner = frontier.reference(points)
    assert corner.ratio == pytest.approx(math.log10(5))
    assert corner.depth == pytest.approx(93.0 - 92.1 + frontier.ROOM)


def test_the_reference_point_lies_ten_points_below_the_original_at_most() -> None:
    assert frontier.reference(chain([(935, 10.0), (500, 100.0)])).depth == pytest.approx(10.0)
    assert frontier.reference(chain([(728, 10.0), (500, 100.0)])).depth == pytest.approx(93.0 - 72.8 + 10.0)


def test_going_on_where_the_other_chain_did_not_go_is_no_merit() -> None:
    """One application reaches more at every accuracy, the repeat only ends later."""
    once, again = chain([(928, 10.0), (921, 20.0)]), chain([(926, 10.0), (919, 18.0), (911, 30.0)])
    corner = Reference(math.log10(5), 93.0 - 91.1)
    areas = [frontier.hypervolume(draw(points, 0), corner)[0] for points in (once, again)]
    assert areas[0] > areas[1]
