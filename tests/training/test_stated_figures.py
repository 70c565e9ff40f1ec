"""What a report states of its accuracy, by the real selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft_server.evaluation.interval import accuracy_interval
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.selection import select_multi_label
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
