"""From examples with a value to a head: what it answers on fresh examples, and what its report says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from tests.training.conftest import rows_of

from graft_server.domain.errors import StateError
from graft_server.domain.report import EvaluationMethod, Report
from graft_server.heads import encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.regression import RegressionHead, RegressionOutput
from graft_server.training.tasks.regression.examples import RegressionSet
from graft_server.training.tasks.regression.selection import Unit, select_regression

MakeSet = Callable[..., RegressionSet]


def selected(train: RegressionSet, seed: int = 0) -> tuple[RegressionHead, Report]:
    selection = select_regression(train, seed=seed)
    assert isinstance(selection.head, RegressionHead)
    return selection.head, selection.report


def answers(head: RegressionHead, on: RegressionSet) -> RegressionOutput:
    return head.scores(on.features["pooled"].astype(np.float32))


def test_the_report_foretells_the_figures_on_fresh_examples(make_valued_set: MakeSet) -> None:
    head, report = selected(make_valued_set(300))
    fresh = make_valued_set(2000, seed=5)
    output = answers(head, fresh)
    off = output.value - fresh.values
    assert report.regression is not None
    assert report.regression.rmse == pytest.approx(float(np.sqrt((off**2).mean())), rel=0.15)
    assert report.regression.mae == pytest.approx(float(np.abs(off).mean()), rel=0.15)
    assert report.regression.r2 == pytest.approx(1 - float((off**2).mean() / fresh.values.var()), abs=0.03)
    held = (output.low <= fresh.values) & (fresh.values <= output.high)
    assert held.mean() == pytest.approx(0.9, abs=0.05)
    assert report.regression.coverage == pytest.approx(0.9, abs=0.06)
    # Noise has a deviation of 1: no interval that holds 90% of it is narrower than 3.29.
    assert 3.2 < report.regression.interval_width < 4.2


def test_the_graph_answers_as_the_head_does(make_valued_set: MakeSet) -> None:
    head, _ = selected(make_valued_set(200))
    fresh = make_valued_set(300, seed=2)
    session = onnxruntime.InferenceSession(to_onnx(head), providers=["CPUExecutionProvider"])
    names = ["value", "low", "high", "novelty"]
    found = session.run(names, {"features": fresh.features["pooled"].astype(np.float32)})
    output = answers(head, fresh)
    for name, values in zip(names, found, strict=True):
        np.testing.assert_allclose(values, getattr(output, name), atol=1e-3)


def test_the_same_examples_and_seed_give_the_same_bytes_and_report(make_valued_set: MakeSet) -> None:
    train = make_valued_set(150)
    one, other = selected(train, seed=3), selected(train, seed=3)
    assert encode(one[0]) == encode(other[0])
    assert one[1] == other[1]
    assert one[1].seed == 3


@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (1e-6, 0.0), (1.0, 1e4), (-1.0, 0.0)])
def test_values_in_another_unit_give_the_same_answers_in_it(
    make_valued_set: MakeSet, factor: float, shift: float
) -> None:
    train, fresh = make_valued_set(120), make_valued_set(50, seed=3)
    before = answers(selected(train)[0], fresh)
    after = answers(selected(replace(train, values=factor * train.values + shift))[0], fresh)
    tolerance = 0.02 * abs(factor) + 1e-6 * abs(shift)
    np.testing.assert_allclose(after.value, factor * before.value + shift, atol=tolerance, rtol=1e-4)
    widths = abs(factor) * (before.high - before.low)
    np.testing.assert_allclose(after.high - after.low, widths, rtol=0.01)


def test_an_example_of_weight_0_is_as_good_as_absent(make_valued_set: MakeSet) -> None:
    train = make_valued_set(160)
    kept = np.arange(160) % 4 != 0
    without = rows_of(train, "values", np.flatnonzero(kept))
    # Folds and the map go by tenths of all values.
    train = replace(train, values=np.where(kept, train.values, np.median(train.values)))
    weighted, absent = selected(replace(train, weights=kept.astype(float))), selected(without)
    fresh = make_valued_set(100, seed=7)
    np.testing.assert_allclose(answers(weighted[0], fresh).value, answers(absent[0], fresh).value, atol=0.05)
    assert weighted[1].examples == absent[1].examples == 120


def test_an_example_of_weight_2_counts_as_one_that_is_there_twice(make_valued_set: MakeSet) -> None:
    train, fresh = make_valued_set(160, noise=3.0), make_valued_set(300, seed=4)
    twice = np.arange(160) % 4 == 0
    repeated = rows_of(train, "values", np.repeat(np.arange(160), 1 + twice))
    values = [
        answers(selected(one)[0], fresh).value
        for one in (replace(train, weights=1.0 + twice), repeated, train)
    ]
    assert np.abs(values[0] - values[1]).mean() < 0.15
    assert np.abs(values[0] - values[1]).mean() < np.abs(values[0] - values[2]).mean() / 2


def test_validation_examples_are_measured_on_and_not_trained_on(make_valued_set: MakeSet) -> None:
    train = make_valued_set(200)
    validation = np.arange(200) % 4 == 0
    head, report = selected(replace(train, validation=validation, values=train.values + 1000 * validation))
    assert report.evaluation.method is EvaluationMethod.HELD_OUT
    assert (report.examples, report.validation_examples, report.evaluation.examples) == (150, 50, 50)
    assert report.regression is not None
    assert report.regression.mae == pytest.approx(1000, abs=3)
    assert report.regression.coverage == 0
    assert answers(head, train).value.max() < 200


def test_what_is_measured_of_a_group_is_not_learnt_from_it(make_valued_set: MakeSet) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    marks = rng.standard_normal((40, 64))[groups] + 0.7 * rng.standard_normal((200, 64))
    features = (marks / np.linalg.norm(marks, axis=1, keepdims=True)).astype(np.float16)
    train = make_valued_set(200, features={"pooled": features}, values=rng.standard_normal(40)[groups])
    torn, whole = selected(train)[1].regression, selected(replace(train, groups=groups))[1].regression
    assert torn is not None
    assert whole is not None
    assert torn.r2 > 0.8
    assert whole.r2 < 0.2


def test_one_value_for_all_is_the_answer_with_a_warning(make_valued_set: MakeSet) -> None:
    train = make_valued_set(30, values=np.full(30, 7.5))
    head, report = selected(train)
    np.testing.assert_allclose(answers(head, train).value, 7.5, atol=1e-4)
    assert any("same value" in it for it in report.warnings)


def test_features_that_are_not_finite_are_left_out_with_a_warning(make_valued_set: MakeSet) -> None:
    train = make_valued_set(80)
    features = train.features["pooled"].copy()
    features[3, 2], features[5, 0] = np.nan, np.inf
    _, report = selected(replace(train, features={"pooled": features}))
    assert report.examples == 78
    assert any("2 examples were left out" in it for it in report.warnings)


def test_fewer_than_two_examples_are_refused(make_valued_set: MakeSet) -> None:
    with pytest.raises(StateError, match="at least 2 are needed") as raised:
        selected(make_valued_set(1))
    assert raised.value.reason == "TOO_FEW_EXAMPLES"


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [5.0, 5.0, 5.0], [1e30, -1e30], [1e-300, 2e-300]])
def test_a_unit_is_undone_exactly(values: list[float]) -> None:
    them = np.array(values)
    unit = Unit.of(them, np.ones(len(them)))
    np.testing.assert_allclose(unit.restored(unit.standardised(them)), them, rtol=1e-12)


def test_the_curve_forecasts_what_more_examples_explain(make_valued_set: MakeSet) -> None:
    _, report = selected(make_valued_set(50, noise=3.0))
    curve = report.learning_curve
    assert curve is not None
    assert curve.advice == ()
    assert [point.examples for point in curve.forecasts] == [75, 100, 200]
    for point in (*curve.points, *curve.forecasts):
        assert point.low <= point.accuracy + 0.02 <= point.high + 0.04 <= 1.04
    twice = selected(make_valued_set(100, noise=3.0, seed=3))[1].regression
    assert twice is not None
    assert curve.forecasts[1].low - 0.05 <= twice.r2 <= curve.forecasts[1].high + 0.05


@pytest.mark.parametrize("changes", [{"n": 30}, {"n": 60, "values": np.full(60, 2.0)}])
def test_too_few_examples_or_one_value_have_no_curve(
    make_valued_set: MakeSet, changes: dict[str, object]
) -> None:
    assert selected(make_valued_set(**changes))[1].learning_curve is None
