"""What cross-fitting says of a tuning, as arrays.

Each fold was held out from a training of its own, from the original weights. The worker that tunes looks at what they
came to in order to stop early, and the one that makes a version in order to decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEFT_OUT = -1
"""The fold of examples that nothing is learned from or measured on."""
NAME = -2
"""The fold of what is no example, but the name of a class: every training sees it."""


@dataclass(frozen=True, slots=True, eq=False)
class CrossFitted:
    """n examples of k classes, and what tuned backbones make of them. Row i of everything is example i."""

    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    classes: int
    fold_of: NDArray[np.int32]
    """shape (n,): the fold that holds each out, from 0; LEFT_OUT: none, as it is not trained on either."""
    by_fold: NDArray[np.float16]
    """shape (f, n, d): features of all examples by a backbone that was tuned without fold 0, 1 to f - 1; f may be
    smaller than the number of folds, where a loss was clear or the time was over."""
    features: NDArray[np.float16]
    """shape (n, d): the same by the one that was tuned on all of them; shape (0, d) where there is none."""
    frozen: NDArray[np.float32]
    """shape (n, k): what the frozen head says of each example without having seen it."""
    bound: NDArray[np.int64]
    """shape (n,): equal for examples that are copies of each other or of one group."""
    seed: int = 0
    soft: NDArray[np.float32] | None = None
    """shape (n, k): the targets, where some are distributions."""

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Shape (n,): whether each was held out, from a training that knew others of its class."""
        counts = np.zeros((int(self.fold_of.max(initial=0)) + 1, self.classes), np.int64)
        rows = self.fold_of != LEFT_OUT
        np.add.at(counts, (self.fold_of[rows], self.labels[rows]), 1)
        elsewhere = counts.sum(axis=0) - counts
        found: NDArray[np.bool_] = rows & (self.fold_of < len(self.by_fold))
        found &= elsewhere[np.maximum(self.fold_of, 0), self.labels] > 0
        return found


def hopeless(fitted: CrossFitted) -> bool:
    """Whether the folds so far show a loss so clear that the others need not be run.

    A nearest-mean classifier on the tuned features is compared with the frozen head's answers, by accuracy.
    """
    rows = np.flatnonzero(fitted.measured)
    if not len(rows):
        return False
    right = np.zeros(len(rows), bool)
    for place, row_fold in enumerate(fitted.by_fold):
        held_out = fitted.fold_of[rows] == place
        trained = np.flatnonzero((fitted.fold_of != place) & (fitted.fold_of != LEFT_OUT))
        features = row_fold.astype(np.float32)
        means = np.zeros((fitted.classes, features.shape[1]), np.float32)
        np.add.at(means, fitted.labels[trained], features[trained])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
        predicted = (features[rows[held_out]] @ means.T).argmax(axis=1)
        right[held_out] = predicted == fitted.labels[rows[held_out]]
    before = fitted.frozen[rows].argmax(axis=1) == fitted.labels[rows]
    gains = right.astype(np.float64) - before
    error = float(gains.std(ddof=1)) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return float(gains.mean()) + 2 * error < 0
