"""What to label next: candidates in the order in which their labels would teach most."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from graft_server.domain.evaluated import ExampleError
from graft_server.domain.examples import Task
from graft_server.domain.prediction import Prediction


class Why(StrEnum):
    """A reason to label a candidate."""

    UNCERTAIN = "uncertain"
    """The version cannot tell what it is."""
    NOVEL = "novel"
    """It is unlike all that the version was trained on."""
    TYPICAL = "typical"
    """Others in the pool are like it."""
    VARIETY = "variety"
    """None of the others holds: it differs from what is labelled, and from the suggestions before it."""


@dataclass(frozen=True, slots=True)
class SuggestionRequest:
    """What a caller wants suggested."""

    count: int
    """The most suggestions; 0: the default."""
    stored: bool = False
    """Whether the version's unlabelled examples are candidates, too."""
    backbone: str = ""
    """Where the model has no version: the backbone to compare by; "": the default for what the candidates are."""


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """A candidate worth a label."""

    index: int
    """Its place in the stream, from 0; -1: it is a stored example."""
    id: str
    """Its id, as it was sent or stored; "" if it was sent without."""
    score: float
    """How much its label would teach, given those of the suggestions before it, as a share of what the first one's
    would; 0 to 1."""
    why: tuple[Why, ...]
    """The reasons, the weightiest first; at least one."""
    similar: int
    """About how many candidates, itself included, are more like it than like anything labelled or suggested before."""
    uncertainty: float
    """0 (certain) to 1, by the version; 0 where there is none."""
    prediction: Prediction | None
    """The version's answer; None where there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Suggestions:
    """The answer to a request."""

    model: str
    version: int
    """The version that was asked; 0: the model has none, and candidates were compared with each other alone."""
    task: Task | None
    """The version's task; None where there is none."""
    suggestions: tuple[Suggestion, ...]
    """The best first."""
    candidates: int
    """The candidates that were ranked."""
    labelled: int = 0
    """Candidates that were left out because the version has their input already, labelled."""
    copies: int = 0
    """Candidates that were left out because an earlier one is the same input."""
    rejected: tuple[ExampleError, ...] = ()
    """The first of those that cannot be read."""
    total_rejected: int = 0
