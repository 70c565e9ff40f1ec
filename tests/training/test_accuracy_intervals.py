"""The interval of an accuracy: known values, weights, and rows that belong together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from graft_server.evaluation.interval import Published, accuracy_interval, effective_number


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (4, 4), (8, 8), (17, 20), (61, 100), (931, 1000)])
def test_fresh_rows_of_equal_weight_have_the_exact_interval(wins: int, n: int) -> None:
    right = np.arange(n) < wins
    exact = binomtest(wins, n).proportion_ci(0.95, "exact")
    assert accuracy_interval(right, np.full(n, 2.5)) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_without_weight_there_is_no_interval() -> None:
    assert accuracy_interval(np.ones(3, bool), np.zeros(3)) == (0.0, 0.0)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_the_scale_of_weights_changes_nothing(scale: float) -> None:
    right, weights = np.arange(20) % 3 > 0, 1.0 + np.arange(20) % 4
    bound = np.arange(20) // 2
    one, other = (accuracy_interval(right, it, bound) for it in (weights, scale * weights))
    assert one == pytest.approx(other)


def test_unequal_weights_count_as_fewer_rows() -> None:
    right = np.arange(20) % 2 == 0
    weights = np.where(np.arange(20) < 10, 1.0, 0.0)
    assert effective_number(right, weights) == pytest.approx(10)
    assert accuracy_interval(right, weights) == pytest.approx(accuracy_interval(right[:10], np.ones(10)))


def test_copies_count_once() -> None:
    """Each of 40 rows ten times: they are right or wrong together, so that they tell as much as 40."""
    right = np.arange(40) % 4 > 0
    apart = accuracy_interval(np.repeat(right, 10), np.ones(400))
    bound = accuracy_interval(np.repeat(right, 10), np.ones(400), np.repeat(np.arange(40), 10))
    assert bound == pytest.approx(accuracy_interval(right, np.ones(40)), abs=1e-6)
    assert apart[1] - apart[0] < 0.5 * (bound[1] - bound[0])


def test_large_groups_whose_rows_have_nothing_in_common_count_almost_as_rows() -> None:
    rng = np.random.default_rng(0)
    right, bound = rng.random(4000) < 0.8, np.repeat(np.arange(1000), 4)
    assert effective_number(right, np.ones(4000), bound) > 3500


def test_two_groups_tell_little_however_many_rows_they_have() -> None:
    rng = np.random.default_rng(0)
    right, bound = rng.random(1000) < 0.8, np.repeat([0, 1], 500)
    assert effective_number(right, np.ones(1000), bound) < 4


def test_rows_that_are_bound_to_none_count_each() -> None:
    right = np.arange(30) % 3 > 0
    assert effective_number(right, np.ones(30), np.arange(30)) == pytest.approx(30)


def test_an_uncertain_correction_widens_the_interval_about_the_corrected_share() -> None:
    right = np.arange(200) % 5 > 0
    low, high = accuracy_interval(right, np.ones(200), folds=5, published=Published(0.0, 0.8, 0.0))
    wider = accuracy_interval(right, np.ones(200), folds=5, published=Published(0.0, 0.8, 0.2))
    assert low < 1 - 0.2 * 0.8 < high
    assert wider[0] < low < high < wider[1]


@pytest.mark.parametrize("truth", [0.34, 0.8, 0.97])
@pytest.mark.parametrize("together", [False, True])
def test_the_interval_holds_the_truth_as_often_as_it_says(truth: float, together: bool) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        sizes = rng.integers(1, 6, 40)
        bound = np.repeat(np.arange(40), sizes)
        right = rng.random(len(bound)) < truth
        if together:
            right = (rng.random(40) < truth)[bound]
        low, high = accuracy_interval(right, np.ones(len(bound)), bound)
        held += low <= truth <= high
    assert held >= 0.93 * 400
