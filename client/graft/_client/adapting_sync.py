"""The blocking client's adaptations: teaching a model, and checking what would be taught."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Unpack

from graft._client import operations as ops
from graft._client.bases import based, with_meanwhile
from graft._client.calls_sync import SyncCalls, messages
from graft._client.given import opened
from graft._client.requests_sync import SyncRequests
from graft._progress.adapting import shown
from graft._records.adapting.told import AdaptProgress, AdaptResult, CheckResult, Outcome
from graft._records.inputs.examples import LabelsLike
from graft._streams.adapt import AdaptExchange
from graft._streams.adapt_sync import SyncAdapt
from graft._streams.limits import Limits
from graft._streams.options import AdaptOptions, FineTuning
from graft._streams.preparing import prepared
from graft._streams.start import new_exchange
from graft._streams.watch import EventsCursor
from graft._tables.options import Examples, TableColumns
from graft.errors import GraftError
from graft.v1 import adaptation_pb2

LOG = logging.getLogger("graft")

_EVENTS_TIMEOUT_S = 30.0
"""For completing a resumed adaptation's rejections from its events."""


class SyncAdapting(SyncRequests):
    """The calls that stream examples in."""

    def __init__(self, calls: SyncCalls, limits: Limits) -> None:
        super().__init__(calls)
        self._limits = limits

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
                the report's `data.unlabelled_examples`, and trained on where that makes a model of one label better
                (`report.unlabelled`). The texts "nan", "NA", "None" and "null" are labels. Missing members of sets and
                distributions are left out. Booleans, numbers, NumPy's scalars
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
        fine_tuning: FineTuning | None = None,
        time_budget: float | None = None,
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
            fine_tuning: As for `adapt`.
            time_budget: As for `adapt`.
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
            fine_tuning=fine_tuning,
            time_budget=time_budget,
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

    def _ask(self, operation: ops.Operation[Any]) -> Any:
        """Asks what an adaptation has to know before it starts, or when it is done."""
        return self._calls.run(operation, self._limits.connect_timeout_s)

    def _open_adapt(self, requests: Iterator[adaptation_pb2.AdaptRequest]) -> Any:
        return self._calls.begin(lambda stubs: stubs.adaptations.Adapt, requests)

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
