"""The asyncio client: the same methods as the blocking one, awaited."""

# Deadlines travel to the server, which drops what comes too late; asyncio.timeout would not tell it.
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from graft._client import operations as ops
from graft._client.bases import based_async, with_meanwhile_async
from graft._client.bundle import Bundle, BundleWriter
from graft._client.calls_async import AsyncCalls, Stubs, messages
from graft._client.evaluating import Evaluation
from graft._client.evaluating_async import AsyncEvaluation
from graft._client.exporting import Export
from graft._client.given import GivenInputs, opened
from graft._client.operations import Batcher, PredictSettings, Selector
from graft._client.requests_async import AsyncRequests
from graft._client.suggesting import COUNT, Suggesting, with_stored
from graft._progress.adapting import shown
from graft._records.adapting.told import AdaptProgress, AdaptResult, CheckResult, Event, Outcome
from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.report_messages import evaluation_of
from graft._records.inputs.examples import (
    ChangeLike,
    ExampleLike,
    Input,
    LabelsLike,
    numbered_example_message,
)
from graft._records.predicting.predictions import Prediction
from graft._records.predicting.suggestions import Suggestions
from graft._streams.adapt import AdaptExchange
from graft._streams.adapt_async import AsyncAdapt, Stream
from graft._streams.limits import Limits
from graft._streams.options import AdaptOptions, FineTuning
from graft._streams.predict import PredictExchange
from graft._streams.predict_async import AsyncPredict
from graft._streams.predict_async import Stream as PredictStream
from graft._streams.preparing import prepared_async
from graft._streams.start import new_exchange
from graft._streams.watch import EventsCursor, WatchCursor
from graft._tables.options import Examples, InputColumns, Inputs, TableColumns
from graft._transport.authentication import AsyncAuth, Metadata
from graft._transport.channel import CONNECT_TIMEOUT_S, KEEP_ALIVE_S
from graft._transport.targets import default_target
from graft.errors import GraftError
from graft.v1 import adaptation_pb2

T = TypeVar("T")
M = TypeVar("M")

LOG = logging.getLogger("graft")

_EVENTS_TIMEOUT_S = 30.0
"""The time for completing a resumed adaptation's rejections from its events."""


