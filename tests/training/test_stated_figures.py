"""What a report states of its accuracy, by the real selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft_server.domain.report import EvaluationMethod
from graft_server.evaluation.interval import accuracy_interval
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.reporting.learning_curve import at_random, more_than_folds, unseen_share
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.examples import RegressionSet
from graft_server.training.tasks.regression.selection import select_regression
from graft_server.training.tasks.single_label.selection import select_single_label

MakeSet = Callable[..., ClassifiedSet]


def repeated(train: ClassifiedSet, times: int) -> ClassifiedSet:
    """Every example several times."""
    rows = np.repeat(np.arange(len(train)), times)
    return replace(
        train,
        labels=train.labels[rows],
        weights=train.weights[rows],
        validation=train.validation[rows],
        groups=np.arange(len(rows)),
        ids=tuple(str(place) for place in range(len(rows))),
        origins=tuple(("", place) for place in range(len(rows))),
        input_digests=tuple(train.input_digests[row] for row in rows),
        features={view: features[rows] for view, features in train.features.items()},
    )


def width(report) -> float:
    return report.accuracy_high - report.accuracy_low


def test_the_accuracy_has_an_interval_that_shrinks_with_examples(make_set: MakeSet) -> None:
    few, many = (select_single_label(make_set([n] * 4, noise=3.0), seed=0).report for n in (10, 90))
    for report in (few, many):
        assert report.accuracy_low < report.accuracy < report.accuracy_high
    assert width(many) < 0.5 * width(few)


def test_copies_do_not_narrow_the_interval(make_set: MakeSet) -> None:
    train = make_set([10] * 4, noise=3.0)
    once, often = (select_single_label(one, seed=0).report for one in (train, repeated(train, 8)))
    assert often.evaluation.examples == 8 * once.evaluation.examples
    assert width(often) > 0.8 * width(once)


def test_held_out_examples_are_fresh(make_set: MakeSet) -> None:
    train = make_set([30] * 4, noise=3.0)
    train = replace(train, validation=np.arange(len(train)) % 3 == 0)
    report = select_single_label(train, seed=0).report
    right = np.arange(40) < round(40 * report.accuracy)
    assert (report.accuracy_low, report.accuracy_high) == pytest.approx(
        accuracy_interval(right, np.ones(40)), abs=1e-6
    )


def test_exact_sets_of_labels_have_an_interval(make_labelled_set: Callable[..., MultiLabelSet]) -> None:
    report = select_multi_label(make_labelled_set(120, noise=3.0), seed=0).report
    assert report.accuracy_low < report.accuracy < report.accuracy_high


@pytest.mark.parametrize("copies", [1, 5])
def test_of_four_rows_of_two_classes_no_accuracy_is_stated(make_set: MakeSet, copies: int) -> None:
    report = select_single_label(repeated(make_set([2, 2]), copies), seed=0).report
    assert report.evaluation.method is EvaluationMethod.NONE
    assert (report.accuracy, report.macro_f1, report.accuracy_low, report.accuracy_high) == (0, 0, 0, 0)
    assert {it.accuracy for it in report.head.candidates} == {0.0}
    assert not report.confusions
    assert any("No accuracy is stated" in it and "at least 8" in it for it in report.warnings)


def test_of_eight_rows_the_accuracy_is_stated_with_a_wide_interval(make_set: MakeSet) -> None:
    report = select_single_label(make_set([4, 4]), seed=0).report
    assert report.evaluation.method is EvaluationMethod.CROSS_VALIDATION
    assert width(report) > 0.3


def test_few_held_out_rows_are_not_measured_on(make_set: MakeSet) -> None:
    train = make_set([30] * 3)
    validation = np.zeros(len(train), bool)
    validation[[0, 31, 61, 62]] = True
    report = select_single_label(replace(train, validation=validation), seed=0).report
    assert report.evaluation.method is EvaluationMethod.CROSS_VALIDATION
    assert report.evaluation.examples == 86
    assert any(it.startswith("4 held-out examples are too few") for it in report.warnings)


def test_of_few_rows_no_exact_sets_are_stated(make_labelled_set: Callable[..., MultiLabelSet]) -> None:
    report = select_multi_label(make_labelled_set(6, (0.5, 0.5)), seed=0).report
    assert report.evaluation.method is EvaluationMethod.NONE
    assert report.multi_label is not None
    assert (report.accuracy, report.accuracy_high, report.multi_label.micro_f1) == (0, 0, 0)
    assert any("No accuracy is stated" in it for it in report.warnings)


def test_of_few_values_no_explained_variance_is_stated(make_valued_set: Callable[..., RegressionSet]) -> None:
    report = select_regression(make_valued_set(6), seed=0).report
    assert report.evaluation.method is EvaluationMethod.NONE
    assert report.regression is not None
    assert (report.regression.r2, report.regression.rmse, report.predicted_values) == (0, 0, ())


def test_the_accuracy_is_that_of_the_head_of_all_examples_and_not_of_the_folds_heads(
    make_set: MakeSet,
) -> None:
    """Folds' heads lack a fifth of the examples; on fresh ones the published head is better than they are."""
    stated, out_of_fold, found = [], [], []
    fresh = make_set([100] * 30, noise=2.2, seed=99)
    for seed in range(4):
        selection = select_single_label(make_set([18] * 30, noise=2.2, seed=seed), seed=0)
        assert selection.report.evaluation.folds == 5
        stated.append(selection.report.accuracy)
        out_of_fold.append(np.mean([it.recall for it in selection.report.per_class]))
        scores = selection.head.scores(fresh.features["pooled"].astype(np.float32)).probabilities
        found.append((scores.argmax(axis=1) == fresh.labels).mean())
    assert np.mean(stated) > np.mean(out_of_fold) + 0.01
    assert np.mean(stated) == pytest.approx(np.mean(found), abs=0.025)


def test_random_numbers_of_examples_do_not_flatter_the_accuracy(make_set: MakeSet) -> None:
    """Classes that a draw has few examples of, or none, are more frequent among fresh examples."""
    stated, out_of_fold, found = [], [], []
    fresh = make_set([60] * 40, noise=0.8, seed=99)
    for seed in range(4):
        counts = np.random.default_rng(seed).multinomial(100, np.full(40, 1 / 40))
        selection = select_single_label(make_set(counts, noise=0.8, seed=seed), seed=0)
        stated.append(selection.report.accuracy)
        recalls = [(it.support, it.recall) for it in selection.report.per_class]
        out_of_fold.append(sum(n * recall for n, recall in recalls) / sum(n for n, _ in recalls))
        scores = selection.head.scores(fresh.features["pooled"].astype(np.float32)).probabilities
        found.append((scores.argmax(axis=1) == fresh.labels).mean())
    assert np.mean(out_of_fold) > np.mean(found) + 0.06
    assert np.mean(stated) == pytest.approx(np.mean(found), abs=0.03)


@pytest.mark.parametrize(
    ("counts", "random"), [([8] * 20, False), ([8] * 19 + [7], False), ([3, 9, 1, 14, 6], True), ([5], False)]
)
def test_random_numbers_of_examples_are_told_from_chosen_ones(counts: list[int], random: bool) -> None:
    assert at_random(np.array(counts)) == random
    assert (unseen_share(np.array(counts)) > 0) == (random and 1 in counts)
    more = more_than_folds(np.array(counts), 5)
    assert 1 <= more < 1.25 if random else more == 1.25
