"""What to label next, as plain data: mirrors SuggestExamplesResponse."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graft._records.evaluation.evaluations import EvaluationRejection
from graft._records.fields import enum_text
from graft._records.inputs.examples import Input
from graft._records.predicting.predictions import Prediction, prediction_of
from graft.v1 import model_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A candidate worth a label."""

    index: int | None
    """Its place among the candidates, from 0; None: it is a stored example."""
    id: str
    """The id of a stored example; "" of a candidate that was sent."""
    input: Input | types_pb2.Input | None
    """The input: a text, a pair, a file's path, or of a stored example its bytes; None: bytes or a vector that were
    sent."""
    score: float
    """How much its label would teach, given those of the suggestions before it, as a share of what the first one's
    would; 0 to 1."""
    reasons: tuple[str, ...]
    """Why it is worth a label, the weightiest first: "novel", "uncertain", "typical", or "variety": none of these, but
    unlike what is labelled and suggested before."""
    similar: int
    """About how many candidates, itself included, are more like it than like anything labelled or suggested before."""
    uncertainty: float | None
    """How little the version knows of it: 0 (certain) to 1; None: there is no version."""
    prediction: Prediction | None
    """The version's answer, with the best three labels; None: there is no version."""

    @property
    def why(self) -> str:
        """The reasons in words."""
        return "; ".join(_WORDS[it](self) for it in self.reasons if it in _WORDS)


def _uncertain(it: Suggestion) -> str:
    scores = it.prediction.scores if it.prediction is not None else ()
    if len(scores) > 1 and scores[0].selected is None:
        return f"uncertain between {scores[0].label} and {scores[1].label}"
    return "uncertain"


def _typical(it: Suggestion) -> str:
    return f"like {it.similar - 1:,} other{'' if it.similar == 2 else 's'}"


_WORDS: dict[str, Callable[[Suggestion], str]] = {
    "novel": lambda _: "unlike all that is labelled",
    "uncertain": _uncertain,
    "typical": _typical,
    "variety": lambda _: "adds variety",
}


class Suggestions(list[Suggestion]):
    """What to label next, the best first: a list with facts about its source.

    Attributes:
        model: The model's name.
        version: The version that was asked; 0: the model has none, and candidates were compared with each other alone.
        task: The version's task, or "".
        candidates: How many candidates were ranked.
        labelled: How many were left out because the version has their input with a label.
        copies: How many were left out because an earlier one is the same input.
        rejected: The first candidates that could not be read.
        rejected_count: How many could not be read.
    """

    def __init__(
        self,
        suggestions: Iterable[Suggestion],
        model: str = "",
        version: int = 0,
        *,
        task: str = "",
        candidates: int = 0,
        labelled: int = 0,
        copies: int = 0,
        rejected: Sequence[EvaluationRejection] = (),
        rejected_count: int = 0,
    ) -> None:
        super().__init__(suggestions)
        self.model = model
        self.version = version
        self.task = task
        self.candidates = candidates
        self.labelled = labelled
        self.copies = copies
        self.rejected = tuple(rejected)
        self.rejected_count = rejected_count

    def to_frame(self, library: str = "pandas") -> Any:
        """Returns a data frame with a row for each suggestion, the best first.

        The columns are index (its place among the candidates), id, text (of texts), score, why, similar, uncertainty,
        and what the version answers: label and probability; of a multi-label model labels, of a regression value.

        Args:
            library: "pandas" or "polars", which must be installed.

        Raises:
            ValueError: The library is another one.
            ModuleNotFoundError: It is not installed.
        """
        frames: Any = importlib.import_module("graft._records.predicting.frames")
        return frames.suggestions_frame(self, library)


def suggestions_of(
    message: model_pb2.SuggestExamplesResponse, input_of: Callable[[model_pb2.Suggestion], Any]
) -> Suggestions:
    """The suggestions that a message carries.

    Args:
        message: The message.
        input_of: Gives the input of one.
    """
    return Suggestions(
        (_suggestion_of(it, message.version, input_of(it)) for it in message.suggestions),
        message.model,
        message.version,
        task=enum_text(types_pb2.Task, message.task, "TASK_"),
        candidates=message.candidates,
        labelled=message.labelled,
        copies=message.copies,
        rejected=[EvaluationRejection(it.index, it.reason, it.detail) for it in message.rejected],
        rejected_count=message.total_rejected,
    )


def _suggestion_of(message: model_pb2.Suggestion, version: int, value: Any) -> Suggestion:
    known = message.HasField("prediction")
    return Suggestion(
        index=message.index if message.index >= 0 else None,
        id=message.id,
        input=value,
        score=message.score,
        reasons=tuple(
            enum_text(model_pb2.SuggestionReason, it, "SUGGESTION_REASON_") for it in message.reasons
        ),
        similar=message.similar,
        uncertainty=message.uncertainty if known else None,
        prediction=prediction_of(message.prediction, version) if known else None,
    )


def with_inputs(suggestions: Suggestions, inputs: dict[str, Any]) -> None:
    """Gives the stored examples among the suggestions their inputs, by id."""
    for place, it in enumerate(suggestions):
        if it.index is None:
            suggestions[place] = replace(it, input=inputs.get(it.id))
