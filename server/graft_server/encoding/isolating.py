"""Keeps the fault of one row to itself: who rides in a batch that fails is answered all the same.

A batch fails as a whole, whichever of its rows is at fault. So it is tried again in halves, down to the row that fails
alone; that costs a few times what the batch cost. Where the encoder, or the tuned layers of a model, do not even answer
a probe, no row is at fault, and nothing is tried again.

A row that failed alone is remembered for a while, and refused without being run again. Its caller is a suspect: its
rows leave the batches that the policy chooses, are held, and run in batches of their own, small ones, and while others
wait only a small part of the time. So a caller that goes on to send such rows delays itself.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from graft_server.domain.caller import NOBODY, Caller
from graft_server.domain.errors import BackboneError, InvalidError, OverloadError
from graft_server.encoding.encoder import NOT_FINITE
from graft_server.encoding.fair_queue import Row, Submission
from graft_server.encoding.queueing import Batch, Group
from graft_server.encoding.tuned_layers import TunedLayers

T = TypeVar("T")

AT_FAULT = "INPUT_NOT_ENCODED"
"""The reason of the error of a row that fails alone."""

SUSPECT_S = 60.0
"""How long after its last fault a caller is a suspect, in seconds."""
MOST_SUSPECTS = 1_024
"""The most suspects that are remembered; the one whose fault is oldest is forgotten first."""
SMALL = 1 / 4
"""The size of a suspect's batches, as a part of the budget: a batch that fails is tried again in halves meanwhile."""
PAUSE = 4.0
"""How long after a suspect's batch the next one waits while others wait, over the time that the batch took."""
MOST_HELD = 8
"""The most batches' worth of suspects' rows that are held; further ones are refused."""
_FULL_RETRY_S = 1.0


def isolated(
    batch: Batch,
    attempt: Callable[[Batch], list[T]],
    failed: Callable[[Batch, Exception], list[T]],
    answers: Callable[[TunedLayers | None], bool],
) -> list[T]:
    """Returns what became of a batch's rows. Runs on the encoder's thread, and never raises.

    Args:
        batch: The rows.
        attempt: Runs a batch; may raise whatever the encoder raises.
        failed: Returns what becomes of rows that have an error: an InvalidError where they are at fault.
        answers: Whether the encoder answers a probe, with these tuned layers.
    """
    try:
        return attempt(batch)
    except Exception as error:  # noqa: BLE001 - whatever it is, rows or the encoder are at fault
        first = error
    found: list[T] = []
    for part in _by_layers(batch):
        if answers(_layers(part)):
            found += _in_halves(part, first, attempt, failed)
        else:
            found += failed(part, first)
    return found


def _in_halves(
    batch: Batch,
    error: Exception,
    attempt: Callable[[Batch], list[T]],
    failed: Callable[[Batch, Exception], list[T]],
) -> list[T]:
    """Returns what became of the rows of a batch that has failed with an error, while a probe succeeds."""
    rows = rows_of(batch)
    if len(rows) == 1:
        return failed(batch, fault(error))
    found: list[T] = []
    middle = len(rows) // 2
    for half in (rows[:middle], rows[middle:]):
        part = batch_of(half, batch)
        try:
            found += attempt(part)
        except Exception as smaller:  # noqa: BLE001 - as above
            found += _in_halves(part, smaller, attempt, failed)
    return found


def fault(error: Exception) -> InvalidError:
    """Returns the error for the sender of a row on which the encoder fails while it answers a probe."""
    if isinstance(error, BackboneError) and error.reason == NOT_FINITE:
        what = "gives features that are not finite numbers for this input"
    else:
        what = "fails on this input"
    return InvalidError(
        f"The backbone's encoder {what}, and answers others: leave this input out, or send it in another form.",
        reason=AT_FAULT,
    )


def rows_of(batch: Batch) -> list[Row]:
    """Returns a batch's rows in their order."""
    return [(submission, place) for submission, places in batch.parts() for place in places]


def batch_of(rows: Sequence[Row], like: Batch) -> Batch:
    """Returns a batch of some rows of another one, n >= 1."""
    groups: list[Group] = []
    for submission, place in rows:
        if not groups or groups[-1][0] != submission.reader:
            groups.append((submission.reader, []))
        parts = groups[-1][1]
        if parts and parts[-1][0] is submission:
            parts[-1][1].append(place)
        else:
            parts.append((submission, [place]))
    return replace(like, groups=groups, length=_length(rows))


def _length(rows: Iterable[Row]) -> int:
    return sum(len(submission.items[place]) for submission, place in rows)


def _layers(batch: Batch) -> TunedLayers | None:
    return batch.groups[0][1][0][0].tuned


def _by_layers(batch: Batch) -> list[Batch]:
    """Returns the rows that go through the same layers as a batch each."""
    found: dict[TunedLayers | None, list[Row]] = {}
    for row in rows_of(batch):
        found.setdefault(row[0].tuned, []).append(row)
    return [batch_of(rows, batch) for rows in found.values()]


