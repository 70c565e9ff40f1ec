"""A prediction: the version that is asked, and its answer for one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import DomainError, InvalidError
from graft_server.domain.examples import Input, Task


class Answer(Protocol):
    """A model's answer for one input; see the modules of `domain.tasks`."""

    task: ClassVar[Task]


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds."""

    queue_s: float = 0.0
    tokenize_s: float = 0.0
    encode_s: float = 0.0
    head_s: float = 0.0

    def __add__(self, other: Timings) -> Timings:
        """Returns the times of two parts of a request: it waited for its first part, and the rest adds up."""
        return Timings(
            min(self.queue_s, other.queue_s),
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
    """shape (d,); None unless the request asks for features."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects a version of a model: by number, by alias, or by neither: the alias "live".

    Or selects no version, but the interim head of an open adaptation.
    """

    version: int = 0
    alias: str = ""
    adaptation_id: str = ""


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """A request for a model's predictions on some inputs."""

    model: str
    inputs: Sequence[Input | InvalidError]
    """Inputs, or the error of one that cannot be read. They may be converted one by one as they are read:
    their number is known at once."""
    selector: Selector = Selector()
    top_k: int = 0
    """The most scores that an answer has; 0: the default."""
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
    """The number of changes, of all writers, that the interim head has learned; 0 for a version."""
    results: Sequence[Prediction | DomainError]
    """The answers in the order of the inputs."""
    timings: Timings


@dataclass(frozen=True, slots=True)
class StreamedRequest:
    """One request of a stream of requests."""

    request_id: str
    request: PredictionRequest | DomainError
    """The request, or the error if it cannot be read."""
    size: int = 0
    """The bytes of memory that it takes while it is answered, about."""
    keep_alive_s: float | None = None
    """After how much silence, in seconds, the caller wants to hear that the server is at work; None: not said."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamedAnswer:
    """The answer to a request of a stream."""

    request_id: str
    answer: Predictions | DomainError
