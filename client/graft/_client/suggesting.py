"""What to label next: the messages of a request, and the inputs of what is suggested."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from graft._client import operations as ops
from graft._client.evaluating import Evaluation
from graft._client.given import GivenInputs
from graft._client.operations import Selector
from graft._records.inputs.examples import TextPair
from graft._records.predicting.suggestions import Suggestions, suggestions_of, with_inputs
from graft._records.stored_examples import StoredExample
from graft._streams.limits import Limits
from graft.v1 import model_pb2, types_pb2

COUNT: Final = 20
"""The suggestions that are asked for where nothing is said."""


@dataclass(slots=True)
class Suggesting:
    """One `suggest` of a client."""

    model: str
    selector: Selector
    count: int
    stored: bool
    backbone: str
    _inputs: list[Any] = field(default_factory=list)
    """The candidates as they were given, where keeping them takes little."""

    def evaluation(self, limits: Limits, timeout_s: float | None) -> Evaluation:
        """The messages, of which the first says what is wanted."""
        first = model_pb2.SuggestExamplesRequest(
            model=self.model,
            count=self.count,
            stored=self.stored,
            backbone=self.backbone,
            **self.selector.fields(),
        )
        return Evaluation(
            first,
            connect_timeout_s=limits.connect_timeout_s,
            resume_timeout_s=limits.resume_timeout_s,
            timeout_s=timeout_s,
            what="ranking",
        )

    def batches(self, candidates: GivenInputs | None) -> Iterator[list[types_pb2.Example]]:
        """The candidates, in the messages in which they are sent."""
        given = enumerate(candidates) if candidates is not None else iter(())
        return ops.batched((self._message(number, it) for number, it in given), ops.example_batcher())

    async def coming(self, candidates: GivenInputs | None) -> AsyncIterator[list[types_pb2.Example]]:
        """The same of candidates that may come asynchronously."""
        batcher, number = ops.example_batcher(), 0
        if candidates is not None:
            async for it in candidates.coming():
                if full := batcher.add(self._message(number, it)):
                    yield full
                number += 1
        if rest := batcher.take():
            yield rest

    def _message(self, number: int, value: Any) -> types_pb2.Example:
        self._inputs.append(value if isinstance(value, str | TextPair | os.PathLike) else None)
        return types_pb2.Example(input=ops.numbered_input_message(number, value))

    def suggestions(self, message: model_pb2.SuggestExamplesResponse) -> Suggestions:
        """The suggestions; those of stored examples lack their inputs."""
        return suggestions_of(message, lambda it: self._inputs[it.index] if it.index >= 0 else None)

    def inputs_wanted(self, found: Suggestions) -> ops.Operation[list[StoredExample]] | None:
        """Asks for the inputs of stored examples among what was suggested; None: there are none."""
        ids = [it.id for it in found if it.index is None]
        if not ids:
            return None
        # Of what is stored, and not of the version: that lists what it was trained or measured on, which is labelled.
        request = ops.examples_request(self.model, include_inputs=True)
        return ops.list_examples(request, ids)


def with_stored(found: Suggestions, examples: list[StoredExample]) -> Suggestions:
    """The suggestions with the inputs of the stored ones."""
    with_inputs(found, {it.id: it.input for it in examples if not it.deleted})
    return found
