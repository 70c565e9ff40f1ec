"""The blocking client."""

from __future__ import annotations

import logging
import math
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from graft._client import operations as ops
from graft._client.bundle import Bundle, BundleWriter
from graft._client.calls_sync import ClientInterceptor, SyncCalls
from graft._client.operations import PredictSettings, Selector
from graft._client.requests_sync import SyncRequests
from graft._records.evaluations import EvaluationResult
from graft._records.examples import (
    ChangeLike,
    ExampleLike,
    Input,
    LabelsLike,
    example_messages,
)
from graft._records.predictions import Prediction
from graft._records.records import (
    AdaptProgress,
    AdaptResult,
    CheckResult,
    Event,
    Outcome,
)
from graft._records.report_messages import evaluation_of
from graft._records.shapes import several_examples
from graft._streams.adapt import AdaptExchange, Limits
from graft._streams.adapt_sync import SyncAdapt
from graft._streams.options import AdaptOptions, FineTuning
from graft._streams.predict import PredictExchange
from graft._streams.predict_sync import SyncPredict
from graft._streams.preparing import prepared
from graft._streams.start import new_exchange
from graft._streams.watch import WatchCursor
from graft._transport.authentication import Auth, Metadata
from graft._transport.channel import DEFAULT_TARGET, KEEP_ALIVE_S
from graft.errors import GraftError, from_rpc_error
from graft.v1 import (
    adaptation_pb2,
    model_pb2,
    prediction_pb2,
)

T = TypeVar("T")

LOG = logging.getLogger("graft")

_EVENTS_TIMEOUT_S = 30.0
"""For completing a resumed adaptation's rejections from its events."""
_FEED_LOOK_S = 0.2
"""How often a full feed looks whether its call has ended."""


