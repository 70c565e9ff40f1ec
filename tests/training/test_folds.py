from __future__ import annotations

import numpy as np

from graft_server.training.examples.folds import bound_together, iterative_folds, stratified_folds


def test_groups_and_duplicates_bind_rows_across_both() -> None:
    groups = np.array([1, 1, 2, 3, 4, 5])
    inputs = np.array([0, 1, 1, 2, 3, 2])
    bound = bound_together(groups, inputs)
    assert bound[0] == bound[1] == bound[2]
    assert bound[3] == bound[5]
    assert len(set(bound.tolist())) == 3


def test_pairs_bind_rows_too() -> None:
    bound = bound_together(np.array([7, 7, 8, 9]), pairs=(np.array([1]), np.array([3])))
    assert bound[0] == bound[1] == bound[3] != bound[2]


def test_folds_never_tear_a_group() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200).astype(np.int32)
    bound = rng.integers(0, 60, 200)
    folds = stratified_folds(labels, bound, 5, seed=1)
    assert {len(set(folds[bound == group].tolist())) for group in np.unique(bound)} == {1}
    assert set(folds.tolist()) == set(range(5))


def test_single_rows_are_spread_evenly_by_class_and_in_all() -> None:
    labels = np.repeat(np.arange(7, dtype=np.int32), [8, 3, 1, 20, 5, 11, 2])
    folds = stratified_folds(labels, np.arange(50), 5, seed=2)
    sizes = np.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    for label in range(7):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_folds_depend_on_the_seed_alone() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), 20)
    one, same, other = (stratified_folds(labels, np.arange(60), 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def label_sets(n: int = 300, seed: int = 0) -> np.ndarray:
    """Shape (n, 6): labels from frequent to rare, some together."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n, 6)) < [0.5, 0.3, 0.15, 0.08, 0.04, 0.0]
    targets[:, 1] |= targets[:, 2]
    targets[rng.permutation(n)[:5], 5] = True
    return targets


def test_each_fold_has_its_share_of_every_label_and_of_all_rows() -> None:
    targets = label_sets()
    folds = iterative_folds(targets, np.arange(300), 5, seed=1)
    counts = np.stack([targets[folds == fold].sum(axis=0) for fold in range(5)])
    ideal = targets.sum(axis=0) / 5
    assert np.abs(counts - ideal).max() <= 2
    assert (counts[:, 5] == 1).all()  # one of each in each: the rarest goes first
    sizes = np.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= 3
    random = np.random.default_rng(0).permutation(np.arange(300) % 5)
    by_chance = np.stack([targets[random == fold].sum(axis=0) for fold in range(5)])
    assert np.abs(counts - ideal).sum() < np.abs(by_chance - ideal).sum() / 2


def test_folds_of_label_sets_never_tear_a_group() -> None:
    targets = label_sets()
    bound = np.random.default_rng(3).integers(0, 70, 300)
    folds = iterative_folds(targets, bound, 4, seed=1)
    assert {len(set(folds[bound == group].tolist())) for group in np.unique(bound)} == {1}
    counts = np.stack([targets[folds == fold].sum(axis=0) for fold in range(4)])
    assert (counts[:, :4] > 0).all()


def test_rows_without_a_label_fill_the_folds_up() -> None:
    targets = np.zeros((40, 2), bool)
    targets[:6, 0] = True
    sizes = np.bincount(iterative_folds(targets, np.arange(40), 4, seed=0), minlength=4)
    assert sizes.tolist() == [10, 10, 10, 10]


def test_folds_of_label_sets_depend_on_the_seed_alone() -> None:
    targets = label_sets()
    one, same, other = (iterative_folds(targets, np.arange(300), 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
