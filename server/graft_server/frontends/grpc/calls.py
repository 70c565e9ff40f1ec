"""The calls that run, and how they end when the server goes away.

When it does, the calls that wait for their clients are told at once, and end as DRAINING: clients resume them
elsewhere. The others are at work, and have the drain time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TypeVar

from graft_server.domain.errors import DrainingError
from graft_server.frontends.grpc.errors import Context

T = TypeVar("T")

PATIENCE_S = 0.5
"""How long a client may pause, while the server goes away, in the middle of what it sends."""
UNREAD_S = 1.0
"""How long a client may leave an answer unread, while the server goes away, before its call is not waited for."""
LOOK_S = 0.05
"""The time between two looks for calls whose clients do not read."""


class Call:
    """One call, from its first message to its written status.

    Attributes:
        received: How many messages the client has sent so far that were read.
        answered: How many answers were sent to the client.
        given_up: Whether it was cancelled because the server waits no longer.
        telling: What tells its client of its end, where its handler could not; None: nothing.
    """

    __slots__ = (
        "_calls", "_rests", "_resumes", "_sending_since", "_task", "_wait", "answered", "given_up", "received",
        "telling",
    )  # fmt: skip

    def __init__(self, calls: Calls, *, rests: bool, resumes: bool) -> None:
        """Describes a call.

        Args:
            calls: The calls of the same server.
            rests: Whether it is never at work: it tells of what happens elsewhere.
            resumes: Whether each message is answered by one, so that the client can go on in another call after any.
        """
        self.received = 0
        self.answered = 0
        self.given_up = False
        self.telling: asyncio.Task[None] | None = None
        self._task = asyncio.current_task()
        self._calls = calls
        self._rests = rests
        self._resumes = resumes
        self._wait: asyncio.Timeout | None = None
        self._sending_since: float | None = None

    @property
    def at_work(self) -> bool:
        """Whether the server has something to do for it. What a client does not read is not waited for."""
        if self._sending_since is not None and time.monotonic() - self._sending_since > UNREAD_S:
            return False
        return not self._rests and (not self._resumes or self.received > self.answered)

    async def messages(self, requests: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yields what the client sends.

        Raises:
            DrainingError: The server goes away, and the client sends nothing.
        """
        while True:
            if self._resumes and self._calls.draining:
                raise DrainingError  # however much more the client has sent
            try:
                async with asyncio.timeout(
                    self._patience_s() if self._calls.draining else None
                ) as self._wait:
                    request = await anext(requests, None)
            except TimeoutError:
                raise DrainingError from None
            finally:
                self._wait = None
            if request is None:
                return
            self.received += 1
            yield request
            del request  # it may be large, and the next one may take long

    def tell(self) -> None:
        """Ends the wait for the client: the server goes away."""
        if self._wait is not None:
            self._wait.reschedule(asyncio.get_running_loop().time() + self._patience_s())

    def give_up(self) -> None:
        """Cancels what it does: the server waits no longer. Its handler then ends it as DRAINING."""
        if self._task is not None:
            self.given_up = True
            self._task.cancel()

    def sending(self) -> None:
        """Notes that a message is on its way to the client."""
        self._sending_since = time.monotonic()

    def sent(self, *, answers: bool = True) -> None:
        """Notes that the client's side has taken a message, and whether the message answers one of the client's."""
        self._sending_since = None
        self.answered += answers
        self._calls.changed()

    def _patience_s(self) -> float:
        return PATIENCE_S if self.received and not self._resumes else 0.0


class Calls:
    """The calls that run.

    Attributes:
        draining: Whether the server goes away.
        begun: How many there have been.
        given_up: How many were ended although they were at work.
    """

    def __init__(self) -> None:
        self.draining = False
        self.begun = 0
        self.given_up = 0
        self._running: set[Call] = set()
        self._changed = asyncio.Event()

    def begin(self, context: Context, *, rests: bool = False, resumes: bool = False) -> Call:
        """Notes a new call; see `Call`. It runs until its status is written, or its client has left."""
        call = Call(self, rests=rests, resumes=resumes)
        self._running.add(call)
        self.begun += 1

        def end(_: Context) -> None:
            self._running.discard(call)
            self.changed()

        context.add_done_callback(end)
        return call

    def drain(self) -> None:
        """Tells all calls that the server goes away."""
        self.draining = True
        for call in self._running:
            call.tell()

    def give_up(self) -> bool:
        """Ends all calls, those at work too; whether there are any."""
        for call in self._running:
            self.given_up += call.at_work
            call.give_up()
        return bool(self._running)

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    @property
    def at_work(self) -> int:
        """For how many of them the server has something to do."""
        return sum(call.at_work for call in self._running)

    async def worked(self) -> None:
        """Returns when no call is at work."""
        await self._until(lambda: not any(call.at_work for call in self._running))

    async def ended(self) -> None:
        """Returns when no call runs."""
        await self._until(lambda: not self._running)

    def changed(self) -> None:
        """Notes that something may have ended."""
        self._changed.set()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
