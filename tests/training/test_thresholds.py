"""From scores to probabilities and decisions, against scikit-learn and against every cut tried out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from graft_server.training.tasks.multi_label.thresholds import decide, decided_without, platt, thresholds


def scored(
    n: int = 800, shares: tuple[float, ...] = (0.4, 0.2), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are twice the logits of the labels drawn from them, less one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(np.log(shares) - np.log1p(-np.array(shares)), 1.5, (n, len(shares)))
    targets = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    return (2 * logits - 1).astype(np.float32), targets


def test_one_label_is_scaled_as_an_unpenalised_logistic_regression_has_it() -> None:
    scores, targets = scored(shares=(0.4,))
    weights = np.random.default_rng(1).uniform(0.5, 2, len(scores))
    scale = platt(scores, targets, weights)
    # Platt's soft targets: half of one more example of each kind.
    carried, total = float(weights @ targets[:, 0]), float(weights.sum())
    soft = np.where(targets[:, 0], (carried + 1) / (carried + 2), 1 / (total - carried + 2))
    reference = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(
        np.concatenate([scores, scores]),
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate([weights * soft, weights * (1 - soft)]),
    )
    assert float(scale.slope[0]) == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert float(scale.shift[0]) == pytest.approx(reference.intercept_[0], rel=1e-2)
    assert float(scale.slope[0]) == pytest.approx(0.5, abs=0.08)


def test_probabilities_are_as_frequent_as_they_say() -> None:
    scores, targets = scored(4000)
    scale = platt(scores, targets, np.ones(len(scores)))
    fresh, truth = scored(4000, seed=5)
    probabilities = scale.probabilities(fresh)
    np.testing.assert_allclose(probabilities.mean(axis=0), truth.mean(axis=0), atol=0.03)
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (probabilities >= low) & (probabilities < low + 0.25)
        assert truth[inside].mean() == pytest.approx(probabilities[inside].mean(), abs=0.05)


def test_a_label_of_few_examples_takes_the_slope_of_the_others() -> None:
    scores, targets = scored(3000, (0.4, 0.3, 0.001))
    targets[:, 2] = False
    targets[scores[:, 2].argsort()[-2:], 2] = True  # told apart without an error, twice
    slopes = platt(scores, targets, np.ones(len(scores))).slope
    assert slopes[2] == pytest.approx(slopes[:2].mean(), rel=0.5)


def test_no_order_is_turned_round_where_scores_say_the_reverse() -> None:
    scores, targets = scored(400, (0.5,))
    assert (platt(-scores, targets, np.ones(len(scores))).slope > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_cut_has_a_larger_f1_than_a_label_s_threshold_where_there_is_one_label(seed: int) -> None:
    scores, targets = scored(120, (0.3,), seed=seed)
    weights = np.random.default_rng(seed).uniform(0.1, 3, len(scores))
    probabilities = platt(scores, targets, weights).probabilities(scores)
    cut = float(thresholds(probabilities, targets, weights)[0])

    def f1(at: float) -> float:
        return float(f1_score(targets[:, 0], probabilities[:, 0] >= at, sample_weight=weights))

    assert f1(cut) == pytest.approx(max(f1(at) for at in np.unique(probabilities)))
    assert not (probabilities == np.float32(cut)).any()


def test_thresholds_of_rare_labels_are_drawn_to_the_common_one() -> None:
    rng = np.random.default_rng(0)
    targets = np.zeros((2000, 3), bool)
    targets[:900, 0], targets[:900, 1], targets[:2, 2] = True, True, True
    probabilities = np.clip(rng.normal(np.where(targets, 0.5, 0.2), 0.05), 0.01, 0.99).astype(np.float32)
    probabilities[:2, 2] = 0.95
    common, _, rare = thresholds(probabilities, targets, np.ones(2000))
    # Its own two examples would put the cut between 0.4 and 0.95.
    assert abs(rare - common) < 0.12


def test_a_label_without_examples_has_a_threshold_all_the_same() -> None:
    probabilities = np.full((10, 2), 0.1, np.float32)
    targets = np.zeros((10, 2), bool)
    assert ((thresholds(probabilities, targets, np.ones(10)) > 0) & np.isfinite(probabilities[0])).all()


def test_one_label_is_always_selected_where_every_example_carries_one() -> None:
    scores, targets = scored()
    every = targets.copy()
    every[~every.any(axis=1), 0] = True
    for carried, at_least_one in ((targets, False), (every, True)):
        decision = decide(scores, carried, np.ones(len(scores)))
        probabilities, selected = decision.apply(scores - 100)
        assert decision.at_least_one == selected.any() == at_least_one
        if at_least_one:
            assert (selected.sum(axis=1) == 1).all()
            assert (selected.argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_what_a_report_says_of_a_fold_does_not_depend_on_the_fold_s_own_labels() -> None:
    scores, targets = scored(300)
    weights, fold_of = np.ones(300), (np.arange(300) % 3).astype(np.int32)
    one = decided_without(scores, targets, weights, fold_of)
    turned = targets ^ (fold_of == 1)[:, None]
    other = decided_without(scores, turned, weights, fold_of)
    inside = fold_of == 1
    for before, after in zip(one, other, strict=True):
        np.testing.assert_array_equal(before[inside], after[inside])
        assert (before[~inside] != after[~inside]).any()
