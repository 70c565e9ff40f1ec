"""An evaluation, or a ranking, over however many calls it takes: what was sent is kept, and sent again where one broke.

Nothing is stored of it, and it is of one version: so the same examples give the same answer again.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from typing import IO, Final, TypeAlias

from graft._transport.progress_timeout import ManyCalls, ProgressTimeout
from graft.v1 import model_pb2, types_pb2

_IN_MEMORY: Final = 16 * 1024 * 1024
"""Bytes of messages that are kept in memory; more go to a temporary file."""
AHEAD: Final = 4
"""Messages that are prepared before the transport takes them."""


Request: TypeAlias = model_pb2.EvaluateModelRequest | model_pb2.SuggestExamplesRequest
"""Messages that carry examples; the first one also says what is wanted."""


class Evaluation(ManyCalls):
    """The messages of one evaluation. Its driver owns the lock, if it needs one."""

    def __init__(
        self,
        first: Request,
        *,
        connect_timeout_s: float,
        resume_timeout_s: float,
        timeout_s: float | None,
        what: str = "evaluation",
    ) -> None:
        """Begins one.

        Args:
            first: The first message. It names the version by its number: an alias could move between two calls.
            connect_timeout_s: How long a connection is waited for where none was there before.
            resume_timeout_s: How long it is waited that the server takes a message, or gives the result.
            timeout_s: How long the whole may take, in seconds; None: as long as it takes.
            what: What it is, for messages.
        """
        self._kind = type(first)
        progress_timeout = ProgressTimeout(
            f"sign of the {what}", connect_timeout_s=connect_timeout_s, resume_timeout_s=resume_timeout_s
        )
        super().__init__(progress_timeout, timeout_s)
        self._kept = _Kept()
        self._kept.add(first.SerializeToString())
        self._most_taken = 0
        self._taken = 0
        self._ended = False

    def add(self, examples: list[types_pb2.Example]) -> None:
        """Takes the next examples.

        Raises:
            OSError: They cannot be kept.
        """
        self._caught_up()
        self._kept.add(self._kind(examples=examples).SerializeToString())

    def end(self) -> None:
        """Notes that there are no more examples."""
        self._caught_up()
        self._ended = True

    def _caught_up(self) -> None:
        if self._most_taken >= self._kept.count:
            self.progress_timeout.progressed()  # until here it was the examples that were waited for

    @property
    def has_room(self) -> bool:
        """Whether more examples may be taken."""
        return self._kept.count - self._most_taken < AHEAD

    def opened(self) -> None:
        """Begins a new call: everything is to be sent on it."""
        self._taken = 0

    def next_message(self) -> Request | None:
        """The next message of the call; None: there is none yet, or none any more."""
        if self._taken >= self._kept.count:
            return None
        message = self._kept.get(self._taken)
        self._taken += 1
        if self._taken > self._most_taken:
            self._most_taken = self._taken
            self.progress_timeout.progressed()
        return self._kind.FromString(message)

    @property
    def all_sent(self) -> bool:
        """Whether the call has every message."""
        return self._ended and self._taken >= self._kept.count

    def left_s(self) -> float:
        """How long to wait for the server, in seconds.

        Raises:
            UnavailableError: It did not take a message, or answer, for too long.
        """
        return self.progress_timeout.left_s()

    def close(self) -> None:
        """Lets go of what was kept."""
        self._kept.close()


class _Kept:
    """Messages in their order: in memory as far as they are small, or where there is no room for temporary files."""

    def __init__(self) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._most = _IN_MEMORY
        self._places: list[tuple[int, int]] = []
        self._end = 0

    @property
    def count(self) -> int:
        return len(self._places)

    def add(self, message: bytes) -> None:
        if self._end + len(message) > self._most:
            self._most = sys.maxsize
            with contextlib.suppress(OSError):
                self._file = self._moved()
        self._file.seek(self._end)
        self._file.write(message)
        self._places.append((self._end, len(message)))
        self._end += len(message)

    def get(self, number: int) -> bytes:
        place, length = self._places[number]
        self._file.seek(place)
        return self._file.read(length)

    def close(self) -> None:
        self._file.close()

    def _moved(self) -> IO[bytes]:
        moved = tempfile.TemporaryFile()  # noqa: SIM115 - closed by its owner
        try:
            self._file.seek(0)
            shutil.copyfileobj(self._file, moved)
        except OSError:
            moved.close()
            raise
        return moved
