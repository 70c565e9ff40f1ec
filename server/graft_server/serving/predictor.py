"""Predictions: prepares inputs, sends them through the shared trunk, and each row to its own head."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from graft_server.backbones.preprocessing import Prepared, features_unread
from graft_server.domain.caller import Caller
from graft_server.domain.errors import DomainError, InvalidError
from graft_server.domain.examples import Input, Kind
from graft_server.domain.prediction import Prediction, Selector, Timings
from graft_server.domain.views import POOLED
from graft_server.encoding.batcher import Encoded
from graft_server.encoding.encoder import Features
from graft_server.encoding.fair_queue import Arrays
from graft_server.encoding.queueing import Lane
from graft_server.heads.novelty import ABSTAIN_ABOVE, NOVELTY
from graft_server.serving.interim import Interim, InterimHeads
from graft_server.serving.response_cache import ResponseCache
from graft_server.serving.versions import ServedVersion, Versions
from graft_server.sharing.event_loop import in_slices, slices
from graft_server.sharing.preemption import Preemption

NUMBERS_AT_ONCE = 8_192
"""The numbers that become answers between two turns of the event loop: about a millisecond."""


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of a request."""

    top_k: int
    include_features: bool
    deadline: float
    caller: Caller


class Predictor:
    """Answers requests."""

    def __init__(
        self,
        versions: Versions,
        interim: InterimHeads,
        cached_responses: int = 0,
        preemption: Preemption | None = None,
    ) -> None:
        """Makes a predictor for published versions and interim heads.

        Args:
            versions: The published versions.
            interim: The interim heads of open adaptations.
            cached_responses: The number of versions' answers to remember.
            preemption: Pauses jobs meanwhile.
        """
        self._versions = versions
        self._preemption = preemption or Preemption()
        self._interim = interim
        self._cache: ResponseCache[Prediction] = ResponseCache(cached_responses)

    async def serve(self, model: str, selector: Selector) -> ServedVersion | Interim:
        """Returns what answers for a model: a version with its head, or an interim head.

        Raises:
            DomainError: There is no such version or interim head, or it cannot be served.
        """
        if selector.adaptation_id:
            return await self._interim.interim(model, selector.adaptation_id)
        return await self._versions.serve(self._versions.resolve(model, selector))

    async def predict(
        self,
        served: ServedVersion | Interim,
        inputs: Sequence[Input | InvalidError],
        *,
        top_k: int,
        caller: Caller,
        include_features: bool = False,
        deadline: float = math.inf,
    ) -> tuple[list[Prediction | DomainError], Timings]:
        """Returns the answers for the inputs, in their order; an input that is already an error fails alone.

        Args:
            served: The version or interim head that answers.
            inputs: Inputs, each checked alone, or the error of one.
            top_k: The most scores that an answer has; >= 1.
            caller: Whose request it is.
            include_features: Whether answers carry features.
            deadline: On the clock of time.monotonic().

        Raises:
            DomainError: None of the inputs can be answered; the error says why.
        """
        options = _Options(top_k, include_features, deadline, caller)
        if self._cache.on and isinstance(served, ServedVersion):
            return await self._with_cache(served, inputs, options)
        answers, timings = await self._answer(served, [it for it in inputs if isinstance(it, Input)], options)
        answered = iter(answers)
        return [it if isinstance(it, DomainError) else next(answered) for it in inputs], timings

    async def _with_cache(
        self, served: ServedVersion, inputs: Sequence[Input | InvalidError], options: _Options
    ) -> tuple[list[Prediction | DomainError], Timings]:
        asked = [it for it in inputs if isinstance(it, Input)]
        keys = dict(await in_slices(lambda it: (it, _key(served, it, options)), asked))
        known = {it: self._cache.get(key) for it, key in keys.items()}
        unknown = [it for it, answer in known.items() if answer is None]
        answers, timings = await self._answer(served, unknown, options)
        fresh = dict(zip(unknown, answers, strict=True))
        for it, answer in fresh.items():
            if isinstance(answer, Prediction):
                self._cache.put(keys[it], answer)
        return [it if isinstance(it, DomainError) else known[it] or fresh[it] for it in inputs], timings

    async def _answer(
        self, served: ServedVersion | Interim, inputs: Sequence[Input], options: _Options
    ) -> tuple[list[Prediction | DomainError], Timings]:
        """Returns an answer for each input; one that the backbone cannot read fails alone."""
        if not inputs:
            return [], Timings()
        work = partial(self._answer_part, served, options, _Read(served, options))
        # Before jobs are paused: one of them may make the backbone's graph.
        await served.trunk.ready()
        with self._preemption.predicting():
            parts = await served.trunk.in_parts(options.caller, inputs, work)
        timings = reduce(add, (took for _, (_, took) in parts))
        if len(parts) == 1:
            return parts[0][1][0], timings
        answers = {
            place: answer for places, (found, _) in parts for place, answer in zip(places, found, strict=True)
        }
        return [answers[place] for place in range(len(inputs))], timings

    async def _answer_part(
        self,
        served: ServedVersion | Interim,
        options: _Options,
        reader: _Read,
        inputs: Sequence[Input],
        opens: bool,
    ) -> tuple[list[Prediction | DomainError], Timings]:
        started = time.monotonic()
        found = await _prepared(served, inputs, options.caller)
        prepared = [it for it in found if not isinstance(it, InvalidError)]
        tokenize_s = time.monotonic() - started
        if not prepared:
            return list(_errors(found)), Timings(tokenize_s=tokenize_s)
        encoded = await served.trunk.encode(
            prepared,
            lane=Lane.PREDICT,
            reader=reader,
            tuned=served.tuned if isinstance(served, ServedVersion) else None,
            deadline=options.deadline,
            caller=options.caller,
            opens=opens,
        )
        timings = Timings(encoded.queue_s, tokenize_s, encoded.encode_s, encoded.read_s)
        answers = iter(await _answers(served, prepared, encoded))
        return [it if isinstance(it, InvalidError) else next(answers) for it in found], timings

    async def outputs(
        self, served: ServedVersion, inputs: Sequence[Input], caller: Caller
    ) -> list[Arrays | InvalidError]:
        """Returns all outputs of the version's head for each input, by name, or the input's error.

        Beside them are the backbone's features, as `named` calls them. Runs behind other requests, in turns with
        adaptations.
        """
        parts = await served.trunk.in_turns(caller, inputs, partial(self._outputs, served, caller))
        rows = {place: row for places, found in parts for place, row in zip(places, found, strict=True)}
        return [rows[place] for place in range(len(inputs))]

    async def _outputs(
        self, served: ServedVersion, caller: Caller, inputs: Sequence[Input]
    ) -> list[Arrays | InvalidError]:
        found = await _prepared(served, inputs, caller)
        prepared = [it for it in found if not isinstance(it, InvalidError)]
        if not prepared:
            return list(_errors(found))
        encoded = await served.trunk.encode(
            prepared, lane=Lane.ADAPT, reader=_All(served), tuned=served.tuned, caller=caller
        )
        rows = (
            # Copies: a view of one row would keep the whole batch.
            encoded.faults.get(row) or {name: array[row].copy() for name, array in encoded.arrays.items()}
            for row in range(len(prepared))
        )
        return [it if isinstance(it, InvalidError) else next(rows) for it in found]


