"""Drives an evaluation over blocking gRPC.

The caller's thread brings the examples, opens calls and waits; a thread of gRPC's takes the messages from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from graft._client.calls_sync import SyncCalls
from graft._client.evaluating import Evaluation, Request
from graft._transport.reading_sync import end
from graft.errors import CancelledError
from graft.v1 import types_pb2


class _Call:
    """One call: live until it is given up."""

    def __init__(self) -> None:
        self.live = True
        self.future: Any = None


class SyncEvaluation:
    """One `evaluate` or `suggest` of the blocking client."""

    def __init__(self, evaluation: Evaluation, calls: SyncCalls, method: Callable[[Any], Any]) -> None:
        """Begins one.

        Args:
            evaluation: Its messages.
            calls: Makes the calls.
            method: The method that is called, of the stubs.
        """
        self._method = method
        self._evaluation = evaluation
        self._calls = calls
        self._changed = threading.Condition()
        self._call: _Call | None = None

    def run(
        self, batches: Iterable[list[types_pb2.Example]], on_progress: Callable[[int], None] | None
    ) -> Any:
        """Sends the examples as they come, and returns what the server found.

        Raises:
            GraftError: There is no result.
        """
        try:
            self._open()
            answer = self._send(batches, on_progress)
            while answer is None:
                answer = self._waited()
            return answer
        finally:
            self._hang_up()
            with self._changed:
                self._evaluation.close()

    def _send(
        self, batches: Iterable[list[types_pb2.Example]], on_progress: Callable[[int], None] | None
    ) -> Any | None:
        """Sends all examples, unless the server answers before it has them."""
        sent = 0
        for batch in batches:
            with self._changed:
                self._evaluation.add(batch)
                self._changed.notify_all()
            sent += len(batch)
            if on_progress is not None:
                on_progress(sent)
            while not self._evaluation.has_room:
                if (answer := self._waited()) is not None:
                    return answer
        with self._changed:
            self._evaluation.end()
            self._changed.notify_all()
        return None

    def _waited(self) -> Any | None:
        """Waits for the server to take a message or to answer; opens another call where this one broke."""
        call = self._call or self._open()
        with self._changed:
            if not call.future.done():
                self._changed.wait(self._evaluation.left_s())
        if not call.future.done():
            return None
        try:
            answer: Any = call.future.result(timeout=0)
        except grpc.RpcError:
            error = self._calls.error_of(call.future)
        except grpc.FutureCancelledError:
            error = CancelledError("The call was cancelled.")
        else:
            return answer
        self._hang_up()
        self._calls.wait(self._evaluation.broken(error))
        return None

    def _open(self) -> _Call:
        with self._changed:
            self._evaluation.opened()
        call = _Call()
        call.future = self._calls.begin(
            lambda stubs: self._method(stubs).future,
            self._requests(call),
            self._evaluation.deadline_s(),
        )
        self._call = call
        call.future.add_done_callback(self._ended)
        return call

    def _ended(self, _: Any) -> None:
        with self._changed:
            self._changed.notify_all()

    def _requests(self, call: _Call) -> Iterator[Request]:
        while (message := self._next(call)) is not None:
            yield message

    def _next(self, call: _Call) -> Request | None:
        with self._changed:
            while call.live:
                if (message := self._evaluation.next_message()) is not None:
                    self._changed.notify_all()
                    return message
                if self._evaluation.all_sent:
                    return None
                self._changed.wait()
        return None

    def _hang_up(self) -> None:
        if self._call is None:
            return
        call, self._call = self._call, None
        with self._changed:
            call.live = False
            self._changed.notify_all()
        end(call.future)
