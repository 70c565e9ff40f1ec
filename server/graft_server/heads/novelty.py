"""How strange an input is to a head, as the share of training examples that are less strange.

Strangeness adds two signs that fail on different inputs: no class is sure of the input (a low
largest logit, Vaze et al. 2022), and it is far from all places where training examples are (Sun et al.
2022). The places are a few centroids of each class rather than all examples: smaller, and better. On CLINC150's
out-of-scope test (AUROC, all 15,000 rows): largest logit 0.972, nearest example 0.963, nearest of 10 centroids
a class 0.971, the sum 0.980.

A table, measured on held-out training examples, turns strangeness into the share.
Abstaining above 0.95 is then wrong on 5% of inputs like them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.half import widened

NOVELTY = "novelty"
"""The name of the novelty among a head's outputs."""
ABSTAIN_ABOVE = 0.95
"""The novelty above which a prediction is marked as abstained: a false-alarm rate of 5%."""
MAX_KNOTS = 64
"""Knots of the table: shares are interpolated to better than 1%, and finer in the upper tail."""


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Strangeness, and the table that makes it a share."""

    anchors: NDArray[np.float16]
    """shape (a, d), a >= 1: centroids of the classes, of the features' length."""
    logit_scale: float
    """The standard deviation of the largest logit, which divides that logit."""
    similarity_scale: float
    """The standard deviation of the largest product with an anchor, which divides that product."""
    knots: NDArray[np.float32]
    """shape (m,), m >= 2, strictly increasing: strangenesses."""
    shares: NDArray[np.float32]
    """shape (m,), from 0 to 1, not decreasing: the share of training examples that are less strange."""

    def strangeness(
        self, largest_logits: NDArray[np.float32] | None, features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Returns strangeness, shape (n,), from the largest logits, shape (n,), and the features, shape (n, d).

        It uses the features alone for heads whose logits are no sign of it: an input to which none of several labels
        applies, or whose value is small, need not be strange.
        """
        similarity = self.similarity(features)
        if largest_logits is None:
            largest_logits = np.zeros(len(similarity), np.float32)
        return combined(largest_logits, similarity, self.logit_scale, self.similarity_scale)

    def similarity(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns each row's largest product with an anchor, shape (n,), from features of shape (n, d)."""
        largest: NDArray[np.float32] = (widened(self.anchors) @ features.T).max(axis=0)
        return largest

    def scores(
        self, largest_logits: NDArray[np.float32] | None, features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The novelty of each row, shape (n,), 0 to 1; see `strangeness`."""
        novelty: NDArray[np.float32] = np.interp(
            self.strangeness(largest_logits, features), self.knots, self.shares
        ).astype(np.float32)
        return novelty


def combined(
    largest_logits: NDArray[np.float32],
    similarities: NDArray[np.float32],
    logit_scale: float,
    similarity_scale: float,
) -> NDArray[np.float32]:
    """Strangeness, shape (n,): minus the sum of both, each in its own standard deviations."""
    return -(largest_logits / np.float32(logit_scale)) - similarities / np.float32(similarity_scale)


def table(strangeness: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Knots and shares from the strangeness of held-out training examples, shape (n,), n >= 1.

    Beyond the strangest example the share rises to 1 over a distance of its own, so that inputs stranger than
    all examples still differ among themselves.
    """
    values = np.sort(strangeness.astype(np.float64))
    n = len(values)
    half = MAX_KNOTS // 2
    shares = np.unique(np.concatenate([np.linspace(0, 1, half), 1 - np.geomspace(0.3, 1 / (n + 1), half)]))
    # At least a difference that float32 resolves, even if examples are nearly equally strange.
    past = max(values[-1] - values[n // 2], 1e-2, 1e-4 * float(np.abs(values).max()))
    knots = np.append(np.quantile(values, shares), values[-1] + past)
    shares = np.append(shares * n / (n + 1), 1.0)
    # Knots that float32 hardly resolves are one step, with the share of the last of them.
    gap = max(1e-4 * float(knots[-1] - knots[0]), 1e-5 * float(np.abs(knots).max()))
    kept = [len(knots) - 1]
    for i in range(len(knots) - 2, -1, -1):
        if knots[kept[-1]] - knots[i] > gap:
            kept.append(i)
    kept.reverse()
    return knots[kept].astype(np.float32), shares[kept].astype(np.float32)