class Suspects:
    """Callers whose rows failed alone, and the rows of theirs that wait. Belongs to one event loop.

    The caller passes the time to all methods, in seconds on one clock of its choice.
    """

    def __init__(self, budget: float) -> None:
        """Suspects nobody; `budget` is the length of a usual batch."""
        self._until: OrderedDict[Caller, float] = OrderedDict()
        self._failed: OrderedDict[tuple[int, bytes], tuple[float, InvalidError]] = OrderedDict()
        self._held: deque[Row] = deque()
        self._held_length = 0
        self._like: Batch | None = None
        """The batch that rows were last taken out of, without its rows."""
        self._small = max(1.0, SMALL * budget)
        self._most = MOST_HELD * budget
        self._resume = -math.inf

    @property
    def waiting(self) -> bool:
        """Whether rows of suspects wait."""
        return bool(self._held)

    def note(self, caller: Caller, now: float) -> None:
        """Takes note that a row of a caller failed alone; not of what belongs to no call."""
        caller = _accountable(caller)
        if caller == NOBODY:
            return
        self._until[caller] = now + SUSPECT_S
        self._until.move_to_end(caller)
        if len(self._until) > MOST_SUSPECTS:
            self._until.popitem(last=False)

    def note_row(self, row: Row, error: InvalidError, now: float) -> None:
        """Takes note that a row failed alone: the same one is not run again for a while."""
        digest = _digest(*row)
        self._failed[digest] = now + SUSPECT_S, error
        self._failed.move_to_end(digest)
        if len(self._failed) > MOST_SUSPECTS:
            self._failed.popitem(last=False)

    def known(self, batch: Batch, now: float) -> tuple[Batch | None, list[tuple[Row, InvalidError]]]:
        """Returns a batch without the rows that failed alone lately, None if none is left; and those with errors."""
        while self._failed and next(iter(self._failed.values()))[0] <= now:
            self._failed.popitem(last=False)
        if not self._failed:
            return batch, []
        others: list[Row] = []
        found: list[tuple[Row, InvalidError]] = []
        for row in rows_of(batch):
            failed = self._failed.get(_digest(*row))
            if failed is None:
                others.append(row)
            else:
                found.append((row, failed[1]))
        if not found:
            return batch, []
        return (batch_of(others, batch) if others else None), found

    def taken(self, batch: Batch, now: float) -> tuple[Batch | None, list[Submission]]:
        """Takes suspects' rows out of a batch, and holds them.

        Returns:
            The batch of the others, None if there are none; and the submissions of which there is no room for a row.
        """
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if not self._until:
            return batch, []
        rows = rows_of(batch)
        trusted = [row for row in rows if _accountable(row[0].caller) not in self._until]
        if len(trusted) == len(rows):
            return batch, []
        refused: dict[Submission, None] = {}
        for submission, place in rows:
            if _accountable(submission.caller) not in self._until:
                continue
            length = len(submission.items[place])
            if self._held and self._held_length + length > self._most:
                refused[submission] = None
            else:
                self._held.append((submission, place))
                self._held_length += length
        self._like = replace(batch, groups=[], length=0)
        return (batch_of(trusted, batch) if trusted else None), list(refused)

    def next_batch(self, now: float, *, others_wait: bool) -> Batch | None:
        """Returns the next batch of rows of one suspect; None if none waits, or others go first."""
        if others_wait and now < self._resume:
            return None
        waiting = [row for row in self._held if not row[0].is_over()]
        rows: list[Row] = []
        kept: deque[Row] = deque()
        length = 0
        first = _accountable(waiting[0][0].caller) if waiting else NOBODY
        for submission, place in waiting:
            own = len(submission.items[place])
            if _accountable(submission.caller) == first and (not rows or length + own <= self._small):
                rows.append((submission, place))
                length += own
            else:
                kept.append((submission, place))
        self._held, self._held_length = kept, _length(kept)
        return batch_of(rows, self._like) if rows and self._like else None

    def ran(self, seconds: float, now: float) -> None:
        """Takes note of a suspect's batch that has ended."""
        self._resume = now + PAUSE * seconds

    def expired(self, now: float) -> Iterator[Submission]:
        """Yields the submissions that wait here beyond their deadline; the caller fails them."""
        return (it for it in dict.fromkeys(submission for submission, _ in self._held) if it.deadline < now)

    def clear(self) -> None:
        """Lets go of all rows that wait."""
        self._held.clear()
        self._held_length = 0


def _accountable(caller: Caller) -> Caller:
    """Returns who answers for a fault: whoever is known, or else the connection, whichever call it was in."""
    if caller.identity:
        return Caller(caller.identity)
    return Caller(connection=caller.connection) if caller.connection else caller


def _digest(submission: Submission, place: int) -> tuple[int, bytes]:
    """Returns what is equal for equal items that go through the same layers; it does not keep these in memory."""
    item: Any = submission.items[place]
    values = np.ascontiguousarray(getattr(item, "values", item))
    return id(submission.tuned), hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def no_room() -> OverloadError:
    """Returns the error for a suspect that sends more than is held."""
    return OverloadError(
        "Inputs of this caller failed in the encoder, so its inputs run apart from those of others, and as many of "
        f"them wait as are accepted: try again after {_FULL_RETRY_S:g} s, without the inputs that failed.",
        reason="QUEUE_FULL",
        retry_after_s=_FULL_RETRY_S,
    )
