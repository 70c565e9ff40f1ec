"""How good a version is on examples that a caller brought."""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.domain.report import Measured


@dataclass(frozen=True, slots=True)
class UnknownLabel:
    """A label in the examples that the version cannot answer with."""

    label: str
    examples: int
    """Examples that carry it."""
    indices: tuple[int, ...]
    """The first of their places in the stream, from 0."""
    similar: str
    """The version's label that was probably meant; "" if none is similar."""


@dataclass(frozen=True, slots=True)
class ExampleError:
    """Why an example could not be evaluated."""

    index: int
    """Its place in the stream, from 0."""
    reason: str
    """UPPER_SNAKE_CASE."""
    detail: str
    """For people."""


@dataclass(frozen=True, slots=True)
class EvaluatedVersion:
    """How good a version is on examples that a caller brought."""

    model: str
    version: int
    measured: Measured
    rejected: tuple[ExampleError, ...] = ()
    """The first ones."""
    total_rejected: int = 0
    trained_on: tuple[int, ...] = ()
    """Places of the first examples that were left out because the version was trained on them, or on copies of them."""
    total_trained_on: int = 0
    unknown_labels: tuple[UnknownLabel, ...] = ()
    """Most frequent first, at most 50."""
    total_with_unknown_label: int = 0
    """Examples that carry a label that the version does not know."""
    training_examples_missing: bool = False
    """Whether some of the examples that the version was trained on can no longer be read, as erased ones, so that
    examples that equal them are not left out."""
