"""The head from sums: what it learns, and that it forgets exactly."""

from __future__ import annotations

import numpy as np
import pytest

from graft_server.adapting.interim.single_label.class_sums import ClassSums

D = 12


def rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit-norm rows around three means, their classes and weights."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, count)
    features = rng.normal(size=(count, D)) * 0.3
    features[np.arange(count), classes] += 1
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), classes, rng.uniform(0.5, 2, count)


def logits(sums: ClassSums, features: np.ndarray, names: dict | None = None) -> np.ndarray:
    fitted = sums.fit(names or {})
    assert fitted is not None
    return fitted.map.logits(features)


def test_it_tells_classes_apart():
    sums = ClassSums(D)
    sums.learn(*rows(0, 200))
    features, classes, _ = rows(1, 200)
    assert (logits(sums, features).argmax(axis=1) == classes).mean() > 0.95


def test_the_order_and_grouping_of_rows_does_not_matter():
    features, classes, weights = rows(0, 100)
    whole, parts = ClassSums(D), ClassSums(D)
    whole.learn(features, classes, weights)
    order = np.random.default_rng(1).permutation(100)
    for part in np.array_split(order, 7):
        parts.learn(features[part], classes[part], weights[part])
    assert logits(parts, features) == pytest.approx(logits(whole, features), abs=1e-3)


def test_a_row_taken_back_is_as_if_it_had_never_been():
    features, classes, weights = rows(0, 60)
    never, forgotten = ClassSums(D), ClassSums(D)
    never.learn(features[:40], classes[:40], weights[:40])
    forgotten.learn(features, classes, weights)
    forgotten.unlearn(features[40:], classes[40:], weights[40:])
    assert forgotten.rows.tolist() == never.rows.tolist()
    assert logits(forgotten, features) == pytest.approx(logits(never, features), abs=1e-3)


def test_a_class_whose_rows_are_all_taken_back_is_not_answered():
    features, classes, weights = rows(0, 60)
    sums = ClassSums(D)
    sums.learn(features, classes, weights)
    gone = classes == 1
    sums.unlearn(features[gone], classes[gone], weights[gone])
    fitted = sums.fit({})
    assert fitted is not None
    assert fitted.classes.tolist() == [0, 2]


def test_names_alone_are_classes():
    sums = ClassSums(D)
    features, classes, _ = rows(2, 100)
    names = {it: np.eye(D, dtype=np.float32)[it] for it in range(3)}
    sums.widen(3)
    assert (logits(sums, features, names).argmax(axis=1) == classes).mean() > 0.9


def test_nothing_is_fitted_from_nothing():
    assert ClassSums(D).fit({}) is None


def test_how_near_the_classes_are_to_each_other_needs_two_with_examples():
    sums = ClassSums(3)
    sums.widen(2)
    names = {0: np.eye(3, dtype=np.float32)[0], 1: np.eye(3, dtype=np.float32)[1]}
    named = sums.fit(names)
    assert named is not None
    assert named.between is None
    sums.learn(np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32), np.array([0, 1]), np.ones(2))
    learned = sums.fit({})
    assert learned is not None
    assert learned.between == pytest.approx(0.6)
