"""A head that answers with a number and an interval: one or two maps whose scores add up to the value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.head import LinearMap, Map, parts, require_width, summed
from graft_server.heads.novelty import Novelty

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RegressionOutput:
    """What a head says of n inputs, each of shape (n,), in the unit of the training examples' values."""

    value: Array
    low: Array
    """The lower end of the interval."""
    high: Array
    """The upper end of the interval."""
    novelty: Array
    """The share of training examples that are less strange, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """How far values are expected to be off, where some inputs are harder than others.

    Linear in the features, kept within bounds.
    """

    map: LinearMap
    """One column."""
    least: float
    """Above 0."""
    most: float

    def of(self, features: Array) -> Array:
        """Shape (n,)."""
        spread: Array = np.clip(
            self.map.scores(features)[:, 0], np.float32(self.least), np.float32(self.most)
        )
        return spread


@dataclass(frozen=True, slots=True, eq=False)
class RegressionHead:
    """A function from features to a value, an interval that holds the truth as often as promised, and a novelty."""

    kind: str
    """How it was fitted, for example "ridge"."""
    view: str
    """The features that it reads: "pooled", or several joined by "+", whose rows are put one after another."""
    maps: tuple[Map, ...]
    """At least one, of one column each; their scores are added up to the value."""
    below: float
    """The interval begins so many spreads below the value."""
    above: float
    """The interval ends so many spreads above the value."""
    spread: Spread | None
    """None: 1 for every input."""
    novelty: Novelty

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""
        return self.maps[0].dimension

    def scores(self, features: Array) -> RegressionOutput:
        """Scores features of shape (n, d) float32; raises InvalidError if d is another."""
        require_width(features, self.dimension)
        n = len(features)
        values, spread, novelty = (np.ones(n, np.float32) for _ in range(3))
        for rows, part in parts(features):
            values[rows] = summed(self.maps, part)[:, 0]
            novelty[rows] = self.novelty.scores(None, part)
            if self.spread is not None:
                spread[rows] = self.spread.of(part)
        low, high = values - np.float32(self.below) * spread, values + np.float32(self.above) * spread
        return RegressionOutput(values, low, high, novelty)
