from __future__ import annotations

import numpy as np

from graft_server.adapting.folds import bound_together, stratified_folds


def test_groups_and_duplicates_bind_rows_across_both() -> None:
    groups = np.array([1, 1, 2, 3, 4, 5])
    digests = [b"a", b"b", b"b", b"c", b"d", b"c"]
    bound = bound_together(groups, digests)
    assert bound[0] == bound[1] == bound[2]
    assert bound[3] == bound[5]
    assert len(set(bound.tolist())) == 3


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
