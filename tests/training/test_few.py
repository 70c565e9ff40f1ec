"""What is made of a cross-fitted tuning: kept where it gains, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from graft_server.backbones.cross_fitted import LEFT_OUT, CrossFitted, hopeless
from graft_server.heads.maps import softmax
from graft_server.training.examples.folds import stratified_folds
from graft_server.training.tasks.single_label.few import decide

DIMENSION, FOLDS = 24, 4


def fitted(
    *,
    classes: int = 4,
    each: int = 8,
    right: float = 1.0,
    frozen: float = 0.5,
    seed: int = 0,
    chance: bool = False,
) -> CrossFitted:
    """Tunings whose features put unseen examples with their class, or with one at random, as the frozen head does.

    Args:
        classes: How many there are.
        each: Examples of each.
        right: The share of unseen examples that the tuned features put with their class.
        frozen: The share that the frozen head is sure of.
        seed: Of it all.
        chance: Whether the labels have nothing to do with the inputs.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes, dtype=np.int32), each)
    n = len(labels)
    fold_of = stratified_folds(labels, np.arange(n), FOLDS, seed)
    shown = rng.integers(0, classes, n) if chance else labels

    def features(held_out: NDArray[np.bool_]) -> NDArray[np.float16]:
        places = rng.standard_normal((classes, DIMENSION))
        put = np.where(rng.random(n) < right, shown, rng.integers(0, classes, n))
        found = places[np.where(held_out, put, labels)] + 0.4 * rng.standard_normal((n, DIMENSION))
        unit: NDArray[np.float16] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)
        return unit

    answered = np.where(rng.random(n) < frozen, shown, rng.integers(0, classes, n))
    logits = 1.5 * np.eye(classes)[answered] + 0.3 * rng.standard_normal((n, classes))
    return CrossFitted(
        labels=labels,
        weights=np.ones(n),
        classes=classes,
        fold_of=fold_of,
        by_fold=np.stack([features(fold_of == fold) for fold in range(FOLDS)]),
        features=features(np.zeros(n, bool)),
        frozen=softmax(logits.astype(np.float32)),
        seed=seed,
    )


@pytest.mark.parametrize("classes", [3, 6])
def test_a_large_gain_on_few_examples_is_kept(classes: int) -> None:
    of = fitted(classes=classes, right=0.95, frozen=0.4)
    found = decide(of)
    assert found.kept
    assert found.accuracy_gain_error > 0
    assert found.gain_error > 0
    rows = np.arange(len(of.labels))
    assert float((found.probabilities.argmax(axis=1) == of.labels).mean()) > 0.9
    assert np.allclose(found.probabilities[rows].sum(axis=1), 1, atol=1e-5)
    assert [it.log_loss for it in found.candidates] == sorted(it.log_loss for it in found.candidates)
    assert found.candidates[0].settings == found.settings
    assert not hopeless(of)


def test_the_head_is_one_on_the_features_of_the_training_on_all_examples() -> None:
    of = fitted(right=0.95, frozen=0.3)
    members = decide(of).fit()
    features = of.features.astype(np.float32)
    logits = sum(it.share * softmax(it.map.logits(features) / np.float32(it.temperature)) for it in members)
    assert (np.asarray(logits).argmax(axis=1) == of.labels).all()


def test_a_loss_is_not_kept_and_is_seen_early() -> None:
    of = fitted(right=0.3, frozen=0.95)
    assert not decide(of).kept
    assert hopeless(replace(of, by_fold=of.by_fold[:1], features=of.features[:0]))


def test_where_the_frozen_head_is_right_nothing_is_begun() -> None:
    of = fitted(right=0.95, frozen=1.0)
    assert hopeless(replace(of, by_fold=of.by_fold[:0], features=of.features[:0]))
    of = fitted(right=0.95, frozen=0.5)
    assert not hopeless(replace(of, by_fold=of.by_fold[:0], features=of.features[:0]))


def test_labels_that_are_chance_are_never_kept() -> None:
    kept = [
        decide(
            fitted(
                classes=2 + seed % 5, each=8 + 8 * (seed % 2), right=0.9, frozen=0.6, seed=seed, chance=True
            )
        ).kept
        for seed in range(40)
    ]
    assert not any(kept)


def test_a_tuning_that_is_as_good_is_not_kept() -> None:
    kept = [decide(fitted(right=0.6, frozen=0.6, seed=seed)).kept for seed in range(20)]
    assert sum(kept) <= 2


def test_one_example_a_class_has_nothing_to_measure() -> None:
    of = fitted(classes=8, each=1, frozen=0.0)
    assert not of.measured.any()
    assert not hopeless(of)


def test_folds_that_were_not_run_are_not_measured() -> None:
    of = fitted(right=0.95, frozen=0.3, each=16)
    part = replace(of, by_fold=of.by_fold[:2])
    found = decide(part)
    assert found.measured.tolist() == (of.fold_of < 2).tolist()
    assert found.kept


def test_what_is_left_out_is_neither_learned_from_nor_measured() -> None:
    of = fitted(right=0.95, frozen=0.3)
    # Were it looked at, a row of another class in each place would spoil both.
    wrong = replace(
        of,
        labels=np.concatenate([of.labels, (of.labels + 1) % of.classes]).astype(np.int32),
        weights=np.concatenate([of.weights, np.zeros(len(of.weights))]),
        fold_of=np.concatenate([of.fold_of, np.full(len(of.fold_of), LEFT_OUT, np.int32)]),
        by_fold=np.concatenate([of.by_fold, of.by_fold], axis=1),
        features=np.concatenate([of.features, of.features]),
        frozen=np.concatenate([of.frozen, np.zeros_like(of.frozen)]),
    )
    one, other = decide(of), decide(wrong)
    assert other.measured.sum() == one.measured.sum()
    assert other.candidates == one.candidates
    assert other.kept == one.kept


def test_weights_count() -> None:
    of = fitted(right=0.95, frozen=0.4, each=16)
    lost = of.frozen[np.arange(len(of.labels)), of.labels] > 0.5
    heavy = replace(of, weights=np.where(lost, 50.0, 1.0))
    one, other = decide(of), decide(heavy)
    assert other.candidates[0].accuracy != one.candidates[0].accuracy
