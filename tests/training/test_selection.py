from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from graft_server.domain.errors import StateError
from graft_server.domain.report import EvaluationMethod, Report
from graft_server.heads.graph import to_onnx
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.search.search import SEARCH_EXAMPLES
from graft_server.training.steps import Steps
from graft_server.training.tasks.single_label.selection import select_single_label

MakeSet = Callable[..., ClassifiedSet]
DATA = Path(os.environ.get("GRAFT_DATA") or Path(__file__).parents[3] / "shared" / "data")


def test_head_and_its_report_agree_with_fresh_examples(make_set: MakeSet) -> None:
    selection = select_single_label(make_set([30] * 6), seed=1)
    fresh = make_set([100] * 6, seed=5)
    output = selection.head.scores(fresh.features["pooled"].astype(np.float32))
    accuracy = (output.probabilities.argmax(axis=1) == fresh.labels).mean()
    assert accuracy > 0.9
    assert selection.report.accuracy == pytest.approx(accuracy, abs=0.05)
    assert selection.report.evaluation.method is EvaluationMethod.CROSS_VALIDATION
    assert selection.report.examples == selection.report.evaluation.examples == 180
    assert (output.novelty > 0.95).mean() < 0.12


def test_the_same_seed_gives_the_same_head(make_set: MakeSet) -> None:
    train = make_set([12, 9, 14])
    one, other = select_single_label(train, seed=3), select_single_label(train, seed=3)
    probe = train.features["pooled"].astype(np.float32)
    np.testing.assert_array_equal(
        one.head.scores(probe).probabilities, other.head.scores(probe).probabilities
    )
    assert one.report == other.report
    assert one.report.seed == 3


def test_report_survives_json(make_set: MakeSet) -> None:
    report = select_single_label(make_set([20, 20, 20]), seed=0).report
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_graph_of_a_selected_head_agrees_with_numpy(make_set: MakeSet) -> None:
    train = make_set([25] * 5, noise=1.2)
    head = select_single_label(train, seed=0).head
    features = train.features["pooled"].astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(head), providers=["CPUExecutionProvider"])
    probabilities, novelty = session.run(["probabilities", "novelty"], {"features": features})
    output = head.scores(features)
    np.testing.assert_allclose(probabilities, output.probabilities, atol=1e-5)
    np.testing.assert_allclose(novelty, output.novelty, atol=1e-5)


def test_validation_examples_are_measured_on_and_not_trained_on(make_set: MakeSet) -> None:
    train = make_set([20, 20, 20])
    validation = np.arange(60) % 4 == 0
    # Were they trained on, wrong labels would be learnt; measured on, they are all errors.
    labels = np.where(validation, (train.labels + 1) % 3, train.labels).astype(np.int32)
    report = select_single_label(replace(train, validation=validation, labels=labels), seed=0).report
    assert report.evaluation.method is EvaluationMethod.HELD_OUT
    assert (report.examples, report.validation_examples, report.evaluation.examples) == (45, 15, 15)
    assert report.accuracy < 0.1


def test_inputs_from_elsewhere_are_novel(make_set: MakeSet) -> None:
    selection = select_single_label(make_set([40] * 4, noise=0.5), seed=0)
    elsewhere = np.random.default_rng(3).standard_normal((200, 32))
    elsewhere /= np.linalg.norm(elsewhere, axis=1, keepdims=True)
    novelty = selection.head.scores(elsewhere.astype(np.float32)).novelty
    assert (novelty > 0.95).mean() > 0.9


def test_a_view_that_tells_classes_apart_is_chosen(make_set: MakeSet) -> None:
    good = make_set([25] * 4, noise=0.4)
    blind = np.random.default_rng(0).standard_normal((100, 16))
    blind /= np.linalg.norm(blind, axis=1, keepdims=True)
    views = {"pooled": blind.astype(np.float16), "layer3": good.features["pooled"]}
    selection = select_single_label(replace(good, features=views), seed=0)
    assert selection.head.view == "pooled+layer3"
    assert selection.head.dimension == 48
    assert selection.report.accuracy > 0.9


