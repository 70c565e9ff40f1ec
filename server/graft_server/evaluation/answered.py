"""A version's answers for labelled examples that it was not trained on: the source of its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Example
from graft_server.domain.report import ClassReport


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """n examples, each with a target, and a head's output for each."""

    labels: tuple[str, ...]
    """The version's labels, in output order."""
    examples: Sequence[Example]
    outputs: Mapping[str, NDArray[Any]]
    """The head's outputs by name, with a row for each example."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights of the examples, shape (n,)."""
        return np.array([example.weight for example in self.examples])

    def bound(self) -> NDArray[np.int64]:
        """Numbers, shape (n,), equal for examples of one group, and for those that the head reads alike.

        Inputs are not kept; those with the same outputs and the same target are taken to be copies.
        """
        rows = [np.ascontiguousarray(it).reshape(len(self.examples), -1) for it in self.outputs.values()]
        numbers: dict[object, int] = {}
        found = []
        for place, example in enumerate(self.examples):
            read = (*(row[place].tobytes() for row in rows), example.labels, example.value)
            key = example.group or read
            found.append(numbers.setdefault(key, len(numbers)))
        return np.array(found, np.int64)

    def names(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """The version's labels, then the examples' labels that it does not know, each with its column."""
        # A label that the version does not know is a class whose probability is always 0.
        seen = {label for example in self.examples for label in example.labels}
        names = (*self.labels, *sorted(seen - set(self.labels)))
        return names, {name: index for index, name in enumerate(names)}

    def padded(self, name: str, columns: int) -> NDArray[Any]:
        """Returns an output of shape (n, k), with columns of 0 for labels that the version does not know."""
        output = self.outputs[name]
        return np.pad(output, ((0, 0), (0, columns - output.shape[1])))


def carried_by_some(per_class: tuple[ClassReport, ...]) -> tuple[ClassReport, ...]:
    """The classes that examples carry, sorted by label."""
    return tuple(sorted((it for it in per_class if it.support), key=lambda it: it.label))
