"""The blocking client."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from graft._client import operations as ops
from graft._client.bundle import Bundle, BundleWriter
from graft._client.operations import Call, Operation, PredictSettings, Selector
from graft._records.examples import (
    ChangeLike,
    ExampleLike,
    Input,
    LabelsLike,
    change_messages,
    example_messages,
)
from graft._records.predictions import Prediction, Predictions
from graft._records.records import (
    Adaptation,
    AdaptProgress,
    AdaptResult,
    Backbone,
    CheckResult,
    Erasure,
    Event,
    Model,
    Outcome,
    StoredExample,
    Version,
)
from graft._records.reports import EvaluationResult, evaluation_of
from graft._streams.adapt import AdaptExchange, Limits
from graft._streams.adapt_sync import SyncAdapt
from graft._streams.predict import PredictExchange
from graft._streams.predict_sync import SyncPredict
from graft._streams.start import FineTuning, new_exchange, with_task
from graft._streams.watch import WatchCursor
from graft._transport.channel import DEFAULT_TARGET, KEEP_ALIVE_S, channel_options, channel_target
from graft._transport.retry import overload_delay_s
from graft.errors import GraftError, from_rpc_error
from graft.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
)

T = TypeVar("T")

LOG = logging.getLogger("graft")

_EVENTS_TIMEOUT_S = 30.0
"""For completing a resumed adaptation's rejections from its events."""
_FEED_LOOK_S = 0.2
"""How often a full feed looks whether its call has ended."""


