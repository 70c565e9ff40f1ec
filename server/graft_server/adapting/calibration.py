"""One temperature for all logits, chosen on out-of-fold predictions (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.head import softmax

SHARPEST = 1e4
"""No logits are multiplied by more: out-of-fold predictions without a single error would ask for infinity."""


def temperature(
    logits: NDArray[np.float32],
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    soft: NDArray[np.float32] | None = None,
) -> float:
    """The temperature T > 0 that minimises the weighted log-loss of softmax(logits / T).

    One more example than there are is taken to have any of the labels, so that a few that are all right do not ask
    for certainty (Platt 1999, for two classes). The loss is convex in 1 / T: Newton's method from T's own scale, steps
    kept within a factor of four.

    Args:
        logits: shape (n, k), of examples that their model was not trained on.
        labels: shape (n,).
        weights: shape (n,), not all 0.
        soft: shape (n, k), where targets are distributions: the loss is with these, and labels are not looked at.
    """
    rows = np.arange(len(labels))
    right = logits[rows, labels] if soft is None else np.einsum("nk,nk->n", soft, logits)
    doubt = 1 / (float(weights.sum()) + 1)
    right = (1 - doubt) * right + doubt * logits.mean(axis=1)
    scale = float(logits.std(axis=1).mean())
    if not scale > 0:
        return 1.0
    sharpness = 1.0 / scale
    for _ in range(40):
        probabilities = softmax(logits * np.float32(sharpness))
        mean = np.einsum("nk,nk->n", probabilities, logits)
        variance = np.einsum("nk,nk,nk->n", probabilities, logits, logits) - mean**2
        slope = float(weights @ (mean - right))
        curve = float(weights @ np.maximum(variance, 0))
        wanted = sharpness - slope / curve if curve > 1e-12 else sharpness * 4
        new = float(np.clip(wanted, sharpness / 4, min(sharpness * 4, SHARPEST / scale)))
        if abs(new - sharpness) <= 1e-3 * sharpness:
            return 1 / new
        sharpness = new
    return 1 / sharpness
