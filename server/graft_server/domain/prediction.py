"""A prediction: which version is asked, and what it answers for one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
