"""Watching an adaptation over however many calls it takes, without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

from graft._records.records import Event, event_of
from graft._transport.retry import Backoff, is_resumable
from graft.errors import GraftError
from graft.v1 import adaptation_pb2


class WatchCursor:
    """Where a watcher is among an adaptation's numbered events."""

    def __init__(
        self,
        model: str,
        adaptation_id: str,
        from_event: int,
        *,
        resume_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._adaptation_id = adaptation_id
        self._from_event = from_event
        self._resume_timeout_s = resume_timeout_s
        self._clock = clock
        self._backoff = Backoff()
        self._last_heard: float | None = None

    def request(self) -> adaptation_pb2.WatchAdaptationRequest:
        """What to send for the events that were not seen yet."""
        return adaptation_pb2.WatchAdaptationRequest(
            model=self._model, adaptation_id=self._adaptation_id, from_event=self._from_event
        )

    def receive(self, message: adaptation_pb2.WatchAdaptationResponse) -> Event:
        """Takes in one message."""
        self._last_heard = self._clock()
        self._backoff.reset()
        if message.event:
            self._from_event = message.event + 1
        return event_of(message)

    def broken(self, error: GraftError) -> float:
        """Takes in the failure of a call and returns how long to wait before the next.

        Raises:
            GraftError: There is no point in another.
        """
        # The first call is gRPC's to retry: a server that never answered is not worth five minutes.
        if self._last_heard is None or not is_resumable(error):
            raise error
        if self._clock() - self._last_heard > self._resume_timeout_s:
            raise error
        return self._backoff.next_s()
