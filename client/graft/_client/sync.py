"""The blocking client."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from graft._client import operations as ops
from graft._client.bases import based, with_meanwhile
from graft._client.bundle import Bundle, BundleWriter
from graft._client.calls_sync import ClientInterceptor, SyncCalls, messages
from graft._client.evaluating import Evaluation
from graft._client.evaluating_sync import SyncEvaluation
from graft._client.exporting import Export
from graft._client.given import GivenInputs, opened
from graft._client.operations import PredictSettings, Selector
from graft._client.requests_sync import SyncRequests
from graft._progress.adapting import shown
from graft._records.evaluations import EvaluationResult
from graft._records.examples import LabelsLike, example_messages
from graft._records.predictions import Prediction
from graft._records.report_messages import evaluation_of
from graft._records.told import AdaptProgress, AdaptResult, CheckResult, Event, Outcome
from graft._streams.adapt import AdaptExchange
from graft._streams.adapt_sync import SyncAdapt
from graft._streams.limits import Limits
from graft._streams.options import AdaptOptions, FineTuning
from graft._streams.predict import PredictExchange
from graft._streams.predict_sync import SyncPredict
from graft._streams.preparing import prepared
from graft._streams.start import new_exchange
from graft._streams.watch import EventsCursor, WatchCursor
from graft._tables.options import Examples, InputColumns, Inputs, TableColumns
from graft._transport.authentication import Auth, Metadata
from graft._transport.channel import CONNECT_TIMEOUT_S, KEEP_ALIVE_S
from graft._transport.reading_sync import Incoming
from graft._transport.targets import default_target
from graft.errors import GraftError
from graft.v1 import adaptation_pb2, prediction_pb2

LOG = logging.getLogger("graft")

_EVENTS_TIMEOUT_S = 30.0
"""For completing a resumed adaptation's rejections from its events."""


