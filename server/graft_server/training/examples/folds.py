"""Cross-validation folds: classes spread evenly, rows that belong together never torn apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def bound_together(
    *relations: NDArray[np.int64], pairs: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
) -> NDArray[np.int64]:
    """Returns numbers, shape (n,), equal for rows that belong together, across all relations.

    A copy of a training row among the held-out ones would be predicted from memory.

    Args:
        relations: shape (n,) each, at least one: equal for rows that belong together, by groups for example.
        pairs: Rows that belong together, the first and the second of each pair.
    """
    n = len(relations[0])
    # Rows are nodes 0 to n - 1, then the numbers of each relation: what is connected belongs together.
    starts = [np.tile(np.arange(n), len(relations))]
    ends = [(1 + i) * n + np.unique(it, return_inverse=True)[1] for i, it in enumerate(relations)]
    if pairs is not None:
        starts, ends = [*starts, pairs[0]], [*ends, pairs[1]]
    places = np.concatenate(starts), np.concatenate(ends)
    nodes = (1 + len(relations)) * n
    edges = coo_array((np.ones(len(places[0]), np.int8), places), shape=(nodes, nodes))
    _, components = connected_components(edges, directed=False)
    _, numbered = np.unique(components[:n], return_inverse=True)
    return numbered.astype(np.int64)


def stratified_folds(
    labels: NDArray[np.int32], bound: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int32]:
    """The fold of each row, shape (n,), from 0 to folds - 1.

    Groups of several rows come first, largest first, each into the fold that has fewest rows of its classes;
    single rows are then dealt out so that each fold gets its share of each class.
    """
    rng = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    fold_of = np.full(len(labels), -1, np.int32)
    counts = np.zeros((folds, classes), np.int64)
    _place_groups(labels, bound, counts, fold_of, rng)
    single = np.flatnonzero(fold_of < 0)
    single = single[rng.permutation(len(single))]
    single = single[np.argsort(labels[single], kind="stable")]
    for rows in np.split(single, np.flatnonzero(np.diff(labels[single])) + 1):
        _deal(rows, labels, counts, fold_of)
    return fold_of


def _place_groups(
    labels: NDArray[np.int32],
    bound: NDArray[np.int64],
    counts: NDArray[np.int64],
    fold_of: NDArray[np.int32],
    rng: np.random.Generator,
) -> None:
    _, group_of, sizes = np.unique(bound, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(sizes)[:-1])
    several = rng.permutation(np.flatnonzero(sizes > 1))
    for group in several[np.argsort(-sizes[several], kind="stable")]:
        rows = members[group]
        of_its_classes = counts[:, labels[rows]].sum(axis=1)
        fold = int(np.lexsort((counts.sum(axis=1), of_its_classes))[0])
        fold_of[rows] = fold
        np.add.at(counts[fold], labels[rows], 1)


def _deal(
    rows: NDArray[np.int64],
    labels: NDArray[np.int32],
    counts: NDArray[np.int64],
    fold_of: NDArray[np.int32],
) -> None:
    """Deals the rows of one class, emptiest fold first, ties to the fold that has fewest rows in all."""
    if not len(rows):
        return
    label = labels[rows[0]]
    folds = len(counts)
    for start in range(0, len(rows), folds):
        part = rows[start : start + folds]
        order = np.lexsort((counts.sum(axis=1), counts[:, label]))
        fold_of[part] = order[: len(part)]
        counts[order[: len(part)], label] += 1


def iterative_folds(
    targets: NDArray[np.bool_], bound: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int32]:
    """Folds, shape (n,), from 0 to folds - 1, that each have their share of every one of k labels.

    Iterative stratification (Sechidis et al. 2011): the label with the fewest examples left is dealt out next, each
    of its groups to the fold that lacks it most; what rows of it carry besides is counted there too. Rows without
    a label come last.

    Args:
        targets: shape (n, k).
        bound: shape (n,): rows with the same number stay together.
        folds: How many.
        seed: Of the order within a label.
    """
    _, group_of, sizes = np.unique(bound, return_inverse=True, return_counts=True)
    carried = np.zeros((len(sizes), targets.shape[1]), np.int64)
    np.add.at(carried, group_of, targets)
    rng = np.random.default_rng(seed)
    # Large groups first: small ones make up for what they upset.
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    lacking = np.tile(carried.sum(axis=0) / folds, (folds, 1))
    room = np.full(folds, len(bound) / folds)
    fold_of = np.full(len(sizes), -1, np.int32)
    left = carried.sum(axis=0)
    while True:
        unplaced = order[fold_of[order] < 0]
        if not len(unplaced):
            return fold_of[group_of]
        open_labels = np.flatnonzero(left > 0)
        if len(open_labels):
            label = open_labels[left[open_labels].argmin()]
            dealt = unplaced[carried[unplaced, label] > 0]
            wanted = lacking[:, label]
        else:
            dealt, wanted = unplaced, np.zeros(folds)
        for group in dealt:
            fold = int(np.lexsort((-room, -wanted))[0])
            fold_of[group] = fold
            lacking[fold] -= carried[group]  # `wanted` is a view of it
            room[fold] -= sizes[group]
            left -= carried[group]
