"""The commits of one adaptation, in the order that they became durable, and their outcomes.

Closing is the one race that needs care: other writers may be writing at that instant, on this server or another.
The closing commit is made durable first; only then is it settled, once, how far each writer is part of it. A
segment is acknowledged after a look at the commits, so it is either older than what is settled, or is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from graft_server.domain.adaptation import Closing, Commit, Failure, Outcome
from graft_server.domain.extension import Extension
from graft_server.store.objects.numbered_log import NumberedLog
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects, corrupt


class Commits:
    """The commits and outcomes of one adaptation. Thread-safe; another server may write them at the same time."""

    def __init__(
        self,
        objects: Objects,
        folder: str,
        read_positions: Callable[[], dict[str, int]],
        require_open: Callable[[], None],
    ) -> None:
        """Reads nothing yet.

        Args:
            objects: The store.
            folder: The prefix of all of the adaptation's objects, ending in "/".
            read_positions: Reads the number below which each writer's changes are durable.
            require_open: Raises StateError if the adaptation takes no more commits, as last read.
        """
        self._objects = objects
        self._folder = folder
        self._read_positions = read_positions
        self._require_open = require_open
        self._lock = threading.Lock()
        self._log: NumberedLog[Commit] = NumberedLog(objects, f"{folder}commits/", Commit)
        self._commits: dict[str, Commit] = {}
        self._ordinals: dict[str, int] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._unfinished: set[str] = set()
        self._shown: tuple[Mapping[str, Commit], Mapping[str, Outcome]] | None = None
        """Copies that others see; None where they would be behind."""
        self._closing: Commit | None = None
        self._watermarks: dict[str, int] = {}
        self._ended = False

    @property
    def commits(self) -> Mapping[str, Commit]:
        """Commits by id, oldest first, as last read."""
        return self._seen()[0]

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Outcomes by commit id, as last read."""
        return self._seen()[1]

    @property
    def watermarks(self) -> Mapping[str, int]:
        """Writer to the number below which its changes were durable when something was committed, as last read."""
        return self._watermarks

    def _seen(self) -> tuple[Mapping[str, Commit], Mapping[str, Outcome]]:
        shown = self._shown
        if shown is None:
            with self._lock:
                shown = self._shown = (
                    MappingProxyType(dict(self._commits)),
                    MappingProxyType(dict(self._outcomes)),
                )
        return shown

    @property
    def closing(self) -> Commit | None:
        """The commit that closed the adaptation, with how far each writer is part of it; None: it is open."""
        return self._closing

    @property
    def newest_key(self) -> str:
        """The key of the newest commit, as last read; "": there is none."""
        return self._log.key(self._log.next_number - 1) if self._commits else ""

    def get(self, commit_id: str) -> Commit:
        """Returns a known commit."""
        return self._commits[commit_id]

    def refresh(self) -> None:
        """Reads the commits and outcomes that other servers have written since the last read."""
        with self._lock:
            self._read()
            for commit_id in list(self._unfinished):
                with suppress(ObjectMissingError):
                    self._finish(commit_id, self._objects.get_json(self._outcome_key(commit_id), Outcome))

    def read_closing(self) -> Commit | None:
        """The commit that closed the adaptation, read now."""
        with self._lock:
            self._read()
        return self._closing

    def add(self, commit_id: str, watermarks: Mapping[str, int], *, close: bool, writer_id: str) -> Commit:
        """Makes a commit durable; see `AdaptationStore.commit`."""
        with self._lock:
            while True:
                self._read()
                if commit_id in self._commits:
                    return self._commits[commit_id]
                self._require_open()
                self._require_last()
                commit = Commit(commit_id, dict(watermarks), close, datetime.now(UTC), writer_id)
                with suppress(ObjectExistsError):
                    self._know(self._log.append(commit), commit)

    def finish(
        self,
        commit_id: str,
        *,
        version: int,
        failure: Failure | None,
        extension: Extension | None = None,
    ) -> Outcome:
        """Makes a commit's outcome durable, or returns the one that it has already."""
        outcome = Outcome(datetime.now(UTC), version, failure, extension)
        key = self._outcome_key(commit_id)
        try:
            self._objects.create_json(key, outcome)
        except ObjectExistsError:
            outcome = self._objects.get_json(key, Outcome)
        with self._lock:
            self._finish(commit_id, outcome)
        return outcome

    def _finish(self, commit_id: str, outcome: Outcome) -> None:
        self._outcomes[commit_id] = outcome
        self._unfinished.discard(commit_id)
        self._shown = None

    def _read(self) -> None:
        while commit := self._log.read_next():
            self._know(self._log.next_number - 1, commit)
        if not self._ended:
            self._require_last()
            self._ended = True

    def _require_last(self) -> None:
        """Raises CorruptError if a commit is missing that came after all that are known.

        Its outcome would become that of the next commit; and whatever it closed would be open.
        """
        number = self._log.next_number
        for derived in (f"{self._folder}outcomes/{number:020d}.json", f"{self._folder}closing.json"):
            if (self._closing is None or "closing" not in derived) and self._objects.exists(derived):
                with suppress(ObjectMissingError):
                    self._objects.get(self._log.key(number))
                    return  # it has been written since
                raise corrupt(self._log.key(number), f"it is missing, although {derived} is there")

    def _know(self, ordinal: int, commit: Commit) -> None:
        if commit.close:
            commit = self._closing = msgspec.structs.replace(commit, watermarks=self._settled(commit))
        self._commits[commit.commit_id] = commit
        self._ordinals[commit.commit_id] = ordinal
        self._unfinished.add(commit.commit_id)
        for writer_id, sequence in commit.watermarks.items():
            self._watermarks[writer_id] = max(sequence, self._watermarks.get(writer_id, 0))
        self._shown = None

    def _settled(self, commit: Commit) -> dict[str, int]:
        """Returns how far each writer is part of a closing commit: the first server to ask settles it for good."""
        key = f"{self._folder}closing.json"
        try:
            return self._objects.get_json(key, Closing).watermarks
        except ObjectMissingError:
            pass
        # The positions are read after the commit was written, so no segment acknowledged before it is left out.
        watermarks = self._read_positions()
        if commit.writer_id in commit.watermarks:
            watermarks[commit.writer_id] = commit.watermarks[commit.writer_id]
        with suppress(ObjectExistsError):
            self._objects.create_json(key, Closing(watermarks))
        return self._objects.get_json(key, Closing).watermarks

    def _outcome_key(self, commit_id: str) -> str:
        return f"{self._folder}outcomes/{self._ordinals[commit_id]:020d}.json"
