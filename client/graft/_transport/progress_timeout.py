"""How long a stream is waited for, over however many calls it takes. No I/O: drivers do the waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from graft._transport.retry import Backoff, is_resumable
from graft.errors import GraftError, UnavailableError

KEEP_ALIVE_S: Final = 20.0
"""How often servers are asked to say that they are at work on a stream, at most."""
_SIGNS_IN_BOUND: Final = 3
_SHORTEST_S: Final = 0.01


def keep_alive_s(bound_s: float) -> float:
    """How often a server is to say that it is at work, so that a caller who waits `bound_s` hears of it."""
    return min(KEEP_ALIVE_S, bound_s / _SIGNS_IN_BOUND)


class ProgressTimeout:
    """Ends a stream that makes no progress."""

    def __init__(
        self,
        what: str,
        *,
        connect_timeout_s: float,
        resume_timeout_s: float,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins to wait.

        Args:
            what: What is waited for, for the error, for example "piece of the bundle".
            connect_timeout_s: How long an answer is waited for where no call lives.
            resume_timeout_s: How long progress is, once there was any, or while a call lives.
            backoff: How long to wait between calls.
            clock: Seconds, never going back.
        """
        self._what = what
        self._connect_timeout_s = connect_timeout_s
        self._resume_timeout_s = resume_timeout_s
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._heard = False
        self._since = clock()
        self._trouble: GraftError | None = None

    @property
    def now(self) -> float:
        """The present moment on its clock, in seconds."""
        return self._clock()

    def progressed(self) -> None:
        """Takes in that something came, or was taken."""
        self._heard = True
        self._since = self._clock()
        self._backoff.reset()

    def restarted(self) -> None:
        """Counts from here on: who asks for the next message took time over the last one."""
        self._since = self._clock()

    def left_s(self) -> float:
        """How long to wait for the next progress, in seconds, above 0.

        Raises:
            UnavailableError: Nothing came for too long.
        """
        waited_s = self._clock() - self._since
        if waited_s >= self._resume_timeout_s:
            last = f"; the last error was: {self._trouble.message}" if self._trouble else ""
            raise UnavailableError(
                f"No {self._what} came for {waited_s:.0f} s, though the server did not end the call{last}",
                reason="NO_PROGRESS",
                domain="graft",
            )
        return max(_SHORTEST_S, self._resume_timeout_s - waited_s)

    def broken(self, error: GraftError) -> float:
        """Takes in the failure of a call, and returns how long to wait before the next, in seconds.

        Raises:
            GraftError: There is no point in another, or there was no progress for too long.
        """
        if not is_resumable(error):
            raise error
        self._trouble = error
        limit_s = (
            self._resume_timeout_s if self._heard else min(self._connect_timeout_s, self._resume_timeout_s)
        )
        waited_s = self._clock() - self._since
        if waited_s >= limit_s:
            raise type(error)(
                gave_up(error.message, waited_s, heard=self._heard),
                code=error.code,
                reason=error.reason,
                domain=error.domain,
                metadata=error.metadata,
            )
        return min(max(self._backoff.next_s(), error.retry_after or 0.0), limit_s - waited_s)


def gave_up(last: str, waited_s: float, *, heard: bool) -> str:
    """The message of who gave up: first what helps, which the last error says, then how long it took.

    Args:
        last: The message of the last error.
        waited_s: How long nothing came, in seconds.
        heard: Whether there was an answer before.
    """
    return f"{last.removesuffix('.')}; gave up after {waited_s:.0f} s with no {'progress' if heard else 'answer'}"


class ManyCalls:
    """What one caller asks for, over however many calls it takes: how long to wait, and when to give up."""

    def __init__(self, progress_timeout: ProgressTimeout, timeout_s: float | None = None) -> None:
        """Begins.

        Args:
            progress_timeout: What bounds its waiting.
            timeout_s: How long the whole may take, in seconds; None: as long as it takes.
        """
        self.progress_timeout = progress_timeout
        self._ends = None if timeout_s is None else progress_timeout.now + timeout_s

    def deadline_s(self) -> float | None:
        """The deadline of the next call, in seconds; None: there is none."""
        return None if self._ends is None else max(0.0, self._ends - self.progress_timeout.now)

    def broken(self, error: GraftError) -> float:
        """Takes in the failure of a call and returns how long to wait before the next, in seconds.

        Raises:
            GraftError: There is no point in another.
        """
        return self.progress_timeout.broken(error)


class Cursor(ManyCalls):
    """Where a stream of answers is: what to ask for next."""

    def request(self) -> Any:
        """The request of the next call."""
        raise NotImplementedError
