"""A model's answers as plain data."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from graft._records.evaluation.shown import Shown
from graft._records.fields import seconds_of
from graft.errors import GraftError, from_status
from graft.v1 import prediction_pb2


@dataclass(frozen=True, slots=True)
class Score:
    """A label with its probability."""

    label: str
    """The label."""
    probability: float
    """Calibrated, 0 to 1; over all labels of a single-label model they sum to 1. Those of an interim head sum to less:
    the rest is the probability that the label is none that the head knows so far."""
    selected: bool | None = None
    """Whether a multi-label model selects the label; None for others."""


@dataclass(frozen=True, slots=True)
class Timings:
    """The times of a request's stages, in seconds. Inputs of one batch share the encoder's time."""

    queue_s: float
    """Waiting for the device."""
    tokenize_s: float
    """Turning text into tokens."""
    encode_s: float
    """Computing features in the encoder."""
    head_s: float
    """Computing probabilities from features."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one input."""

    scores: tuple[Score, ...]
    """The best labels, most probable first; empty if `error` is set, and for a regression."""
    abstained: bool
    """Whether the input is unlike all that the model was trained on: do not rely on the answer."""
    novelty: float
    """How unlike the training examples the input is: above 0.95, it is stranger than 95% of them. 0 to 1."""
    truncated: bool
    """Whether the input was longer than the backbone reads, so that its end was cut off."""
    features: tuple[float, ...]
    """The backbone's features, unit-norm, if requested."""
    error: GraftError | None
    """Why this input could not be answered, or None. The others were."""
    version: int
    """The version that answered."""
    value: float | None = None
    """The predicted number of a regression."""
    low: float | None = None
    """The lower end of the interval around `value` that holds the true value as often as the report says."""
    high: float | None = None
    """The upper end."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that apply, best first: those a multi-label model selects, or the one of a single-label model."""
        if any(score.selected is not None for score in self.scores):
            return tuple(score.label for score in self.scores if score.selected)
        return tuple(score.label for score in self.scores[:1])

    @property
    def label(self) -> str | None:
        """The most probable label; None where `error` is set, and for a regression."""
        return self.scores[0].label if self.scores else None

    @property
    def probability(self) -> float | None:
        """The probability of `label`, 0 to 1; None where `error` is set."""
        return self.scores[0].probability if self.scores else None


NO_TIMES: Final = Timings(0.0, 0.0, 0.0, 0.0)
"""Of predictions whose times are not known."""


class Predictions(list[Prediction], Shown):
    """One prediction for each input, in order: a list with facts about its source.

    Attributes:
        model: The model's name.
        version: The version that answered all of them; 0: an interim head.
        timings: The times of the request's stages.
        next_sequence: The number of changes, of all writers, that the interim head had learned.
    """

    def __init__(
        self,
        predictions: Iterable[Prediction],
        model: str = "",
        version: int = 0,
        timings: Timings = NO_TIMES,
        next_sequence: int = 0,
    ) -> None:
        super().__init__(predictions)
        self.next_sequence = next_sequence
        self.model = model
        self.version = version
        self.timings = timings

    def to_frame(self, library: str = "pandas", *, index: Any = None, top_k: int = 1) -> Any:
        """Returns a data frame with a row for each prediction, in order.

        The columns are label and probability (of a multi-label model: labels and probabilities, lists of those that
        apply; of a regression: value, low and high), abstained, truncated, novelty, and error: why there is no answer,
        in words. What there is no answer for is missing. Features are a column, too, if they were requested. What
        `predict_stream` yields becomes one by `graft.Predictions(stream).to_frame()`.

        Args:
            library: "pandas" or "polars", which must be installed.
            index: Of pandas, the frame's index, for example that of the frame that was asked about.
            top_k: How many labels have columns: label_2, probability_2 and so on hold the next best, as far as they
                were requested. Of a multi-label model: 1 for none, else label_1 and so on hold the best.

        Raises:
            ValueError: The library is another one, or has no index.
            ModuleNotFoundError: It is not installed.
        """
        frames: Any = importlib.import_module("graft._records.predicting.frames")
        return frames.frame_of(self, library, index, top_k)


def predictions_of(message: prediction_pb2.PredictResponse) -> Predictions:
    """The predictions that a message carries."""
    results = [prediction_of(result, message.version) for result in message.results]
    timings = _timings_of(message.timings)
    return Predictions(results, message.model, message.version, timings, message.next_sequence)


def joined(parts: Iterable[Predictions], model: str) -> Predictions:
    """The answers to a request that had to be sent in parts, as one. Times add up."""
    whole = Predictions([], model)
    for part in parts:
        whole.extend(part)
        whole.version, whole.next_sequence = part.version, part.next_sequence
        whole.timings = Timings(
            queue_s=whole.timings.queue_s + part.timings.queue_s,
            tokenize_s=whole.timings.tokenize_s + part.timings.tokenize_s,
            encode_s=whole.timings.encode_s + part.timings.encode_s,
            head_s=whole.timings.head_s + part.timings.head_s,
        )
    return whole


def prediction_of(message: prediction_pb2.Prediction, version: int) -> Prediction:
    answer = message.WhichOneof("result")
    number = message.regression
    return Prediction(
        scores=(
            tuple(Score(s.label, s.probability, s.selected) for s in message.multi_label.scores)
            if answer == "multi_label"
            else tuple(Score(s.label, s.probability) for s in message.single_label.scores)
        ),
        abstained=message.abstained,
        novelty=message.novelty,
        truncated=message.truncated,
        features=tuple(message.features),
        error=from_status(message.error) if answer == "error" else None,
        version=version,
        value=number.value if answer == "regression" else None,
        low=number.low if answer == "regression" else None,
        high=number.high if answer == "regression" else None,
    )


def _timings_of(message: prediction_pb2.Timings) -> Timings:
    return Timings(
        queue_s=seconds_of(message.queue),
        tokenize_s=seconds_of(message.tokenize),
        encode_s=seconds_of(message.encode),
        head_s=seconds_of(message.head),
    )
