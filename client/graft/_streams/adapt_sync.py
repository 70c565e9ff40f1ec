"""Drives an adaptation's exchange over blocking gRPC.

Four threads meet here, under one lock: the caller's, which brings the examples; gRPC's, which takes
requests from us; a reader for each call; and a supervisor, which opens calls, notices dead ones and waits
between them. Reading never waits for sending, or a server that is slowed by unread answers would block
both sides.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc

from graft._records.adapting.told import AdaptProgress, AdaptResult, Outcome
from graft._streams.adapt import AdaptExchange
from graft._transport.reading_sync import end, start
from graft.errors import GraftError, client_closed, from_call
from graft.v1 import adaptation_pb2

# What grpc returns for a stream is a call and an iterator at once, which it has no public name for.
OpenCall = Callable[[Iterator[adaptation_pb2.AdaptRequest]], Any]
Connecting = Callable[[float], AbstractContextManager[None]]
"""Makes gRPC connect for as long as the context lasts, at most for the given seconds."""
_GOODBYE_S = 1.0
"""How long the server is given to end a call that has its outcome."""


class _Conversation:
    """One call: live until its reader has seen the end of it, or it is given up."""

    def __init__(self) -> None:
        self.live = True
        self.ended = False
        self.error: GraftError | None = None


class SyncAdapt:
    """One `adapt` of the blocking client."""

    def __init__(
        self,
        exchange: AdaptExchange,
        open_call: OpenCall,
        connecting: Connecting,
        on_progress: Callable[[AdaptProgress], None] | None = None,
        on_published: Callable[[Outcome], None] | None = None,
        *,
        error_of: Callable[[Any], GraftError] = from_call,
    ) -> None:
        self._exchange = exchange
        self._open_call = open_call
        self._connecting = connecting
        self._on_progress = on_progress
        self._on_published = on_published
        self._error_of = error_of
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._stopped = False
        self._crash: BaseException | None = None

    def run(self, examples: Iterable[adaptation_pb2.ExampleChange]) -> AdaptResult:
        """Streams the examples, commits, and returns the outcome.

        Raises:
            GraftError: There is no version.
        """
        supervisor = threading.Thread(target=self._supervise, name="graft-adapt", daemon=True)
        try:
            start(supervisor)
            for example in examples:
                if not self._add(example):
                    break
            return self._outcome()
        except BaseException as error:
            if not isinstance(error, GraftError):
                error.add_note(self._exchange.left_as())
            raise
        finally:
            self._give_lock_back()
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            with contextlib.suppress(RuntimeError):  # an interrupt came before it was seen to have started
                supervisor.join()

    def stop(self) -> None:
        """Ends it, from another thread, because the client is closed."""
        with self._changed:
            self._exchange.fail(client_closed())
            self._changed.notify_all()

    def _give_lock_back(self) -> None:
        """Lets go of the lock where KeyboardInterrupt came after it was taken and before its block was entered."""
        with contextlib.suppress(RuntimeError):  # it is not ours, as it should be
            while True:
                self._lock.release()

    def _add(self, example: adaptation_pb2.ExampleChange) -> bool:
        with self._changed:
            while not self._exchange.has_room and not self._over:
                self._changed.wait()
            if self._over:
                return False
            if self._exchange.add(example):
                self._changed.notify_all()
        return True

    def _outcome(self) -> AdaptResult:
        with self._changed:
            self._exchange.end()
            self._changed.notify_all()
            while not self._over:
                self._changed.wait()
        if self._crash is not None:
            raise self._crash
        if self._exchange.result is None:
            raise self._exchange.failure or GraftError("The adaptation was stopped.")
        return self._exchange.result

    @property
    def _over(self) -> bool:
        return self._exchange.done or self._stopped or self._crash is not None

    def _supervise(self) -> None:
        try:
            while not self._over:
                error = self._converse()
                if self._stopped:
                    return
                with self._changed:
                    delay_s = self._exchange.closed(error)
                    self._changed.notify_all()
                self._report()
                with self._connecting(delay_s), self._changed:
                    self._changed.wait_for(lambda: self._over, timeout=delay_s)
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._fail(error)

    def _converse(self) -> GraftError | None:
        """Holds one call, from its opening to its end, and returns what it ended with."""
        talk = _Conversation()
        with self._changed:
            self._exchange.opened()
        try:
            call = self._open_call(self._requests(talk))
            reader = threading.Thread(
                target=self._read, args=(call, talk), name="graft-adapt-read", daemon=True
            )
            start(reader)
        except GraftError as error:
            with self._changed:
                self._exchange.fail(error)
            return error
        with self._changed:
            while not (talk.ended or self._over or self._exchange.wants_another_call):
                self._changed.wait(self._exchange.look_s())
                self._exchange.give_up_if_overdue()
            if self._exchange.result is not None:
                self._changed.wait_for(lambda: talk.ended, _GOODBYE_S)
            talk.live = False
            self._changed.notify_all()
        gave_up = not talk.ended
        end(call)
        reader.join(_GOODBYE_S)
        return None if gave_up else talk.error

    def _requests(self, talk: _Conversation) -> Iterator[adaptation_pb2.AdaptRequest]:
        while (request := self._next_request(talk)) is not None:
            yield request

    def _next_request(self, talk: _Conversation) -> adaptation_pb2.AdaptRequest | None:
        with self._changed:
            while talk.live and not self._over:
                if (request := self._exchange.next_request()) is not None:
                    return request
                if self._exchange.half_closed:
                    return None
                self._changed.wait(self._exchange.wait_s())
        return None

    def _read(self, call: Any, talk: _Conversation) -> None:
        error: GraftError | None = None
        try:
            for message in call:
                with self._changed:
                    if talk.live:
                        self._exchange.receive(message)
                        self._changed.notify_all()
                self._report()
        except grpc.RpcError:
            error = self._error_of(call)
        except BaseException as crash:  # noqa: BLE001  (raised again in the caller's thread)
            self._fail(crash)
        with self._changed:
            talk.ended, talk.error = True, error
            self._changed.notify_all()

    def _report(self) -> None:
        with self._changed:
            progress, outcomes = self._exchange.progress(), self._exchange.take_outcomes()
        for outcome in outcomes:
            if self._on_published is not None:
                self._on_published(outcome)
        if self._on_progress is not None:
            self._on_progress(progress)

    def _fail(self, crash: BaseException) -> None:
        with self._changed:
            if self._exchange.failure is None:  # otherwise what crashed is a consequence
                self._crash = crash
            self._changed.notify_all()
