"""Messages waiting for one caller of Adapt. Acknowledgements and progress stay small however slowly it reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from graft_server.domain.examples import Rejection
from graft_server.domain.stream import Accepted, Committed, Message, Progress, PublicationFailed, Published

REJECTIONS_AT_ONCE = 1_000
"""The most rejections in an acknowledgement, so that it stays under 1 MiB; the rest follow."""

MOST_UNREAD = 64
"""The most unread messages that do not coalesce: an outcome carries a report of up to some hundred KB. A caller with as
many gets none about the server's own commits, which are among the events, and is read from when it has read some."""


class Outbox:
    """Messages for one caller. Unread acknowledgements and unread progress coalesce to the newest."""

    def __init__(self) -> None:
        self._accepted: int | None = None
        self._rejected: deque[Rejection] = deque()
        self._progress: Progress | None = None
        self._others: deque[Message] = deque()
        self._error: Exception | None = None
        self._last_error: Exception | None = None
        self._ended = False
        self._wakeup = asyncio.Event()
        self._read = asyncio.Event()

    @property
    def unread(self) -> int:
        """The number of waiting messages that do not coalesce."""
        return len(self._others)

    @property
    def unread_rejections(self) -> int:
        """The number of waiting rejections."""
        return len(self._rejected)

    def accept(self, next_sequence: int, rejected: Sequence[Rejection]) -> None:
        """Acknowledges everything below next_sequence."""
        self._accepted = next_sequence
        self._rejected.extend(rejected)
        self._wakeup.set()

    async def room(self) -> None:
        """Waits until fewer than MOST_UNREAD messages wait that do not coalesce, or no more are read."""
        while len(self._others) >= MOST_UNREAD and self._error is None and not self._ended:
            self._read.clear()
            await self._read.wait()

    def put(self, message: Message) -> None:
        """Adds a message."""
        if isinstance(message, Progress):
            self._progress = message
        else:
            self._others.append(message)
            over = isinstance(message, Published | PublicationFailed)
            if over or (isinstance(message, Committed) and self._progress and not self._progress.commit_id):
                self._progress = None  # it would come after its outcome, or after the stream that it is about
        self._wakeup.set()

    def fail(self, error: Exception) -> None:
        """Ends the outbox with an error, at once; unread messages are dropped."""
        self._error = self._error or error
        self._wakeup.set()
        self._read.set()

    def end(self, error: Exception | None = None) -> None:
        """Ends the outbox once all its messages have been read, with the error if there is one."""
        self._ended, self._last_error = True, error
        self._wakeup.set()
        self._read.set()

    async def get(self) -> Message | None:
        """Returns the next message; None: there will be no more."""
        while True:
            if self._error is not None:
                raise self._error
            message = self._next()
            if message is not None:
                return message
            if self._last_error is not None:
                raise self._last_error
            if self._ended:
                return None
            self._wakeup.clear()
            await self._wakeup.wait()

    def _next(self) -> Message | None:
        # Acknowledgements first: a commit's message must not overtake its examples' acknowledgement.
        if self._accepted is not None:
            count = min(len(self._rejected), REJECTIONS_AT_ONCE)
            accepted = Accepted(self._accepted, tuple(self._rejected.popleft() for _ in range(count)))
            if not self._rejected:
                self._accepted = None
            return accepted
        if self._others:
            self._read.set()
            return self._others.popleft()
        progress, self._progress = self._progress, None
        return progress
