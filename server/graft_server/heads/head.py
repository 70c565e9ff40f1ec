"""The heads themselves. Both give logits, divide them by a temperature, and go through a softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graft_server.errors import InvalidError
from graft_server.heads.novelty import Novelty

ROWS_AT_ONCE = 1024
"""Rows scored together: with 4,096 landmarks their kernel takes 16 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadOutput:
    """What a head says of n inputs."""

    probabilities: NDArray[np.float32]
    """shape (n, k): calibrated, rows sum to 1."""
    novelty: NDArray[np.float32]
    """shape (n,): the share of training examples that are less strange, 0 to 1."""


class Head(Protocol):
    """A function from features to probabilities over k classes."""

    @property
    def kind(self) -> str:
        """How it was fitted, for example "logistic"."""

    @property
    def view(self) -> str:
        """The features that it reads, for example "pooled"."""

    @property
    def classes(self) -> int:
        """K."""

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""

    @property
    def novelty(self) -> Novelty:
        """How the novelty is read off."""

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits before the temperature, shape (n, k), of features of shape (n, d)."""

    def scores(self, features: NDArray[np.float32]) -> HeadOutput:
        """Scores features of shape (n, d) float32; raises InvalidError if d is another."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """Logits that are linear in the features."""

    kind: str
    view: str
    weight: NDArray[np.float32]
    """shape (d, k)."""
    bias: NDArray[np.float32]
    """shape (k,)."""
    temperature: float
    novelty: Novelty

    @property
    def classes(self) -> int:
        """K."""
        return int(self.weight.shape[1])

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.weight.shape[0])

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits before the temperature, shape (n, k)."""
        return features @ self.weight + self.bias

    def scores(self, features: NDArray[np.float32]) -> HeadOutput:
        """Scores features of shape (n, d) float32; raises InvalidError if d is another."""
        return _scores(self, features)


@dataclass(frozen=True, slots=True, eq=False)
class KernelHead:
    """Logits that are linear in the Gaussian kernel between the features and m landmarks."""

    kind: str
    view: str
    landmarks: NDArray[np.float16]
    """shape (m, d): training examples."""
    gamma: float
    """The kernel is exp(-gamma * squared distance)."""
    weight: NDArray[np.float32]
    """shape (m, k)."""
    bias: NDArray[np.float32]
    """shape (k,)."""
    temperature: float
    novelty: Novelty

    @property
    def classes(self) -> int:
        """K."""
        return int(self.weight.shape[1])

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.landmarks.shape[1])

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits before the temperature, shape (n, k)."""
        return (
            gaussian_kernel(features, self.landmarks.astype(np.float32), self.gamma) @ self.weight + self.bias
        )

    def scores(self, features: NDArray[np.float32]) -> HeadOutput:
        """Scores features of shape (n, d) float32; raises InvalidError if d is another."""
        return _scores(self, features)


def gaussian_kernel(
    features: NDArray[np.float32], landmarks: NDArray[np.float32], gamma: float
) -> NDArray[np.float32]:
    """The kernel exp(-gamma * |x - z|^2) between rows of (n, d) and (m, d), shape (n, m)."""
    kernel = features @ (landmarks.T * np.float32(2 * gamma))
    kernel -= np.float32(gamma) * np.einsum("nd,nd->n", features, features)[:, None]
    kernel -= np.float32(gamma) * np.einsum("md,md->m", landmarks, landmarks)
    np.exp(kernel, out=kernel)
    return kernel


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def _scores(head: Head, features: NDArray[np.float32]) -> HeadOutput:
    if features.ndim != 2 or features.shape[1] != head.dimension:
        raise InvalidError(
            f"The features have shape {features.shape}: this model reads rows of {head.dimension} numbers.",
            reason="FEATURES_DIMENSION_MISMATCH",
            metadata={"dimension": str(head.dimension)},
        )
    probabilities = np.empty((len(features), head.classes), np.float32)
    novelty = np.empty(len(features), np.float32)
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        logits = head.logits(features[rows].astype(np.float32, copy=False))
        novelty[rows] = head.novelty.scores(logits)
        probabilities[rows] = softmax(logits / np.float32(head.temperature))
    return HeadOutput(probabilities, novelty)
