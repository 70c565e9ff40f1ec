"""Logistic regression of many labels at once, against scikit-learn's of one label at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from graft_server.heads.maps import sigmoid
from graft_server.training.solvers import binary
from graft_server.training.solvers.logistic import Axes, Solution, principal_axes

EXACT = 1e-5
"""How far down the gradient comes here, so that both minima are the same but for rounding."""


@pytest.fixture(params=["more rows than dimensions", "fewer"])
def features(request: pytest.FixtureRequest) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((120 if request.param != "fewer" else 24, 40))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(features: np.ndarray, shares: tuple[float, ...] = (0.5, 0.15, 0.05)) -> np.ndarray:
    """Labels, shape (n, k), each applying to the given share of rows, as the features have it."""
    rng = np.random.default_rng(1)
    scores = features @ rng.standard_normal((features.shape[1], len(shares)))
    scores += 0.1 * rng.standard_normal(scores.shape)
    places = scores.argsort(axis=0).argsort(axis=0) / len(scores)
    return (places >= 1 - np.array(shares)).astype(np.float32)


def logits(axes: Axes, solution: Solution) -> np.ndarray:
    """Shape (f, n, k)."""
    found: np.ndarray = np.matmul(axes.coordinates, solution.weight) + solution.bias[:, None]
    return found


def reference(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """Shape (n, k): scikit-learn's logits; a probability p counts as an example of weight p and one of 1 - p."""

    def columns() -> Iterator[np.ndarray]:
        for target in targets.T:
            twice = LogisticRegression(C=strength, tol=1e-8, max_iter=5000)
            twice.fit(
                np.concatenate([features, features]),
                np.repeat([1, 0], len(features)),
                sample_weight=np.concatenate([weights * target, weights * (1 - target)]),
            )
            yield twice.decision_function(features)

    return np.stack(list(columns()), axis=1)


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_each_label_gets_the_minimum_that_scikit_learn_finds(features: np.ndarray, strength: float) -> None:
    axes, targets = principal_axes(features), drawn(features)
    weights = np.random.default_rng(2).uniform(0.2, 3, len(features)).astype(np.float32)
    solution = binary.fit(axes, targets, weights[None], strength=strength, tolerance=EXACT)
    np.testing.assert_allclose(
        logits(axes, solution)[0], reference(features, targets, weights, strength), atol=0.02
    )


def test_targets_may_be_probabilities(features: np.ndarray) -> None:
    axes, targets = principal_axes(features), 0.8 * drawn(features) + 0.1
    ones = np.ones(len(features), np.float32)
    solution = binary.fit(axes, targets, ones[None], strength=10.0, tolerance=EXACT)
    np.testing.assert_allclose(logits(axes, solution)[0], reference(features, targets, ones, 10.0), atol=0.02)


def test_problems_side_by_side_have_the_solutions_that_each_has_alone(features: np.ndarray) -> None:
    axes, targets = principal_axes(features), drawn(features)
    folds = np.arange(len(features)) % 3
    kept = np.where(folds == np.arange(3)[:, None], 0, 1).astype(np.float32)
    together = logits(axes, binary.fit(axes, targets, kept, strength=10.0, tolerance=EXACT))
    for one, weights in zip(together, kept, strict=True):
        alone = logits(axes, binary.fit(axes, targets, weights[None], strength=10.0, tolerance=EXACT))
        np.testing.assert_allclose(one, alone[0], atol=0.01)
        # A label that a fold has no example of has a logit far below 0, and no minimum.
        expected = reference(features, targets, weights, 10.0)
        np.testing.assert_allclose(sigmoid(one), sigmoid(expected.astype(np.float32)), atol=0.005)


def test_a_label_that_nothing_carries_is_unlikely_everywhere_and_one_that_all_carry_likely(
    features: np.ndarray,
) -> None:
    axes = principal_axes(features)
    targets = np.tile(np.array([0, 1], np.float32), (len(features), 1))
    ones = np.ones((1, len(features)), np.float32)
    found = logits(axes, binary.fit(axes, targets, ones, strength=10.0))[0]
    assert np.isfinite(found).all()
    assert (found[:, 0] < -2).all()
    assert (found[:, 1] > 2).all()


def test_a_start_elsewhere_ends_at_the_same_minimum(features: np.ndarray) -> None:
    axes, targets = principal_axes(features), drawn(features)
    ones = np.ones((1, len(features)), np.float32)
    strong = binary.fit(axes, targets, ones, strength=100.0, tolerance=EXACT)
    direct = binary.fit(axes, targets, ones, strength=1.0, tolerance=EXACT)
    moved = binary.fit(axes, targets, ones, strength=1.0, tolerance=EXACT, start=strong)
    np.testing.assert_allclose(logits(axes, moved), logits(axes, direct), atol=0.01)
