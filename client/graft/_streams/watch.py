"""Watching an adaptation over however many calls it takes, without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

from graft._records.adapting.told import Event, event_of
from graft._transport.progress_timeout import Cursor, ProgressTimeout, keep_alive_s
from graft.errors import GraftError
from graft.v1 import adaptation_pb2


class WatchCursor(Cursor):
    """Where a watcher is among an adaptation's numbered events."""

    def __init__(
        self,
        model: str,
        adaptation_id: str,
        from_event: int,
        *,
        connect_timeout_s: float,
        resume_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            ProgressTimeout(
                "message",
                connect_timeout_s=connect_timeout_s,
                resume_timeout_s=resume_timeout_s,
                clock=clock,
            )
        )
        self._model = model
        self._adaptation_id = adaptation_id
        self._from_event = from_event
        self._keep_alive_s = keep_alive_s(resume_timeout_s)

    def request(self) -> adaptation_pb2.WatchAdaptationRequest:
        """What to send for the events that were not seen yet."""
        request = adaptation_pb2.WatchAdaptationRequest(
            model=self._model, adaptation_id=self._adaptation_id, from_event=self._from_event
        )
        request.keep_alive.FromNanoseconds(round(self._keep_alive_s * 1e9))
        return request

    def receive(self, message: adaptation_pb2.WatchAdaptationResponse) -> Event | None:
        """Takes in one message; None where it says no more than that the server is there."""
        self.progress_timeout.progressed()
        if message.event:
            self._from_event = message.event + 1
        elif message.WhichOneof("what") == "progress" and not message.progress.stage:
            return None
        return event_of(message)


class EventsCursor(Cursor):
    """The events of an adaptation so far, in one call."""

    def __init__(self, request: adaptation_pb2.WatchAdaptationRequest, timeout_s: float) -> None:
        super().__init__(
            ProgressTimeout("event", connect_timeout_s=timeout_s, resume_timeout_s=timeout_s), timeout_s
        )
        self._request = request

    def request(self) -> adaptation_pb2.WatchAdaptationRequest:
        """The request for all of them."""
        return self._request

    def broken(self, error: GraftError) -> float:
        """Raises the error."""
        raise error
