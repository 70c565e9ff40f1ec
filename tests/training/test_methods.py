"""Each method against an independent computation of the same thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from graft_server.evaluation import figures
from graft_server.heads.maps import gaussian_kernel, softmax
from graft_server.training.calibration.temperature import temperature
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.solvers import logistic
from graft_server.training.solvers.kernel import KernelRidge, indicators

MakeSet = Callable[..., ClassifiedSet]


@pytest.mark.parametrize(("per_class", "dimension"), [(6, 64), (40, 16)])
def test_logistic_regression_finds_what_scikit_learn_finds(
    make_set: MakeSet, per_class: int, dimension: int
) -> None:
    train = make_set([per_class] * 5, dimension=dimension, noise=1.5)
    features = train.features["pooled"].astype(np.float32)
    axes = logistic.principal_axes(features)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(train)).astype(np.float32)
    solution = logistic.fit(axes, train.labels, weights[None], 5, strength=3.0, start=None)
    found = softmax(axes.coordinates @ solution.weight[0] + solution.bias[0])
    model = LogisticRegression(C=3.0, tol=1e-8, max_iter=10_000).fit(features, train.labels, weights)
    np.testing.assert_allclose(found, model.predict_proba(features), atol=0.01)


def test_problems_side_by_side_are_solved_as_alone(make_set: MakeSet) -> None:
    train = make_set([15] * 4, noise=1.0)
    axes = logistic.principal_axes(train.features["pooled"].astype(np.float32))
    weights = np.stack([np.arange(60) % 3 != fold for fold in range(3)]).astype(np.float32)
    both = logistic.fit(axes, train.labels, weights, 4, strength=10.0, start=None)
    for fold in range(3):
        alone = logistic.fit(axes, train.labels, weights[fold][None], 4, strength=10.0, start=None)
        of_both = softmax(axes.coordinates @ both.weight[fold] + both.bias[fold])
        np.testing.assert_allclose(
            of_both, softmax(axes.coordinates @ alone.weight[0] + alone.bias[0]), atol=0.02
        )


def test_kernel_regression_leaves_folds_out_exactly(make_set: MakeSet) -> None:
    train = make_set([12, 12, 12], noise=1.0)
    fold_of = (np.arange(36) % 4).astype(np.int32)
    features = train.features["pooled"]
    whole = KernelRidge(features, indicators(train.labels, 3), train.weights, fold_of, seed=0)
    wide = features.astype(np.float32)
    for fold in range(4):
        kept = fold_of != fold
        kernel = gaussian_kernel(wide[kept], wide[kept], 1.0 / float((wide**2).sum(axis=1).mean()))
        targets = np.eye(3)[train.labels[kept]] - 1 / 3
        weight = np.linalg.solve(kernel + 0.3 * np.eye(kept.sum()), targets)
        gamma = 1.0 / float((wide**2).sum(axis=1).mean())
        expected = gaussian_kernel(wide[~kept], wide[kept], gamma) @ weight + 1 / 3
        np.testing.assert_allclose(whole.out_of_fold(0.3)[~kept], expected, atol=0.01)


def test_kernel_regression_on_all_rows_is_what_its_map_computes(make_set: MakeSet) -> None:
    train = make_set([10, 10, 10], noise=1.0)
    regression = KernelRidge(
        train.features["pooled"],
        indicators(train.labels, 3),
        train.weights,
        np.full(30, -1, np.int32),
        seed=0,
    )
    wide = train.features["pooled"].astype(np.float32)
    kernel = gaussian_kernel(wide, wide, 1.0 / float((wide**2).sum(axis=1).mean()))
    expected = kernel @ np.linalg.solve(kernel + 0.3 * np.eye(30), np.eye(3)[train.labels] - 1 / 3) + 1 / 3
    found = regression.fit(0.3)
    scores = (
        gaussian_kernel(wide, found.landmarks.astype(np.float32), found.gamma) @ found.weight + found.bias
    )
    np.testing.assert_allclose(scores, expected, atol=0.01)


def shared_out(train: ClassifiedSet, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distributions for the rows, and the same as several weighted rows a row: source, labels, weights."""
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet(np.full(3, 0.7), len(train)).astype(np.float32)
    source, labels = np.nonzero(soft)
    return soft, source, labels.astype(np.int32), soft[source, labels] * train.weights[source]


