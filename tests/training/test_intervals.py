"""Intervals hold the truth as often as they promise, and are wider where inputs are harder."""

from __future__ import annotations

import numpy as np
import pytest

from graft_server.domain.report import CONFIDENCE
from graft_server.training.tasks.regression.intervals import (
    LEAST_EXAMPLES,
    Interval,
    fit_interval,
    intervals_without,
)


def fitted(
    errors: np.ndarray, features: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Interval:
    n = len(errors)
    rows = np.zeros((n, 2), np.float32) if features is None else features
    ones = np.ones(n) if weights is None else weights
    return fit_interval(rows, errors, ones, (np.arange(n) % 5).astype(np.int32))


@pytest.mark.parametrize("n", [25, 60, 99])
def test_the_ends_are_the_order_statistics_that_split_conformal_prediction_takes(n: int) -> None:
    errors = np.random.default_rng(n).standard_normal(n)
    interval = fitted(errors)
    # Of n + 1 exchangeable errors the outermost share is beyond each end: Vovk et al. 2005.
    rank = int(np.ceil(round((n + 1) * (1 + CONFIDENCE) / 2, 9)))
    ordered = np.sort(errors)
    assert interval.above == ordered[min(rank, n) - 1]
    assert interval.below == -ordered[n - min(rank, n)]
    assert interval.spread is None


def test_new_errors_lie_within_as_often_as_promised_on_average() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        interval = fitted(rng.gamma(2.0, size=60))
        fresh = rng.gamma(2.0, size=400)
        held.append(((-interval.below <= fresh) & (fresh <= interval.above)).mean())
    assert CONFIDENCE - 0.01 < np.mean(held) < CONFIDENCE + 0.05


def test_a_weight_counts_as_so_many_examples_do() -> None:
    errors = np.random.default_rng(1).standard_normal(48)
    times = 1 + np.arange(48) % 3
    weighted, repeated = fitted(errors, weights=times.astype(float)), fitted(np.repeat(errors, times))
    # The one more example that lies beyond has mean weight, here 2, there 1: worth a place at most.
    ordered = np.sort(errors)
    for one, other in ((weighted.above, repeated.above), (-weighted.below, -repeated.below)):
        assert abs(int(np.searchsorted(ordered, one)) - int(np.searchsorted(ordered, other))) <= 1


def test_errors_twice_as_large_make_intervals_twice_as_wide() -> None:
    errors = np.random.default_rng(2).standard_normal(70)
    one, two = fitted(errors), fitted(2 * errors)
    assert (two.below, two.above) == (pytest.approx(2 * one.below), pytest.approx(2 * one.above))


def hard_and_easy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, errors, and whether they are of the harder half, whose errors are five times as large."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    features = np.stack([hard, ~hard], axis=1) + 0.1 * rng.standard_normal((n, 2))
    return features.astype(np.float32), rng.standard_normal(n) * np.where(hard, 5, 1), hard


def test_harder_inputs_get_wider_intervals_that_hold_as_often() -> None:
    features, errors, _ = hard_and_easy(600, 0)
    interval = fitted(errors, features)
    assert interval.spread is not None
    fresh, off, hard = hard_and_easy(6000, 1)
    spread = interval.spread.of(fresh)
    assert spread[hard].mean() > 2.5 * spread[~hard].mean()
    held = (-interval.below * spread <= off) & (off <= interval.above * spread)
    for half in (hard, ~hard):
        assert held[half].mean() == pytest.approx(CONFIDENCE, abs=0.06)


@pytest.mark.parametrize("n", [LEAST_EXAMPLES - 1, 600])
def test_where_difficulty_cannot_be_told_the_width_is_the_same_everywhere(n: int) -> None:
    features, errors, _ = hard_and_easy(n, 0)
    if n >= LEAST_EXAMPLES:
        features = np.random.default_rng(9).standard_normal(features.shape).astype(np.float32)
    assert fitted(errors, features).spread is None


@pytest.mark.parametrize("errors", [np.zeros(3), np.zeros(200), np.full(200, 2.0)])
def test_errors_that_are_all_the_same_make_a_finite_interval(errors: np.ndarray) -> None:
    interval = fitted(errors, np.random.default_rng(0).standard_normal((len(errors), 2)).astype(np.float32))
    assert np.isfinite([interval.below, interval.above]).all()
    spread = 1.0 if interval.spread is None else interval.spread.least
    assert -interval.below * spread <= errors[0] <= interval.above * spread + 1e-6


def test_what_a_report_says_of_a_fold_does_not_depend_on_the_fold_s_own_errors() -> None:
    features, errors, _ = hard_and_easy(150, 3)
    fold_of = (np.arange(150) % 3).astype(np.int32)
    weights = np.ones(150)
    interval = fit_interval(features, errors, weights, fold_of)
    one = intervals_without(features, errors, weights, fold_of, interval)
    other = intervals_without(features, np.where(fold_of == 1, 100, errors), weights, fold_of, interval)
    inside = fold_of == 1
    for before, after in zip(one, other, strict=True):
        np.testing.assert_array_equal(before[inside], after[inside])
        assert (before[~inside] != after[~inside]).any()
