"""How far float32 alone puts a head's answers off: what two correct ways to compute them may differ by.

A score is a sum, and each of its terms carries an error of about a unit in the last place of its own: an error
of the sum follows the size of what is summed, not of the sum (Higham and Mary 2019: as the root of the sum of
squares, since the errors' signs are as good as random). Large weights that cancel out, which kernel regression
fits where examples are close together, therefore cost digits that small ones keep.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.codec import AnyHead
from graft_server.heads.half import widened
from graft_server.heads.head import (
    LEAST_PROBABILITY,
    Head,
    LinearMap,
    Map,
    Member,
    gaussian_kernel,
    parts,
    softmax,
)
from graft_server.heads.multilabel import MultiLabelHead
from graft_server.heads.regression import RegressionHead

UNIT = float(np.finfo(np.float32).eps) / 2
"""The relative error of one rounding."""
MARGIN = 32
"""How many times the typical error is accepted. Found between NumPy and ONNX Runtime, on Banking77 and on features of a
small ResNet whose kernel's weights cancel out: up to 14 times."""

Array = NDArray[np.float32]


def allowance(head: AnyHead, features: Array) -> tuple[Array, Array]:
    """How far rounding may put answers off: probabilities, shape (n, k), or values, (n, 1); and novelty, (n,).

    Args:
        head: Any head.
        features: shape (n, d).
    """
    answers, novelty = [], []
    for _, part in parts(features):
        match head:
            case Head():
                scores = [_of_scores(member.map, part) for member in head.members]
                answers.append(_of_probabilities(head, part, scores))
                largest = _of_logits(head.members[0].map, part, scores[0]).max(axis=1)
            case MultiLabelHead():
                answers.append(_of_sum(head.maps, part) / np.float32(4))  # a sigmoid is nowhere steeper
                largest = np.zeros(len(part), np.float32)
            case RegressionHead():
                answers.append(_of_sum(head.maps, part))
                largest = np.zeros(len(part), np.float32)
        steepest = (np.diff(head.novelty.shares) / np.diff(head.novelty.knots)).max()
        novelty.append(largest / np.float32(head.novelty.logit_scale) * steepest)
    return MARGIN * np.concatenate(answers), MARGIN * np.concatenate(novelty)


def _of_sum(maps: tuple[Map, ...], features: Array) -> Array:
    total = _of_scores(maps[0], features)
    for one in maps[1:]:
        total = np.hypot(total, _of_scores(one, features))
    return total


def _of_scores(of: Map, features: Array) -> Array:
    """Of a map's scores, shape (n, k)."""
    if isinstance(of, LinearMap):
        terms, errors = features, np.float32(UNIT)
    else:
        landmarks = widened(of.landmarks)
        terms = gaussian_kernel(features, landmarks, of.gamma, of.squares)
        # The exponent is a difference of numbers as large as these, whatever is left of it.
        squares = np.einsum("nd,nd->n", features, features)[:, None] + of.squares.max()
        errors = np.float32(UNIT) * (1 + np.float32(of.gamma) * squares)
    found: Array = errors * np.sqrt(np.square(terms) @ np.square(of.weight))
    return found


def _of_logits(of: Map, features: Array, scores: Array) -> Array:
    """What errors of scores become as logits, shape (n, k)."""
    if isinstance(of, LinearMap):
        return scores
    scaled = of.scores(features) / np.float32(of.softness)
    positive = np.maximum(np.logaddexp(0, scaled), np.float32(LEAST_PROBABILITY))
    # The slope of log(softplus): the sigmoid over the softplus.
    found: Array = scores / np.float32(of.softness) * -np.expm1(-positive) / positive
    return found


def _of_probabilities(head: Head, features: Array, scores: list[Array]) -> Array:
    def own(member: Member, errors: Array) -> tuple[Array, Array]:
        logits = _of_logits(member.map, features, errors) / np.float32(member.temperature)
        probabilities = softmax(member.map.logits(features) / np.float32(member.temperature))
        return probabilities, _of_softmax(probabilities, logits)

    each = [own(member, errors) for member, errors in zip(head.members, scores, strict=True)]
    if len(each) == 1:
        return each[0][1]
    mean, off = np.zeros_like(scores[0]), np.zeros_like(scores[0])
    for member, (probabilities, errors) in zip(head.members, each, strict=True):
        mean += np.float32(member.share) * probabilities
        off += np.float32(member.share) * errors
    np.maximum(mean, np.float32(LEAST_PROBABILITY), out=mean)
    logarithms: Array = np.log(mean)
    tempered = softmax(logarithms / np.float32(head.temperature))
    return _of_softmax(tempered, off / mean / np.float32(head.temperature))


def _of_softmax(probabilities: Array, logits: Array) -> Array:
    """What errors of logits become in a softmax: each probability moves with its own logit and against the others."""
    moved: Array = probabilities * (
        (1 - 2 * probabilities) * logits + (probabilities * logits).sum(axis=1, keepdims=True)
    )
    return moved
