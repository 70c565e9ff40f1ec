"""One temperature for all logits, chosen on out-of-fold predictions (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import softmax

FINEST = 1e-4
"""The smallest temperature, as a share of the logits' size. Float32 rounds logits of size 1 by 1e-7: divided by less
than a thousand times that, their last bits would count as evidence, and no two runtimes would answer alike."""


def temperature(
    logits: NDArray[np.float32],
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    soft: NDArray[np.float32] | None = None,
) -> float:
    """Returns the temperature T > 0 that minimises the weighted log-loss of softmax(logits / T).

    One extra example, which may have any of the labels, is counted, so that n right answers do not imply
    certainty, but leave a doubt of the order of 1 / n (Platt 1999, for two classes). The spread of logits says
    nothing about certainty: the logits of a weak head may differ by a millionth, and T is then as small. So they are
    scaled to a deviation of 1 first. The loss is convex in 1 / T: Newton's method, with steps within a factor of four.

    Args:
        logits: shape (n, k), for examples that the model was not trained on.
        labels: shape (n,).
        weights: shape (n,), not all 0.
        soft: shape (n, k), if targets are distributions: the loss uses these and ignores the labels.
    """
    centred = logits - logits.mean(axis=1, keepdims=True)
    scale = float(centred.std(axis=1).mean())
    if not scale > 0:
        return 1.0
    centred /= np.float32(scale)
    sharpest = scale / (FINEST * float(np.abs(logits).max(axis=1).mean()))
    total = float(weights.sum())
    right = centred[np.arange(len(labels)), labels] if soft is None else np.einsum("nk,nk->n", soft, centred)
    right = right * (total / (total + 1))  # the extra example adds 0
    sharpness = 1.0
    for _ in range(40):
        probabilities = softmax(centred * np.float32(sharpness))
        mean = np.einsum("nk,nk->n", probabilities, centred)
        variance = np.einsum("nk,nk,nk->n", probabilities, centred, centred) - mean**2
        slope = float(weights @ (mean - right))
        curve = float(weights @ np.maximum(variance, 0))
        wanted = sharpness - slope / max(curve, 1e-12 * total)
        new = float(np.clip(wanted, sharpness / 4, min(sharpness * 4, sharpest)))
        if abs(new - sharpness) <= 1e-3 * sharpness:
            return scale / new
        sharpness = new
    return scale / sharpness
