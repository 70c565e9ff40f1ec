"""Training examples on a plane: what is told apart lies apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graft_server.training.reporting.feature_map import MAX_POINTS, feature_map


def places(train: Any, seed: int = 0) -> np.ndarray:
    """Shape (n, 2)."""
    points = feature_map(train, np.arange(len(train)), train.kinds(), seed)
    return np.array([(point.x, point.y) for point in points])


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classes_lie_apart_and_spread_both_ways(make_set: Callable[..., Any], classes: int) -> None:
    train = make_set([40] * classes)
    found = places(train)
    middles = np.stack([found[train.labels == label].mean(axis=0) for label in range(classes)])
    nearest = np.linalg.norm(found[:, None] - middles, axis=2).argmin(axis=1)
    assert (nearest == train.labels).mean() > 0.75
    assert found.std(axis=0).min() > 0.05


def test_examples_of_one_kind_are_spread_as_they_differ_most(make_valued_set: Callable[..., Any]) -> None:
    train = make_valued_set(50, values=np.full(50, 3.0))
    features = train.features["pooled"].astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(features.T, bias=True))[::-1]
    np.testing.assert_allclose(places(train).var(axis=0), variances[:2], rtol=1e-3)


def test_features_of_one_number_lie_on_a_line(make_set: Callable[..., Any]) -> None:
    train = make_set([3, 3])
    found = places(replace(train, features={"pooled": train.features["pooled"][:, :1]}))
    assert found[:, 1].tolist() == [0.0] * 6


def test_of_many_examples_the_seed_draws_a_sample(make_valued_set: Callable[..., Any]) -> None:
    train = make_valued_set(MAX_POINTS + 500)
    one, same, other = (feature_map(train, np.arange(len(train)), train.kinds(), seed) for seed in (1, 1, 2))
    assert len({point.id for point in one}) == len(one) == MAX_POINTS
    assert one == same != other