def test_a_view_of_noise_is_left_alone(make_set: MakeSet) -> None:
    train = make_set([25] * 4)
    noise = np.random.default_rng(0).standard_normal((100, 64)).astype(np.float16)
    views = {"pooled": train.features["pooled"], "layer3": noise}
    assert select_single_label(replace(train, features=views), seed=0).head.view == "pooled"


def test_names_of_classes_help_where_examples_are_few(make_set: MakeSet) -> None:
    train, fresh = make_set([2] * 8, noise=1.5), make_set([50] * 8, seed=4, noise=1.5)
    names = make_set([1] * 8, noise=0.2, seed=8).features
    features = fresh.features["pooled"].astype(np.float32)
    alone = select_single_label(train, seed=0).head.scores(features).probabilities.argmax(axis=1)
    named = select_single_label(replace(train, label_features=names), seed=0).head
    helped = named.scores(features).probabilities.argmax(axis=1)
    assert (helped == fresh.labels).mean() > (alone == fresh.labels).mean() + 0.05


@pytest.mark.parametrize("counts", [[10, 0, 0], [0, 0, 0]])
def test_fewer_than_two_classes_are_refused_with_what_is_needed(make_set: MakeSet, counts: list[int]) -> None:
    with pytest.raises(StateError, match="at least 2 are needed") as raised:
        select_single_label(make_set(counts), seed=0)
    assert raised.value.reason == "TOO_FEW_CLASSES"


def test_validation_examples_make_no_class(make_set: MakeSet) -> None:
    train = make_set([10, 10])
    with pytest.raises(StateError, match="class 0"):
        select_single_label(replace(train, validation=train.labels == 1), seed=0)


def test_a_class_with_a_single_example_trains_with_a_warning(make_set: MakeSet) -> None:
    selection = select_single_label(make_set([10, 10, 1]), seed=0)
    assert any("class 2 has a single training example" in warning for warning in selection.report.warnings)
    assert selection.report.evaluation.examples == 20
    assert selection.report.per_class[2].support == 0


def test_two_examples_of_two_classes_train_unmeasured(make_set: MakeSet) -> None:
    report = select_single_label(make_set([1, 1]), seed=0).report
    assert report.evaluation.method is EvaluationMethod.NONE
    assert report.evaluation.examples == 0


def test_a_declared_class_without_examples_is_warned_of(make_set: MakeSet) -> None:
    selection = select_single_label(make_set([10, 0, 10]), seed=0)
    assert any("class 1 has no training examples" in warning for warning in selection.report.warnings)
    assert selection.head.classes == 3


def test_examples_of_weight_zero_are_left_out_with_a_warning(make_set: MakeSet) -> None:
    train = make_set([15, 15])
    weights = np.where(np.arange(30) % 3 == 0, 0.0, 1.0)
    report = select_single_label(replace(train, weights=weights), seed=0).report
    assert report.examples == 20
    assert any("10 examples were left out: their weight is 0" in warning for warning in report.warnings)


