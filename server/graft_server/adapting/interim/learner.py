"""The interface of a learner for the follower of a stream: segments of changes go in, a head comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Example, Label
from graft_server.domain.views import POOLED
from graft_server.heads.head import AnsweringHead
from graft_server.store.adaptations.segments import Segment

VIEW = POOLED
"""The view that interim heads read."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Log:
    """One writer's changes, as a part of a lineage."""

    source: int
    """The adaptation's place in the lineage."""
    writer_id: str


@dataclass(frozen=True, slots=True)
class Row:
    """An example with its features, shape (d,)."""

    example: Example
    features: Array


FindRow = Callable[[Log, int, int, str], Row]
"""Reads the example that a log had in the segment of an ordinal, at a row of its features, by its id."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A head with the labels of its columns."""

    labels: tuple[Label, ...]
    head: AnsweringHead


class Learner(Protocol):
    """The state of an interim head of one task. Belongs to one thread at a time."""

    @property
    def metrics(self) -> dict[str, float]:
        """Figures on the learning of the stream, by name."""

    @property
    def unnamed(self) -> list[Label]:
        """The labels whose names' features are not known yet."""

    def name(self, features: Mapping[str, Array]) -> None:
        """Takes in features of labels' names, by label."""

    def learn(self, log: Log, segment: Segment, end: int, features: Array, find: FindRow) -> None:
        """Predicts and learns a segment's changes below sequence `end`.

        Args:
            log: Whose segment it is. Segments of a log come in their order.
            segment: The segment.
            end: A sequence number.
            features: shape (n, d), of its upserts.
            find: Reads rows of this and earlier segments.
        """

    def fit(self) -> FittedHead | None:
        """Returns the head of all learned rows; None if it has no class yet."""


class NewLearner(Protocol):
    """Begins without examples."""

    def __call__(self, dimension: int, declared: Sequence[Label], *, closed_labels: bool) -> Learner:
        """A learner of features of a dimension, with the labels of start, and whether others are left out."""
