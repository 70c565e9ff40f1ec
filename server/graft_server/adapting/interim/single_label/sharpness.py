"""How sure the head may be of its best class, if the input belongs to one that it knows.

Logits are divided by their spread, as it was among the predictions of late. What is left to learn is one factor: of
several, each is weighed by how well it would have told the right predictions from the wrong ones, each made before
its example was learned, and by a prior around what is usual. As classes are learned better, the factor grows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import softmax

FACTORS = np.geomspace(0.1, 16, 23)
"""The factors that are compared."""
USUAL, DEVIATION, FREEDOM = 2.2, 0.35, 3
"""The prior of the factor's logarithm: a t distribution, whose tails leave room for streams without any pattern."""
GROWTH, GROWTH_FROM, GROWTH_UNIT = 0.4, 8, 32
"""The factor grows with the power `GROWTH` of the number of examples: the mean of what five sets showed."""
USUAL_SPREAD = np.log(5.0)
"""The logarithm of the standard deviation of a row's logits in units of the head's separation, before it is known."""
SPREAD_PRIOR, SPREAD_MEMORY = 2.0, 30.0
"""The predictions that `USUAL_SPREAD` counts for, and those that the running mean covers at most."""
COMPARED = 64
"""Rows of a step that the factors are compared on."""
LEAST = 1e-4
"""The least probability that a prediction is judged by."""

Array = NDArray[np.float32]


class Sharpness:
    """The learned factor of the logits."""

    def __init__(self) -> None:
        self._losses = np.zeros(len(FACTORS))
        off = np.log(FACTORS / USUAL) / DEVIATION
        self._prior = (FREEDOM + 1) / 2 * np.log1p(off**2 / FREEDOM)
        self._spread = float(USUAL_SPREAD)
        self._spread_rows = SPREAD_PRIOR

    def factor(self, separation: float, examples: int) -> float:
        """What logits are multiplied by before the softmax.

        Args:
            separation: Of the head.
            examples: How many it has learned.
        """
        chance = -self._losses - self._prior
        weights = np.exp(chance - chance.max())
        mean = float(np.exp((weights * np.log(FACTORS)).sum() / weights.sum()))
        return mean * self._unit(separation, examples)

    def note(
        self, logits: Array, answers: NDArray[np.int64], separation: float, examples: int, kept: float
    ) -> None:
        """Takes in predictions.

        Args:
            logits: shape (n, k), k >= 2.
            answers: shape (n,): the right column; -1 where the class was not known.
            separation: Of the head that made them.
            examples: How many that head had learned.
            kept: The weight that earlier predictions keep.
        """
        self._losses *= kept
        known = np.flatnonzero(answers >= 0)[-COMPARED:]
        scaled = logits[known] * np.float32(self._unit(separation, examples))
        right = logits[known].argmax(axis=1) == answers[known]
        for place, factor in enumerate(FACTORS):
            best = np.clip(softmax(scaled * np.float32(factor)).max(axis=1), LEAST, 1 - LEAST)
            self._losses[place] -= float(np.log(np.where(right, best, 1 - best)).sum())
        spreads = np.log(np.maximum(logits.std(axis=1), 1e-9) / separation)
        for spread in spreads.tolist():
            self._spread += (spread - self._spread) / (min(self._spread_rows, SPREAD_MEMORY) + 1)
            self._spread_rows += 1

    def scale(self, separation: float) -> float:
        """What makes the standard deviation of a row's logits about 1."""
        return float(np.exp(-self._spread)) / separation

    def _unit(self, separation: float, examples: int) -> float:
        return float(((examples + GROWTH_FROM) / GROWTH_UNIT) ** GROWTH) * self.scale(separation)