async def _prepared(
    served: ServedVersion | Interim, inputs: Sequence[Input], caller: Caller
) -> list[Prepared | InvalidError]:
    """Ready features can be read only by a head that reads the final view alone."""
    found = await served.trunk.prepare_all(inputs, caller)
    if not isinstance(served, ServedVersion):
        return found  # an interim head reads the final view alone
    unread = features_unread(served.head.view, tuned=served.tuned is not None)
    if unread is None:
        return found
    return [unread if it.kind is Kind.FEATURES else one for it, one in zip(inputs, found, strict=True)]


def _errors(found: Sequence[Prepared | InvalidError]) -> Iterator[InvalidError]:
    return (it for it in found if isinstance(it, InvalidError))


def _key(served: ServedVersion, value: Input, options: _Options) -> Hashable:
    return served.version.manifest.key, value.digest(), options.top_k, options.include_features


async def _answers(
    served: ServedVersion | Interim, prepared: Sequence[Prepared], encoded: Encoded
) -> list[Prediction | InvalidError]:
    """Returns the answer for each prepared input, or the error of one on which the encoder fails."""
    arrays, faults = encoded.arrays, encoded.faults
    if len(faults) == len(prepared):
        return [faults[row] for row in range(len(prepared))]
    novelty = arrays[NOVELTY].tolist()
    features = arrays.get(POOLED)
    found: list[Prediction | InvalidError] = []
    numbers = sum(array.size for array in arrays.values()) // len(prepared)
    for rows in slices(len(prepared), max(1, NUMBERS_AT_ONCE // max(numbers, 1))):
        if rows.start:
            await asyncio.sleep(0)
        part = {name: array[rows] for name, array in arrays.items()}
        for row, answer in enumerate(served.head.answers(served.labels, part), rows.start):
            found.append(
                faults.get(row)
                or Prediction(
                    answer=answer,
                    novelty=novelty[row],
                    abstained=novelty[row] > ABSTAIN_ABOVE,
                    truncated=prepared[row].truncated,
                    features=None if features is None else features[row].copy(),  # keeps no whole batch
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    """Reads the outputs that a request wants, on the encoder's thread, for all of a model's rows in a batch at once."""

    served: ServedVersion | Interim
    options: _Options

    def __call__(self, features: Features) -> Arrays:
        arrays = self.served.scores(features).read(self.options.top_k)
        return arrays | {POOLED: features[POOLED]} if self.options.include_features else arrays


@dataclass(frozen=True, slots=True)
class _All:
    """Reads all of the head's outputs, and the features."""

    served: ServedVersion

    def __call__(self, features: Features) -> Arrays:
        output = self.served.scores(features)
        arrays = {name: getattr(output, name) for name in output.__dataclass_fields__}
        return arrays | {named(view): array.astype(np.float16) for view, array in features.items()}


def named(view: str) -> str:
    """Returns the name of a view's features among the outputs of a head."""
    return f"features/{view}"
