"""The client's side of one `Adapt`, without any I/O: what to send, what answers mean, when to give up.

The surprising part is that one exchange outlives its calls. What was sent but not acknowledged is held; a
new call of the same adaptation and writer says where the server is, and the exchange goes on from there.
The commit is repeated with the same id, so that however often the call breaks, every example is learned
once and one version is published.

Two things are watched. Liveness: a server sends something every 20 s, so a call on which nothing comes for
three times that long is given up and opened anew. Acknowledgement: what was sent must be acknowledged, and a
commit be said to be durable; keep-alives are no answer to that. Where nothing is owed to us (the examples are
slow in coming, or a durable commit is being trained), being alive is enough.

A driver (`adapt_sync`, `adapt_async`) owns the exchange, its lock, its threads or tasks, and the waiting.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from graft._records.adapting.told import AdaptProgress, AdaptResult, Outcome, outcome_of
from graft._records.evaluation.report_messages import report_of
from graft._records.extensions import Extension, extension_if
from graft._records.records import NOTHING_TOLD, Progress, live_of, progress_of, rejection_of
from graft._streams.extending import FEWER, far_fewer, not_extended
from graft._streams.limits import BATCH_BYTES, BATCH_EXAMPLES, BATCH_WAIT_S, Limits
from graft._streams.lost import acknowledged_lost, given_up
from graft._transport.retry import Backoff, is_resumable
from graft.errors import GraftError, Rejection, UnavailableError, from_status
from graft.v1 import adaptation_pb2, report_pb2

_LONGEST_LOOK_S: Final = 5.0
_SHORTEST_LOOK_S: Final = 0.05
_MAX_REJECTIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Held:
    change: adaptation_pb2.ExampleChange
    size: int


class AdaptExchange:
    """One adaptation's examples, its commit and its outcome, over all of its calls."""

    def __init__(
        self,
        start: adaptation_pb2.AdaptStart,
        commit_id: str,
        *,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        close: bool = True,
        append: bool = False,
    ) -> None:
        """Begins an exchange that has not called yet.

        Args:
            start: What each call begins with.
            commit_id: Of the commit at the end of the examples.
            limits: How much is held and how long is waited.
            backoff: How long to wait between calls.
            clock: Seconds, never going back.
            close: Whether that commit ends the adaptation.
            append: Whether the examples follow on what the writer sent before, rather than repeat it.
        """
        self.result: AdaptResult | None = None
        self.failure: GraftError | None = None
        self._start = start
        self._commit_id = commit_id
        self._limits = limits or Limits()
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._close = close
        self._append = append

        # Sequence numbers: _durable <= sent ones < _next. Held are those in between, oldest first.
        self._durable = 0
        self._next = 0
        self._first = 0
        self._ended = False
        self._unacknowledged: deque[_Held] = deque()
        self._unsent: deque[_Held] = deque()
        self._held_bytes = 0
        self._unsent_bytes = 0
        self._unsent_since = 0.0

        # Of the present call.
        self._reconnect = False
        self._start_sent = False
        self._started = False
        self._commit_sent = False
        self._last_heard = clock()

        # Of all calls.
        self._ever_heard = False
        self._ever_started = False
        self._calls = 0
        self._resumed = False
        self._last_progress = clock()
        self._rejected: dict[int, Rejection] = {}
        self._rejected_count = 0
        self._committed = False
        self._base: Extension | None = None
        self._live: adaptation_pb2.LiveVersion | None = None
        self._unpublished = False
        self._outcomes: deque[Outcome] = deque()
        self._version = 0
        self._stream_progress = NOTHING_TOLD
        self._began = clock()
        self._server_progress: Progress | None = None
        self._trouble: GraftError | None = None

    # What the caller brings.

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.result is not None or self.failure is not None

    @property
    def has_room(self) -> bool:
        """Whether another example may be held."""
        held = len(self._unacknowledged) + len(self._unsent)
        return held == 0 or (
            held < self._limits.window_examples and self._held_bytes < self._limits.window_bytes
        )

    def add(self, change: adaptation_pb2.ExampleChange) -> bool:
        """Takes the next change; returns whether a sender that waits should look again."""
        if not self._owed:
            self._last_progress = self._clock()  # from now on something is
        sequence = self._next
        self._next += 1
        if sequence < self._durable:  # An earlier process had it acknowledged already.
            return False
        held = _Held(change, change.ByteSize() + 8)
        if not self._unsent:
            self._unsent_since = self._clock()
        self._unsent.append(held)
        self._unsent_bytes += held.size
        self._held_bytes += held.size
        return len(self._unsent) == 1 or self._has_full_batch

    def end(self) -> None:
        """Notes the end of the examples: commit when the last one is acknowledged."""
        self._ended = True

    # What to send.

    @property
    def half_closed(self) -> bool:
        """Whether nothing more is to be sent on this call."""
        return self._commit_sent or self.done

    def opened(self) -> None:
        """Begins a new call."""
        self._calls += 1
        self._start_sent = self._started = self._commit_sent = False
        self._reconnect = False
        self._last_heard = self._clock()

    def next_request(self) -> adaptation_pb2.AdaptRequest | None:
        """The next message to send, or None if there is nothing to send yet."""
        if not self._start_sent:
            self._start_sent = True
            return adaptation_pb2.AdaptRequest(start=self._start)
        if not self._started or self.half_closed:
            return None
        if self._unsent and (self.wait_s() or 0.0) <= 0.0:
            return adaptation_pb2.AdaptRequest(examples=self._take_batch())
        if self._ended and self._durable >= self._next:
            self._commit_sent = True
            self._last_progress = self._clock()
            commit = adaptation_pb2.Commit(
                commit_id=self._commit_id, next_sequence=self._next, close=self._close
            )
            return adaptation_pb2.AdaptRequest(commit=commit)
        return None

    def wait_s(self) -> float | None:
        """In how many seconds `next_request` may have something although nothing happens; None: never."""
        if not self._started or not self._unsent:
            return None
        if self._ended or self._has_full_batch:
            return 0.0
        return max(0.0, self._unsent_since + BATCH_WAIT_S - self._clock())

    # What comes back.

    @property
    def wants_another_call(self) -> bool:
        """Whether this call is to be given up: the server asked for it, or has not been heard for long."""
        return self._reconnect or self._clock() - self._last_heard > self._silence_s

    def look_s(self) -> float:
        """In how many seconds to see whether the server is silent, or owes us something for too long."""
        left_s = self._last_heard + self._silence_s - self._clock()
        if self._owed or not self._started:
            left_s = min(left_s, self._last_progress + self._limits.resume_timeout_s - self._clock())
        return min(max(left_s, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)

    def give_up_if_overdue(self) -> None:
        """Fails the exchange where a call is alive, but what was sent has not been acknowledged for too long."""
        waited_s = self._clock() - self._last_progress
        if self.done or waited_s <= self._limits.resume_timeout_s:
            return
        if not self._started or self._owed:
            what = "acknowledged none of what it was sent" if self._started else "did not answer the start"
            self.fail(UnavailableError(f"The server kept the call alive for {waited_s:.0f} s, but {what}."))

    def take_outcomes(self) -> list[Outcome]:
        """Returns the outcomes of commits since the last call."""
        outcomes = list(self._outcomes)
        self._outcomes.clear()
        return outcomes

    @property
    def may_lack_rejections(self) -> bool:
        """Whether some were sent on a call that broke before they arrived; the events up to the outcome have all."""
        return self._resumed and (self.result is not None or self._unpublished)

    def receive(self, message: adaptation_pb2.AdaptResponse) -> None:
        """Processes one message from the server."""
        self._last_heard = self._clock()
        self._ever_heard = True
        if (
            self._started and not self._owed
        ):  # more than an answer to start, which a server may give and then die
            self._advance()
        match message.WhichOneof("message"):
            case "started":
                self._receive_started(message.started)
            case "accepted":
                self._receive_accepted(message.accepted)
            case "committed":
                self._receive_committed(message.committed)
            case "published":
                self._receive_published(message.published)
            case "publication_failed":
                self._receive_failed(message.publication_failed)
            case "progress":
                self._receive_progress(message.progress)
            case "reconnect":
                self._reconnect = True
            case _:  # From a newer server; nothing that we need.
                pass

    def closed(self, error: GraftError | None) -> float:
        """Takes in the end of the call and returns how many seconds to wait before the next one.

        Args:
            error: What the call ended with; None where it ended well or was given up from here.
        """
        if self.done:
            return 0.0
        if error is not None and (self._start.validate_only or not is_resumable(error)):
            self.fail(error)  # of a check the server keeps nothing that could be gone on from
            return 0.0
        limit_s = self._limits.resume_timeout_s if self._ever_started else self._limits.connect_timeout_s
        if (waited_s := self._clock() - self._last_progress) > limit_s:
            self.fail(given_up(error, waited_s, heard=self._ever_started))
            return 0.0
        self._trouble = error or UnavailableError("The call went silent, or the server ended it.")
        self._started = False  # until the next call is: what is wrong is told meanwhile
        asked_s = (error.retry_after or 0.0) if error is not None else 0.0
        return min(max(self._backoff.next_s(), asked_s), limit_s - waited_s)

    def fail(self, error: GraftError) -> None:
        """Ends the exchange without a version."""
        if not self.done:
            error.add_note(
                f"adaptation_id={self._start.adaptation_id!r} of model {self._start.model!r}, "
                f"{self._durable:,} examples acknowledged"
            )
            error.rejections, error.rejected_count = self._rejections(), self._rejected_count
            self.failure = error

    def left_as(self) -> str:
        """How things stand on the server for whoever leaves the exchange as it is, and what to do."""
        which = f"({self._start.model!r}, {self._start.adaptation_id!r})"
        if self._committed and not self.done:
            return (
                f"The server goes on training, and publishes the version when it is done: client.watch{which} follows "
                f"it, client.cancel{which} stops it. [adaptation_id={self._start.adaptation_id!r}]"
            )
        return (
            f"adaptation_id={self._start.adaptation_id!r} can be resumed: {self._durable:,} examples are stored, and "
            f"the same call with this adaptation_id goes on. client.cancel{which} gives it up."
        )

    def events_request(self) -> adaptation_pb2.WatchAdaptationRequest:
        """What to ask for the adaptation's events."""
        return adaptation_pb2.WatchAdaptationRequest(
            model=self._start.model, adaptation_id=self._start.adaptation_id
        )

    def is_last(self, event: adaptation_pb2.WatchAdaptationResponse) -> bool:
        """Whether what follows an event came after our commit's outcome; an adaptation that is open has no end."""
        return self._commit_id in (event.published.commit_id, event.publication_failed.commit_id)

    def complete_rejections(self, events: Iterable[adaptation_pb2.WatchAdaptationResponse]) -> None:
        """Replaces the rejections of a resumed adaptation by those of its events, which are all there."""
        self._rejected.clear()
        self._rejected_count = 0
        for event in events:
            for rejection in event.rejected.rejected:
                if rejection.writer_id in ("", self._start.writer_id or "default"):
                    self._reject(rejection_of(rejection))
        if self.result is not None:
            self.result = self._with_rejections(self.result)
        if self.failure is not None:
            self.failure.rejections, self.failure.rejected_count = self._rejections(), self._rejected_count

    def progress(self) -> AdaptProgress:
        """The progress of the exchange."""
        server = self._server_progress
        told = server or (NOTHING_TOLD if self._committed else self._stream_progress)
        return AdaptProgress(
            adaptation_id=self._start.adaptation_id,
            stage=self._stage(),
            sent=max(self._durable, self._next - len(self._unsent)) - self._first,
            acknowledged=self._durable - self._first,
            rejected=self._rejected_count,
            fraction=1.0 if self.result else server.fraction if server else 0.0,
            metrics={**self._stream_progress.metrics, **(server.metrics if server else {})},
            version=self._version,
            eta_s=told.eta_s,
            reconnects=max(0, self._calls - 1),
            trouble=None if self._started else self._trouble,
            first_sequence=self._first,
            extension=self._base,
            done=told.done,
            total=told.total,
            unit=told.unit,
            elapsed_s=self._clock() - self._began,
            commit_id=self._commit_id if self._committed else "",
        )

    @property
    def _silence_s(self) -> float:
        """How long a call may be without any message: at most the bound on what is waited for."""
        limits = self._limits
        bound_s = limits.resume_timeout_s if self._ever_heard else limits.connect_timeout_s
        return min(limits.silence_s, bound_s)

    @property
    def _owed(self) -> bool:
        """Whether the server owes us an acknowledgement, or the word that our commit is durable."""
        if self._commit_sent:
            return not self._committed
        return bool(self._unacknowledged or self._unsent)

    @property
    def _has_full_batch(self) -> bool:
        return len(self._unsent) >= BATCH_EXAMPLES or self._unsent_bytes >= BATCH_BYTES

    def _take_batch(self) -> adaptation_pb2.ExampleBatch:
        batch = adaptation_pb2.ExampleBatch(first_sequence=self._next - len(self._unsent))
        size = 0
        while self._unsent and len(batch.changes) < BATCH_EXAMPLES:
            held = self._unsent[0]
            if size and size + held.size > BATCH_BYTES:
                break
            self._unsent.popleft()
            batch.changes.append(held.change)
            self._unacknowledged.append(held)
            size += held.size
        self._unsent_bytes -= size
        self._unsent_since = self._clock()
        return batch

    def _receive_started(self, started: adaptation_pb2.Started) -> None:
        if started.next_sequence < self._durable:
            self.fail(acknowledged_lost(self._durable, started.next_sequence))
            return
        if not self._ever_started and (unknown := not_extended(self._start, started)) is not None:
            self.fail(unknown)
            return
        if self._append and not self._ever_started:
            self._first = started.next_sequence
            self._next += self._first
            self._durable = self._first
        if not self._ever_started:
            self._live = started.live if started.HasField("live") else None
        self._base = extension_if(started.extension, is_set=started.HasField("extension"))
        self._resumed |= started.next_sequence > self._first
        self._ever_started = self._started = True
        self._trouble = None
        self._server_progress = None
        self._acknowledge(started.next_sequence)
        # What the broken call had sent and nobody acknowledged goes first, in its old order.
        self._unsent.extendleft(reversed(self._unacknowledged))
        self._unacknowledged.clear()
        self._unsent_bytes = self._held_bytes
        self._unsent_since = self._clock() - BATCH_WAIT_S

    def _receive_accepted(self, accepted: adaptation_pb2.Accepted) -> None:
        for rejection in accepted.rejected:
            self._reject(rejection_of(rejection))
        if accepted.next_sequence > self._durable:
            self._acknowledge(accepted.next_sequence)
            self._advance()

    def _receive_committed(self, committed: adaptation_pb2.Committed) -> None:
        if committed.commit_id != self._commit_id:
            return
        self._committed = True
        self._advance()
        if self._start.validate_only and not self.done:
            foreseen = extension_if(committed.extension, is_set=committed.HasField("extension"))
            self.result = self._with_rejections(self._result(0, report_pb2.Report(), foreseen))

    def _receive_progress(self, progress: adaptation_pb2.Progress) -> None:
        if progress.commit_id == self._commit_id:
            self._advance()
        if not self._started:
            if progress.stage:  # a backbone is loaded, say, before the start can be answered
                self._server_progress = progress_of(progress)
                self._advance()
        elif progress.commit_id:
            self._server_progress = progress_of(progress)
        elif progress.stage:
            self._stream_progress = progress_of(progress)

    def _receive_published(self, published: adaptation_pb2.Published) -> None:
        self._outcomes.append(outcome_of(published))
        self._version = max(self._version, published.version)
        self._server_progress = None
        if published.commit_id == self._commit_id and not self.done:
            extension = extension_if(published.extension, is_set=published.HasField("extension"))
            result = self._result(published.version, published.summary, extension)
            self.result = self._with_rejections(replace(result, **live_of(published)))
            self._advance()

    def _result(self, version: int, report: report_pb2.Report, extension: Extension | None) -> AdaptResult:
        fewer = far_fewer(version, report, self._live) if self._base is None else ""
        if fewer:
            FEWER.warning("%s", fewer)
        return AdaptResult(
            model=self._start.model,
            version=version,
            adaptation_id=self._start.adaptation_id,
            commit_id=self._commit_id,
            report=replace(report_of(report), model=self._start.model, version=version),
            rejected=(),
            rejected_count=0,
            notices=(fewer,) if fewer else (),
            extension=extension,
        )

    def _receive_failed(self, failed: adaptation_pb2.PublicationFailed) -> None:
        self._outcomes.append(outcome_of(failed))
        self._server_progress = None
        if failed.commit_id == self._commit_id:
            self._unpublished = True
            self.fail(from_status(failed.status))
            self._advance()

    def _acknowledge(self, next_sequence: int) -> None:
        for queue in (self._unacknowledged, self._unsent):
            while queue and self._durable < next_sequence:
                held = queue.popleft()
                self._held_bytes -= held.size
                if queue is self._unsent:
                    self._unsent_bytes -= held.size
                self._durable += 1
        self._durable = max(self._durable, next_sequence)

    def _advance(self) -> None:
        self._last_progress = self._clock()
        self._backoff.reset()

    def _reject(self, rejection: Rejection) -> None:
        if rejection.sequence in self._rejected:
            return
        self._rejected_count += 1
        if len(self._rejected) < _MAX_REJECTIONS:
            self._rejected[rejection.sequence] = rejection

    def _with_rejections(self, result: AdaptResult) -> AdaptResult:
        return replace(result, rejected=self._rejections(), rejected_count=self._rejected_count)

    def _rejections(self) -> tuple[Rejection, ...]:
        return tuple(self._rejected[sequence] for sequence in sorted(self._rejected))

    def _stage(self) -> str:
        if self.result is not None:
            return "published"
        if not self._started and self._server_progress is None:
            return "connecting"
        if self._server_progress is not None and self._server_progress.stage:
            return self._server_progress.stage
        return "committed" if self._committed else "streaming"
