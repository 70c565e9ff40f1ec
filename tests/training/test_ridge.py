"""Ridge regression and its folds in closed form, against scikit-learn's fitted anew for each fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from graft_server.training.solvers.logistic import principal_axes
from graft_server.training.solvers.ridge import Ridge

PENALTIES = (0.1, 3.0, 100.0)


@pytest.fixture(params=[(90, 12), (30, 50)], ids=["n > d", "n < d"])
def problem(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, targets and weights."""
    rng = np.random.default_rng(0)
    features = (rng.standard_normal(request.param) + 0.5).astype(np.float32)
    targets = features[:, :3] @ [2.0, -1.0, 0.5] + rng.standard_normal(len(features)) + 7
    return features, targets, rng.uniform(0.2, 4, len(features))


def reference(features: np.ndarray, penalty: float) -> Reference:
    """The penalty is relative to the mean squared norm of the centred features."""
    centred = features - features.mean(axis=0)
    alpha = penalty * float(np.einsum("nd,nd->n", centred, centred).mean())
    return Reference(alpha=alpha, solver="cholesky", tol=1e-10)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_fit_is_scikit_learn_s(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], penalty: float
) -> None:
    features, targets, weights = problem
    ridge = Ridge(principal_axes(features), targets, weights, np.zeros(len(targets), np.int32))
    expected = reference(features, penalty).fit(features, targets, sample_weight=weights).predict(features)
    np.testing.assert_allclose(ridge.fit(penalty).scores(features)[:, 0], expected, atol=2e-3)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("folds", [2, 5, 0])
def test_a_fold_is_predicted_as_by_a_fit_without_it_down_to_leave_one_out(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], penalty: float, folds: int
) -> None:
    features, targets, weights = problem
    fold_of = (np.arange(len(targets)) % (folds or len(targets))).astype(np.int32)
    found = Ridge(principal_axes(features), targets, weights, fold_of).out_of_fold(penalty)
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        model = reference(features, penalty)
        model.fit(features[~inside], targets[~inside], sample_weight=weights[~inside])
        np.testing.assert_allclose(found[inside], model.predict(features[inside]), atol=2e-3)


def test_a_penalty_means_the_same_for_features_of_any_size(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, targets, weights = problem
    fold_of = (np.arange(len(targets)) % 4).astype(np.int32)
    small, large = (
        Ridge(principal_axes(features * np.float32(size)), targets, weights, fold_of).out_of_fold(3.0)
        for size in (0.01, 100.0)
    )
    np.testing.assert_allclose(small, large, rtol=1e-3)


def test_an_enormous_penalty_leaves_the_weighted_mean(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, targets, weights = problem
    ridge = Ridge(principal_axes(features), targets, weights, np.zeros(len(targets), np.int32))
    found = ridge.fit(1e9).scores(features)[:, 0]
    np.testing.assert_allclose(found, float(weights @ targets / weights.sum()), atol=1e-3)
