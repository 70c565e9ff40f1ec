"""Made-up streams for interim heads: features around the means of classes, learned without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from graft_server.adapting.interim.learner import Log, Row
from graft_server.adapting.interim.single_label.head import OpenHead
from graft_server.adapting.interim.single_label.learner import SingleLabelLearner
from graft_server.domain.examples import Change, Example, Input, Kind, Label
from graft_server.store.adaptations.segments import Record, Segment

D = 48


@dataclass
class World:
    """Classes around means of their own, and inputs from elsewhere."""

    classes: int
    noise: float = 0.7
    seed: int = 0
    means: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.means = np.random.default_rng(self.seed).normal(size=(self.classes, D // 2))

    def rows(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit-norm features, and their classes."""
        rng = np.random.default_rng(seed)
        classes = rng.integers(0, self.classes, count)
        features = np.zeros((count, D))
        features[:, : D // 2] = 1 + self.means[classes] + self.noise * rng.normal(size=(count, D // 2))
        features[:, D // 2 :] = 0.2 * rng.normal(size=(count, D - D // 2))
        return _unit(features), classes

    def foreign(self, count: int, seed: int) -> np.ndarray:
        """Features in directions that no class has."""
        features = np.random.default_rng(seed).normal(size=(count, D))
        features[:, : D // 2] *= 0.2
        return _unit(features)


class Stream:
    """A learner that is fed rows."""

    def __init__(self, declared: Sequence[str] = (), *, closed: bool = False) -> None:
        self.learner = SingleLabelLearner(D, [Label(it) for it in declared], closed_labels=closed)
        self._rows: list[Row] = []
        self._segments = 0

    def send(self, features: np.ndarray, classes: Sequence[int | str]) -> None:
        """One segment of examples."""
        first = len(self._rows)
        examples = [
            Example(str(first + n), Input(Kind.TEXT, str(first + n)), label=str(it))
            for n, it in enumerate(classes)
        ]
        self._rows += [Row(*pair) for pair in zip(examples, features, strict=True)]
        self._learn(first, [Change(upsert=it) for it in examples], features)

    def delete(self, number: int) -> None:
        """Takes an example back."""
        self._rows.append(self._rows[number])
        self._learn(len(self._rows) - 1, [Change(delete_id=str(number))], np.zeros((0, D), np.float32))

    def head(self) -> OpenHead:
        """The current head."""
        fitted = self.learner.fit()
        assert fitted is not None
        assert isinstance(fitted.head, OpenHead)
        return fitted.head

    def right(self, features: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The confidence of each answer, and whether it is right."""
        fitted = self.learner.fit()
        assert fitted is not None
        probabilities = fitted.head.scores(features).probabilities
        names = np.array([label.name for label in fitted.labels])
        return probabilities.max(axis=1), names[probabilities.argmax(axis=1)] == classes.astype(str)

    def _learn(self, first: int, changes: list[Change], features: np.ndarray) -> None:
        segment = Segment("w", self._segments, first, tuple(Record(1, it) for it in changes))
        self._segments += 1
        self.learner.learn(
            Log(0, "w"),
            segment,
            segment.next_sequence,
            features.astype(np.float32),
            lambda _log, _ordinal, _row, id_: self._rows[int(id_)],
        )


@pytest.fixture
def world() -> Callable[..., World]:
    return World


@pytest.fixture
def stream() -> Callable[..., Stream]:
    return Stream


def _unit(features: np.ndarray) -> np.ndarray:
    rows: np.ndarray = features / np.linalg.norm(features, axis=1, keepdims=True)
    return rows.astype(np.float32)
