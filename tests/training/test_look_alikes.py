"""Series of look-alikes, such as frames of one video, in made-up features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft.v1 import report_pb2
from graft_server.domain.report import LookAlikes, Report, summary_of
from graft_server.domain.views import stacked
from graft_server.erasing.redact import without_ids
from graft_server.frontends.grpc.converters.reports import filled
from graft_server.training.examples.series import series_among
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.single_label.selection import select_single_label

MakeSet = Callable[..., ClassifiedSet]
CLASSES, DIMENSION = 10, 48


def drawn(series: int, members: int, seed: int, *, within: float = 0.6) -> tuple[np.ndarray, ...]:
    """Features, labels and numbers of series: each series around a place of its own, each class around another."""
    directions = np.random.default_rng(96).standard_normal((CLASSES, DIMENSION))
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), series)
    places = 0.4 * directions[labels] + rng.standard_normal((len(labels), DIMENSION))
    features = np.repeat(places, members, axis=0)
    features += within * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    numbers = np.repeat(np.arange(len(labels)), members)
    return features.astype(np.float16), np.repeat(labels, members), numbers


def recorded(make_set: MakeSet, features: np.ndarray, labels: np.ndarray) -> ClassifiedSet:
    counts = np.bincount(labels).tolist()
    return replace(make_set(counts), features={"pooled": features}, labels=labels, recorded=True)


def found_in(report: Report) -> LookAlikes:
    assert report.look_alikes is not None
    return report.look_alikes


def test_series_lower_the_figure_to_what_inputs_of_new_series_get(make_set: MakeSet) -> None:
    features, labels, numbers = drawn(6, 5, seed=0)
    selection = select_single_label(recorded(make_set, features, labels), seed=0)
    found = found_in(selection.report)
    new, truth, _ = drawn(60, 1, seed=1)
    head = selection.head
    scores = head.scores(stacked({"pooled": new.astype(np.float32)}, head.view))
    of_new = float((scores.probabilities.argmax(axis=1) == truth).mean())
    assert selection.report.accuracy > of_new + 0.2
    assert found.accuracy == pytest.approx(of_new, abs=0.08)
    assert found.low < of_new < found.high
    assert found.groups == pytest.approx(60, abs=12)
    assert found.examples > 0.9 * len(labels)
    assert len(found.largest) == 10
    assert [group.count for group in found.largest] == sorted(
        (it.count for it in found.largest), reverse=True
    )
    for group in found.largest:
        assert len({numbers[example.sequence] for example in group.examples}) <= 2
        assert len({example.label for example in group.examples}) == 1
        assert 0.5 < group.similarity <= 1


def test_the_warning_has_both_figures_the_groups_and_the_remedy(make_set: MakeSet) -> None:
    features, labels, _ = drawn(6, 5, seed=0)
    report = select_single_label(recorded(make_set, features, labels), seed=0).report
    found, warning = found_in(report), report.warnings[0]
    assert f"{report.accuracy:.0%} on inputs like these" in warning
    assert f"{found.accuracy:.0%} ({found.low:.0%} to {found.high:.0%})" in warning
    assert f"{found.groups} groups" in warning
    assert "--group COLUMN" in warning


def test_look_alikes_reach_clients_and_name_no_erased_example(make_set: MakeSet) -> None:
    features, labels, _ = drawn(6, 5, seed=0)
    report = select_single_label(recorded(make_set, features, labels), seed=0).report
    found = found_in(report)
    message = filled(report_pb2.LookAlikes(), found)
    assert (message.groups, message.examples, message.accuracy) == (
        found.groups,
        found.examples,
        found.accuracy,
    )
    assert [it.count for it in message.largest] == [it.count for it in found.largest]
    assert found_in(summary_of(report)).largest == ()
    erased = {example.id for example in found.largest[0].examples[:2]}
    left = found_in(without_ids(report, erased))
    assert left.groups == found.groups
    assert not erased & {example.id for group in left.largest for example in group.examples}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("of_class", [12, 30])
def test_clouds_without_series_are_none(make_set: MakeSet, of_class: int, seed: int) -> None:
    features, labels, _ = drawn(of_class, 1, seed=seed)
    report = select_single_label(recorded(make_set, features, labels), seed=0).report
    assert report.look_alikes is None
    assert report.warnings == ()


def test_series_whose_groups_are_given_need_no_warning(make_set: MakeSet) -> None:
    features, labels, numbers = drawn(6, 5, seed=0)
    train = replace(recorded(make_set, features, labels), groups=numbers)
    report = select_single_label(train, seed=0).report
    assert report.look_alikes is None
    assert report.accuracy < 0.8


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_in_clouds_are_no_series(make_set: MakeSet, seed: int) -> None:
    features, labels, _ = drawn(15, 2, seed=seed, within=0.02)
    report = select_single_label(recorded(make_set, features, labels), seed=0).report
    assert report.data is not None
    assert report.data.bound_examples == len(labels)
    assert report.look_alikes is None


def test_what_people_wrote_is_not_examined(make_set: MakeSet) -> None:
    features, labels, _ = drawn(6, 5, seed=0)
    train = replace(recorded(make_set, features, labels), recorded=False)
    assert select_single_label(train, seed=0).report.look_alikes is None


def test_series_that_cost_nothing_are_not_mentioned(make_set: MakeSet) -> None:
    features, labels, _ = drawn(6, 5, seed=0)
    classes = np.zeros_like(features)
    classes[np.arange(len(labels)), labels] = 4
    report = select_single_label(recorded(make_set, features + classes, labels), seed=0).report
    assert report.accuracy > 0.99
    assert report.look_alikes is None


def test_series_in_large_classes_are_found_whole() -> None:
    features, labels, numbers = drawn(250, 10, seed=2, within=0.2)
    found = series_among([features], labels, 0)
    assert found is not None
    together = [len(np.unique(found[numbers == one])) == 1 for one in range(0, 2500, 25)]
    assert np.mean(together) > 0.7


@pytest.mark.parametrize("counts", [[1, 1], [3, 3, 3], [5, 1], [4, 4]])
def test_too_few_inputs_show_no_series(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    features = np.random.default_rng(0).standard_normal((len(labels), 16)).astype(np.float16)
    assert series_among([features], labels, 0) is None


def test_inputs_that_are_all_the_same_show_no_series() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), 30)
    assert series_among([np.ones((120, 16), np.float16)], labels, 0) is None
