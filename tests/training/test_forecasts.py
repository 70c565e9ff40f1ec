"""Forecasts from made-up parts of examples: what is certain in them, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from graft_server.training.reporting.learning_curve import Law, Lost, curve_of, wrong_answers

SIZES = np.array([100.0, 200.0, 400.0])


def law_of(parts: list[float], chosen: float, *, held_out: int = 1000, n: int = 500, folds: int = 5) -> Law:
    """The law of parts with these shares of errors on so many examples, and of a head with its own."""
    wrong = np.stack([np.arange(held_out) < round(share * held_out) for share in parts])
    lost = wrong_answers(~wrong)
    of_chosen = wrong_answers(np.arange(n) >= round(chosen * n))
    return curve_of(SIZES, lost, of_chosen, examples=n, folds=folds, seed=0)[1]


def width(law: Law, times: float) -> float:
    point = law.forecast(500, times)
    assert point.low <= point.accuracy <= point.high
    return point.high - point.low


def test_many_errors_show_their_own_power() -> None:
    steep, flat = law_of([0.4, 0.2, 0.1], 0.1, held_out=5000), law_of([0.4, 0.4, 0.4], 0.4, held_out=5000)
    assert steep.power == pytest.approx(1.0, abs=0.06)
    assert flat.power < 0.1


def test_few_errors_that_nothing_changes_are_no_proof_that_nothing_helps() -> None:
    law = law_of([0.05, 0.05, 0.05], 0.05, held_out=20, n=80)
    assert 0.3 < law.power < 0.6
    assert law.forecast(80, 4).accuracy > law.forecast(80, 1.5).accuracy + 0.005


def test_a_head_without_an_error_is_not_forecast_to_make_none_for_sure() -> None:
    law = law_of([0.01, 0.0, 0.0], 0.0, n=250)
    assert width(law, 1.5) > 0.008
    assert law.forecast(250, 1.5).low < 0.99


def test_fewer_examples_and_folds_widen_a_forecast() -> None:
    usual = width(law_of([0.4, 0.3, 0.2], 0.2), 2)
    assert width(law_of([0.4, 0.3, 0.2], 0.2, n=100), 2) > 1.5 * usual
    assert width(law_of([0.4, 0.3, 0.2], 0.2, held_out=100), 2) > usual
    assert width(law_of([0.4, 0.3, 0.2], 0.2, folds=2), 2) > usual


def test_explained_variance_is_resampled() -> None:
    """Squared errors are no counts: their spread is the examples' own."""
    rng = np.random.default_rng(0)
    errors, around = rng.exponential(0.5, (3, 400)), np.ones((3, 400))
    chosen = Lost(rng.exponential(0.5, 400), np.ones(400), smoothing=0.0)
    parts = Lost(errors, around, smoothing=0.0)
    law = curve_of(SIZES, parts, chosen, examples=400, folds=5, seed=0)[1]
    point = law.forecast(400, 2.0)
    assert 0.02 < point.high - point.low < 0.3