class Client:
    """A connection to a Graft server. Use it from as many threads as you like, and close it at the end.

    Every method raises a `GraftError` where the server's answer is not a result. Unary calls have a
    deadline, are retried by gRPC while the server is unavailable, and by the client for a bounded number of
    times where an overloaded server says when to come back.

    Args:
        target: HOST:PORT, or anything that gRPC resolves, for example "dns:///graft.internal:50051".
        credentials: For TLS, from `grpc.ssl_channel_credentials`. None: plaintext.
        metadata: Sent with every call, for example [("authorization", "Bearer ...")].
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
        metadata: Sequence[tuple[str, str]] = (),
        timeout: float | None = 60.0,
        connect_timeout: float = 20.0,
        resume_timeout: float = 300.0,
        keep_alive: float = KEEP_ALIVE_S,
    ) -> None:
        self.target = target
        self._metadata = tuple(metadata)
        self._timeout = timeout
        self._limits = Limits(connect_timeout_s=connect_timeout, resume_timeout_s=resume_timeout)
        address, options = channel_target(target), channel_options(keep_alive)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._adaptations = adaptation_pb2_grpc.AdaptationServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = prediction_pb2_grpc.PredictionServiceStub(self._channel)
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every call and the connection."""
        self._channel.close()

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
        on_progress: Callable[[AdaptProgress], None] | None = None,
        on_published: Callable[[Outcome], None] | None = None,
    ) -> AdaptResult:
        """Streams examples in, commits, and waits until the new version is served.

        The examples are taken one by one as the server can use them, so that a generator may be of any
        length. A dropped connection, a restarted server or a killed worker cost time and nothing else. If
        this process dies, the same call with the same `adaptation_id` goes on where it was: what the server
        has acknowledged is skipped.

        Args:
            model: The model to publish to, for example "support/intents".
            examples: Pairs (input, label), `Example`s, or `Delete`s. Taken in the calling thread. An example whose
                id is known replaces it. Instead of a label, a pair may have a set of labels, a value (a float) or a
                distribution over labels (a dict).
            adaptation_id: Unique within the model. None: a new one.
            writer_id: Which of several feeders of the same adaptation this is. Empty: "default".
            method: "frozen" trains a head on the backbone's features; "partial" also tunes the backbone's upper
                layers, "full" all of it; "auto" tunes within `time_budget`, and keeps that only if it helps.
            backbone: The backbone's name on the server. Empty: the server's default.
            task: "single_label", "multi_label" or "regression". Empty: what the first example's target is for.
            labels: Classes known in advance: names, (name, description) pairs, or a mapping.
            closed_labels: Refuse examples with other labels.
            base_version: Go on from the examples of this version. 0: start empty.
            seed: Every random choice is derived from it.
            fine_tuning: How the backbone is tuned. None: the server chooses.
            time_budget: How long tuning may take, in seconds; what is best by then is kept. None: as long as it
                takes, and with "auto" no tuning.
            commit_id: Repeating one returns its first outcome. None: derived from the adaptation's id.
            publish_every: Have the server publish after every so many examples, of all writers. 0: not for that.
            publish_seconds: Have it publish when there is something new and the newest commit is so old. 0: not
                for that.
            close: Whether the commit at the end closes the adaptation. If not, it can be gone on with later.
            append: Whether the examples follow on what this writer sent to the adaptation before; if not, they
                repeat it, and what the server has is skipped.
            on_published: Called with what became of each commit, the server's own too, like on_progress.
            on_progress: Called as it goes, from a background thread, one call at a time.

        Returns:
            The version, its report, and the examples that were refused.

        Raises:
            GraftError: There is no version. FailedPreconditionError, for example, with a single class.
            TypeError: An example is not a pair or an `Example`, or its input or label is not a text.
        """
        task, examples = with_task(task, examples)
        exchange = new_exchange(
            model,
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
            time_budget_s=time_budget,
            commit_id=commit_id,
            limits=self._limits,
            publish_every=publish_every,
            publish_seconds=publish_seconds,
            close=close,
            append=append,
        )
        drive = SyncAdapt(
            exchange,
            self._open_adapt,
            self._connecting,
            on_progress,
            on_published,
        )
        result = drive.run(change_messages(examples))
        return self._with_all_rejections(exchange) if exchange.may_lack_rejections else result

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
        """Asks what `adapt` would say of the settings and of each example. Nothing is stored, nothing is trained.

        Args:
            model: The model that would be published to.
            examples: As for `adapt`.
            method: As for `adapt`.
            backbone: As for `adapt`.
            task: As for `adapt`.
            labels: As for `adapt`.
            closed_labels: As for `adapt`.
            base_version: As for `adapt`.
            on_progress: As for `adapt`.

        Returns:
            How many examples there are, and which would be refused.

        Raises:
            GraftError: The settings would be refused, or the call broke.
        """
        task, examples = with_task(task, examples)
        exchange = new_exchange(
            model,
            adaptation_id=None,
            writer_id="",
            method=method,
            backbone=backbone,
            task=task,
            labels=labels,
            closed_labels=closed_labels,
            base_version=base_version,
            seed=0,
            commit_id=None,
            limits=self._limits,
            validate_only=True,
        )
        drive = SyncAdapt(exchange, self._open_adapt, self._connecting, on_progress)
        result = drive.run(change_messages(examples))
        return CheckResult(model, exchange.progress().acknowledged, result.rejected, result.rejected_count)

    def predict(
        self,
        model: str,
        inputs: Input | Iterable[Input],
        *,
        version: int | None = None,
        alias: str | None = None,
        adaptation_id: str | None = None,
        top_k: int = 0,
        include_features: bool = False,
        timeout: float | None = None,
    ) -> Predictions:
        """Classifies inputs; one version answers all of them.

        Args:
            model: The model's name.
            inputs: Texts, or one text. Any number: they are sent in as many requests as it takes.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            adaptation_id: An open adaptation, whose interim head answers, with version 0.
            top_k: How many scores per input. 0: 5.
            include_features: Also return the backbone's features.
            timeout: Deadline of each request in seconds. None: the client's.

        Returns:
            One prediction per input, in order. A bad input has its own `error` and spoils no other.
        """
        settings = PredictSettings(model, Selector(version, alias, adaptation_id), top_k, include_features)
        return self._run(ops.predict(settings, inputs), timeout)

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
        """Classifies any number of inputs as they come; predictions come out in the same order.

        Requests travel on one call, never more than a few at once. Those that a broken call left unanswered are
        sent again on another, so that a dropped connection or a restarted server cost time and nothing else. Where
        the alias moves meanwhile, `Prediction.version` tells.

        Args:
            model: The model's name.
            inputs: Texts. Taken in the calling thread, as far ahead as requests are in flight.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            adaptation_id: An open adaptation, whose interim head answers, with version 0.
            top_k: How many scores per input. 0: 5.
            include_features: Also return the backbone's features.
            chunk_size: Inputs in a request.
            timeout: How long the next answer is waited for, over however many calls, in seconds. None: the client's.
        """
        settings = PredictSettings(
            model, Selector(version, alias, adaptation_id), top_k, include_features, chunk_size
        )
        exchange = PredictExchange(
            timeout_s=self._seconds(timeout), connect_timeout_s=self._limits.connect_timeout_s
        )
        drive = SyncPredict(exchange, self._open_predict, self._connecting)
        return drive.run(ops.bulk_requests(settings, inputs))

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
        """Measures a version on labelled examples. Nothing is stored.

        Args:
            model: The model's name.
            examples: Pairs (input, label), or `Example`s. Taken in the calling thread.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            on_progress: Called with the number of examples sent so far.
            timeout: Deadline of the whole in seconds. By default there is none.
        """
        batches = ops.batched(example_messages(examples), ops.example_batcher())
        feed: queue.Queue[model_pb2.EvaluateModelRequest | None] = queue.Queue(maxsize=4)
        call = self._models.EvaluateModel.future(
            iter(feed.get, None), timeout=self._seconds(timeout), metadata=self._metadata
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

    def models(self, prefix: str = "", *, timeout: float | None = None) -> list[Model]:
        """Lists the models whose name starts with `prefix`, by name."""
        return self._run(ops.list_models(prefix), timeout)

    def model(self, model: str, *, timeout: float | None = None) -> Model:
        """Describes one model."""
        return self._run(ops.get_model(model), timeout)

    def versions(self, model: str, *, timeout: float | None = None) -> list[Version]:
        """Lists a model's versions, newest first. Their reports carry figures and warnings, no lists."""
        return self._run(ops.list_versions(model), timeout)

    def version(
        self,
        model: str,
        version: int | None = None,
        *,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> Version:
        """Describes one version with its full report; without version and alias, the one that is live."""
        return self._run(ops.get_version(model, Selector(version, alias)), timeout)

    def set_alias(
        self,
        model: str,
        alias: str,
        version: int,
        *,
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Model:
        """Points an alias at a version; version 0 removes it.

        Args:
            model: The model's name.
            alias: The alias.
            version: The version.
            expected_version: Where the alias is believed to point now (0: nowhere). None: not checked.
            timeout: Deadline in seconds. None: the client's.

        Raises:
            AbortedError: The alias points elsewhere (reason ALIAS_MOVED).
        """
        return self._run(ops.set_alias(model, alias, version, expected_version), timeout)

    def promote(
        self,
        model: str,
        version: int,
        *,
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Model:
        """Makes a version the one that `predict` uses: moves the alias "live". Rolls back, too."""
        return self.set_alias(model, "live", version, expected_version=expected_version, timeout=timeout)

    def delete_version(self, model: str, version: int, *, timeout: float | None = None) -> None:
        """Deletes a version that no alias points at. Its number is never used again."""
        self._run(ops.delete_version(model, version), timeout)

    def delete_model(self, model: str, *, timeout: float | None = None) -> None:
        """Deletes a model with all of its versions, adaptations and examples."""
        self._run(ops.delete_model(model), timeout)

    def examples(
        self,
        model: str,
        *,
        adaptation_id: str = "",
        subject: str = "",
        include_inputs: bool = False,
        timeout: float | None = None,
    ) -> list[StoredExample]:
        """Lists what is stored of the examples that a model was taught with.

        Args:
            model: The model; it need not have a version.
            adaptation_id: Only those of this adaptation. Empty: of all.
            subject: Only those of this subject. Empty: of anybody.
            include_inputs: Whether to bring the inputs, too.
            timeout: In seconds, of each request.
        """
        operation = ops.list_examples(model, adaptation_id, subject, include_inputs=include_inputs)
        return self._run(operation, timeout)

    def delete_examples(
        self,
        model: str,
        *,
        ids: Iterable[str] = (),
        subject: str = "",
        delete_versions: bool = False,
        timeout: float | None = None,
    ) -> Erasure:
        """Erases examples for good, with their features, in all states that they ever had.

        Versions that may have been trained on them stay unless `delete_versions` is set. To go on without a
        pause, erase first, then adapt again with `base_version`, then call this again with `delete_versions`.

        Args:
            model: The model; it need not have a version.
            ids: The examples to erase.
            subject: Whose examples to erase, too.
            delete_versions: Whether to delete the versions that may have been trained on them.
            timeout: In seconds.
        """
        operation = ops.delete_examples(model, ids, subject, delete_versions=delete_versions)
        return self._run(operation, timeout)

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

        Every file's size and SHA-256 are checked; the files appear together when all of them are right, and
        those that were there stay as they were if not.

        Args:
            model: The model's name.
            directory: Where to write; made if it does not exist.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            on_progress: Called with the present file's path in the bundle and the bytes received in all.
            timeout: Deadline of the whole in seconds. By default there is none.

        Raises:
            DataLossError: What arrived is not what the server said that it sends.
            OSError: The files cannot be written.
        """
        request = model_pb2.ExportModelRequest(model=model, **Selector(version, alias).fields())
        with BundleWriter(directory) as writer:
            call = self._models.ExportModel(request, timeout=self._seconds(timeout), metadata=self._metadata)
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

    def backbones(self, *, timeout: float | None = None) -> list[Backbone]:
        """Lists the pre-trained models that this server can adapt."""
        return self._run(ops.list_backbones(), timeout)

    def watch(self, model: str, adaptation_id: str, *, from_event: int = 0) -> Iterator[Event]:
        """Follows an adaptation's events, the past ones first, until it can have no more.

        A dropped connection is resumed behind the last numbered event: none is missed, none comes twice.

        Args:
            model: The model.
            adaptation_id: The adaptation.
            from_event: The number of the first event. 0: all of them.
        """
        cursor = WatchCursor(model, adaptation_id, from_event, resume_timeout_s=self._limits.resume_timeout_s)
        return self._watch(cursor)

    def adaptation(self, model: str, adaptation_id: str, *, timeout: float | None = None) -> Adaptation:
        """Describes one adaptation and its publications."""
        return self._run(ops.get_adaptation(model, adaptation_id), timeout)

    def adaptations(self, model: str, *, timeout: float | None = None) -> list[Adaptation]:
        """Lists a model's adaptations, newest first."""
        return self._run(ops.list_adaptations(model), timeout)

    def cancel(self, model: str, adaptation_id: str, *, timeout: float | None = None) -> Adaptation:
        """Stops an adaptation's work. Versions that it published stay."""
        return self._run(ops.cancel_adaptation(model, adaptation_id), timeout)

    def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """Whether a service, for example "graft.v1.PredictionService", or (empty) the whole server serves.

        Returns:
            "serving", "not_serving" or "unknown".

        Raises:
            NotFoundError: There is no such service.
        """
        return self._run(ops.check_health(service), timeout)

    def _open_adapt(self, requests: Iterator[adaptation_pb2.AdaptRequest]) -> Any:
        return self._adaptations.Adapt(requests, metadata=self._metadata)

    def _open_predict(self, requests: Iterator[prediction_pb2.PredictStreamRequest]) -> Any:
        return self._predictions.PredictStream(requests, metadata=self._metadata)

    def _run(self, operation: Operation[T], timeout: float | None) -> T:
        response: Any = None
        while True:
            try:
                call = operation.send(response)
            except StopIteration as finished:
                result: T = finished.value
                return result
            response = self._call(call, self._seconds(timeout))

    def _call(self, call: Call, timeout_s: float | None) -> Any:
        ends = math.inf if timeout_s is None else time.monotonic() + timeout_s
        retries = 0
        while True:
            left_s = None if timeout_s is None else max(0.0, ends - time.monotonic())
            try:
                return self._method(call)(call.request, timeout=left_s, metadata=self._metadata)
            except grpc.RpcError as failed:
                error = from_rpc_error(failed)
            delay_s = overload_delay_s(error, retries, left_s)
            if delay_s is None:
                raise error
            retries += 1
            time.sleep(delay_s)

    def _method(self, call: Call) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        method = self._methods.get(call.path)
        if method is None:
            method = self._channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
            self._methods[call.path] = method
        return method

    def _seconds(self, timeout: float | None) -> float | None:
        seconds = self._timeout if timeout is None else timeout
        return None if seconds is None or math.isinf(seconds) else seconds

    def _watch(self, cursor: WatchCursor) -> Iterator[Event]:
        while True:
            call = self._adaptations.WatchAdaptation(cursor.request(), metadata=self._metadata)
            try:
                for message in call:
                    yield cursor.receive(message)
            except grpc.RpcError as error:
                delay_s = cursor.broken(from_rpc_error(error))
            else:
                return
            finally:
                call.cancel()
            with self._connecting(delay_s):
                time.sleep(delay_s)

    @contextlib.contextmanager
    def _connecting(self, limit_s: float) -> Iterator[None]:
        """Keeps a call in flight that waits for a connection.

        Without any, blocking gRPC looks after its sockets only every 5 s
        (https://github.com/grpc/grpc/issues/28866): a restarted server was found 9 s late, and is now within one.
        """
        call = ops.HEALTH_CALL
        knock = self._method(call).future(
            call.request, timeout=limit_s, wait_for_ready=True, metadata=self._metadata
        )
        try:
            yield
        finally:
            knock.cancel()

    def _with_all_rejections(self, exchange: AdaptExchange) -> AdaptResult:
        """Completes the rejections of a resumed adaptation; the version stands with or without them."""
        call = self._adaptations.WatchAdaptation(
            exchange.events_request(), timeout=_EVENTS_TIMEOUT_S, metadata=self._metadata
        )
        try:
            events = []
            for event in call:
                events.append(event)
                if exchange.is_last(event):
                    break
            exchange.complete_rejections(events)
        except grpc.RpcError as error:
            LOG.warning("some rejections may be missing: %s", from_rpc_error(error))
        finally:
            call.cancel()
        if exchange.result is None:
            raise GraftError("The adaptation has no result.")
        return exchange.result


def _offer(feed: queue.Queue[T], item: T, call: Any) -> bool:
    """Puts an item where gRPC takes it from; False once the call has ended and nobody takes any more."""
    while not call.done():
        try:
            feed.put(item, timeout=_FEED_LOOK_S)
        except queue.Full:
            continue
        return True
    return False


def _release(feed: queue.Queue[Any]) -> None:
    """Lets the thread go that gRPC has waiting for the next item."""
    while not feed.empty():
        feed.get_nowait()
    feed.put(None)
