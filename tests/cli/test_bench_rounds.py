"""How coc-bench handles noise: disturbed rounds, pinned CPUs, intervals that admit what is not known."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from coc_bench.intervals import Ratio, Verdict, independent_ratio, interval, paired_ratio, resampled_means
from coc_bench.rounds import REPEATS, choose_cpus, latencies, parse_cpus, pinned
from coc_runtime.errors import CocError

IMAGES = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)


class Counter:
    """A runner that counts its calls and leaves at the exit that the image names."""

    graph = None
    backend = "none"
    version = cpu_level = None
    reason = ""
    image_shape = (1, 1, 1)
    task: Any = None

    def __init__(self) -> None:
        self.calls = 0

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        return np.zeros(1, np.int64), images[:, 0, 0, 0].astype(np.int64)


def scripted(values: list[int]) -> Callable[[], int]:
    """The values one after the other, then the last one for ever."""

    def script() -> Iterator[int]:
        yield from values
        while True:
            yield values[-1]

    return script().__next__


def calls_of(beats: list[int], waited: list[int], rounds: int) -> tuple[int, Any]:
    """Calls in rounds that count (two a round), and what was said of the clock."""
    runner = Counter()
    order = np.resize(np.arange(6), rounds)
    timing = latencies([runner], IMAGES, order, scripted(beats), scripted(waited))
    assert timing.exits[0].tolist() == order.tolist()
    return runner.calls - rounds, timing.drift  # Warm-up takes as many rounds here.


def test_a_quiet_machine_repeats_nothing() -> None:
    calls, drift = calls_of([1000, 1050, 990], [7], rounds=5)
    assert calls == 10
    assert (drift.repeated_rounds, drift.unsettled_rounds) == (0, 0)
    assert 0 < drift.spread < 0.1


def test_a_round_is_repeated_once_when_the_clock_moved_and_settled() -> None:
    calls, drift = calls_of([1000, 1000, 1300], [0], rounds=5)
    assert calls == 12
    assert (drift.repeated_rounds, drift.unsettled_rounds) == (1, 0)


def test_a_round_is_repeated_when_another_process_got_the_cpu() -> None:
    calls, drift = calls_of([1000], [0, 0, 0, 10**12], rounds=5)
    assert calls == 12
    assert (drift.repeated_rounds, drift.unsettled_rounds) == (1, 0)


def test_a_moment_lost_to_the_system_does_not_count() -> None:
    calls, _ = calls_of([1000], [0, 0, 0, 1], rounds=5)
    assert calls == 10


def test_repeats_are_bounded_and_what_never_settled_is_told() -> None:
    restless = [1000, 2000] * 100
    calls, drift = calls_of(restless, [0], rounds=6)
    assert calls == 2 * 6 + 2 * 6  # No more repeats than rounds.
    assert drift.repeated_rounds == 2 and drift.unsettled_rounds == 6
    calls, _ = calls_of(restless, [0], rounds=1)
    assert calls <= 2 * (1 + REPEATS)


def test_cpus_are_lists_and_ranges() -> None:
    assert parse_cpus("3") == (3,)
    assert parse_cpus("4,0-2") == (0, 1, 2, 4)
    assert parse_cpus("any") is None
    for text in ("", "x", "1-", "2-1"):
        with pytest.raises(ValueError):
            parse_cpus(text)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process")
def test_pinning_lasts_as_long_as_the_measurement() -> None:
    before = os.sched_getaffinity(0)
    cpus = choose_cpus(1)
    assert cpus is not None and len(cpus) == 1
    with pinned(cpus):
        assert os.sched_getaffinity(0) == set(cpus)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(CocError, match="--cpu: 4095 are not all"), pinned((4095,)):
        pass


def test_more_threads_than_cpus_are_not_pinned() -> None:
    assert choose_cpus(100_000) is None


def noise(rounds: int, seed: int) -> np.ndarray:
    """Slow drift and outliers, such as both of two interleaved runs see: float64 [rounds], around 1."""
    random = np.random.default_rng(seed)
    drift = 1 + 0.4 * np.sin(np.arange(rounds) / 40)
    return drift * random.lognormal(0, 0.05, rounds)


def test_a_small_difference_is_seen_through_noise_that_both_share() -> None:
    shared = 1e4 * noise(400, 1)
    elapsed = np.stack([0.95 * shared, shared]).astype(np.int64)
    means = resampled_means(elapsed)
    one, other = interval(means[:, 0]), interval(means[:, 1])
    assert one[1] > other[0]  # Apart, each mean is too uncertain to tell.
    ratio = paired_ratio(elapsed, means, 0, 1)
    assert ratio.value == pytest.approx(0.95, abs=1e-3)
    assert ratio.verdict is Verdict.FASTER
    assert paired_ratio(elapsed, means, 1, 0).verdict is Verdict.SLOWER


def test_two_runs_of_the_same_speed_are_no_different() -> None:
    elapsed = np.stack([1e4 * noise(300, 2), 1e4 * noise(300, 3)]).astype(np.int64)
    ratio = paired_ratio(elapsed, resampled_means(elapsed), 0, 1)
    assert ratio.interval[0] < 1 < ratio.interval[1]
    assert ratio.verdict is Verdict.SAME


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(4)
    held = 0
    for _ in range(40):
        low, high = interval(resampled_means(random.normal(1000, 100, (1, 120)).astype(np.int64))[:, 0])
        held += low <= 1000 <= high
    assert held >= 32


def test_intervals_are_the_same_every_time() -> None:
    elapsed = (1e4 * noise(50, 5)).astype(np.int64)[None]
    assert np.array_equal(resampled_means(elapsed), resampled_means(elapsed))
    assert resampled_means(elapsed).mean() == pytest.approx(elapsed.mean(), rel=0.01)


def test_one_round_has_an_interval_without_width() -> None:
    assert interval(resampled_means(np.array([[500]]))[:, 0]) == (500, 500)


@pytest.mark.parametrize(
    ("new", "old", "verdict"),
    [
        ((100, (98, 102)), (100, (99, 101)), Verdict.SAME),
        ((110, (108, 112)), (100, (99, 101)), Verdict.SLOWER),
        ((90, (89, 91)), (100, (99, 101)), Verdict.FASTER),
        ((110, (90, 130)), (100, (95, 105)), Verdict.SAME),
    ],
)
def test_reports_measured_apart_differ_only_beyond_both_intervals(
    new: tuple[float, tuple[float, float]], old: tuple[float, tuple[float, float]], verdict: Verdict
) -> None:
    ratio = independent_ratio(*new, *old)
    assert isinstance(ratio, Ratio)
    assert ratio.interval[0] <= ratio.value <= ratio.interval[1]
    assert ratio.verdict is verdict
