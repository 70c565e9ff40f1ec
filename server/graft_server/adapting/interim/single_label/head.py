"""The head of interim answers: the probabilities of the classes that it knows leave room for those that it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.interim.single_label.familiarity import Unknown
from graft_server.domain.examples import Label
from graft_server.domain.prediction import Answer
from graft_server.domain.tasks.single_label import SingleLabelAnswer
from graft_server.heads.maps import LinearMap, parts, require_width, softmax
from graft_server.heads.novelty import Novelty
from graft_server.heads.single_label import SingleLabelOutput

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class OpenHead:
    """A function from features to probabilities of k classes, whose sum may be less than 1, and a novelty."""

    map: LinearMap
    factor: float
    """What the map's logits are multiplied by before the softmax."""
    scale: float
    """What makes the standard deviation of a row's logits about 1."""
    unknown: Unknown
    """The probability that an input's class is none of the k, which the rest is multiplied by."""
    novelty: Novelty
    """Its anchors are the classes' directions, and its logit is the lead of the best one."""

    def scores(self, features: Array) -> SingleLabelOutput:
        """See `Head`."""
        require_width(features, self.map.dimension)
        probabilities = np.empty((len(features), len(self.map.bias)), np.float32)
        novelty = np.empty(len(features), np.float32)
        for rows, part in parts(features):
            logits = self.map.logits(part)
            nearness = self.novelty.similarity(part)
            probabilities[rows] = softmax(logits * np.float32(self.factor))
            probabilities[rows] *= (1 - self.unknown.chances(nearness))[:, None]
            novelty[rows] = self.novelty.scores(leads(logits, self.scale), part)
        return SingleLabelOutput(probabilities, novelty)

    def answers(self, labels: Sequence[Label], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Answer]:
        """See `Head`."""
        best, probabilities = arrays["best"].tolist(), arrays["probabilities"].tolist()
        for columns, chances in zip(best, probabilities, strict=True):
            yield SingleLabelAnswer([(labels[it].name, p) for it, p in zip(columns, chances, strict=True)])


def leads(logits: Array, scale: float) -> Array:
    """How far the best logit is above the mean of its row, shape (n,), in the row's usual standard deviations."""
    lead: Array = (logits.max(axis=1) - logits.mean(axis=1)) * np.float32(scale)
    return lead
