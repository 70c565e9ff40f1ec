"""How far a training says it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from graft_server.jobs.job import Progress
from graft_server.training.steps import Steps
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.selection import select_regression


def test_the_share_that_is_done_is_that_of_the_cost():
    told: list[Progress] = []
    steps = Steps(told.append)
    steps.plan({"looking": 1.0, "trying": 3.0})
    steps.begin("looking")
    with steps.step(1.0):
        pass
    assert told[-1].fraction == pytest.approx(0.25)
    steps.begin("trying", 2, "candidates")
    assert (told[-1].done, told[-1].total, told[-1].unit) == (0, 2, "candidates")
    with steps.step(2.0):
        pass
    assert told[-1].fraction == pytest.approx(0.75)
    assert (told[-1].done, told[-1].total) == (1, 2)
    with steps.step(1.0):
        pass
    assert told[-1].fraction == pytest.approx(1.0)


def test_another_expectation_moves_nothing_that_is_done_and_the_end_is_reached():
    told: list[Progress] = []
    steps = Steps(told.append)
    steps.plan({"trying": 4.0})
    steps.begin("trying", 4, "candidates")
    with steps.step(1.0):
        pass
    before = told[-1].fraction
    steps.expect([5.0, 5.0])  # more than was thought
    assert told[-1].fraction == before
    assert told[-1].total == 3
    with steps.step(5.0):
        pass
    assert told[-1].fraction == pytest.approx(before + (1 - before) / 2)
    steps.expect([])  # the search ends early
    assert told[-1].total == told[-1].done == 2
    steps.begin("fitting")  # which nobody planned
    with steps.step(1.0):
        pass
    assert told[-1].fraction == pytest.approx(1.0)
    fractions = [it.fraction for it in told]
    assert fractions == sorted(fractions)


def test_what_is_left_of_a_stage_is_dropped_by_the_next():
    told: list[Progress] = []
    steps = Steps(told.append)
    steps.plan({"trying": 9.0, "fitting": 1.0})
    steps.begin("trying")
    steps.begin("fitting")
    with steps.step(0.5):
        pass
    assert told[-1].fraction == pytest.approx(0.5)


def test_ticks_move_on_within_a_step_and_never_past_it():
    told: list[Progress] = []
    steps = Steps(told.append)
    steps.plan({"trying": 2.0})
    steps.begin("trying", 2, "candidates")
    steps.tick()  # outside of a step: nothing is being done
    assert told[-1].fraction == 0
    with steps.step(1.0):
        for _ in range(200):
            steps.tick()
        assert 0.49 < told[-1].fraction < 0.5
        assert told[-1].done == 0
    assert told[-1].fraction == pytest.approx(0.5)
    assert all(one.fraction <= other.fraction for one, other in itertools.pairwise(told))


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_every_task_tells_of_its_candidates_to_the_end(
    task: str, make_labelled_set: Callable[..., Any], make_valued_set: Callable[..., Any]
) -> None:
    told: list[Progress] = []
    if task == "multi_label":
        select_multi_label(make_labelled_set(120), seed=0, steps=Steps(told.append))
    else:
        select_regression(make_valued_set(120), seed=0, steps=Steps(told.append))
    fractions = [it.fraction for it in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == pytest.approx(1)
    assert list(dict.fromkeys(it.stage for it in told)) == ["checking", "selecting", "fitting", "measuring"]
    tried = [it for it in told if it.stage == "selecting"]
    assert {it.unit for it in tried} == {"candidates"}
    assert tried[-1].done == tried[-1].total > 3
