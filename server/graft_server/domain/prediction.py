"""A prediction: which version is asked, and what it answers for one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import DomainError, InvalidError
from graft_server.domain.examples import Input


@dataclass(frozen=True, slots=True)
class OneLabel:
    """One of the labels."""

    scores: Sequence[tuple[str, float]]
    """Labels with their probabilities, most probable first."""


@dataclass(frozen=True, slots=True)
class ManyLabels:
    """Any number of the labels."""

    scores: Sequence[tuple[str, float, bool]]
    """Labels with their probabilities and whether they are selected, most probable first."""


@dataclass(frozen=True, slots=True)
class Value:
    """A number and its interval."""

    value: float
    low: float
    high: float


Answer = OneLabel | ManyLabels | Value


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds."""

    queue_s: float = 0.0
    tokenize_s: float = 0.0
    encode_s: float = 0.0
    head_s: float = 0.0

    def __add__(self, other: Timings) -> Timings:
        """Those of two requests, one after the other."""
        return Timings(
            self.queue_s + other.queue_s,
            self.tokenize_s + other.tokenize_s,
            self.encode_s + other.encode_s,
            self.head_s + other.head_s,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one input."""

    answer: Answer
    novelty: float
    abstained: bool
    truncated: bool
    features: NDArray[np.float32] | None
    """shape (d,), where they were asked for."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which version of a model is meant: a number, an alias, or neither: the alias "live".

    Or no version at all, but the interim head of an open adaptation.
    """

    version: int = 0
    alias: str = ""
    adaptation_id: str = ""


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """What a model is asked about some inputs."""

    model: str
    inputs: Sequence[Input | InvalidError]
    """Inputs as they were sent, or why what was sent cannot be read as one. They may be converted as they are read:
    their number is known at once."""
    selector: Selector = Selector()
    top_k: int = 0
    """How many scores each answer has at most; 0: the default."""
    include_features: bool = False
    """Whether answers carry the backbone's features."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The answer to a request."""

    model: str
    version: int
    """0: an interim head answered."""
    adaptation_id: str
    """The adaptation whose interim head answered, or ""."""
    next_sequence: int
    """How many changes, of all writers, the interim head has learned; 0 for a version."""
    results: Sequence[Prediction | DomainError]
    """In the order of the inputs."""
    timings: Timings


@dataclass(frozen=True, slots=True)
class StreamedRequest:
    """A request of many on one stream."""

    request_id: str
    request: PredictionRequest | DomainError
    """The request, or why what was sent cannot be read as one."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamedAnswer:
    """The answer to a request of a stream."""

    request_id: str
    answer: Predictions | DomainError
