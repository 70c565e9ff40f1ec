"""Maps from features to scores, which heads of every task consist of, and functions of scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import InvalidError
from graft_server.heads.half import widened

ROWS_AT_ONCE = 1024
"""Rows scored together: with 2,048 landmarks their kernel takes 8 MiB."""
LEAST_PROBABILITY = 1e-30
"""The value of an averaged probability of 0 before its logarithm is taken."""
JITTER = 1e-3
"""Added to the landmarks' kernel, whose float32 products would not be positive definite among duplicates. With
1e-4 the weights grow so large that NumPy and ONNX Runtime differ by 1.6e-5 in a probability."""
SORTED_WHOLE = 512
"""The most classes for which sorting a row costs less than first looking for its largest."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LinearMap:
    """Logits that are linear in the features."""

    weight: Array
    """shape (d, k)."""
    bias: Array
    """shape (k,)."""

    @property
    def dimension(self) -> int:
        """The length d of a row of features."""
        return int(self.weight.shape[0])

    def scores(self, features: Array) -> Array:
        """Shape (n, k), of features of shape (n, d)."""
        scores: Array = features @ self.weight
        scores += self.bias
        return scores

    def logits(self, features: Array) -> Array:
        """The scores are logits."""
        return self.scores(features)


@dataclass(frozen=True, slots=True, eq=False)
class KernelMap:
    """Scores that are linear in the Gaussian kernel between features and m landmarks.

    Scores of a regression onto the classes' 0 and 1 are rough probabilities, with some below 0: to become logits they
    go through a softplus of width `softness` before the logarithm is taken.
    """

    landmarks: NDArray[np.float16]
    """shape (m, d): training examples."""
    gamma: float
    """The kernel is exp(-gamma * squared distance)."""
    weight: Array
    """shape (m, k)."""
    bias: Array
    """shape (k,)."""
    softness: float
    squares: Array = field(init=False, repr=False)
    """shape (m,): squared lengths of the landmarks."""

    def __post_init__(self) -> None:
        """Computes small arrays that every call needs."""
        object.__setattr__(self, "squares", _squares(widened(self.landmarks)))

    @property
    def dimension(self) -> int:
        """The length d of a row of features."""
        return int(self.landmarks.shape[1])

    def scores(self, features: Array) -> Array:
        """Shape (n, k), of features of shape (n, d)."""
        kernel = gaussian_kernel(features, widened(self.landmarks), self.gamma, self.squares)
        scores: Array = kernel @ self.weight
        scores += self.bias
        return scores

    def logits(self, features: Array) -> Array:
        """Shape (n, k): the scores as logits of one class among all."""
        return log_softplus(self.scores(features), self.softness)


Map = LinearMap | KernelMap


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One map of a head."""

    map: Map
    temperature: float
    """The divisor of its logits before the softmax."""
    share: float
    """The weight of its probabilities in the average, above 0; they sum to 1 over a head's members."""


def require_width(features: Array, dimension: int) -> None:
    """Raises InvalidError unless the features have shape (n, dimension)."""
    if features.ndim != 2 or features.shape[1] != dimension:
        raise InvalidError(
            f"The features have shape {features.shape}: this model reads rows of {dimension} numbers.",
            reason="FEATURES_DIMENSION_MISMATCH",
            metadata={"dimension": str(dimension)},
        )


def parts(features: Array) -> Iterator[tuple[slice, Array]]:
    """Yields the features some rows at a time, as float32."""
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        yield rows, features[rows].astype(np.float32, copy=False)


def summed(maps: Sequence[Map], features: Array) -> Array:
    """The sum of the maps' scores, shape (n, k)."""
    total = maps[0].scores(features)
    for one in maps[1:]:
        total += one.scores(features)
    return total


def blended(logits: list[Array], temperatures: list[float], shares: list[float], temperature: float) -> Array:
    """Probabilities, shape (n, k), from the logits of each member."""
    if len(logits) == 1:
        return softmax(logits[0] / np.float32(temperatures[0]))
    mean = np.zeros_like(logits[0])
    for one, own_temperature, share in zip(logits, temperatures, shares, strict=True):
        mean += softmax(one / np.float32(own_temperature)) * np.float32(share)
    np.log(np.maximum(mean, np.float32(LEAST_PROBABILITY)), out=mean)
    return softmax(mean / np.float32(temperature))


def gaussian_kernel(
    features: Array, landmarks: Array, gamma: float, landmark_squares: Array | None = None
) -> Array:
    """The kernel exp(-gamma * |x - z|^2) between rows of (n, d) and (m, d), shape (n, m).

    A caller with the squared lengths of the landmarks, shape (m,), can pass them to save their computation.
    """
    # In this order, since the library copies its right side each time: the small one.
    kernel: Array = (landmarks @ features.T).T
    kernel *= np.float32(2)
    kernel -= _squares(features)[:, None]
    kernel -= _squares(landmarks) if landmark_squares is None else landmark_squares
    kernel *= np.float32(gamma)
    np.exp(kernel, out=kernel)
    return kernel


def kernel_among(landmarks: Array, gamma: float) -> NDArray[np.float64]:
    """The kernel among landmarks, shape (m, m), positive definite."""
    kernel = gaussian_kernel(landmarks, landmarks, gamma).astype(np.float64, order="F")
    kernel.flat[:: len(kernel) + 1] += JITTER
    return kernel


def _squares(rows: Array) -> Array:
    """Squared lengths of rows of shape (n, d), shape (n,)."""
    squares: Array = np.einsum("nd,nd->n", rows, rows)
    return squares


def log_softplus(scores: Array, softness: float) -> Array:
    """Computes log(log(1 + exp(scores / softness))), which is log(scores) if they are well above 0."""
    scaled = scores / np.float32(softness)
    logs: Array = np.maximum(scaled, 0) + np.log1p(np.exp(-np.abs(scaled)))
    np.log(np.maximum(logs, np.float32(LEAST_PROBABILITY)), out=logs)
    return logs


def softmax(logits: Array) -> Array:
    """Softmax over the last axis."""
    shifted: Array = logits - logits.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-logits)), without overflow."""
    small = np.exp(-np.abs(logits))
    probabilities: Array = np.where(logits >= 0, 1, small) / (1 + small)
    return probabilities


def best_columns(probabilities: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Returns the columns of each row's largest numbers, largest first, at most `top_k`; shape (n, columns)."""
    k = min(top_k, probabilities.shape[1])
    if probabilities.shape[1] <= SORTED_WHOLE:
        return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    columns = np.argpartition(-probabilities, k - 1, axis=1)[:, :k]
    rows = np.arange(len(columns))[:, None]
    order = np.argsort(-probabilities[rows, columns], axis=1, kind="stable")
    return columns[rows, order]
