"""What cross-fitting says of a tuning, as arrays.

Each fold was held out from a training of its own, from the original weights. The worker that tunes looks at what they
came to in order to stop early, and the one that makes a version in order to decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.evaluation import figures
from graft_server.heads.maps import softmax

LEFT_OUT = -1
"""The fold of examples that nothing is learned from or measured on."""
NAME = -2
"""The fold of what is no example, but the name of a class: every training sees it."""

LEAST_WRONG = 2
"""Examples that the frozen head has to have wrong: fewer cannot show that a tuning is better."""
LEAST_AFTER = (-0.5, 0.0, 0.3)
"""What the gain so far has to be after one, two and more folds, in standard errors. Of 29 tunings with 8 to 64 examples
a class 14 fall below, 8 after the first fold; none of these would be kept, and none that is kept falls below."""
SHARPNESS = np.geomspace(1, 100, 24).astype(np.float32)
"""What cosines are multiplied with to be logits: the best one counts."""


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


def nothing_to_gain(
    frozen: NDArray[np.float32], labels: NDArray[np.int32], fold_of: NDArray[np.int32]
) -> bool:
    """Whether the frozen head is right on so many examples that no tuning could show that it is better.

    Args:
        frozen: shape (n, k): what it says of each example without having seen it.
        labels: shape (n,).
        fold_of: shape (n,): LEFT_OUT where an example does not count.
    """
    return int((frozen.argmax(axis=1) != labels)[fold_of >= 0].sum()) < LEAST_WRONG


def hopeless(fitted: CrossFitted) -> bool:
    """Whether the folds so far make it so unlikely that the tuning is kept that the others need not be run.

    A softmax of cosines with the means of classes stands in for the head: on tuned features it is nearly as good. Its
    log-loss, at its best temperature, is compared with that of the frozen head on the same examples: how far it is
    below, in standard errors, has to exceed a bound that rises with each fold. See LEAST_AFTER. Before the first fold
    it is hopeless where the frozen head leaves nothing to be gained: see LEAST_WRONG.
    """
    if nothing_to_gain(fitted.frozen, fitted.labels, fitted.fold_of):
        return True
    rows = np.flatnonzero(fitted.measured)
    if len(rows) < 2:
        return False
    cosines = np.zeros((len(fitted.labels), fitted.classes), np.float32)
    for place, of_fold in enumerate(fitted.by_fold):
        held_out = np.flatnonzero(fitted.fold_of == place)
        trained = np.flatnonzero((fitted.fold_of != place) & (fitted.fold_of != LEFT_OUT))
        features = of_fold.astype(np.float32)
        means = np.zeros((fitted.classes, features.shape[1]), np.float32)
        np.add.at(means, fitted.labels[trained], features[trained])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
        cosines[held_out] = features[held_out] @ means.T
    labels = fitted.labels[rows]
    before = figures.losses(fitted.frozen[rows], labels)
    after = min((figures.losses(softmax(cosines[rows] * it), labels) for it in SHARPNESS), key=np.sum)
    gains = before - after
    bound = LEAST_AFTER[min(len(fitted.by_fold), len(LEAST_AFTER)) - 1]
    return float(gains.mean()) < bound * float(gains.std(ddof=1) / np.sqrt(len(gains)))
