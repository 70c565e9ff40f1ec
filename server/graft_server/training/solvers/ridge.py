"""Linear regression with an L2 penalty and closed-form cross-validation.

A fold is left out of the normal equations by subtracting its rows' contribution, so a penalty costs one
factorisation a fold; with as many folds as examples it is leave-one-out. The constant is not penalised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from graft_server.heads.maps import LinearMap
from graft_server.training.solvers.logistic import Axes

Floats = NDArray[np.float64]


class Ridge:
    """The regression of one set of examples, for any penalty."""

    def __init__(self, axes: Axes, targets: Floats, weights: Floats, fold_of: NDArray[np.int32]) -> None:
        """Sums up the normal equations, fold by fold.

        Args:
            axes: The features, n of them.
            targets: shape (n,).
            weights: shape (n,), all > 0.
            fold_of: shape (n,), from 0.
        """
        self._axes = axes
        self._fold_of = fold_of
        self._rows = np.hstack([axes.coordinates.astype(np.float64), np.ones((len(targets), 1))])
        folds = [np.flatnonzero(fold_of == fold) for fold in np.unique(fold_of)]
        weighted = self._rows * weights[:, None]
        self._folds = folds
        self._grams = [self._rows[rows].T @ weighted[rows] for rows in folds]
        self._moments = [weighted[rows].T @ targets[rows] for rows in folds]
        self._gram = sum(self._grams, np.zeros_like(self._grams[0]))
        self._moment = sum(self._moments, np.zeros_like(self._moments[0]))
        # For features of norm 1 the axes' mean square is this fraction of it: so a penalty has one meaning everywhere.
        self._scale = max(float(np.einsum("nr,nr->n", self._rows[:, :-1], self._rows[:, :-1]).mean()), 1e-12)

    def out_of_fold(self, penalty: float) -> Floats:
        """Returns each row's prediction, shape (n,), by the regression without its fold."""
        predicted = np.empty(len(self._fold_of))
        for rows, gram, moment in zip(self._folds, self._grams, self._moments, strict=True):
            predicted[rows] = self._rows[rows] @ self._solved(
                self._gram - gram, self._moment - moment, penalty
            )
        return predicted

    def fit(self, penalty: float) -> LinearMap:
        """Returns the regression on all rows, in terms of the original features."""
        solved = self._solved(self._gram, self._moment, penalty)
        weight = (self._axes.rotation @ solved[:-1]).astype(np.float32)[:, None]
        bias = np.array([solved[-1] - self._axes.centre @ weight[:, 0]], np.float32)
        return LinearMap(weight, bias)

    def _solved(self, gram: Floats, moment: Floats, penalty: float) -> Floats:
        gram = gram.copy()
        diagonal = np.full(len(gram), penalty * self._scale)
        diagonal[-1] = 1e-9
        gram.flat[:: len(gram) + 1] += diagonal
        solved: Floats = cho_solve(cho_factor(gram, lower=True, overwrite_a=True), moment)
        return solved