class Client(SyncRequests):
    """A connection to a Graft server. Use it from as many threads as you like, and close it at the end.

    Every method raises a `GraftError` where the server's answer is not a result. Unary calls have a
    deadline, are retried by gRPC while the server is unavailable, and by the client for a bounded number of
    times where an overloaded server says when to come back.

    Args:
        target: HOST:PORT, or anything that gRPC resolves, for example "dns:///graft.internal:50051".
        credentials: For TLS, from `grpc.ssl_channel_credentials`. None: plaintext.
        metadata: Sent with every call, for example [("authorization", "Bearer ...")].
        auth: Returns the metadata of a call, pairs of key and value like `metadata`, and is called anew for each: for
            each request, each stream, and each repeat or resumption. So a token can be refreshed. It
            is called in the thread that makes the call, maybe in several at once, and needs no TLS. Retries by gRPC
            itself, within 3 s while the server is unavailable, carry the same metadata. If it
            raises, the call ends with an UnauthenticatedError that says so.
        interceptors: gRPC's client interceptors (grpc.UnaryUnaryClientInterceptor and so on), the outermost first.
            They see each call with its metadata, and must return the continuation's result, or a similar object.
        timeout: The default deadline of unary calls, in seconds; None: none.
        connect_timeout: How long `adapt` waits for a first answer, in seconds.
        resume_timeout: How long `adapt` waits for an acknowledgement that the server owes, and `watch` for an
            answer, over however many calls, in seconds. A server that only keeps the call alive owes it too.
        keep_alive: How often a silent connection is asked whether it is still there, in seconds; one that does
            not answer for half as long is given up. Servers mind being asked more often than every 10 s.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        auth: Auth | None = None,
        interceptors: Sequence[ClientInterceptor] = (),
        timeout: float | None = 60.0,
        connect_timeout: float = 20.0,
        resume_timeout: float = 300.0,
        keep_alive: float = KEEP_ALIVE_S,
    ) -> None:
        self.target = target
        self._limits = Limits(connect_timeout_s=connect_timeout, resume_timeout_s=resume_timeout)
        calls = SyncCalls(
            target,
            credentials=credentials,
            metadata=metadata,
            auth=auth,
            interceptors=interceptors,
            timeout_s=timeout,
            keep_alive_s=keep_alive,
        )
        super().__init__(calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every call and the connection."""
        self._calls.close()

    def adapt(
        self,
        model: str,
        examples: Iterable[ChangeLike],
        *,
        adaptation_id: str | None = None,
        writer_id: str = "",
        method: str = "auto",
        backbone: str = "",
        task: str = "",
        labels: LabelsLike | None = None,
        closed_labels: bool = False,
        base_version: int = 0,
        seed: int = 0,
        fine_tuning: FineTuning | None = None,
        time_budget: float | None = None,
        commit_id: str | None = None,
        publish_every: int = 0,
        publish_seconds: float = 0.0,
        close: bool = True,
        append: bool = False,
        id_repeats: str = "",
        on_progress: Callable[[AdaptProgress], None] | None = None,
        on_published: Callable[[Outcome], None] | None = None,
    ) -> AdaptResult:
        """Streams examples in, commits, and waits until the new version is served.

        The examples are taken one by one as the server can use them, so that a generator may be of any
        length. A dropped connection, a restarted server or a killed worker costs only time. If
        this process dies, the same call with the same `adaptation_id` continues where it was: acknowledged
        examples are skipped.

        Args:
            model: The model to publish to, for example "support/intents".
            examples: Pairs (input, label), `Example`s, or `Delete`s. Taken in the calling thread. An example whose
                id is known replaces it. Instead of a label, a pair may have a set of labels, a value (a float) or a
                distribution over labels (a dict). A target is missing if it is None, the float NaN, pandas' NA or NaT,
                a NaN of NumPy or decimal, or a text of spaces: such an example is stored without a target, counted in
                the report's `data.unlabelled_examples`, and not trained on. The texts "nan", "NA", "None" and "null"
                are labels. Missing members of sets and distributions are left out. Booleans, numbers, NumPy's scalars
                and members of enumerations are labels by their text (2.0 is "2") where the task has labels.
            adaptation_id: Unique within the model. None: a new one.
            writer_id: The name of this feeder, if several feed the same adaptation. Empty: "default".
            method: "frozen" trains a head on the backbone's features; "partial" also tunes the backbone's upper
                layers, "full" all of it; "auto" tunes within `time_budget`, and keeps that only if it helps.
            backbone: The backbone's name on the server. Empty: the server's default.
            task: "single_label", "multi_label" or "regression". Empty: what the targets are for: all of a list or a
                tuple, of other iterables the first that tell. Missing targets tell nothing. Floats are for a
                regression, but 0.0 and 1.0 alone, and codes 0.0, 1.0, 2.0 with missing ones among them, are labels,
                and so are integers that recur. Such a guess is in the result's `notices`.
            labels: Classes known in advance: names, (name, description) pairs, or a mapping.
            closed_labels: Refuse examples with other labels.
            base_version: Start from the examples of this version. 0: start empty.
            seed: Every random choice is derived from it.
            fine_tuning: How the backbone is tuned. None: the server chooses.
            time_budget: How long tuning may take, in seconds; the best state by then is kept. None: no limit,
                and with "auto" no tuning.
            commit_id: Repeating one returns its first outcome. None: derived from the adaptation's id.
            publish_every: Have the server publish after every this many examples, of all writers. 0: never by count.
            publish_seconds: Have it publish when there are changes and the newest commit is this old. 0: never by
                age.
            close: Whether the commit at the end closes the adaptation. If not, it can be continued later.
            append: Whether the examples continue this writer's earlier examples in the adaptation; if not, they
                repeat them, and examples that the server has are skipped.
            id_repeats: "replace": examples of the same id replace each other, whatever their inputs. Empty: in a list
                or a tuple, an id that stands for different inputs raises a ValueError before anything is sent, because
                such an id is none; of other iterables, which may be streams of corrections, later ones replace earlier
                ones, and the report warns.
            on_published: Called with the outcome of each commit, including the server's own, like on_progress.
            on_progress: Called during the work, from a background thread, one call at a time.

        Returns:
            The version, its report, and the examples that were refused.

        Raises:
            GraftError: There is no version. FailedPreconditionError, for example, with a single class.
            TypeError: An example is not a pair or an `Example`, or its input or target is of a type that is not
                accepted; the message has its index. What was sent before stays stored, under the adaptation's id.
            ValueError: An id stands for different inputs, or a number is infinite and a label.
        """
        options = AdaptOptions(
            adaptation_id=adaptation_id,
            writer_id=writer_id,
            method=method,
            backbone=backbone,
            task=task,
            labels=labels,
            closed_labels=closed_labels,
            base_version=base_version,
            seed=seed,
            fine_tuning=fine_tuning,
            time_budget=time_budget,
            commit_id=commit_id,
            publish_every=publish_every,
            publish_seconds=publish_seconds,
            close=close,
            append=append,
            id_repeats=id_repeats,
        )
        ready = prepared(options, examples)
        exchange = new_exchange(model, ready.options, self._limits)
        drive = SyncAdapt(
            exchange,
            self._open_adapt,
            self._calls.connecting,
            on_progress,
            on_published,
        )
        with self._calls.stopping(drive.stop):
            result = drive.run(ready.conversion.changes(ready.changes))
        result = self._with_all_rejections(exchange) if exchange.may_lack_rejections else result
        return replace(result, notices=ready.conversion.notices)

    def check(
        self,
        model: str,
        examples: Iterable[ChangeLike],
        *,
        method: str = "auto",
        backbone: str = "",
        task: str = "",
        labels: LabelsLike | None = None,
        closed_labels: bool = False,
        base_version: int = 0,
        on_progress: Callable[[AdaptProgress], None] | None = None,
    ) -> CheckResult:
        """Checks the settings and each example as `adapt` would. Nothing is stored or trained.

        Args:
            model: The model to publish to.
            examples: As for `adapt`.
            method: As for `adapt`.
            backbone: As for `adapt`.
            task: As for `adapt`.
            labels: As for `adapt`.
            closed_labels: As for `adapt`.
            base_version: As for `adapt`.
            on_progress: As for `adapt`.

        Returns:
            The number of examples, those that would be refused, those without a target, labels that a person would
            read as one, and examples that later ones of the same id would replace.

        Raises:
            GraftError: The settings would be refused, or the call broke.
        """
        options = AdaptOptions(
            method=method,
            backbone=backbone,
            task=task,
            labels=labels,
            closed_labels=closed_labels,
            base_version=base_version,
            validate_only=True,
        )
        ready = prepared(options, examples)
        exchange = new_exchange(model, ready.options, self._limits)
        drive = SyncAdapt(exchange, self._open_adapt, self._calls.connecting, on_progress)
        with self._calls.stopping(drive.stop):
            result = drive.run(ready.conversion.changes(ready.changes))
        return ready.conversion.check_result(
            model, exchange.progress().acknowledged, result.rejected, result.rejected_count
        )

    def predict_stream(
        self,
        model: str,
        inputs: Iterable[Input],
        *,
        version: int | None = None,
        alias: str | None = None,
        adaptation_id: str | None = None,
        top_k: int = 0,
        include_features: bool = False,
        chunk_size: int = ops.BULK_INPUTS,
        timeout: float | None = None,
    ) -> Iterator[Prediction]:
        """Classifies any number of inputs as they arrive; predictions come out in the same order.

        Requests travel on one call, never more than a few at once. Requests that a broken call left unanswered are
        sent again on another, so a dropped connection or a restarted server costs only time. If
        the alias moves meanwhile, `Prediction.version` shows it.

        Args:
            model: The model's name.
            inputs: As for `predict`. Taken in the calling thread, as far ahead as requests are in flight.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            adaptation_id: An open adaptation, whose interim head answers, with version 0.
            top_k: How many scores per input. 0: 5.
            include_features: Also return the backbone's features.
            chunk_size: Inputs in a request.
            timeout: How long to wait for the next answer, over any number of calls, in seconds. None: the client's.
        """
        settings = PredictSettings(
            model, Selector(version, alias, adaptation_id), top_k, include_features, chunk_size
        )
        exchange = PredictExchange(
            timeout_s=self._calls.seconds(timeout), connect_timeout_s=self._limits.connect_timeout_s
        )
        drive = SyncPredict(exchange, self._open_predict, self._calls.wait)
        return drive.run(ops.bulk_requests(settings, ops.several(inputs)))

    def evaluate(
        self,
        model: str,
        examples: Iterable[ExampleLike],
        *,
        version: int | None = None,
        alias: str | None = None,
        on_progress: Callable[[int], None] | None = None,
        timeout: float | None = math.inf,
    ) -> EvaluationResult:
        """Measures a version on labelled examples that it was not trained on. Nothing is stored.

        Args:
            model: The model's name.
            examples: Pairs (input, label), or `Example`s. Taken in the calling thread. Those that the version was
                trained on, or copies of them, are left out of the figures, and named in the result.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            on_progress: Called with the number of examples sent so far.
            timeout: Deadline of the whole in seconds. By default there is none.
        """
        examples = several_examples(examples)
        task = self.version(model, version, alias=alias).report.task
        batches = ops.batched(example_messages(examples, task), ops.example_batcher())
        feed: queue.Queue[model_pb2.EvaluateModelRequest | None] = queue.Queue(maxsize=4)
        call = self._calls.models.EvaluateModel.future(
            iter(feed.get, None), timeout=self._calls.seconds(timeout), metadata=self._calls.metadata()
        )
        sent = 0
        try:
            for request in ops.evaluation_requests(model, Selector(version, alias), batches):
                if not _offer(feed, request, call):
                    break
                sent += len(request.examples)
                if on_progress is not None:
                    on_progress(sent)
            _offer(feed, None, call)
            return evaluation_of(call.result())
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()
            _release(feed)

    def export(
        self,
        model: str,
        directory: str | Path,
        *,
        version: int | None = None,
        alias: str | None = None,
        on_progress: Callable[[str, int], None] | None = None,
        timeout: float | None = math.inf,
    ) -> Bundle:
        """Writes a self-contained bundle: model.onnx, labels.json, tokenizer.json, report, sample runner.

        Every file's size and SHA-256 are checked; the files appear together once all of them are right;
        otherwise older files stay as they were.

        Args:
            model: The model's name.
            directory: Where to write; made if it does not exist.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            on_progress: Called with the present file's path in the bundle and the bytes received in all.
            timeout: Deadline of the whole in seconds. By default there is none.

        Raises:
            DataLossError: The received data differ from the server's digest.
            OSError: The files cannot be written.
        """
        request = model_pb2.ExportModelRequest(model=model, **Selector(version, alias).fields())
        with BundleWriter(directory) as writer:
            call = self._calls.models.ExportModel(
                request, timeout=self._calls.seconds(timeout), metadata=self._calls.metadata()
            )
            try:
                for piece in call:
                    writer.write(piece)
                    if on_progress is not None:
                        on_progress(piece.path, writer.received)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None
            finally:
                call.cancel()
            return writer.finish()

    def watch(self, model: str, adaptation_id: str, *, from_event: int = 0) -> Iterator[Event]:
        """Follows an adaptation's events, the past ones first, until no more can follow.

        A dropped connection is resumed after the last numbered event: none is missed, none comes twice.

        Args:
            model: The model.
            adaptation_id: The adaptation.
            from_event: The number of the first event. 0: all of them.
        """
        cursor = WatchCursor(model, adaptation_id, from_event, resume_timeout_s=self._limits.resume_timeout_s)
        return self._watch(cursor)

    def _open_adapt(self, requests: Iterator[adaptation_pb2.AdaptRequest]) -> Any:
        return self._calls.adaptations.Adapt(requests, metadata=self._calls.metadata())

    def _open_predict(self, requests: Iterator[prediction_pb2.PredictStreamRequest]) -> Any:
        return self._calls.predictions.PredictStream(requests, metadata=self._calls.metadata())

    def _watch(self, cursor: WatchCursor) -> Iterator[Event]:
        while True:
            call = self._calls.adaptations.WatchAdaptation(cursor.request(), metadata=self._calls.metadata())
            try:
                for message in call:
                    yield cursor.receive(message)
            except grpc.RpcError as error:
                delay_s = cursor.broken(from_rpc_error(error))
            else:
                return
            finally:
                call.cancel()
            self._calls.wait(delay_s)

    def _with_all_rejections(self, exchange: AdaptExchange) -> AdaptResult:
        """Completes the rejections of a resumed adaptation; the version stands with or without them."""
        try:
            exchange.complete_rejections(self._events_so_far(exchange))
        except GraftError as error:
            LOG.warning("some rejections may be missing: %s", error)
        if exchange.result is None:
            raise GraftError("The adaptation has no result.")
        return exchange.result

    def _events_so_far(self, exchange: AdaptExchange) -> list[adaptation_pb2.WatchAdaptationResponse]:
        call = self._calls.adaptations.WatchAdaptation(
            exchange.events_request(), timeout=_EVENTS_TIMEOUT_S, metadata=self._calls.metadata()
        )
        events = []
        try:
            for event in call:
                events.append(event)
                if exchange.is_last(event):
                    break
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()
        return events


def _offer(feed: queue.Queue[T], item: T, call: Any) -> bool:
    """Passes an item to gRPC; False once the call has ended and no more are taken."""
    while not call.done():
        try:
            feed.put(item, timeout=_FEED_LOOK_S)
        except queue.Full:
            continue
        return True
    return False


def _release(feed: queue.Queue[Any]) -> None:
    """Releases gRPC's thread that waits for the next item."""
    while not feed.empty():
        feed.get_nowait()
    feed.put(None)
