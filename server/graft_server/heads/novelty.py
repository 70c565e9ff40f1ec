"""How strange an input is to a head, as a share: of the training examples, how many are less strange.

Strangeness itself has no unit; what makes it readable is the table from strangeness to share, measured on
out-of-fold predictions of the training examples. Abstaining above 0.95 is then
wrong on 5% of inputs like them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ABSTAIN_ABOVE = 0.95
"""Novelty beyond which a prediction is marked as abstained: a false-alarm rate of 5%."""
MAX_KNOTS = 64
"""Knots of the table: shares are interpolated to better than 1%, with none lost in the upper tail."""


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Strangeness is minus the largest logit (Vaze et al. 2022), then read off a table."""

    knots: NDArray[np.float32]
    """shape (m,), m >= 2, strictly increasing: strangenesses."""
    shares: NDArray[np.float32]
    """shape (m,), from 0 to 1, not decreasing: the share of training examples that are less strange."""

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Novelty of each row of logits, shape (n, k); the answer has shape (n,), 0 to 1."""
        novelty: NDArray[np.float32] = np.interp(-logits.max(axis=1), self.knots, self.shares).astype(
            np.float32
        )
        return novelty


def table(strangeness: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Knots and shares from the strangeness of out-of-fold training examples, shape (n,), n >= 1.

    Past the strangest example the share goes on to 1 over a distance of its own, so that inputs stranger than
    everything seen still differ among themselves.
    """
    values = np.sort(strangeness.astype(np.float64))
    n = len(values)
    # Evenly spaced in share, and finer in the upper tail, where the threshold is.
    shares = np.unique(
        np.concatenate([np.linspace(0, 1, MAX_KNOTS // 2), 1 - np.geomspace(0.3, 1 / n, MAX_KNOTS // 2)])
    )
    knots = np.quantile(values, shares)
    reach = max(values[-1] - values[n // 2], 1e-3)
    knots = np.append(knots, values[-1] + reach)
    shares = np.append(shares * n / (n + 1), 1.0)
    # Rounding to float32 can make neighbours equal; of equal knots the last, with the highest share, stays.
    knots32 = knots.astype(np.float32)
    keep = np.append(np.diff(knots32) > 0, True)
    knots32, shares32 = knots32[keep], shares[keep].astype(np.float32)
    if len(knots32) == 1:
        knots32, shares32 = (
            np.array([knots32[0] - 1e-3, knots32[0]], np.float32),
            np.array([0, 1], np.float32),
        )
    return knots32, shares32
