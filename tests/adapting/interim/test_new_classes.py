"""The probability that the next input belongs to a class that the head does not know."""

from __future__ import annotations

import numpy as np
import pytest

from graft_server.adapting.interim.single_label.new_classes import FURTHER, Arrivals, Known, unknown_share


def counted(*examples: int) -> np.ndarray:
    return np.array(examples, float)


def share(*examples: int, **of: int | bool) -> float:
    return unknown_share(Known(counted(*examples), **of))


def seen(*examples: int) -> float:
    return share(*examples, undeclared=len(examples))


def test_it_follows_what_the_stream_has_shown():
    assert seen(1) > 0.6
    assert seen(1, 1, 1, 1) > 0.8
    assert seen(4) < 0.3
    assert seen(2, 2) < 0.3
    assert seen(30, 30) < 0.01
    assert seen(*[1] * 60, 4) > 0.8


@pytest.mark.parametrize("classes", [3, 10, 40, 150])
@pytest.mark.parametrize("equal", [True, False])
def test_it_states_on_average_what_is_left(classes, equal):
    rng = np.random.default_rng(classes)
    stated, true = [], []
    for _ in range(20):
        shares = np.full(classes, 1 / classes) if equal else rng.dirichlet(np.full(classes, 0.7))
        found, examples = np.unique(rng.choice(classes, 64, p=shares), return_counts=True)
        stated.append(seen(*examples))
        true.append(1 - shares[found].sum())
    assert np.mean(stated) == pytest.approx(np.mean(true), abs=0.08)


def test_any_number_of_classes_may_be_all_there_are():
    assert [classes for classes in range(2, 130) if seen(*[40] * classes) > 1e-3] == []


def test_one_class_more_makes_no_jump():
    """The same examples, shared out among ever more classes."""
    steps = np.diff([seen(*np.full(classes, 64 / classes)) for classes in range(2, 33)])
    assert -1e-3 < steps.min() < steps.max() < 0.03


def test_declared_labels_leave_little_room_and_closed_ones_none():
    assert share(0, 0, 0, declared=3) < 0.05
    assert share(2, 1, 0, declared=3) < 0.05
    assert share(2, 1, 0, declared=3, closed=True) == 0


def test_a_label_that_was_not_declared_makes_room_for_others():
    assert share(2, 1, 0, 1, declared=3, undeclared=1) > 2 * share(2, 1, 1, declared=3)


def test_declared_labels_that_the_head_cannot_answer_with_yet_are_unknown_to_it():
    """A backbone of images reads no names: a declared label is known from its first example."""
    assert share(1, 1, declared=10, closed=True) > 0.6


def test_more_classes_than_were_reckoned_with_have_an_answer():
    many = int(FURTHER[-1]) + 200
    assert 0 < seen(*[1] * many) < 1
    assert 0 <= seen(*[50] * many) < 0.01


def test_examples_that_come_class_by_class_are_not_as_many_draws():
    mixed, sorted_ = Arrivals(), Arrivals()
    counts = counted(20, 20, 20)
    for number in np.random.default_rng(0).permutation(np.repeat(range(3), 20)).tolist():
        mixed.note(number)
    for number in np.repeat(range(3), 20).tolist():
        sorted_.note(number)
    assert mixed.drawn(counts).tolist() == counts.tolist()
    drawn = sorted_.drawn(counts)
    assert drawn.min() >= 1
    assert drawn.sum() < 30
    known = Known(drawn, undeclared=3)
    assert unknown_share(known) > 3 * seen(20, 20, 20)


def test_one_class_alone_may_repeat():
    arrivals = Arrivals()
    for _ in range(10):
        arrivals.note(0)
    assert arrivals.drawn(counted(10)).tolist() == [10]