def test_weights_of_zero_alone_are_refused(make_set: MakeSet) -> None:
    with pytest.raises(StateError, match="at least 2 are needed"):
        select_single_label(make_set([5, 5], weights=np.zeros(10)), seed=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_left_out_with_a_warning(make_set: MakeSet, value: float) -> None:
    train = make_set([10, 10])
    train.features["pooled"][[2, 12], 5] = value
    selection = select_single_label(train, seed=0)
    assert selection.report.examples == 18
    assert any("2 examples were left out" in warning for warning in selection.report.warnings)
    probe = train.features["pooled"][:1].astype(np.float32)
    assert np.isfinite(selection.head.scores(probe).probabilities).all()


def test_constant_features_give_the_classes_shares_and_a_warning(make_set: MakeSet) -> None:
    train = make_set([30, 10])
    train.features["pooled"][:] = train.features["pooled"][0]
    selection = select_single_label(train, seed=0)
    probe = train.features["pooled"][:1].astype(np.float32)
    np.testing.assert_allclose(selection.head.scores(probe).probabilities, [[0.75, 0.25]], atol=0.08)
    assert any("same features" in warning for warning in selection.report.warnings)


def test_classes_with_identical_examples_share_the_probability(make_set: MakeSet) -> None:
    train = make_set([20, 20, 20])
    train.features["pooled"][20:40] = train.features["pooled"][:20]
    digests = tuple(f"input {i - 20 if 20 <= i < 40 else i}".encode() for i in range(60))
    selection = select_single_label(replace(train, input_digests=digests), seed=0)
    probabilities = selection.head.scores(train.features["pooled"][:20].astype(np.float32)).probabilities
    np.testing.assert_allclose(probabilities[:, 0], probabilities[:, 1], atol=0.1)
    data = selection.report.data
    assert data is not None
    assert (data.exact_duplicates, data.conflicting_inputs) == (20, 20)
    assert any("class 0, class 1 have examples that are the same" in it for it in selection.report.warnings)


def test_a_class_within_one_group_is_not_measured_and_warned_of(make_set: MakeSet) -> None:
    train = make_set([20, 20, 6])
    groups = np.where(train.labels == 2, 1000, np.arange(46))
    selection = select_single_label(replace(train, groups=groups), seed=0)
    assert selection.report.per_class[2].support == 0
    assert any("class 2 has examples of one group only" in warning for warning in selection.report.warnings)


def test_one_group_alone_is_refused(make_set: MakeSet) -> None:
    with pytest.raises(StateError, match="of one group") as raised:
        select_single_label(make_set([5, 5], groups=np.zeros(10, np.int64)), seed=0)
    assert raised.value.reason == "TOO_FEW_EXAMPLES"


def test_heavy_examples_count_more(make_set: MakeSet) -> None:
    train = make_set([15, 15], noise=0.1)
    train.features["pooled"][:] = train.features["pooled"][0]
    weights = np.where(train.labels == 1, 9.0, 1.0)
    head = select_single_label(replace(train, weights=weights), seed=0).head
    probability = head.scores(train.features["pooled"][:1].astype(np.float32)).probabilities[0, 1]
    assert probability == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("classes", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_classes_of_two_examples_train(make_set: MakeSet, classes: int) -> None:
    selection = select_single_label(make_set([2] * classes, dimension=48, noise=0.3), seed=0)
    assert selection.head.classes == classes
    assert selection.report.accuracy > 0.5
    assert len(selection.report.confusions) <= 50
    assert any(
        f"{classes - 5:,} more have fewer than 5 training examples" in it for it in selection.report.warnings
    )


def test_a_large_set_is_searched_on_a_part_and_fitted_on_all(make_set: MakeSet) -> None:
    train, fresh = make_set([1200] * 4, noise=2.0), make_set([500] * 4, noise=2.0, seed=6)
    assert len(train) > 1.5 * SEARCH_EXAMPLES
    selection = select_single_label(train, seed=0)
    assert selection.report.evaluation.examples == selection.report.examples == len(train)
    assert len({one.kind for one in selection.report.head.candidates}) == 4
    found = selection.head.scores(fresh.features["pooled"].astype(np.float32)).probabilities.argmax(axis=1)
    assert (found == fresh.labels).mean() == pytest.approx(selection.report.accuracy, abs=0.03)


def test_progress_rises_to_the_end(make_set: MakeSet) -> None:
    told: list[float] = []
    select_single_label(make_set([10, 10]), seed=0, steps=Steps(lambda it: told.append(it.fraction)))
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == pytest.approx(1)