class Client(SyncRequests):
    """A connection to a Graft server. Use it from as many threads as you like, and close it at the end.

    Every method raises a `GraftError` where the server's answer is not a result. Unary calls have a deadline, and are
    repeated within it for about 3 s while the server is unavailable, or as an overloaded server asks. Streams
    go on in another call where one broke, and end where nothing comes for too long; see docs/api.md.

    The connection is made at the first call. In a process that was forked while a client was connected, every
    call is refused at once (reason FORKED).

    Args:
        target: HOST:PORT, or anything that gRPC resolves, for example "dns:///graft.internal:50051". None: what
            the environment variable GRAFT_SERVER names, else where a server here listens by GRAFT_LISTEN, else
            "127.0.0.1:50051".
        credentials: For TLS, from `grpc.ssl_channel_credentials`. None: plaintext.
        metadata: Sent with every call, for example [("authorization", "Bearer ...")].
        auth: Returns the metadata of a call, pairs of key and value like `metadata`, and is called anew for each: for
            each request, each stream, and each repeat or resumption. So a token can be refreshed. It
            is called in the thread that makes the call, maybe in several at once, and needs no TLS. If it
            raises, the call ends with an UnauthenticatedError that says so.
        interceptors: gRPC's client interceptors (grpc.UnaryUnaryClientInterceptor and so on), the outermost first.
            They see each call with its metadata, and must return the continuation's result, or a similar object.
        timeout: The default deadline of unary calls, in seconds; None: none.
        connect_timeout: How long a stream waits for a first answer, and gRPC for a connection, in seconds.
        resume_timeout: How long a stream waits for progress, over however many calls, in seconds: `adapt` for an
            acknowledgement that the server owes (one that only keeps the call alive owes it too), `export` and `watch`
            for a message, `evaluate` for the server to take examples or to answer.
        keep_alive: How often a silent connection is asked whether it is still there, in seconds; one that does
            not answer for half as long is given up. Servers mind being asked more often than every 10 s.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        auth: Auth | None = None,
        interceptors: Sequence[ClientInterceptor] = (),
        timeout: float | None = 60.0,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        resume_timeout: float = 300.0,
        keep_alive: float = KEEP_ALIVE_S,
    ) -> None:
        self.target = target = default_target() if target is None else target
        self._limits = Limits(connect_timeout_s=connect_timeout, resume_timeout_s=resume_timeout)
        calls = SyncCalls(
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
        examples: Examples,
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
        """Streams examples in, commits, and waits until the new version is served.

        The examples are taken one by one as the server can use them, so that a generator may be of any
        length. A dropped connection, a restarted server or a killed worker costs only time. If
        this process dies, the same call with the same `adaptation_id` continues where it was: acknowledged
        examples are skipped.

        Args:
            model: The model to publish to, for example "support/intents".
            examples: Pairs (input, label), `Example`s, or `Delete`s; or a table: a data frame (pandas, polars), an
                Arrow table, a split of a data set, a structured array, rows as dicts, or the path of a data file or
                of a folder of classes. Taken in the calling thread. An example whose
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
            base_version: Go on from the examples of this version: they are trained on too. 0: start empty.
            base_alias: The same by an alias, such as "live"; what it points at when the adaptation starts.
            extend: Go on from the live version, where the model has one, or from the version that base_version or
                base_alias names, with match_content. An adaptation that exists goes on from what it was started with.
                `result.extension` says what came of the examples; where all of them are there already, nothing is
                trained, and the version is the one that was gone on from.
            match_content: An example without an id whose input equals that of an example of the base is that example:
                with the same target it changes nothing, and with another one it corrects it.
            seed: Every random choice is derived from it.
            fine_tuning: How the backbone is tuned. None: the server chooses.
            time_budget: How long tuning may take, in seconds; the best state by then is kept. None: no limit,
                and with "auto" no tuning.
            commit_id: Repeating one returns its first outcome. None: derived from the adaptation's id.
            publish_every: Have the server publish after every this many examples, of all writers. 0: never by count.
            publish_seconds: Have it publish when there are changes and the newest commit is this old. 0: never by
                age.
            promote: Whether the versions become live as they are published, and with that what `predict` asks, unless
                "live" is pinned (see `promote`). If not, "live" stays where it is; a model's first version is then
                asked for by its number.
            metadata: Pairs of texts to find again with the adaptation and its versions, at most 32.
            close: Whether the commit at the end closes the adaptation. If not, it can be continued later.
            append: Whether the examples continue this writer's earlier examples in the adaptation; if not, they
                repeat them, and examples that the server has are skipped.
            id_repeats: "replace": examples of the same id replace each other, whatever their inputs. Empty: in a list
                or a tuple, an id that stands for different inputs raises a ValueError before anything is sent, because
                such an id is none; of other iterables, which may be streams of corrections, later ones replace earlier
                ones, and the report warns.
            on_published: Called with the outcome of each commit, including the server's own, like on_progress.
            on_progress: Called during the work, from a background thread, one call at a time; while the server trains,
                each second at least.
            progress: Whether a line shows how far it is: in the output of a notebook's cell, else on standard error.
                None: in a notebook alone, where it takes more than two seconds and there is no on_progress.
            columns: Of a table, the columns by name: input ("text") or path, label ("label") or labels_from or value,
                and second, id, weight, group, split, subject, confirmed; and label_separator, label_cells, decimal: see
                `graft.TableColumns`. A row that cannot be used is refused alone; a missing label leaves it unlabelled.

        Returns:
            The version, its report, and the examples that were refused, of a table with their rows. Where the version
            is not live, the notices say why.

        Raises:
            DataError: A table has no such column, or none of its rows can be used.
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
        given = opened(examples, columns, "adapt").examples(task=task, id_repeats=id_repeats)
        ready = prepared(replace(options, task=given.task), given.changes)
        exchange_options = based(self._ask, model, ready.options)
        exchange = new_exchange(model, exchange_options, self._limits)
        with (
            shown(progress, on_progress) as told,
            given.placing(lambda: exchange.progress().first_sequence),
        ):
            drive = SyncAdapt(
                exchange,
                self._open_adapt,
                self._calls.connecting,
                told,
                on_published,
                error_of=self._calls.error_of,
            )
            try:
                with self._calls.stopping(drive.stop):
                    result = drive.run(ready.conversion.changes(ready.changes))
            finally:
                if exchange.may_lack_rejections:
                    self._complete_rejections(exchange)
        first = exchange.progress().first_sequence
        result = with_meanwhile(self._ask, exchange_options, exchange.result or result)
        return given.adapted(ready.conversion.adapt_result(result, first), first)

    def _ask(self, operation: ops.Operation[Any]) -> Any:
        """Asks what an adaptation has to know before it starts, or when it is done."""
        return self._calls.run(operation, self._limits.connect_timeout_s)

    def check(
        self,
        model: str,
        examples: Examples,
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
        on_progress: Callable[[AdaptProgress], None] | None = None,
        **columns: Unpack[TableColumns],
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
            base_alias: As for `adapt`.
            extend: As for `adapt`.
            match_content: As for `adapt`.
            on_progress: As for `adapt`.
            columns: As for `adapt`.

        Returns:
            The number of examples, those that would be refused, those without a target, labels that a person would
            read as one, and examples that later ones of the same id would replace; and what would come of them
            beside those of the version to go on from.

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
            base_alias=base_alias,
            extend=extend,
            match_content=match_content,
            validate_only=True,
        )
        given = opened(examples, columns, "check").examples(task=task, checked=True)
        ready = prepared(replace(options, task=given.task), given.changes)
        exchange = new_exchange(model, based(self._ask, model, ready.options), self._limits)
        drive = SyncAdapt(
            exchange, self._open_adapt, self._calls.connecting, on_progress, error_of=self._calls.error_of
        )
        with self._calls.stopping(drive.stop):
            result = drive.run(ready.conversion.changes(ready.changes))
        found = ready.conversion.check_result(model, exchange.progress().acknowledged, result)
        return given.checked(found)

    def predict_stream(
        self,
        model: str,
        inputs: Inputs,
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
            on_progress: Called with what the server is doing before it can answer, for example loading a backbone.
            timeout: How long to wait for the next answer, or for the server's word that it is at work, over any number
                of calls, in seconds. None: the client's, or where that has none `resume_timeout`.
            columns: Of a table, as for `predict`.
        """
        settings = PredictSettings(
            model, Selector(version, alias, adaptation_id), top_k, include_features, chunk_size
        )
        exchange = PredictExchange(
            timeout_s=self._calls.seconds(timeout) or self._limits.resume_timeout_s,
            connect_timeout_s=self._limits.connect_timeout_s,
            on_progress=on_progress,
        )
        drive = SyncPredict(exchange, self._open_predict, self._calls.wait)
        given = GivenInputs(inputs, columns, "predict_stream")
        return _answers(given, drive.run(ops.bulk_requests(settings, given)))

    def evaluate(
        self,
        model: str,
        examples: Examples,
        *,
        version: int | None = None,
        alias: str | None = None,
        all_places: bool = False,
        on_progress: Callable[[int], None] | None = None,
        timeout: float | None = math.inf,
        **columns: Unpack[TableColumns],
    ) -> EvaluationResult:
        """Measures a version on labelled examples that it was not trained on. Nothing is stored.

        Args:
            model: The model's name.
            examples: Pairs (input, label), `Example`s, or a table, as for `adapt`. Those that the version was
                trained on, or copies of them, are left out of the figures, and named in the result.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            all_places: Whether the result's `trained_on` names all such examples, and not the first 100 alone.
            on_progress: Called with the number of examples sent so far.
            timeout: Deadline of the whole in seconds. By default there is none.
            columns: Of a table, as for `adapt`.

        Where a call breaks, the examples are sent again, for the same version. They are kept for that, beyond 16 MiB in
        a temporary file.
        """
        seconds = self._calls.seconds(timeout)
        table = opened(examples, columns, "evaluate")
        found = self.version(model, version, alias=alias)
        given = table.examples(task=found.report.task, checked=True)
        evaluation = Evaluation(
            model,
            found.version or version or 0,
            connect_timeout_s=self._limits.connect_timeout_s,
            resume_timeout_s=self._limits.resume_timeout_s,
            timeout_s=seconds,
            all_places=all_places,
        )
        batches = ops.batched(example_messages(given.changes, found.report.task), ops.example_batcher())
        result = evaluation_of(SyncEvaluation(evaluation, self._calls).run(batches, on_progress))
        return given.evaluated(result)

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
        otherwise older files stay as they were. Where a call breaks, the rest is asked for in another.

        Args:
            model: The model's name.
            directory: Where to write; made if it does not exist.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            on_progress: Called with the present file's path in the bundle, or what the server is doing before the
                first, and the bytes received in all.
            timeout: Deadline of the whole in seconds. By default there is none.

        Raises:
            DataLossError: The received data differ from the server's digest.
            OSError: The files cannot be written.
        """
        with BundleWriter(directory) as writer:
            export = Export(
                model,
                Selector(version, alias),
                writer,
                connect_timeout_s=self._limits.connect_timeout_s,
                resume_timeout_s=self._limits.resume_timeout_s,
                timeout_s=self._calls.seconds(timeout),
            )
            with closing(messages(self._calls, lambda stubs: stubs.models.ExportModel, export)) as pieces:
                for piece in pieces:
                    if (told := export.receive(piece)) is not None and on_progress is not None:
                        on_progress(*told)
            return writer.finish()

    def watch(self, model: str, adaptation_id: str, *, from_event: int = 0) -> Iterator[Event]:
        """Follows an adaptation's events, the past ones first, until no more can follow.

        A dropped connection is resumed after the last numbered event: none is missed, none comes twice.

        Args:
            model: The model.
            adaptation_id: The adaptation.
            from_event: The number of the first event. 0: all of them.
        """
        cursor = WatchCursor(
            model,
            adaptation_id,
            from_event,
            connect_timeout_s=self._limits.connect_timeout_s,
            resume_timeout_s=self._limits.resume_timeout_s,
        )
        return self._watch(cursor)

    def _open_adapt(self, requests: Iterator[adaptation_pb2.AdaptRequest]) -> Any:
        return self._calls.begin(lambda stubs: stubs.adaptations.Adapt, requests)

    def _open_predict(self, requests: Iterator[prediction_pb2.PredictStreamRequest]) -> Incoming[Any]:
        call = self._calls.begin(lambda stubs: stubs.predictions.PredictStream, requests)
        return self._calls.reading(call, name="graft-predict-read")

    def _watch(self, cursor: WatchCursor) -> Iterator[Event]:
        for message in messages(self._calls, lambda stubs: stubs.adaptations.WatchAdaptation, cursor):
            if (event := cursor.receive(message)) is not None:
                yield event

    def _complete_rejections(self, exchange: AdaptExchange) -> None:
        """Completes the rejections of a resumed adaptation; its outcome stands with or without them."""
        try:
            exchange.complete_rejections(self._events_so_far(exchange))
        except GraftError as error:
            LOG.warning("some rejections may be missing: %s", error)

    def _events_so_far(self, exchange: AdaptExchange) -> list[adaptation_pb2.WatchAdaptationResponse]:
        cursor = EventsCursor(exchange.events_request(), _EVENTS_TIMEOUT_S)
        events: list[adaptation_pb2.WatchAdaptationResponse] = []
        for event in messages(self._calls, lambda stubs: stubs.adaptations.WatchAdaptation, cursor):
            events.append(event)
            if exchange.is_last(event):
                break
        return events


def _answers(given: GivenInputs, predictions: Generator[Prediction, None, None]) -> Iterator[Prediction]:
    """Predictions, with the reasons of the rows that the client refused."""
    with closing(predictions):
        for index, prediction in enumerate(predictions):
            yield given.answer(index, prediction)
