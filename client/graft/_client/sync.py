"""The blocking client."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from graft._client import operations as ops
from graft._client.adapting_sync import SyncAdapting
from graft._client.bundle import Bundle, BundleWriter
from graft._client.calls_sync import ClientInterceptor, SyncCalls, messages
from graft._client.evaluating import Evaluation
from graft._client.evaluating_sync import SyncEvaluation
from graft._client.exporting import Export
from graft._client.given import GivenInputs, opened
from graft._client.operations import PredictSettings, Selector
from graft._client.suggesting import COUNT, Suggesting, with_stored
from graft._records.adapting.told import Event
from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.report_messages import evaluation_of
from graft._records.inputs.examples import example_messages
from graft._records.predicting.predictions import Prediction
from graft._records.predicting.suggestions import Suggestions
from graft._streams.limits import Limits
from graft._streams.predict import PredictExchange
from graft._streams.predict_sync import SyncPredict
from graft._streams.watch import WatchCursor
from graft._tables.options import Examples, InputColumns, Inputs, TableColumns
from graft._transport.authentication import Auth, Metadata
from graft._transport.channel import CONNECT_TIMEOUT_S, KEEP_ALIVE_S
from graft._transport.reading_sync import Incoming
from graft._transport.targets import default_target
from graft.v1 import prediction_pb2


class Client(SyncAdapting):
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
        super().__init__(calls, Limits(connect_timeout_s=connect_timeout, resume_timeout_s=resume_timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every call and the connection."""
        self._calls.close()

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
            ops.evaluate_request(model, found.version or version or 0, all_places=all_places),
            connect_timeout_s=self._limits.connect_timeout_s,
            resume_timeout_s=self._limits.resume_timeout_s,
            timeout_s=seconds,
        )
        batches = ops.batched(example_messages(given.changes, found.report.task), ops.example_batcher())
        driver = SyncEvaluation(evaluation, self._calls, lambda stubs: stubs.models.EvaluateModel)
        return given.evaluated(evaluation_of(driver.run(batches, on_progress)))

    def suggest(
        self,
        model: str,
        candidates: Inputs | None = None,
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
        """Says which candidates are worth a label next: those whose labels would teach a version most.

        What counts is how little the version knows of a candidate, how many others are like it, and how unlike it is to
        what is labelled and to the suggestions before it. Near copies of either are not suggested. Nothing is stored.

        Args:
            model: The model's name. If it has no version, candidates are compared with each other alone: so the first
                examples to label are found, too.
            candidates: Unlabelled inputs, or a table of them, as for `predict`; at most 100,000.
            n: How many suggestions at most, 1 to 1,000.
            stored: Whether the unlabelled examples that the version was made with are candidates, too. None: where no
                others are given.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            backbone: Where the model has no version: what candidates are compared by. Empty: the server's default.
            on_progress: Called with the number of candidates sent so far.
            timeout: Deadline of the whole in seconds. By default there is none.
            columns: Of a table, as for `predict`.

        Returns:
            The suggestions, the best first.

        Raises:
            NotFoundError: There is no such version.
            InvalidArgumentError: There is no candidate, or there are too many.

        Where a call breaks, the candidates are sent again. They are kept for that, beyond 16 MiB in a temporary file.
        """
        asked = Suggesting(
            model, Selector(version, alias), n, candidates is None if stored is None else stored, backbone
        )
        given = None if candidates is None else GivenInputs(candidates, columns, "suggest")
        evaluation = asked.evaluation(self._limits, self._calls.seconds(timeout))
        driver = SyncEvaluation(evaluation, self._calls, lambda stubs: stubs.models.SuggestExamples)
        found = asked.suggestions(driver.run(asked.batches(given), on_progress))
        wanted = asked.inputs_wanted(found)
        return found if wanted is None else with_stored(found, self._calls.run(wanted, None))

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

    def _open_predict(self, requests: Iterator[prediction_pb2.PredictStreamRequest]) -> Incoming[Any]:
        call = self._calls.begin(lambda stubs: stubs.predictions.PredictStream, requests)
        return self._calls.reading(call, name="graft-predict-read")

    def _watch(self, cursor: WatchCursor) -> Iterator[Event]:
        for message in messages(self._calls, lambda stubs: stubs.adaptations.WatchAdaptation, cursor):
            if (event := cursor.receive(message)) is not None:
                yield event


def _answers(given: GivenInputs, predictions: Generator[Prediction, None, None]) -> Iterator[Prediction]:
    """Predictions, with the reasons of the rows that the client refused."""
    with closing(predictions):
        for index, prediction in enumerate(predictions):
            yield given.answer(index, prediction)
