"""From examples with several labels to a head: what it answers on fresh examples, and what its report says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import f1_score
from tests.training.conftest import rows_of

from graft_server.domain.errors import StateError
from graft_server.domain.report import EvaluationMethod, Report
from graft_server.heads import encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.multi_label import MultiLabelHead, MultiLabelOutput
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.selection import select_multi_label

MakeSet = Callable[..., MultiLabelSet]


def selected(train: MultiLabelSet, seed: int = 0) -> tuple[MultiLabelHead, Report]:
    selection = select_multi_label(train, seed=seed)
    assert isinstance(selection.head, MultiLabelHead)
    return selection.head, selection.report


def answers(head: MultiLabelHead, on: MultiLabelSet) -> MultiLabelOutput:
    return head.scores(
        np.concatenate([on.features[it] for it in head.view.split("+")], axis=1).astype(np.float32)
    )


def test_the_report_foretells_the_figures_on_fresh_examples(make_labelled_set: MakeSet) -> None:
    head, report = selected(make_labelled_set(400))
    fresh = make_labelled_set(1500, seed=5)
    output = answers(head, fresh)
    assert report.multi_label is not None
    micro = f1_score(fresh.targets, output.selected, average="micro")
    assert micro > 0.85
    assert report.multi_label.micro_f1 == pytest.approx(micro, abs=0.04)
    assert report.macro_f1 == pytest.approx(
        f1_score(fresh.targets, output.selected, average="macro"), abs=0.06
    )
    assert report.accuracy == pytest.approx((output.selected == fresh.targets).all(axis=1).mean(), abs=0.07)
    np.testing.assert_allclose(output.probabilities.mean(axis=0), fresh.targets.mean(axis=0), atol=0.05)
    assert report.evaluation.method is EvaluationMethod.CROSS_VALIDATION
    assert (output.novelty > 0.95).mean() < 0.12


def test_each_label_is_reported_with_its_threshold_and_its_own_figures(make_labelled_set: MakeSet) -> None:
    train = make_labelled_set(300)
    head, report = selected(train)
    for entry, name, carried, threshold in zip(
        report.per_class, train.classes, train.targets.T, head.thresholds, strict=True
    ):
        assert (entry.label, entry.threshold) == (name, pytest.approx(float(threshold)))
        assert entry.examples == entry.support == carried.sum()
        assert entry.f1 == pytest.approx(2 / (1 / entry.precision + 1 / entry.recall))


def test_the_graph_answers_as_the_head_does(make_labelled_set: MakeSet) -> None:
    head, _ = selected(make_labelled_set(200, noise=2.0))
    fresh = make_labelled_set(300, seed=2, noise=2.0)
    features = fresh.features["pooled"].astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(head), providers=["CPUExecutionProvider"])
    names = ["probabilities", "selected", "thresholds", "novelty"]
    probabilities, chosen, thresholds, novelty = session.run(names, {"features": features})
    output = answers(head, fresh)
    np.testing.assert_allclose(probabilities, output.probabilities, atol=1e-5)
    np.testing.assert_array_equal(thresholds, head.thresholds)
    np.testing.assert_allclose(novelty, output.novelty, atol=1e-5)
    clear = np.abs(output.probabilities - head.thresholds) > 1e-4
    np.testing.assert_array_equal(chosen[clear], output.selected[clear])


def test_the_same_examples_and_seed_give_the_same_bytes_and_report(make_labelled_set: MakeSet) -> None:
    train = make_labelled_set(150)
    one, other = selected(train, seed=3), selected(train, seed=3)
    assert encode(one[0]) == encode(other[0])
    assert one[1] == other[1]
    assert one[1].seed == 3


def test_an_example_of_weight_0_is_as_good_as_absent(make_labelled_set: MakeSet) -> None:
    train = make_labelled_set(160)
    kept = np.arange(160) % 4 != 0
    without = rows_of(train, "targets", np.flatnonzero(kept))
    without = replace(without, ids=tuple(it.partition("/")[0] for it in without.ids))
    weighted, absent = selected(replace(train, weights=kept.astype(float))), selected(without)
    assert encode(weighted[0]) == encode(absent[0])
    assert weighted[1].multi_label == absent[1].multi_label
    assert any("40 examples were left out: their weight is 0" in it for it in weighted[1].warnings)


def test_an_example_of_weight_2_counts_as_one_that_is_there_twice(make_labelled_set: MakeSet) -> None:
    train, fresh = make_labelled_set(160, noise=1.5), make_labelled_set(400, seed=4, noise=1.5)
    twice = np.arange(160) % 4 == 0
    repeated = rows_of(train, "targets", np.repeat(np.arange(160), 1 + twice))
    outputs = [
        answers(selected(one)[0], fresh).probabilities
        for one in (replace(train, weights=1.0 + twice), repeated, train)
    ]
    # Folds are dealt anew, and with them the calibration; the unweighted head is farther away than that.
    assert np.abs(outputs[0] - outputs[1]).mean() < 0.03
    assert np.abs(outputs[0] - outputs[1]).mean() < np.abs(outputs[0] - outputs[2]).mean()


def test_validation_examples_are_measured_on_and_not_trained_on(make_labelled_set: MakeSet) -> None:
    train = make_labelled_set(200)
    validation = np.arange(200) % 4 == 0
    # Were they trained on, wrong labels would be learnt; measured on, they are nearly all errors.
    targets = train.targets ^ validation[:, None]
    _, report = selected(replace(train, validation=validation, targets=targets))
    assert report.evaluation.method is EvaluationMethod.HELD_OUT
    assert (report.examples, report.validation_examples, report.evaluation.examples) == (150, 50, 50)
    assert report.multi_label is not None
    assert report.multi_label.micro_f1 < 0.2
    assert report.accuracy == 0


def test_what_is_measured_of_a_group_is_not_learnt_from_it(make_labelled_set: MakeSet) -> None:
    # Features say nothing, but each group has features and labels of its own: torn apart, they would be remembered.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    marks = rng.standard_normal((40, 32))[groups] + 0.7 * rng.standard_normal((200, 32))
    features = (marks / np.linalg.norm(marks, axis=1, keepdims=True)).astype(np.float16)
    targets = (rng.random((40, 3)) < 0.5)[groups]
    train = make_labelled_set(200, features={"pooled": features}, targets=targets)
    torn, whole = selected(train)[1], selected(replace(train, groups=groups))[1]
    assert torn.accuracy > 0.8
    assert whole.accuracy < 0.5


def test_rows_that_carry_no_label_stay_without_one(make_labelled_set: MakeSet) -> None:
    train, fresh = (
        make_labelled_set(300, shares=(0.3, 0.2)),
        make_labelled_set(600, shares=(0.3, 0.2), seed=6),
    )
    head, _ = selected(train)
    bare = ~fresh.targets.any(axis=1)
    assert not head.at_least_one
    assert answers(head, fresh).selected[bare].any(axis=1).mean() < 0.2


@pytest.mark.parametrize("carried", [np.zeros((20, 3), bool), np.ones((20, 3), bool)])
def test_labels_that_tell_nothing_apart_are_refused(make_labelled_set: MakeSet, carried: np.ndarray) -> None:
    with pytest.raises(StateError, match="at least one must be") as raised:
        selected(make_labelled_set(20, targets=carried))
    assert raised.value.reason == "TOO_FEW_CLASSES"


def test_labels_of_no_example_and_of_every_example_are_warned_of_and_answered(
    make_labelled_set: MakeSet,
) -> None:
    train = make_labelled_set(60)
    targets = train.targets.copy()
    targets[:, 1], targets[:, 2] = False, True
    head, report = selected(replace(train, targets=targets))
    output = answers(head, train)
    assert (output.selected[:, 1].any(), output.selected[:, 2].all()) == (False, True)
    assert any(it.startswith("label 1 has no training examples") for it in report.warnings)
    assert any(it.startswith("label 2 has no training example without it") for it in report.warnings)


def test_planted_errors_are_found_and_said_to_be_missing_or_too_many(make_labelled_set: MakeSet) -> None:
    train = make_labelled_set(400, noise=0.3)
    targets = train.targets.copy()
    planted = [(10, 0), (20, 1), (30, 2), (40, 0), (50, 1)]
    for row, label in planted:
        targets[row, label] ^= True
    _, report = selected(replace(train, targets=targets))
    assert report.data is not None
    found = {(it.example.id, it.suggested) for it in report.data.label_errors[:8]}
    right = {
        (train.ids[row], ", ".join(np.array(train.classes)[train.targets[row]].tolist()))
        for row, _ in planted
    }
    assert len(found & right) >= 4
    kept = replace(train, targets=targets, confirmed=frozenset(train.ids[row] for row, _ in planted))
    _, report = selected(kept)
    assert report.data is not None
    assert report.data.confirmed_examples == len(planted)
    assert not {it.example.id for it in report.data.label_errors} & kept.confirmed


def test_names_of_labels_help_where_examples_are_few(make_labelled_set: MakeSet) -> None:
    shares = (0.3,) * 6
    train, fresh = (make_labelled_set(n, shares, noise=2.0, seed=seed) for n, seed in ((16, 0), (400, 4)))
    clear = make_labelled_set(400, shares, noise=0.1, seed=8)
    alone = [int(np.flatnonzero((clear.targets == row).all(axis=1))[0]) for row in np.eye(6, dtype=bool)]
    names = {"pooled": clear.features["pooled"][alone]}
    micro = []
    for named in (None, names):
        head, report = selected(replace(train, label_features=named))
        assert report.head.settings["label_names"] == (named is not None)
        assert report.evaluation.examples == 16  # names are taught, and nothing is measured on them
        micro.append(f1_score(fresh.targets, answers(head, fresh).selected, average="micro"))
    assert micro[1] > micro[0] + 0.05


def test_names_that_mislead_are_left_alone(make_labelled_set: MakeSet) -> None:
    train = make_labelled_set(200)
    swapped = {"pooled": -train.features["pooled"][:3]}
    head, report = selected(replace(train, label_features=swapped))
    assert report.head.settings["label_names"] == 0
    assert encode(head) == encode(selected(train)[0])


def test_the_curve_forecasts_the_micro_f1_of_more_examples(make_labelled_set: MakeSet) -> None:
    shares = (0.4, 0.3, 0.3, 0.2)
    _, report = selected(make_labelled_set(120, shares, noise=2.5))
    curve = report.learning_curve
    assert curve is not None
    sizes = [point.examples for point in curve.points]
    assert sizes == sorted(sizes)
    assert [point.examples for point in curve.forecasts] == [180, 240, 480]
    for point in (*curve.points, *curve.forecasts):
        assert 0 < point.low <= point.accuracy + 0.02 <= point.high + 0.04
    figures = [point.accuracy for point in curve.forecasts]
    assert figures == sorted(figures)
    # What came true of twice the examples, measured by its own folds.
    twice = selected(make_labelled_set(240, shares, noise=2.5, seed=3))[1].multi_label
    assert twice is not None
    assert curve.forecasts[1].low - 0.03 <= twice.micro_f1 <= curve.forecasts[1].high + 0.03


def test_the_label_that_is_missed_most_is_most_worth_labelling(make_labelled_set: MakeSet) -> None:
    train = make_labelled_set(160, (0.3, 0.3, 0.3), noise=0.5)
    targets = train.targets.copy()
    targets[:, 1] = np.random.default_rng(0).random(160) < 0.3  # nothing tells where it applies
    _, report = selected(replace(train, targets=targets))
    assert report.learning_curve is not None
    advice = report.learning_curve.advice
    assert advice[0].label == "label 1"
    assert advice[0].more_examples == targets[:, 1].sum()
    assert advice[0].low <= advice[0].gain <= advice[0].high


def test_a_handful_of_examples_has_no_curve(make_labelled_set: MakeSet) -> None:
    assert selected(make_labelled_set(30))[1].learning_curve is None
