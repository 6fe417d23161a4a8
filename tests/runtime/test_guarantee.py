"""Bounds on mean losses: exact tails agree with scipy's, and a bound fails no more often than it says."""

import itertools

import numpy as np
import pytest
from scipy import stats

from coc_runtime import guarantee


@pytest.mark.parametrize("images", [1, 7, 200, 5000])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.01, 0.5, 0.99, 1.0])
def test_binomial_tails_are_those_of_scipy(images: int, rate: float) -> None:
    for count in {0, images // 100, images // 3, images - 1, images}:
        expected = stats.binom.cdf(count, images, rate)
        assert guarantee.at_most(count, images, rate) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(("count", "images"), [(0, 10), (3, 10), (10, 10), (30, 5000), (2500, 5000)])
def test_the_interval_of_a_rate_is_that_of_clopper_and_pearson(count: int, images: int) -> None:
    expected = stats.binomtest(count, images).proportion_ci(0.999, "exact")
    found = guarantee._rate_interval(count, images, 0.001)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-8)


def error_rate(images: int, losing: float, winning: float, allowed: float, confidence: float) -> float:
    """Probability that counts of these rates are said to rule out `allowed`: a sum over all counts."""
    chances = stats.multinomial(images, [losing, winning, 1 - losing - winning])
    every = [(a, b) for a in range(images + 1) for b in range(images + 1 - a)]
    likely = [(a, b, chances.pmf([a, b, images - a - b])) for a, b in every]
    return sum(p for a, b, p in likely if p > 1e-9 and guarantee.rejects(a, b, images, allowed, confidence))


@pytest.mark.parametrize("images", [12, 36])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_a_loss_that_is_there_is_ruled_out_no_more_often_than_promised(
    images: int, confidence: float
) -> None:
    allowed = 0.05
    for winning, more in itertools.product((0.0, 0.02, 0.2, 0.45), (0.0, 0.03)):
        error = error_rate(images, winning + allowed + more, winning, allowed, confidence)
        assert error <= 1 - confidence + 1e-6, (winning, more)


def test_little_of_the_permitted_error_is_left_unused() -> None:
    rng = np.random.default_rng(1)
    counts = rng.multinomial(2000, [0.02, 0.01, 0.97], size=700)[:, :2].tolist()
    ruled_out = np.mean([guarantee.rejects(lost, won, 2000, 0.01, 0.9) for lost, won in counts])
    assert 0.06 < ruled_out < 0.12


def test_without_wins_the_bound_is_nearly_that_of_clopper_and_pearson() -> None:
    for lost, images in ((0, 50), (0, 460), (3, 400), (40, 4000)):
        exact = stats.beta.ppf(0.9, lost + 1, images - lost)
        found = guarantee.loss_bound(lost, 0, images, 0.9)
        assert exact * 0.97 <= found <= exact * 1.15


def test_a_bound_is_where_counts_begin_to_rule_out() -> None:
    for lost, won, images in ((0, 0, 300), (10, 4, 300), (4, 10, 300), (60, 60, 4000), (0, 0, 1), (1, 0, 1)):
        bound = guarantee.loss_bound(lost, won, images, 0.9)
        assert (lost - won) / images <= bound <= 1
        if bound < 1:
            assert guarantee.rejects(lost, won, images, bound, 0.9)
            assert bound == 0 or not guarantee.rejects(lost, won, images, bound * 0.97, 0.9)


def test_more_losses_fewer_wins_and_more_confidence_raise_the_bound() -> None:
    def bound(lost: int, won: int, confidence: float = 0.9) -> float:
        return guarantee.loss_bound(lost, won, 500, confidence)

    assert bound(5, 3) < bound(9, 3) < bound(20, 3) and bound(5, 5) < bound(5, 3)
    assert bound(5, 3, 0.8) < bound(5, 3) < bound(5, 3, 0.99)


def test_nothing_is_ruled_out_by_no_images() -> None:
    assert guarantee.loss_bound(0, 0, 0, 0.9) == 1 and not guarantee.rejects(0, 0, 0, 0.5, 0.9)
    assert not guarantee.mean_rejects(np.zeros(0), 1.0, 0.9)


@pytest.mark.parametrize("shape", ["two values", "skewed", "wide below"])
def test_a_mean_of_zero_is_ruled_out_by_real_losses_no_more_often_than_promised(shape: str) -> None:
    rng = np.random.default_rng(7)

    def sample() -> np.ndarray:
        if shape == "two values":
            return np.where(rng.random(200) < 0.1, 0.9, -0.1)
        if shape == "skewed":
            return rng.beta(0.2, 1.8, 200) - 0.1
        return np.minimum(0.264 - rng.standard_t(3, 200), 1)

    means = [sample().mean() for _ in range(400)]
    assert abs(np.mean(means)) < 0.02
    ruled_out = np.mean([guarantee.mean_rejects(sample(), 1.0, 0.9) for _ in range(600)])
    assert ruled_out <= 0.1


def test_a_mean_well_below_zero_is_ruled_out() -> None:
    rng = np.random.default_rng(3)
    assert guarantee.mean_rejects(rng.beta(0.2, 1.8, 400) - 0.15, 1.0, 0.9)
    assert not guarantee.mean_rejects(rng.beta(0.2, 1.8, 400) - 0.05, 1.0, 0.9)
