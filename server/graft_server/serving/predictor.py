"""Predictions: inputs to tokens, through the shared trunk, and each row to its own head."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.text import TokenizedText
from graft_server.encoding.batcher import Encoded, Lane
from graft_server.errors import DomainError, FaultError
from graft_server.heads.novelty import ABSTAIN_ABOVE
from graft_server.serving.versions import Selector, ServedVersion, Versions


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds."""

    queue_s: float = 0.0
    tokenize_s: float = 0.0
    encode_s: float = 0.0
    head_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one text."""

    scores: Sequence[tuple[str, float]]
    """Labels with their probabilities, most probable first."""
    novelty: float
    abstained: bool
    truncated: bool
    features: NDArray[np.float32] | None
    """shape (d,), where they were asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The answer to one request."""

    served: ServedVersion
    results: Sequence[Prediction | DomainError]
    """In the order of the inputs."""
    timings: Timings


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """What encoder and head say of n texts."""

    probabilities: NDArray[np.float32]
    """shape (n, k)."""
    novelty: NDArray[np.float32]
    """shape (n,)."""
    encoded: Encoded
    head_s: float


class Predictor:
    """Answers requests."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    async def predict(
        self,
        model: str,
        selector: Selector,
        inputs: Sequence[str | DomainError],
        *,
        top_k: int,
        include_features: bool = False,
        deadline: float = math.inf,
    ) -> Predictions:
        """Answers for the inputs; one that is an error already fails alone.

        Args:
            model: The model's name.
            selector: Which of its versions.
            inputs: Valid texts, or what is wrong with one.
            top_k: How many scores each answer has at most; >= 1.
            include_features: Whether answers carry features.
            deadline: On the clock of time.monotonic().

        Raises:
            DomainError: None of the inputs can be answered, and why.
        """
        served = await self._versions.serve(self._versions.resolve(model, selector))
        started = time.monotonic()
        texts = [value for value in inputs if isinstance(value, str)]
        tokenized = await served.trunk.tokenize_all(texts)
        tokenize_s = time.monotonic() - started
        if not texts:
            errors = [value for value in inputs if isinstance(value, DomainError)]
            return Predictions(served, errors, Timings())
        scored = await self._score(served, tokenized, deadline)
        answers = iter(_answers(served, tokenized, scored, top_k, include_features))
        results = [value if isinstance(value, DomainError) else next(answers) for value in inputs]
        timings = Timings(scored.encoded.queue_s, tokenize_s, scored.encoded.encode_s, scored.head_s)
        return Predictions(served, results, timings)

    async def probabilities(self, served: ServedVersion, texts: Sequence[str]) -> NDArray[np.float32]:
        """Calibrated probabilities of n >= 1 texts, shape (n, k), computed behind other requests."""
        tokenized = await served.trunk.tokenize_all(texts)
        encoded = await served.trunk.encode(tokenized, lane=Lane.ADAPT)
        return served.head.scores(_view(served, encoded)).probabilities

    async def _score(
        self, served: ServedVersion, tokenized: Sequence[TokenizedText], deadline: float
    ) -> _Scored:
        encoded = await served.trunk.encode(tokenized, lane=Lane.PREDICT, deadline=deadline)
        started = time.monotonic()
        output = served.head.scores(_view(served, encoded))
        return _Scored(output.probabilities, output.novelty, encoded, time.monotonic() - started)


def _view(served: ServedVersion, encoded: Encoded) -> NDArray[np.float32]:
    """The features that the head reads: one view, or several side by side ("pooled+cls")."""
    names = served.head.view.split("+")
    missing = [name for name in names if name not in encoded.features]
    if missing:
        raise FaultError(
            f"The head reads the view {missing[0]}, which this server's encoder does not give: adapt the model "
            "again.",
            reason="VIEW_MISSING",
        )
    if len(names) == 1:
        return encoded.features[names[0]]
    return np.concatenate([encoded.features[name] for name in names], axis=1)


def _answers(
    served: ServedVersion,
    tokenized: Sequence[TokenizedText],
    scored: _Scored,
    top_k: int,
    include_features: bool,
) -> list[Prediction]:
    best = _best(scored.probabilities, min(top_k, len(served.labels)))
    probabilities = np.take_along_axis(scored.probabilities, best, axis=1).tolist()
    novelty = scored.novelty.tolist()
    features = scored.encoded.features["pooled"] if include_features else None
    return [
        Prediction(
            scores=[
                (served.labels[column].name, probability)
                for column, probability in zip(columns, probabilities[row], strict=True)
            ],
            novelty=novelty[row],
            abstained=novelty[row] > ABSTAIN_ABOVE,
            truncated=tokenized[row].truncated,
            features=None if features is None else features[row],
        )
        for row, columns in enumerate(best.tolist())
    ]


def _best(probabilities: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Columns of the k largest of each row, largest first; shape (n, k)."""
    if k < probabilities.shape[1]:
        columns = np.argpartition(-probabilities, k - 1, axis=1)[:, :k]
    else:
        columns = np.broadcast_to(np.arange(k), probabilities.shape)
    order = np.argsort(-np.take_along_axis(probabilities, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
