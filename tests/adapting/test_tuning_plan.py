"""Which tunings an adaptation asks for, in which order, and what they may take."""

from __future__ import annotations

import pytest

from graft_server.adapting.publishing.fine_tuning import parts_of, plan_of
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.domain.adaptation import AdaptationSettings, FineTuning
from graft_server.domain.method import Method
from graft_server.domain.report import TuningObjective

FEW, MANY = TuningObjective.CONTRASTIVE, TuningObjective.CROSS_ENTROPY


def plan(method: Method, budget_s: float = 120.0, **asked):
    settings = AdaptationSettings(
        DEFAULT_NAME, method=method, time_budget_s=budget_s, fine_tuning=FineTuning(**asked)
    )
    return plan_of(settings, open_backbone(DEFAULT_NAME, DEFAULT_SOURCE))


def tried(plan, *objectives: TuningObjective) -> list[tuple[str, str, int]]:
    return [(str(it.objective), str(it.method), it.below) for it in plan.suited(objectives)]


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ([FEW], [("contrastive", "full", 0)]),
        ([MANY], [("cross_entropy", "partial", 4), ("cross_entropy", "full", 0)]),
        (
            [FEW, MANY],
            [("contrastive", "full", 0), ("cross_entropy", "partial", 4), ("cross_entropy", "full", 0)],
        ),
        ([], []),
    ],
)
def test_with_a_budget_auto_tries_what_suits_the_examples_the_contrastive_one_first(objectives, expected):
    assert tried(plan(Method.AUTO), *objectives) == expected


def test_without_a_budget_auto_tunes_nothing():
    assert plan(Method.AUTO, 0.0) is None


@pytest.mark.parametrize(("method", "below"), [(Method.PARTIAL, 4), (Method.FULL, 0)])
def test_a_method_that_was_asked_for_is_tried_once_on_its_layers(method, below):
    asked = plan(method, 0.0)
    assert tried(asked, FEW) == [("contrastive", method, below)]
    assert tried(asked, MANY) == tried(asked, FEW, MANY) == [("cross_entropy", method, below)]


def test_layers_that_were_asked_for_are_the_ones_that_auto_tunes():
    assert tried(plan(Method.AUTO, unfrozen_layers=1), FEW, MANY) == [
        ("contrastive", "partial", 5), ("cross_entropy", "partial", 5)
    ]  # fmt: skip


@pytest.mark.parametrize("objectives", [[FEW], [MANY], [FEW, MANY]])
def test_what_tunings_are_expected_to_take_comes_to_the_budget(objectives):
    auto = plan(Method.AUTO, 100.0)
    attempts = auto.suited(objectives)
    parts = parts_of(auto, attempts)
    assert len(parts) == len(attempts)
    assert sum(it.expected_s for it in parts.values()) == pytest.approx(100.0)


def test_versions_on_the_way_have_names_of_their_own():
    names = [it.name for it in plan(Method.AUTO).attempts]
    assert names == ["contrastive-full", "partial", "full"]
