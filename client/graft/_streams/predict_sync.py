"""Drives a bulk prediction over blocking gRPC.

The caller's own thread takes the inputs, sends, waits and gives out; a thread for each call only reads.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from graft._records.predicting.predictions import Prediction
from graft._streams.predict import PredictExchange
from graft._transport.reading_sync import Incoming
from graft.errors import GraftError
from graft.v1 import prediction_pb2

Answers = Incoming[prediction_pb2.PredictStreamResponse]
OpenCall = Callable[[Iterator[prediction_pb2.PredictStreamRequest]], Answers]
"""Begins a call, and to read from it."""


class SyncPredict:
    """One `predict_stream` of the blocking client."""

    def __init__(
        self,
        exchange: PredictExchange,
        open_call: OpenCall,
        wait: Callable[[float], None],
    ) -> None:
        self._exchange = exchange
        self._open_call = open_call
        self._wait_to_call = wait
        self._call: _Call | None = None

    def run(self, requests: Iterable[prediction_pb2.PredictRequest]) -> Generator[Prediction, None, None]:
        """Asks them all, as they come, and gives out the predictions in their order.

        Raises:
            GraftError: A request was refused, or no server could be reached.
        """
        try:
            for request in requests:
                self._exchange.add(request)
                self._send()
                while not self._exchange.has_room:
                    self._wait()
                    yield from self._exchange.ready()
            while self._exchange.waiting:
                self._wait()
                yield from self._exchange.ready()
        finally:
            self._hang_up()

    def _send(self) -> _Call:
        if self._call is None:
            self._call = _Call(self._open_call)
            self._exchange.opened()
        while (request := self._exchange.next_request()) is not None:
            self._call.send(request)
        return self._call

    def _wait(self) -> None:
        """Waits for one message, for as long as that may take until something else is to be done."""
        call = self._send()
        began = time.monotonic()
        try:
            message = call.next(self._exchange.wait_s())
        except queue.Empty:
            self._exchange.waited(time.monotonic() - began)
            return
        if isinstance(message, prediction_pb2.PredictStreamResponse):
            self._exchange.receive(message)
            return
        self._hang_up()
        self._wait_to_call(self._exchange.broken(message))
        self._exchange.waited(time.monotonic() - began)

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.close()
            self._call = None


class _Call:
    """One call."""

    def __init__(self, open_call: OpenCall) -> None:
        self._outgoing: queue.SimpleQueue[prediction_pb2.PredictStreamRequest | None] = queue.SimpleQueue()
        try:
            self._incoming = open_call(iter(self._outgoing.get, None))
        except BaseException:
            self._outgoing.put(None)
            raise

    def send(self, request: prediction_pb2.PredictStreamRequest) -> None:
        """Sends a message, soon."""
        self._outgoing.put(request)

    def next(self, timeout_s: float) -> prediction_pb2.PredictStreamResponse | GraftError | None:
        """The next message, or what the call ended with: an error, or None. Raises queue.Empty if none comes."""
        return self._incoming.next(timeout_s)

    def close(self) -> None:
        """Ends the call and its thread."""
        self._outgoing.put(None)  # lets the thread go that gRPC has waiting for the next one
        self._incoming.close()
