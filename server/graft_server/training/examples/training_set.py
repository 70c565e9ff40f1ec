"""What a head is trained on: the examples of a commit as arrays, features already computed.

Tasks whose targets are no classes have sets of their own; see `training.tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """n examples with the features of one encoder, whatever their targets. Row i of everything is example i."""

    weights: NDArray[np.float64]
    """shape (n,): finite, >= 0."""
    validation: NDArray[np.bool_]
    """shape (n,): held out by SPLIT_VALIDATION; never trained on."""
    groups: NDArray[np.int64]
    """shape (n,): rows with the same number belong together; a row without a group has a number of its own."""
    ids: tuple[str, ...]
    """The example's id."""
    origins: tuple[tuple[str, int], ...]
    """(writer, sequence) of the change that gave the example its present state."""
    input_digests: tuple[bytes, ...]
    """A digest of the input: equal for exact duplicates."""
    features: Mapping[str, NDArray[np.float16]]
    """View name to features of shape (n, d). The view "pooled" is always there, with unit-norm rows."""
    wordings: tuple[bytes, ...] = ()
    """A digest of each text that is equal for texts of the same wording; b"" where there is none; () where there are
    no texts."""
    confirmed: frozenset[str] = frozenset()
    """The ids of the examples whose target a person has confirmed."""
    recorded: bool = False
    """Whether the inputs come from a camera or a microphone: such come in series."""
    unlabelled: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)
    """View name to features of shape (m, d) of inputs without a target, oldest first; empty where there are none. None
    is a copy of another one, or of an example with a target."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels_named(self) -> tuple[tuple[str, str], ...]:
        """Name and description of each label, in output order; none for values."""
        return ()

    @property
    def telling(self) -> Mapping[str, NDArray[np.float16]]:
        """Features by view on which two ways to compute a head are compared."""
        return self.features

    def confirmed_among(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns whether a person has confirmed the target of each of some rows, shape (n,)."""
        if not self.confirmed:
            return np.zeros(len(rows), bool)
        return np.array([self.ids[row] in self.confirmed for row in rows], bool)

    def target(self, row: int) -> str:
        """Returns a row's target in words, for the report."""
        raise NotImplementedError

    def carried(self, row: int) -> tuple[str, ...]:
        """Returns the classes that a row counts for in a table by class."""
        return (self.target(row),)

    def kinds(self) -> NDArray[np.int32]:
        """A number per row, from 0: the one class that says most about its target. Similar rows have the same."""
        raise NotImplementedError

    def classified(self) -> ClassifiedSet:
        """The same examples with their kinds as classes, for questions about the features alone."""
        kinds = self.kinds()
        names = tuple(str(kind) for kind in range(int(kinds.max(initial=0)) + 1))
        shared = {name: getattr(self, name) for name in ExampleSet.__dataclass_fields__}
        return ClassifiedSet(classes=names, descriptions=("",) * len(names), labels=kinds, **shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedSet(ExampleSet):
    """Examples of one of k classes each: a task's own, or made by `classified` from another task's."""

    classes: tuple[str, ...]
    """Names of the classes, in output order. Some may have no examples."""
    descriptions: tuple[str, ...]
    """The description of each class, or "". Same length as classes."""
    labels: NDArray[np.int32]
    """shape (n,): index into classes; for a distribution, the most probable class."""
    soft: NDArray[np.float32] | None = None
    """shape (n, k), rows sum to 1: the targets as distributions; None where every target is a label."""
    label_features: Mapping[str, NDArray[np.float16]] | None = None
    """View name to features of shape (k, d) of the classes' names and descriptions, where the backbone reads
    them; None where it does not. Some of the views of features."""
    label_scale: float = 0.0
    """The factor from the cosine of an example's and a name's pooled views to a logit, if the backbone
    has learned one; 0 if it has not."""

    @property
    def labels_named(self) -> tuple[tuple[str, str], ...]:
        """The classes."""
        return tuple(zip(self.classes, self.descriptions, strict=True))

    @property
    def telling(self) -> Mapping[str, NDArray[np.float16]]:
        """The examples' features, or if there are none, the features of the classes' names."""
        return self.features if len(self) else self.label_features or {}

    def target(self, row: int) -> str:
        """The label."""
        return self.classes[int(self.labels[row])]

    def kinds(self) -> NDArray[np.int32]:
        """The labels."""
        return self.labels

    def classified(self) -> ClassifiedSet:
        """The set itself."""
        return self
