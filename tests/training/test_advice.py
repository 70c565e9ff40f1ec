"""What would make a version better: from real trainings, and from what was measured elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from graft_server.domain.examples import Task
from graft_server.domain.method import Method
from graft_server.domain.report import Advice, AdviceKind, Report, TuningObjective, TuningReport
from graft_server.training.reporting import tuning_gains
from graft_server.training.reporting.advice import OF_FROZEN, advised
from graft_server.training.reporting.tuning_gains import GAINS, Gain, gains_like
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.selection import select_regression
from graft_server.training.tasks.single_label.selection import select_single_label

HARD = (
    Gain("a", 8, 10, 0.60, 0.20),
    Gain("b", 16, 10, 0.65, 0.00),
    Gain("c", 16, 10, 0.55, 0.04),
    Gain("easy", 16, 10, 0.97, 0.00),
    Gain("large", 500, 10, 0.60, 0.03),
)


def kinds(advice: Sequence[Advice]) -> list[AdviceKind]:
    return [it.kind for it in advice]


@pytest.fixture(scope="module")
def rising(make_set) -> Report:
    """Of five classes with 20 examples each, in 32 noisy dimensions: more of them help."""
    return select_single_label(make_set((20,) * 5, noise=2.5), seed=0).report


@pytest.fixture(scope="module")
def flat(make_set) -> Report:
    """Labels that are chance: nothing helps."""
    train = make_set((150, 150), noise=2.0)
    rng = np.random.default_rng(1)
    return select_single_label(
        dataclasses.replace(train, labels=rng.permutation(train.labels)), seed=0
    ).report


def test_where_the_curve_rises_more_labels_are_advised_with_a_range_and_where_it_comes_from(rising):
    (labels,) = advised(rising).advice
    assert labels.kind is AdviceKind.LABELS
    assert labels.expected_gain > 0.01
    assert 0 <= labels.expected_gain_low < labels.expected_gain < labels.expected_gain_high < 0.5
    assert (labels.cost_examples, labels.cost_seconds) == (100, 0.0)
    assert labels.text.startswith("Twice the examples of every class (100 more) are forecast to bring ")
    assert f"{100 * labels.expected_gain:.1f} points of accuracy (80% interval" in labels.text
    twice = next(it for it in rising.learning_curve.forecasts if it.examples == 200)
    assert labels.expected_gain == pytest.approx(twice.accuracy - rising.accuracy, abs=0.03)


def test_where_the_curve_is_flat_and_nothing_can_be_tuned_another_backbone_is_advised(flat):
    (backbone,) = advised(flat).advice
    assert backbone.kind is AdviceKind.BACKBONE
    assert "try another backbone" in backbone.text
    assert (backbone.expected_gain, backbone.cost_examples, backbone.cost_seconds) == (0.0, 0, 0.0)


def test_where_the_curve_is_flat_tuning_comes_before_another_backbone(flat):
    assert kinds(advised(flat, tunable=True).advice) == [AdviceKind.TIME]
    assert kinds(advised(flat, tunable=True, follows=True).advice) == []


def test_a_hundred_more_labels_are_told_of_where_they_are_fewer_than_twice(flat, make_set):
    many = select_single_label(make_set((200, 200), noise=3.0), seed=0).report
    (labels,) = many.advice
    assert (labels.cost_examples, ", a hundred more" in labels.text) == (400, True)
    assert len(flat.advice) == 1  # what the curve says, however little it is


def test_with_too_few_examples_for_a_curve_more_are_advised_without_an_estimate(make_set):
    few = select_single_label(make_set((5, 5)), seed=0).report
    (labels,) = advised(few, tunable=True).advice if few.accuracy >= 0.97 else advised(few).advice
    assert (labels.kind, labels.expected_gain, labels.cost_examples) == (AdviceKind.LABELS, 0.0, 30)
    assert "from 40 on" in labels.text


def test_of_several_labels_and_of_values_what_their_curves_say_is_told(make_labelled_set, make_valued_set):
    sets = select_multi_label(make_labelled_set(80, noise=2.0), seed=0).report
    values = select_regression(make_valued_set(60, noise=3.0), seed=0).report
    for report, task, measure in (
        (sets, Task.MULTI_LABEL, "micro-F1"),
        (values, Task.REGRESSION, "variance explained"),
    ):
        assert report.task is task
        (labels,) = report.advice
        assert f"points of {measure} (80% interval" in labels.text
        assert set(kinds(advised(report).advice)) <= {AdviceKind.LABELS, AdviceKind.BACKBONE}


def test_what_a_time_budget_may_bring_comes_from_sets_about_as_hard_and_as_large(flat, monkeypatch):
    monkeypatch.setattr(tuning_gains, "GAINS", HARD)
    report = dataclasses.replace(flat, accuracy=0.6, examples=96, classes=6)
    (time,) = advised(report, tunable=True).advice
    assert (time.kind, time.expected_gain_low, time.expected_gain_high) == (AdviceKind.TIME, 0.0, 0.20)
    assert time.expected_gain == pytest.approx(0.08)
    assert time.cost_seconds == 120.0
    assert "may bring 8.0 points of accuracy (0.0 to 20.0): 2 of 3 measurements" in time.text
    assert "time_budget of 120 seconds" in time.text
    larger = dataclasses.replace(report, examples=96 * 20, classes=6 * 20)
    assert advised(larger, tunable=True).advice[0].cost_seconds == 480.0
    (unlike,) = advised(dataclasses.replace(report, accuracy=0.1), tunable=True).advice
    assert (unlike.expected_gain, "pays where meaning is not topic" in unlike.text) == (0.0, True)
    good = advised(dataclasses.replace(report, accuracy=0.99), tunable=True)
    assert AdviceKind.TIME not in kinds(good.advice)


def test_what_is_expected_to_gain_most_comes_first(rising, monkeypatch):
    monkeypatch.setattr(tuning_gains, "GAINS", HARD)
    report = dataclasses.replace(rising, accuracy=0.6)
    (labels,) = advised(report).advice
    for first, gain in ((AdviceKind.TIME, 0.03), (AdviceKind.LABELS, 0.3)):
        given = dataclasses.replace(labels, expected_gain=gain)
        found = advised(dataclasses.replace(report, advice=(given,)), tunable=True).advice
        assert kinds(found)[0] is first
        assert len(found) == 2


def test_after_a_tuning_that_is_kept_the_forecast_is_said_to_be_the_frozen_heads(rising):
    tuning = TuningReport(Method.FULL, True, "time", 6, 6, measured=50, seconds=70.0)
    tuned = dataclasses.replace(rising, method=Method.FULL, learning_curve=None, tuning=tuning)
    for _ in range(2):  # of another tuning after it, too
        tuned = advised(tuned, tried=tuning)
        assert sorted(kinds(tuned.advice)) == [AdviceKind.LABELS, AdviceKind.TIME]
        labels, time = sorted(tuned.advice, key=lambda it: it.kind)
        assert labels.text.count(OF_FROZEN) == 1
        assert (time.cost_seconds, "ended the tuning of 6 of 6 layers" in time.text) == (140.0, True)


def test_the_advice_to_label_more_for_a_forecast_is_none_itself(make_set):
    few = select_single_label(make_set((10, 10), noise=2.0), seed=0).report
    tuning = TuningReport(Method.FULL, True, "done", 6, 6, measured=20)
    tuned = dataclasses.replace(advised(few), method=Method.FULL, tuning=tuning)
    (labels,) = advised(tuned, tried=tuning).advice
    assert "from 40 on" in labels.text
    assert OF_FROZEN not in labels.text


def test_a_budget_that_ended_between_the_folds_asks_for_a_longer_one(rising):
    tuning = TuningReport(
        *(Method.FULL, False, "time", 6, 6), measured=50, objective=TuningObjective.CONTRASTIVE, seconds=20.0
    )
    (time,) = [it for it in advised(rising, tried=tuning).advice if it.kind is AdviceKind.TIME]
    assert time.text.startswith("time_budget ended before the training on all examples")
    dropped = dataclasses.replace(tuning, ended="done")
    assert AdviceKind.TIME not in kinds(advised(rising, tried=dropped).advice)


def test_the_measurements_are_of_shares_and_real_sizes():
    for it in GAINS:
        assert (0 < it.frozen < 1, -0.1 < it.gain < 1 - it.frozen) == (True, True)
        assert (it.a_class >= 8, it.draws >= 1) == (True, True)
    assert gains_like(1e9, 0.5) == []