def test_logistic_regression_on_a_distribution_is_that_on_its_labels_weighted(make_set: MakeSet) -> None:
    train = make_set([20, 20, 20], noise=1.0, weights=np.random.default_rng(3).random(60) + 0.1)
    soft, source, labels, weights = shared_out(train)
    axes = logistic.principal_axes(train.features["pooled"].astype(np.float32))
    several = replace(axes, coordinates=axes.coordinates[source])
    own = train.weights.astype(np.float32)[None]
    found = logistic.fit(axes, train.labels, own, 3, strength=5.0, start=None, soft=soft)
    expected = logistic.fit(several, labels, weights.astype(np.float32)[None], 3, strength=5.0, start=None)
    np.testing.assert_allclose(
        softmax(axes.coordinates @ found.weight[0] + found.bias[0]),
        softmax(axes.coordinates @ expected.weight[0] + expected.bias[0]),
        atol=0.01,
    )


def test_kernel_regression_on_a_distribution_is_that_on_its_labels_weighted(make_set: MakeSet) -> None:
    train = make_set([12, 12, 12], noise=1.0)
    soft, source, labels, weights = shared_out(train)
    features, never = train.features["pooled"], np.full(36, -1, np.int32)
    wide = features.astype(np.float32)
    found = KernelRidge(features, indicators(train.labels, 3, soft), train.weights, never, seed=0).fit(0.3)
    several = KernelRidge(
        features[source], indicators(labels, 3), weights, never[:1].repeat(len(source)), seed=0
    )
    expected = several.fit(0.3)
    scores = [
        gaussian_kernel(wide, it.landmarks.astype(np.float32), it.gamma) @ it.weight + it.bias
        for it in (found, expected)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02)


def test_temperature_and_log_loss_of_a_distribution_are_those_of_its_labels_weighted(
    make_set: MakeSet,
) -> None:
    train = make_set([20, 20, 20])
    soft, source, labels, weights = shared_out(train)
    logits = np.random.default_rng(1).standard_normal((60, 3)).astype(np.float32) + 2 * soft
    found = temperature(logits, train.labels, train.weights, soft)
    assert found == pytest.approx(temperature(logits[source], labels, weights), rel=1e-2)
    chances = softmax(logits)
    expected = figures.log_loss(chances[source], labels, weights)
    assert figures.log_loss(chances, train.labels, train.weights, soft) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_temperature_is_found_again(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((20_000, 6))).astype(np.float32)
    chances = softmax(logits / np.float32(true))
    labels = (chances.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1).clip(0, 5).astype(np.int32)
    assert temperature(logits, labels, np.ones(20_000)) == pytest.approx(true, rel=0.05)


def test_temperature_stays_finite_without_a_single_error() -> None:
    logits = np.eye(4, dtype=np.float32)
    found = temperature(logits, np.arange(4, dtype=np.int32), np.ones(4))
    assert 0 < found < 1
    assert temperature(np.zeros((4, 4), np.float32), np.arange(4, dtype=np.int32), np.ones(4)) == 1


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 1e4])
def test_however_little_logits_differ_probabilities_are_as_sure_as_the_examples_allow(size: float) -> None:
    logits = np.tile(np.eye(2, dtype=np.float32), (6, 1)) * np.float32(size)
    labels = np.tile(np.arange(2, dtype=np.int32), 6)
    sure = softmax(logits / np.float32(temperature(logits, labels, np.ones(12))))
    # Twelve that are all right and one more that may be either.
    np.testing.assert_allclose(sure[np.arange(12), labels], 12.5 / 13, atol=1e-3)


def test_what_float32_hardly_tells_apart_is_not_taken_for_certain() -> None:
    labels = np.tile(np.arange(2, dtype=np.int32), 6)
    rounding = np.eye(2, dtype=np.float32)[labels] * np.float32(4e-7)
    found = temperature(np.float32(1) + rounding, labels, np.ones(12))
    assert found == pytest.approx(1e-4, rel=1e-3)


def test_figures_of_a_case_counted_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]], np.float32)
    labels = np.array([0, 1, 1, 0], np.int32)
    found = figures.figures(probabilities, labels, np.array([1.0, 1.0, 1.0, 2.0]))
    assert found.accuracy == pytest.approx(0.8)
    # Class 0: precision 3/4, recall 1. Class 1: precision 1, recall 1/2.
    assert found.macro_f1 == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert found.log_loss == pytest.approx(-(np.log([0.8, 0.4, 0.7]).sum() + 2 * np.log(0.9)) / 5, rel=1e-5)
    # Each row is a bin of its own here: gaps 0.2, 0.6, 0.3 and twice 0.1.
    assert found.calibration_error == pytest.approx((0.2 + 0.6 + 0.3 + 2 * 0.1) / 5, rel=1e-5)


def test_confusions_are_counted_most_frequent_first() -> None:
    labels = np.array([0, 0, 0, 1, 2], np.int32)
    predicted = np.array([1, 1, 0, 2, 2])
    found = figures.confusions(("a", "b", "c"), labels, predicted)
    assert [(one.label, one.predicted, one.count) for one in found] == [("a", "b", 2), ("b", "c", 1)]
