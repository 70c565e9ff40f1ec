"""What a head is trained on: the examples of a commit as arrays, features already computed; one class a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KINDS = 10
"""Values are dealt into folds, and told apart on the map, by so many equally large parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """n examples with the features of one encoder, whatever their targets. Row i of everything is example i."""

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

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels_named(self) -> tuple[tuple[str, str], ...]:
        """Name and description of each label that there is, in output order; none for values."""
        return ()

    def target(self, row: int) -> str:
        """A row's target in words, for the report."""
        raise NotImplementedError

    def kinds(self) -> NDArray[np.int32]:
        """A number a row, from 0: the one class that tells most about its target. Rows alike have the same."""
        raise NotImplementedError

    def classified(self) -> TrainingSet:
        """The same examples as a single-label task of their kinds, for questions about the features alone."""
        kinds = self.kinds()
        names = tuple(str(kind) for kind in range(int(kinds.max(initial=0)) + 1))
        shared = {name: getattr(self, name) for name in ExampleSet.__dataclass_fields__}
        return TrainingSet(classes=names, descriptions=("",) * len(names), labels=kinds, **shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet(ExampleSet):
    """Examples with one label each, of k classes."""

    classes: tuple[str, ...]
    """Names of the classes, in output order. Some may have no examples."""
    descriptions: tuple[str, ...]
    """What each class means, or "". Same length as classes."""
    labels: NDArray[np.int32]
    """shape (n,): index into classes; of a distribution the most probable one."""
    soft: NDArray[np.float32] | None = None
    """shape (n, k), rows sum to 1: the targets as distributions; None where every target is a label."""
    label_features: Mapping[str, NDArray[np.float16]] | None = None
    """View name to features of shape (k, d) of the classes' names and descriptions, where the backbone reads
    them; None where it does not. Some of the views of features."""
    label_scale: float = 0.0
    """What the cosine of an example's pooled view and a name's is multiplied with to be a logit, where the backbone
    has learned that; 0 where it has not."""

    @property
    def labels_named(self) -> tuple[tuple[str, str], ...]:
        """The classes."""
        return tuple(zip(self.classes, self.descriptions, strict=True))

    def target(self, row: int) -> str:
        """The label."""
        return self.classes[int(self.labels[row])]

    def kinds(self) -> NDArray[np.int32]:
        """The labels."""
        return self.labels

    def classified(self) -> TrainingSet:
        """It is one."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabelSet(ExampleSet):
    """Examples with any number of k labels each."""

    classes: tuple[str, ...]
    """Names of the labels, in output order."""
    descriptions: tuple[str, ...]
    """What each label means, or ""."""
    targets: NDArray[np.bool_]
    """shape (n, k): which labels apply."""
    label_features: Mapping[str, NDArray[np.float16]] | None = None
    """View name to features of shape (k, d) of the labels' names and descriptions; see `TrainingSet`."""

    @property
    def labels_named(self) -> tuple[tuple[str, str], ...]:
        """The labels."""
        return tuple(zip(self.classes, self.descriptions, strict=True))

    def target(self, row: int) -> str:
        """The labels that apply."""
        return ", ".join(self.classes[label] for label in np.flatnonzero(self.targets[row]))

    def kinds(self) -> NDArray[np.int32]:
        """The rarest label that a row carries; k where it carries none."""
        carried = np.where(self.targets, self.targets.sum(axis=0), len(self.targets) + 1)
        found = np.where(self.targets.any(axis=1), carried.argmin(axis=1), self.targets.shape[1])
        return np.asarray(found, np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionSet(ExampleSet):
    """Examples with a value each."""

    values: NDArray[np.float64]
    """shape (n,): finite."""

    def target(self, row: int) -> str:
        """The value."""
        return f"{self.values[row]:g}"

    def kinds(self) -> NDArray[np.int32]:
        """Which of KINDS equally many values a row's is among; equal values are together."""
        edges = np.unique(np.quantile(self.values, np.linspace(0, 1, KINDS + 1)[1:-1]))
        found = np.searchsorted(edges, self.values, side="right")
        return np.asarray(np.unique(found, return_inverse=True)[1], np.int32)
