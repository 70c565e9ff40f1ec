"""Examples with a value each, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Example
from graft_server.training.contract import Wanted
from graft_server.training.examples.assembling import Shared
from graft_server.training.examples.training_set import ExampleSet

KINDS = 10
"""The number of equally large parts of the values, by which folds are dealt and the map is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionSet(ExampleSet):
    """Examples with a value each."""

    values: NDArray[np.float64]
    """shape (n,): finite."""

    def target(self, row: int) -> str:
        """The value."""
        return f"{self.values[row]:g}"

    def kinds(self) -> NDArray[np.int32]:
        """The part, of KINDS with equally many values, that has a row's value; equal values are together."""
        edges = np.unique(np.quantile(self.values, np.linspace(0, 1, KINDS + 1)[1:-1]))
        found = np.searchsorted(edges, self.values, side="right")
        return np.asarray(np.unique(found, return_inverse=True)[1], np.int32)


def assemble(examples: Sequence[Example], wanted: Wanted, shared: Shared) -> RegressionSet:
    """Returns the set of examples that all have a value."""
    del wanted
    values = np.array([it.value for it in examples if it.value is not None], np.float64)
    return RegressionSet(values=values, **shared)
