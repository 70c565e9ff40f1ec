"""The errors of a head's answers from float32 alone, and how far two correct ways to compute them may differ.

A score is a sum, and each of its terms carries an error of about one unit in its own last place: the error
of the sum follows the size of the terms, not of the sum (Higham and Mary 2019: as the root of the sum of
squares, since the errors' signs are as good as random). Large weights that cancel out, which kernel regression
fits where examples are close together, therefore cost digits that small weights keep.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.half import widened
from graft_server.heads.head import Head
from graft_server.heads.maps import LEAST_PROBABILITY, LinearMap, Map, gaussian_kernel, parts

UNIT = float(np.finfo(np.float32).eps) / 2
"""The relative error of one rounding."""
MARGIN = 32
"""The accepted multiple of the typical error. Found between NumPy and ONNX Runtime, on Banking77 and on features of a
small ResNet whose kernel's weights cancel out: up to 14 times."""
GRAPH_PARITY = 5e-5
"""The least accepted error of a probability, or of an interval's mean width: half of a bundle's."""
BUNDLE_PARITY = 1e-4
"""The least accepted error of a bundle."""
ROUNDING = 2e-6
"""The error of a strangeness or a value from float32, as a share of the largest: 16 units in the last place. Where
the novelty's table is steep, this alone can move the novelty by more than `graph_parity` accepts otherwise."""
CLEAR_MARGIN = 1e-3
"""If the two best labels differ by more, the bundle must answer with the same label."""

Array = NDArray[np.float32]


def allowance(head: Head, features: Array) -> tuple[Array, Array]:
    """Returns the errors from rounding of probabilities, shape (n, k), or values, (n, 1), and of novelty, (n,).

    Args:
        head: Any head.
        features: shape (n, d).
    """
    answers, novelty = [], []
    steepest = (np.diff(head.novelty.shares) / np.diff(head.novelty.knots)).max()
    for _, part in parts(features):
        of_answers, of_logit = head.rounding(part)
        answers.append(of_answers)
        novelty.append(of_logit / np.float32(head.novelty.logit_scale) * steepest)
    return MARGIN * np.concatenate(answers), MARGIN * np.concatenate(novelty)


def of_sum(maps: tuple[Map, ...], features: Array) -> Array:
    """Returns the error of the sum of the maps' scores, shape (n, k)."""
    total = of_scores(maps[0], features)
    for one in maps[1:]:
        total = np.hypot(total, of_scores(one, features))
    return total


def of_scores(of: Map, features: Array) -> Array:
    """Returns the error of a map's scores, shape (n, k)."""
    if isinstance(of, LinearMap):
        terms, errors = features, np.float32(UNIT)
    else:
        landmarks = widened(of.landmarks)
        terms = gaussian_kernel(features, landmarks, of.gamma, of.squares)
        # The exponent is a difference of numbers as large as these, however small the result.
        squares = np.einsum("nd,nd->n", features, features)[:, None] + of.squares.max()
        errors = np.float32(UNIT) * (1 + np.float32(of.gamma) * squares)
    found: Array = errors * np.sqrt(np.square(terms) @ np.square(of.weight))
    return found


def of_logits(of: Map, features: Array, scores: Array) -> Array:
    """Returns the errors of logits from errors of scores, shape (n, k)."""
    if isinstance(of, LinearMap):
        return scores
    scaled = of.scores(features) / np.float32(of.softness)
    positive = np.maximum(np.logaddexp(0, scaled), np.float32(LEAST_PROBABILITY))
    # The slope of log(softplus): the sigmoid over the softplus.
    found: Array = scores / np.float32(of.softness) * -np.expm1(-positive) / positive
    return found


def of_softmax(probabilities: Array, logits: Array) -> Array:
    """Returns a softmax's errors from errors of logits: a probability moves with its logit and against the others."""
    moved: Array = probabilities * (
        (1 - 2 * probabilities) * logits + (probabilities * logits).sum(axis=1, keepdims=True)
    )
    return moved


def told_apart(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns whether each row's best label is certain despite rounding, shape (n,)."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities), bool)
    best = np.sort(probabilities, axis=1)
    told: NDArray[np.bool_] = best[:, -1] - best[:, -2] > CLEAR_MARGIN
    return told
