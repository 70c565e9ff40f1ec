"""Telling the callers and the watchers of an adaptation how far it is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.session import Session, Watcher
from graft_server.domain.stream import Progress
from graft_server.sharing.pacing import Paced

EVERY_S = 0.25
"""Between two words on how many examples of a stream are encoded."""


class Telling:
    """Tells of one adaptation. What is not read coalesces to the newest. Belongs to one event loop."""

    def __init__(
        self,
        sessions: Callable[[], Iterable[Session]],
        feature_writer: FeatureWriter,
        metrics: Callable[[], dict[str, float]],
    ) -> None:
        """Describes it.

        Args:
            sessions: The adaptation's open calls.
            feature_writer: Encodes its examples.
            metrics: How its stream is being learned.
        """
        self._sessions = sessions
        self._feature_writer = feature_writer
        self._metrics = metrics
        self._began = time.monotonic()
        self._watchers: set[Watcher] = set()
        self._encoded = Paced(self.of_stream, EVERY_S)

    @property
    def watched(self) -> bool:
        """Whether somebody watches."""
        return bool(self._watchers)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """Gives a watcher, for as long as the block runs."""
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def of_encoding(self) -> None:
        """Some of the stream's examples were taken in, or have been encoded."""
        self._encoded()

    def of_stream(self) -> None:
        """Tells how far the stream is, unless there is more important news."""
        writer = self._feature_writer
        progress = Progress(
            stage="streaming",
            metrics=self._metrics(),
            done=writer.encoded,
            total=writer.taken,
            unit="examples",
            elapsed_s=time.monotonic() - self._began,
        )
        for session in self._sessions():
            session.tell(progress)
        for watcher in self._watchers:
            watcher.progress = watcher.progress or progress
        self.wake()

    def of_commit(self, progress: Progress) -> None:
        """Tells how far a commit is."""
        for session in self._sessions():
            session.outbox.put(progress)
        for watcher in self._watchers:
            watcher.progress = progress
        self.wake()

    def wake(self) -> None:
        """Has watchers look for events and progress."""
        for watcher in self._watchers:
            watcher.changed.set()

    def close(self) -> None:
        """Tells nothing more of its own accord."""
        self._encoded.close()