class AsyncClient(AsyncRequests):
    """A connection to a Graft server, made at the first call, in the event loop that runs then.

    It may be made where no loop runs, and used from several: each has a connection of its own. It
    has the methods, arguments and errors of `Client`. Iterables of examples and inputs
    may be asynchronous; a synchronous one must not block, since it is read on the event loop.

    Args:
        target: HOST:PORT, or anything that gRPC resolves, for example "dns:///graft.internal:50051". None: what
            the environment variable GRAFT_SERVER names, else where a server here listens by GRAFT_LISTEN, else
            "127.0.0.1:50051".
        credentials: For TLS, from `grpc.ssl_channel_credentials`. None: plaintext.
        metadata: Sent with every call, for example [("authorization", "Bearer ...")].
        auth: Gives the metadata of a call, as for `Client`; it may be asynchronous. If it is not, it must not block.
        interceptors: gRPC's asynchronous client interceptors (grpc.aio.UnaryUnaryClientInterceptor and so on), the
            outermost first. They see each call with its metadata.
        timeout: The default deadline of unary calls, in seconds; None: none.
        connect_timeout: How long a stream waits for a first answer, and gRPC for a connection, in seconds.
        resume_timeout: How long a stream waits for progress, over however many calls, in seconds; see `Client`.
        keep_alive: How often a silent connection is asked whether it is still there, in seconds; one that does
            not answer for half as long is given up. Servers mind being asked more often than every 10 s.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        auth: AsyncAuth | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        timeout: float | None = 60.0,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        resume_timeout: float = 300.0,
        keep_alive: float = KEEP_ALIVE_S,
    ) -> None:
        self.target = target = default_target() if target is None else target
        self._limits = Limits(connect_timeout_s=connect_timeout, resume_timeout_s=resume_timeout)
        calls = AsyncCalls(
            target,
            credentials=credentials,
            metadata=metadata,
            auth=auth,
            interceptors=interceptors,
            timeout_s=timeout,
            keep_alive_s=keep_alive,
            connect_timeout_s=connect_timeout,
        )
        super().__init__(calls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every call and the connection."""
        await self._calls.close()

    async def adapt(
        self,
        model: str,
        examples: Examples | AsyncIterable[ChangeLike | Mapping[str, Any]],
        *,
        adaptation_id: str | None = None,
        writer_id: str = "",
        method: str = "auto",
        backbone: str = "",
        task: str = "",
        labels: LabelsLike | None = None,
        closed_labels: bool = False,
        base_version: int = 0,
        base_alias: str = "",
        extend: bool = False,
        match_content: bool = False,
        seed: int = 0,
        fine_tuning: FineTuning | None = None,
        time_budget: float | None = None,
        commit_id: str | None = None,
        publish_every: int = 0,
        publish_seconds: float = 0.0,
        promote: bool = True,
        metadata: Mapping[str, str] | None = None,
        close: bool = True,
        append: bool = False,
        id_repeats: str = "",
        on_progress: Callable[[AdaptProgress], None] | None = None,
        progress: bool | None = None,
        on_published: Callable[[Outcome], None] | None = None,
        **columns: Unpack[TableColumns],
    ) -> AdaptResult:
        """Streams examples in, commits, and waits until the new version is served; see `Client.adapt`."""
        options = AdaptOptions(
            adaptation_id=adaptation_id,
            writer_id=writer_id,
            method=method,
            backbone=backbone,
            task=task,
            labels=labels,
            closed_labels=closed_labels,
            base_version=base_version,
            base_alias=base_alias,
            extend=extend,
            match_content=match_content,
            seed=seed,
            fine_tuning=fine_tuning,
            time_budget=time_budget,
            commit_id=commit_id,
            publish_every=publish_every,
            publish_seconds=publish_seconds,
            promote=promote,
            metadata=metadata,
            close=close,
            append=append,
            id_repeats=id_repeats,
        )
        given = await opened(examples, columns, "adapt").coming(task=task, id_repeats=id_repeats)
        ready = await prepared_async(replace(options, task=given.task), given.changes)
        exchange_options = await based_async(self._ask, model, ready.options)
        exchange = new_exchange(model, exchange_options, self._limits)
        with (
            shown(progress, on_progress) as told,
            given.placing(lambda: exchange.progress().first_sequence),
        ):
            drive = AsyncAdapt(
                exchange,
                self._open_adapt,
                ready.conversion.change,
                told,
                on_published,
                status_of=self._calls.status_of,
            )
            try:
                result = await drive.run(ready.changes)
            finally:
                if exchange.may_lack_rejections:
                    await self._complete_rejections(exchange)
        first = exchange.progress().first_sequence
        result = await with_meanwhile_async(self._ask, exchange_options, exchange.result or result)
        return given.adapted(ready.conversion.adapt_result(result, first), first)

    async def _ask(self, operation: ops.Operation[Any]) -> Any:
        """Asks what an adaptation has to know before it starts, or when it is done."""
        return await self._calls.run(operation, self._limits.connect_timeout_s)

    async def check(
        self,
        model: str,
        examples: Examples | AsyncIterable[ChangeLike | Mapping[str, Any]],
        *,
        method: str = "auto",
        backbone: str = "",
        task: str = "",
        labels: LabelsLike | None = None,
        closed_labels: bool = False,
        base_version: int = 0,
        base_alias: str = "",
        extend: bool = False,
        match_content: bool = False,
        fine_tuning: FineTuning | None = None,
        time_budget: float | None = None,
        on_progress: Callable[[AdaptProgress], None] | None = None,
        **columns: Unpack[TableColumns],
    ) -> CheckResult:
        """Checks settings and examples as `adapt` would; nothing is stored. See `Client.check`."""
        options = AdaptOptions(
            method=method,
            backbone=backbone,
            task=task,
            labels=labels,
            closed_labels=closed_labels,
            base_version=base_version,
            base_alias=base_alias,
            extend=extend,
            match_content=match_content,
            fine_tuning=fine_tuning,
            time_budget=time_budget,
            validate_only=True,
        )
        given = await opened(examples, columns, "check").coming(task=task, checked=True)
        ready = await prepared_async(replace(options, task=given.task), given.changes)
        exchange = new_exchange(model, await based_async(self._ask, model, ready.options), self._limits)
        drive = AsyncAdapt(
            exchange, self._open_adapt, ready.conversion.change, on_progress, status_of=self._calls.status_of
        )
        result = await drive.run(ready.changes)
        found = ready.conversion.check_result(model, exchange.progress().acknowledged, result)
        return given.checked(found)

    def predict_stream(
        self,
        model: str,
        inputs: Inputs | AsyncIterable[Input | Mapping[str, Any]],
        *,
        version: int | None = None,
        alias: str | None = None,
        adaptation_id: str | None = None,
        top_k: int = 0,
        include_features: bool = False,
        chunk_size: int = ops.BULK_INPUTS,
        on_progress: Callable[[str], None] | None = None,
        timeout: float | None = None,
        **columns: Unpack[InputColumns],
    ) -> AsyncIterator[Prediction]:
        """Classifies any number of inputs as they come, in order; see `Client.predict_stream`."""
        settings = PredictSettings(
            model, Selector(version, alias, adaptation_id), top_k, include_features, chunk_size
        )
        exchange = PredictExchange(
            timeout_s=self._calls.seconds(timeout) or self._limits.resume_timeout_s,
            connect_timeout_s=self._limits.connect_timeout_s,
            on_progress=on_progress,
        )
        given = GivenInputs(inputs, columns, "predict_stream", asynchronous=True)
        batches = _batches(
            given.coming(), ops.numbered_input_message, ops.input_batcher(settings.bulk_inputs)
        )
        requests = (settings.request(batch) async for batch in batches)
        drive = AsyncPredict(exchange, self._open_predict, self._calls.status_of)
        return _answers(given, drive.run(requests))

    async def evaluate(
        self,
        model: str,
        examples: Examples | AsyncIterable[ExampleLike | Mapping[str, Any]],
        *,
        version: int | None = None,
        alias: str | None = None,
        all_places: bool = False,
        on_progress: Callable[[int], None] | None = None,
        timeout: float | None = math.inf,
        **columns: Unpack[TableColumns],
    ) -> EvaluationResult:
        """Measures a version on labelled examples; nothing is stored. See `Client.evaluate`."""
        selector, table = Selector(version, alias), opened(examples, columns, "evaluate")
        seconds = self._calls.seconds(timeout)
        found = await self._calls.run(ops.get_version(model, selector), None)
        given = await table.coming(task=found.report.task, checked=True)
        evaluation = Evaluation(
            ops.evaluate_request(model, found.version or version or 0, all_places=all_places),
            connect_timeout_s=self._limits.connect_timeout_s,
            resume_timeout_s=self._limits.resume_timeout_s,
            timeout_s=seconds,
        )
        message_of = partial(numbered_example_message, task=found.report.task)
        batches = _batches(given.changes, message_of, ops.example_batcher())
        driver = AsyncEvaluation(evaluation, self._calls, lambda stubs: stubs.models.EvaluateModel)
        return given.evaluated(evaluation_of(await driver.run(batches, on_progress)))

    async def suggest(
        self,
        model: str,
        candidates: Inputs | AsyncIterable[Input | Mapping[str, Any]] | None = None,
        *,
        n: int = COUNT,
        stored: bool | None = None,
        version: int | None = None,
        alias: str | None = None,
        backbone: str = "",
        on_progress: Callable[[int], None] | None = None,
        timeout: float | None = math.inf,
        **columns: Unpack[InputColumns],
    ) -> Suggestions:
        """Says which candidates are worth a label next; see `Client.suggest`."""
        asked = Suggesting(
            model, Selector(version, alias), n, candidates is None if stored is None else stored, backbone
        )
        given = None
        if candidates is not None:
            given = GivenInputs(candidates, columns, "suggest", asynchronous=True)
        evaluation = asked.evaluation(self._limits, self._calls.seconds(timeout))
        driver = AsyncEvaluation(evaluation, self._calls, lambda stubs: stubs.models.SuggestExamples)
        found = asked.suggestions(await driver.run(asked.coming(given), on_progress))
        wanted = asked.inputs_wanted(found)
        return found if wanted is None else with_stored(found, await self._calls.run(wanted, None))

    async def export(
        self,
        model: str,
        directory: str | Path,
        *,
        version: int | None = None,
        alias: str | None = None,
        on_progress: Callable[[str, int], None] | None = None,
        timeout: float | None = math.inf,
    ) -> Bundle:
        """Writes a self-contained bundle; see `Client.export`."""
        with BundleWriter(directory) as writer:
            export = Export(
                model,
                Selector(version, alias),
                writer,
                connect_timeout_s=self._limits.connect_timeout_s,
                resume_timeout_s=self._limits.resume_timeout_s,
                timeout_s=self._calls.seconds(timeout),
            )
            pieces = messages(self._calls, lambda stubs: stubs.models.ExportModel, export)
            async with aclosing(pieces):
                async for piece in pieces:
                    told = await _to_the_end(partial(export.receive, piece))
                    if told is not None and on_progress is not None:
                        on_progress(*told)
            return await _to_the_end(writer.finish)

    def watch(self, model: str, adaptation_id: str, *, from_event: int = 0) -> AsyncIterator[Event]:
        """Follows an adaptation's events, the past ones first; see `Client.watch`."""
        cursor = WatchCursor(
            model,
            adaptation_id,
            from_event,
            connect_timeout_s=self._limits.connect_timeout_s,
            resume_timeout_s=self._limits.resume_timeout_s,
        )
        return self._watch(cursor)

    async def _open_adapt(self) -> Stream:
        call: Stream = await self._calls.begin(lambda stubs: stubs.adaptations.Adapt)
        return call

    async def _open_predict(self) -> PredictStream:
        call: PredictStream = await self._calls.begin(lambda stubs: stubs.predictions.PredictStream)
        return call

    async def _watch(self, cursor: WatchCursor) -> AsyncIterator[Event]:
        async with aclosing(messages(self._calls, _watching, cursor)) as received:
            async for message in received:
                if (event := cursor.receive(message)) is not None:
                    yield event

    async def _complete_rejections(self, exchange: AdaptExchange) -> None:
        """Completes the rejections of a resumed adaptation; its outcome stands with or without them."""
        try:
            exchange.complete_rejections(await self._events_so_far(exchange))
        except GraftError as error:
            LOG.warning("some rejections may be missing: %s", error)

    async def _events_so_far(self, exchange: AdaptExchange) -> list[adaptation_pb2.WatchAdaptationResponse]:
        cursor = EventsCursor(exchange.events_request(), _EVENTS_TIMEOUT_S)
        events: list[adaptation_pb2.WatchAdaptationResponse] = []
        async with aclosing(messages(self._calls, _watching, cursor)) as received:
            async for event in received:
                events.append(event)
                if exchange.is_last(event):
                    break
        return events


async def _to_the_end(function: Callable[[], T]) -> T:
    """Runs a function in a thread, and waits for its end also where its caller is cancelled: it uses what goes then."""
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _watching(stubs: Stubs) -> Any:
    return stubs.adaptations.WatchAdaptation


async def _batches(
    items: Iterable[T] | AsyncIterable[T], message_of: Callable[[int, T], M], batcher: Batcher[M]
) -> AsyncIterator[list[M]]:
    number = 0
    async for item in _as_async(items):
        if full := batcher.add(message_of(number, item)):
            yield full
        number += 1
    if rest := batcher.take():
        yield rest


async def _as_async(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _answers(
    given: GivenInputs, predictions: AsyncGenerator[Prediction, None]
) -> AsyncIterator[Prediction]:
    """Predictions, with the reasons of the rows that the client refused."""
    async with aclosing(predictions):
        index = 0
        async for prediction in predictions:
            yield given.answer(index, prediction)
            index += 1
