"""What a head is trained on: the examples of a commit as arrays, features already computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """n examples of k classes, with the features of one encoder. Row i of everything is example i."""

    classes: tuple[str, ...]
    """Names of the classes, in output order. Some may have no examples."""
    descriptions: tuple[str, ...]
    """What each class means, or "". Same length as classes."""
    labels: NDArray[np.int32]
    """shape (n,): index into classes."""
    weights: NDArray[np.float64]
    """shape (n,): finite, >= 0."""
    validation: NDArray[np.bool_]
    """shape (n,): held out by SPLIT_VALIDATION; never trained on."""
    groups: NDArray[np.int64]
    """shape (n,): rows with the same number belong together; a row without a group has its own."""
    ids: tuple[str, ...]
    """The example's id."""
    origins: tuple[tuple[str, int], ...]
    """(writer, sequence) of the change that gave the example its present state."""
    input_digests: tuple[bytes, ...]
    """A digest of the input: equal for exact duplicates."""
    features: Mapping[str, NDArray[np.float16]]
    """View name to features of shape (n, d). The view "pooled" is always there, with unit-norm rows."""
    label_features: Mapping[str, NDArray[np.float16]] | None = None
    """View name to features of shape (k, d) of the classes' names and descriptions, where the backbone reads
    them; None where it does not. The same views as features."""

    def __len__(self) -> int:
        return len(self.labels)
