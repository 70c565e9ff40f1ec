"""Reads the answers of one blocking call with a bound on every wait.

gRPC's own iterator waits without any; in a thread of its own it may, and whoever waits for the thread need not.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc

from graft._transport import forking
from graft._transport.failures import opening_failed
from graft.errors import GraftError

M = TypeVar("M")

_FAREWELL_S = 1.0
"""How long a thread is waited for whose call was cancelled; it is a daemon, and gRPC may have forgotten it."""


class Incoming(Generic[M]):
    """The answers of one call, in their order, and behind them what the call ended with."""

    def __init__(self, call: Any, error_of: Callable[[Any], GraftError], *, capacity: int, name: str) -> None:
        """Begins to read.

        Args:
            call: What gRPC returned for a call that streams answers.
            error_of: The error that a failed call is.
            capacity: How many messages are read ahead; beyond, the server is slowed down.
            name: The thread's name.
        """
        self._call = call
        self._error_of = error_of
        self._room = threading.Semaphore(capacity)
        self._closed = False
        self._messages: queue.SimpleQueue[M | GraftError | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        start(self._reader)

    def next(self, timeout_s: float) -> M | GraftError | None:
        """The next message, or what the call ended with: an error, or None where it ended well.

        Raises:
            queue.Empty: None came in time.
        """
        message = self._messages.get(timeout=max(0.0, timeout_s))
        self._room.release()
        return message

    def interrupt(self, error: GraftError) -> None:
        """Has whoever waits find an error, from another thread."""
        self._messages.put(error)

    def close(self) -> None:
        """Ends the call and its thread."""
        self._closed = True
        end(self._call)
        self._room.release()
        self._reader.join(_FAREWELL_S)

    def _read(self) -> None:
        messages = iter(self._call)
        try:
            while not self._closed:
                self._room.acquire()
                self._messages.put(next(messages))
        except StopIteration:
            self._messages.put(None)
        except grpc.RpcError:
            self._messages.put(self._error_of(self._call))


def start(thread: threading.Thread) -> None:
    """Starts a thread.

    Raises:
        GraftError: There can be none, at the end of the interpreter for example.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise opening_failed(error, closed=False) from error


def end(call: Any) -> None:
    """Cancels a call, but for one that a parent process made: gRPC is not to be touched there."""
    if forking.usable():
        call.cancel()
