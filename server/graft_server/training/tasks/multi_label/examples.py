"""Examples with any number of labels each, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Example
from graft_server.training.contract import Wanted
from graft_server.training.examples.assembling import Shared, features_of_names, known_labels
from graft_server.training.examples.training_set import ExampleSet


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabelSet(ExampleSet):
    """Examples with any number of k labels each."""

    classes: tuple[str, ...]
    """Names of the labels, in output order."""
    descriptions: tuple[str, ...]
    """The description of each label, or ""."""
    targets: NDArray[np.bool_]
    """shape (n, k): which labels apply."""
    label_features: Mapping[str, NDArray[np.float16]] | None = None
    """View name to features of shape (k, d) of the labels' names and descriptions; see `ClassifiedSet`."""

    @property
    def labels_named(self) -> tuple[tuple[str, str], ...]:
        """The labels."""
        return tuple(zip(self.classes, self.descriptions, strict=True))

    def target(self, row: int) -> str:
        """The labels that apply."""
        return ", ".join(self.carried(row))

    def carried(self, row: int) -> tuple[str, ...]:
        """The labels that apply."""
        return tuple(self.classes[label] for label in np.flatnonzero(self.targets[row]))

    def kinds(self) -> NDArray[np.int32]:
        """The rarest label that a row carries; k if it carries none."""
        carried = np.where(self.targets, self.targets.sum(axis=0), len(self.targets) + 1)
        found = np.where(self.targets.any(axis=1), carried.argmin(axis=1), self.targets.shape[1])
        return np.asarray(found, np.int32)


def assemble(examples: Sequence[Example], wanted: Wanted, shared: Shared) -> MultiLabelSet:
    """Returns the set of examples that all have a set of labels."""
    known = known_labels(examples, wanted)
    number = {name: i for i, name in enumerate(known)}
    targets = np.zeros((len(examples), len(known)), bool)
    for row, example in zip(targets, examples, strict=True):
        row[[number[label] for label in example.labels]] = True
    return MultiLabelSet(
        classes=tuple(known),
        descriptions=tuple(known.values()),
        targets=targets,
        label_features=features_of_names(wanted.label_features, tuple(known), shared["features"].keys()),
        **shared,
    )
