"""The client's side of a bulk prediction, without any I/O: what to send, what may be given out, when to give up.

It outlives its calls: asking twice does no harm, so whatever a broken call left unanswered is asked again on the
next one. Answers come in any order and are given out in that of the questions.

A driver (`predict_sync`, `predict_async`) owns the exchange, its calls and the waiting.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from graft._records.predicting.predictions import Prediction, Predictions, predictions_of
from graft._transport.progress_timeout import keep_alive_s
from graft._transport.retry import Backoff, is_resumable, overload_delay_s
from graft.errors import DeadlineExceededError, GraftError, UnavailableError, from_status
from graft.v1 import prediction_pb2

IN_FLIGHT: Final = 8
"""Requests that are asked or wait to be given out."""
_LOOK_S: Final = 5.0
"""How often it is seen whether an answer is overdue."""
_OVER_S: Final = 0.01
"""How much longer than the limit is waited, so that it is passed then."""


@dataclass(slots=True)
class _Question:
    request: prediction_pb2.PredictRequest
    sent: bool = False
    not_before: float = 0.0
    """On the exchange's clock: when an overloaded server wants to be asked again."""
    retries: int = 0
    answer: Predictions | None = None


class PredictExchange:
    """The requests of one bulk prediction, over all of its calls."""

    def __init__(
        self,
        *,
        timeout_s: float | None,
        connect_timeout_s: float,
        on_progress: Callable[[str], None] | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins one that has not called yet.

        Args:
            timeout_s: How long an answer is waited for, or a word that the server is at work, over however many calls;
                None: for ever.
            connect_timeout_s: How long the first answer is, where no server can be reached.
            on_progress: Called with what the server is doing before it can answer.
            backoff: How long to wait between calls.
            clock: Seconds, never going back.
        """
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._on_progress = on_progress
        self._connect_timeout_s = connect_timeout_s
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._questions: dict[str, _Question] = {}
        self._asked = 0
        self._ever_answered = False
        self._waited_s = 0.0
        self._called = False
        """Whether the present call has a request."""
        self._trouble: GraftError | None = None

    @property
    def has_room(self) -> bool:
        """Whether another request may be added."""
        return len(self._questions) < IN_FLIGHT

    @property
    def waiting(self) -> bool:
        """Whether there are requests whose predictions have not been given out."""
        return bool(self._questions)

    def add(self, request: prediction_pb2.PredictRequest) -> None:
        """Takes the next request."""
        self._questions[str(self._asked)] = _Question(request)
        self._asked += 1

    def opened(self) -> None:
        """Begins a new call: everything unanswered is to be sent on it."""
        self._called = False
        for question in self._questions.values():
            question.sent = False

    def next_request(self) -> prediction_pb2.PredictStreamRequest | None:
        """The next message to send, or None if there is nothing to send now."""
        now = self._clock()
        for request_id, question in self._questions.items():
            if not question.sent and question.answer is None and question.not_before <= now:
                question.sent = True
                asked = prediction_pb2.PredictStreamRequest(request_id=request_id, request=question.request)
                if not self._called:
                    asked.keep_alive.FromNanoseconds(round(keep_alive_s(self._timeout_s) * 1e9))
                    self._called = True
                return asked
        return None

    def wait_s(self) -> float:
        """For how many seconds to wait for a message at most."""
        again = (it.not_before for it in self._questions.values() if not it.sent and it.answer is None)
        rest_s = self._timeout_s - self._waited_s + _OVER_S
        return min(_LOOK_S, max(0.0, min(rest_s, min(again, default=math.inf) - self._clock())))

    def waited(self, seconds: float) -> None:
        """Takes in how long nothing came.

        Raises:
            GraftError: For too long; what the server said last, where it said something.
        """
        self._waited_s += seconds
        if self._waited_s > self._timeout_s:
            raise self._trouble or DeadlineExceededError(f"No prediction came for {self._waited_s:.0f} s.")

    def receive(self, message: prediction_pb2.PredictStreamResponse) -> None:
        """Takes in one answer.

        Raises:
            GraftError: What the server said of a request, where asking again will not help.
        """
        self._ever_answered = True
        if message.WhichOneof("result") == "activity":
            self._waited_s = 0.0
            if message.activity.stage and self._on_progress is not None:
                self._on_progress(message.activity.stage)
            return
        question = self._questions.get(message.request_id)
        if question is None or question.answer is not None:
            return  # of a request that was asked twice
        if message.WhichOneof("result") == "response":
            question.answer = predictions_of(message.response)
            self._waited_s, self._trouble = 0.0, None
            self._backoff.reset()
            return
        error = from_status(message.error)
        delay_s = overload_delay_s(error, question.retries, self._timeout_s)
        if delay_s is None and not isinstance(error, UnavailableError):
            raise error
        self._trouble = error
        question.retries += 1
        question.sent = False
        question.not_before = self._clock() + (self._backoff.next_s() if delay_s is None else delay_s)

    def ready(self) -> Iterator[Prediction]:
        """The predictions that are next in order, as far as they are there."""
        while self._questions:
            first = next(iter(self._questions))
            answer = self._questions[first].answer
            if answer is None:
                return
            del self._questions[first]
            yield from answer

    def broken(self, error: GraftError | None) -> float:
        """Takes in the end of a call, and returns how many seconds to wait before the next one.

        Args:
            error: What the call ended with; None where the server just ended it.

        Raises:
            GraftError: The call's error, where another call will not help, or calls were broken for too long.
        """
        error = error or UnavailableError("The server ended the call.")
        limit_s = self._timeout_s if self._ever_answered else min(self._connect_timeout_s, self._timeout_s)
        if not is_resumable(error) or self._waited_s > limit_s:
            raise error
        self._trouble = error
        delay_s = max(self._backoff.next_s(), error.retry_after or 0.0)
        return min(delay_s, max(0.0, limit_s - self._waited_s) + _OVER_S)
