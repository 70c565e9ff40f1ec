"""The events of an adaptation, numbered from 1 without gaps, for watchers that must miss none.

Each fact is recorded once, by the first to append it: an appender has read all events before its own, so it
knows whether the fact is among them. That makes it safe to record facts again after a crash.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import msgspec

from graft_server.domain.adaptation import Committed, Event, Fact, Finished, Rejected, StateChanged
from graft_server.store.objects.numbered_log import NumberedLog
from graft_server.store.objects.objects import ObjectExistsError, Objects


class _Entry(msgspec.Struct, frozen=True):
    time: datetime
    fact: Fact


class EventLog:
    """The events of one adaptation. Thread-safe."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self._log: NumberedLog[_Entry] = NumberedLog(objects, folder, _Entry)
        self._lock = threading.Lock()
        self._known: set[tuple[str, ...]] = set()

    def record(self, fact: Fact) -> None:
        """Appends the fact, unless the log has it already."""
        with self._lock:
            while True:
                self._catch_up()
                if _identity(fact) in self._known:
                    return
                try:
                    self._log.append(_Entry(datetime.now(UTC), fact))
                except ObjectExistsError:
                    continue
                self._known.add(_identity(fact))
                return

    def read(self, first: int = 1) -> list[Event]:
        """Returns all events from a number on, oldest first."""
        events: list[Event] = []
        with self._lock:
            while entry := self._log.read(first + len(events)):
                events.append(Event(first + len(events), entry.time, entry.fact))
        return events

    def _catch_up(self) -> None:
        while entry := self._log.read_next():
            self._known.add(_identity(entry.fact))


def _identity(fact: Fact) -> tuple[str, ...]:
    match fact:
        case Rejected():
            return "rejected", fact.writer_id, str(fact.ordinal)
        case Committed():
            return "committed", fact.commit_id
        case Finished():
            return "finished", fact.commit_id
        case StateChanged():
            return "state", fact.state
