"""A head for any number of labels: one or two maps whose scores add up to logits, each through a sigmoid of its own.

Calibration (a scale and a shift of each label's logit) is multiplied into the maps: it costs nothing to serve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.head import Map, parts, require_width, summed
from graft_server.heads.novelty import Novelty

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class MultiLabelOutput:
    """What a head says of n inputs."""

    probabilities: Array
    """shape (n, k): calibrated, each label for itself."""
    selected: NDArray[np.bool_]
    """shape (n, k): which labels the head says apply."""
    novelty: Array
    """shape (n,): the share of training examples that are less strange, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class MultiLabelHead:
    """A function from features to k calibrated probabilities, the labels that apply, and a novelty."""

    kind: str
    """How it was fitted, for example "logistic"."""
    view: str
    """The features that it reads: "pooled", or several joined by "+", whose rows are put one after another."""
    maps: tuple[Map, ...]
    """At least one; their scores are added up to logits."""
    thresholds: Array
    """shape (k,): a label is selected from this probability on."""
    at_least_one: bool
    """Whether the best label is selected where none reaches its threshold."""
    novelty: Novelty

    @property
    def classes(self) -> int:
        """K."""
        return len(self.thresholds)

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""
        return self.maps[0].dimension

    def scores(self, features: Array) -> MultiLabelOutput:
        """Scores features of shape (n, d) float32; raises InvalidError if d is another."""
        require_width(features, self.dimension)
        probabilities = np.empty((len(features), self.classes), np.float32)
        novelty = np.empty(len(features), np.float32)
        for rows, part in parts(features):
            probabilities[rows] = sigmoid(summed(self.maps, part))
            novelty[rows] = self.novelty.scores(None, part)
        selected = choice(probabilities, self.thresholds, at_least_one=self.at_least_one)
        return MultiLabelOutput(probabilities, selected, novelty)


def choice(probabilities: Array, thresholds: Array, *, at_least_one: bool) -> NDArray[np.bool_]:
    """Which labels are selected, shape (n, k)."""
    selected: NDArray[np.bool_] = probabilities >= thresholds
    if at_least_one:
        none = np.flatnonzero(~selected.any(axis=1))
        selected[none, probabilities[none].argmax(axis=1)] = True
    return selected


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-logits)), without overflow."""
    small = np.exp(-np.abs(logits))
    probabilities: Array = np.where(logits >= 0, 1, small) / (1 + small)
    return probabilities
