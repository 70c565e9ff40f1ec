"""One adaptation's objects: its start, its writers' segments, features, commits, outcomes and events.

All of it can be read back after a restart, by this server or another. Derived objects (features, events) are
written after their source, so a crash may leave them out; `AdaptationStore.load` and `missing_features`
find the gaps.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.adaptation import (
    AdaptationState,
    Commit,
    Committed,
    Failure,
    Finished,
    Outcome,
    Rejected,
    Start,
    StateChanged,
)
from graft_server.domain.errors import StateError
from graft_server.domain.examples import Rejection
from graft_server.domain.extension import Extension
from graft_server.domain.model import Source
from graft_server.domain.names import shown
from graft_server.store.adaptations.commits import Commits
from graft_server.store.adaptations.events import EventLog
from graft_server.store.adaptations.features import Features, encode_features, read_features
from graft_server.store.adaptations.generations import Generations, names_of, ordinal_of
from graft_server.store.adaptations.keys import (
    adaptation_folder,
    features_key,
    index_key,
    parsed_name,
    start_key,
    writer_folder,
)
from graft_server.store.adaptations.listing import missing_adaptation
from graft_server.store.adaptations.segments import Index, Segment, WriterLog, read_current, read_index
from graft_server.store.objects import formats
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects


class AdaptationStore:
    """The stored state of one adaptation. Thread-safe; another server may write to it at the same time.

    Attributes:
        name: The name that it is stored by; see `stored_name`.
        adaptation_id: Its id.
        start: How it began.
        folder: The prefix of all its objects, ending in "/".
        events: The log of its events.
        generations: Which objects hold its examples now.
    """

    def __init__(self, objects: Objects, model: str, name: str, start: Start) -> None:
        """Use `create` or `load`."""
        self.model = model
        self.name = name
        self.adaptation_id, _ = parsed_name(name)
        self.start = start
        self._objects = objects
        self.folder = adaptation_folder(model, name)
        self.events = EventLog(objects, f"{self.folder}events/")
        self._commits = Commits(objects, self.folder, self._read_durable, self.require_open)
        self.generations = Generations(objects, self.folder)
        self._writers: dict[str, WriterLog] = {}
        self._writers_lock = threading.Lock()
        self._cancelled = False

    @classmethod
    def create(cls, objects: Objects, model: str, name: str, start: Start) -> AdaptationStore:
        """Starts an adaptation, or loads it if it exists; compare `start.settings` with what was asked."""
        with suppress(ObjectExistsError):
            objects.create_json(start_key(model, name), start, format_number=_format_number(start))
        return cls.load(objects, model, name)

    @classmethod
    def load(cls, objects: Objects, model: str, name: str) -> AdaptationStore:
        """Reads an adaptation back without its segments: `writer` reads the segments.

        Raises:
            MissingError: There is no such adaptation.
            CorruptError: An object of it is damaged.
        """
        try:
            start = objects.get_json(start_key(model, name), Start)
        except ObjectMissingError:
            raise missing_adaptation(model, parsed_name(name)[0]) from None
        loaded = cls(objects, model, name, start)
        loaded.refresh()
        return loaded

    def refresh(self) -> None:
        """Reads the commits, outcomes, generations and the cancellation that other servers have written since."""
        self.generations.refresh()
        self._commits.refresh()
        self._cancelled = self._cancelled or self._objects.exists(self._cancelled_key)

    @property
    def state(self) -> AdaptationState:
        """The state of the adaptation, as last read."""
        if self._cancelled:
            return AdaptationState.CANCELLED
        return AdaptationState.OPEN if self._commits.closing is None else AdaptationState.CLOSED

    @property
    def commits(self) -> Mapping[str, Commit]:
        """Commits by id, oldest first, as last read."""
        return self._commits.commits

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Outcomes by commit id, as last read."""
        return self._commits.outcomes

    def newest_age_s(self) -> float:
        """Returns how long ago, by the store's own time, the newest commit was written, or the start, in seconds."""
        key = self._commits.newest_key or start_key(self.model, self.name)
        return self._objects.age(key).total_seconds()

    def sources(self, commit_id: str) -> tuple[Source, ...]:
        """Returns the lineage that a commit asks to train on."""
        return *self.start.lineage, Source(self.name, self._commits.get(commit_id).watermarks)

    def writer_ids(self) -> list[str]:
        """Returns the writers that have segments, sorted."""
        return self._objects.folders(f"{self.folder}writers/")

    def writer(self, writer_id: str) -> WriterLog:
        """Returns a writer's log, read on first use.

        Raises:
            CorruptError: A segment is damaged.
            ObjectMissingError: A segment is missing.
        """
        with self._writers_lock:
            if writer_id not in self._writers:
                folder = writer_folder(self.model, self.name, writer_id)
                log = WriterLog(
                    self._objects,
                    folder,
                    writer_id,
                    self.generations,
                    counts=self._counts,
                    confirm=self._confirm,
                    read_index=lambda name: read_index(
                        self._objects, index_key(self.model, self.name, writer_id, name)
                    ),
                )
                self.follow(log)
                self._writers[writer_id] = log
            return self._writers[writer_id]

    @property
    def positions(self) -> dict[str, int]:
        """Writer to the number below which its changes are durable, as last read by `writer`."""
        return {writer_id: log.next_sequence for writer_id, log in list(self._writers.items())}

    def follow(self, log: WriterLog) -> None:
        """Reads the changes that other servers have made to a log since."""
        for segment in log.load():
            self.record_rejections(segment)
        known = self._commits.watermarks.get(log.writer_id, 0)
        if log.next_sequence < known:
            # Read again, as changes may have been committed, here or by another server, since the log was read.
            for segment in log.load():
                self.record_rejections(segment)
            log.require(known)

    def follow_all(self) -> None:
        """Reads the changes that other servers have made to all writers' logs since."""
        for writer_id in self.writer_ids():
            self.follow(self.writer(writer_id))

    def labels(self) -> set[str]:
        """Returns the labels that examples carry or once carried; reads the logs that have not been read yet."""
        return set().union(*(self.writer(it).labels for it in self.writer_ids()))

    def record_rejections(self, segment: Segment) -> None:
        """Records the event of a segment's rejections, if it has any. May come after the acknowledgement."""
        if segment.rejections and not segment.rewritten:  # a rewritten one has its events already
            first, following = segment.first_sequence, segment.next_sequence
            self.events.record(Rejected(segment.writer_id, segment.ordinal, first, following))

    def rejections(self, fact: Rejected) -> list[Rejection]:
        """Returns the rejections of an event, without the erased ones."""
        segment = self.segment(fact.writer_id, fact.ordinal)
        return [it for it in segment.rejections if fact.first_sequence <= it.sequence < fact.next_sequence]

    def write_features(
        self,
        segment: Segment,
        encoder_id: str,
        features: Features,
        truncated: NDArray[np.bool_] | None = None,
    ) -> bool:
        """Stores the features of `segment.upserts`, in their order. Writing them again changes nothing.

        Args:
            segment: Whose they are.
            encoder_id: The encoder that gave them.
            features: View name to features.
            truncated: shape (n,): whether an input is longer than the encoder reads; None: no input is.

        Returns:
            Whether the segment still counts: if not, it was rewritten meanwhile, and nothing is stored.
        """
        key = features_key(self.model, self.name, encoder_id, segment.writer_id, segment.name)
        with suppress(ObjectExistsError):
            self._objects.create(key, encode_features(features, truncated), lasting=False)
        self.generations.refresh()
        if self.generations.counts(segment.writer_id, segment.name):
            return True
        self._objects.delete([key])  # an example of it may have been erased
        return False

    def features(self, segment: Segment, encoder_id: str) -> Features:
        """Reads the features of `segment.upserts`, or raises ObjectMissingError: lost, or the segment was rewritten."""
        key = features_key(self.model, self.name, encoder_id, segment.writer_id, segment.name)
        return read_features(self._objects, key).features

    def missing_features(self, encoder_id: str) -> list[tuple[str, int]]:
        """Returns (writer, ordinal) of segments without features; those without upserts need none."""
        self.generations.refresh()
        done = self._names(f"{self.folder}features/{encoder_id}/", ".bin")
        missing: list[tuple[str, int]] = []
        for writer_id, name in self._names(f"{self.folder}writers/", ".seg"):
            ordinal = ordinal_of(name)
            if ordinal is not None and self.generations.piece(writer_id, ordinal) is None:
                missing += [(writer_id, ordinal)] if (writer_id, name) not in done else []
        for writer_id in self.writer_ids():
            for piece in self.generations.pieces(writer_id):
                missing += [(writer_id, piece.first_ordinal)] if (writer_id, piece.name) not in done else []
        return sorted(missing)

    def segment(self, writer_id: str, ordinal: int) -> Segment:
        """Reads the segment that stands for an ordinal now."""
        folder = writer_folder(self.model, self.name, writer_id)
        return read_current(self._objects, folder, self.generations, writer_id, ordinal)

    def read_positions(self) -> dict[str, int]:
        """Returns the next sequence number of each writer, without reading all segments."""
        found = {writer_id: self._position(writer_id) for writer_id in self.writer_ids()}
        return {writer_id: self._limited(writer_id, end) for writer_id, end in found.items()}

    def late_segments(self) -> set[tuple[str, str]]:
        """Returns (writer, name) of segments that came too late for the commit that closed the adaptation.

        They were never acknowledged. The server that wrote one deletes it, unless it dies first.
        """
        late: set[tuple[str, str]] = set()
        for writer_id in self.writer_ids() if self._commits.closing is not None else ():
            folder = writer_folder(self.model, self.name, writer_id)
            names = (it.removeprefix(folder).removesuffix(".seg") for it in self._objects.keys(folder))
            for ordinal in sorted((it for it in map(ordinal_of, names) if it is not None), reverse=True):
                if self.generations.piece(writer_id, ordinal) is not None:
                    break
                segment = self.segment(writer_id, ordinal)
                if self._counts(segment):
                    break
                late.add((writer_id, segment.name))
        return late

    def commit(
        self, commit_id: str, watermarks: Mapping[str, int], *, close: bool = False, writer_id: str = ""
    ) -> Commit:
        """Makes a commit durable. A repeated commit_id returns the first commit of that id.

        Args:
            commit_id: Its id.
            watermarks: Writer to the sequence number below which its changes are part of it. If the commit
                closes, writers other than `writer_id` are part of it with all their changes.
            close: Whether the adaptation takes no more changes.
            writer_id: The writer that asks for it.

        Raises:
            StateError: The adaptation is closed or cancelled, and the commit is new.
        """
        commit = self._commits.add(commit_id, watermarks, close=close, writer_id=writer_id)
        self._record_commit(commit)
        return commit

    def finish(
        self,
        commit_id: str,
        *,
        version: int = 0,
        failure: Failure | None = None,
        extension: Extension | None = None,
    ) -> Outcome:
        """Makes a commit's outcome durable, or returns the one that it has already."""
        outcome = self._commits.finish(commit_id, version=version, failure=failure, extension=extension)
        self.events.record(Finished(commit_id))
        return outcome

    def cancel(self) -> None:
        """Cancels the adaptation for good. Repeating it changes nothing."""
        with suppress(ObjectExistsError):
            self._objects.create_json(self._cancelled_key, {"time": datetime.now(UTC)})
        self._cancelled = True
        self.events.record(StateChanged(AdaptationState.CANCELLED))

    def record_events(self) -> None:
        """Records the events of all known facts that a crash may have left out. Repeating it is harmless."""
        outcomes = self.outcomes
        for commit_id, commit in self.commits.items():
            self._record_commit(commit)
            if commit_id in outcomes:
                self.events.record(Finished(commit_id))
        if self._cancelled:
            self.events.record(StateChanged(AdaptationState.CANCELLED))

    def require_open(self) -> None:
        """Raises StateError if the adaptation takes no more changes and commits, as last read."""
        if self.state is not AdaptationState.OPEN:
            raise self.not_open()

    def not_open(self, state: AdaptationState | None = None) -> StateError:
        """Returns the error for an adaptation that takes no more changes, in that state or in the one last read."""
        state = state or self.state
        return StateError(
            f"Adaptation {shown(self.adaptation_id)} of model {shown(self.model)} is {state}: start another "
            "one, with base_version to go on from its examples.",
            reason=f"ADAPTATION_{state.name}",
        )

    def _limited(self, writer_id: str, end: int) -> int:
        """Returns how many of a writer's durable changes are in its log: not those too late for the closing commit."""
        closing = self._commits.closing
        if closing is None or writer_id == closing.writer_id:
            return end
        return min(end, closing.watermarks.get(writer_id, 0))

    def _counts(self, segment: Segment | Index) -> bool:
        return self._limited(segment.writer_id, segment.next_sequence) == segment.next_sequence

    def _confirm(self, segment: Segment) -> None:
        """Raises StateError if a segment came too late for the commit that closed the adaptation."""
        closing = self._commits.read_closing()
        if closing is not None and segment.next_sequence > closing.watermarks.get(segment.writer_id, 0):
            raise self.not_open(AdaptationState.CLOSED)

    def _read_durable(self) -> dict[str, int]:
        """Returns the number below which each writer's changes are durable, including those too late to count."""
        self.generations.refresh()
        return {it: self._position(it) for it in self.writer_ids()}

    def _position(self, writer_id: str) -> int:
        folder = writer_folder(self.model, self.name, writer_id)
        names = (it.removeprefix(folder).removesuffix(".seg") for it in self._objects.keys(folder))
        last = max((it for it in map(ordinal_of, names) if it is not None), default=-1)
        pieces = self.generations.pieces(writer_id)
        if pieces and pieces[-1].next_ordinal > last:
            return pieces[-1].next_sequence
        if last < 0:
            return 0
        return self.segment(writer_id, last).next_sequence

    def _record_commit(self, commit: Commit) -> None:
        self.events.record(Committed(commit.commit_id, commit.watermarks))
        if commit.close:
            self.events.record(StateChanged(AdaptationState.CLOSED))

    def _names(self, prefix: str, suffix: str) -> set[tuple[str, str]]:
        return names_of(self._objects.keys(prefix), prefix, suffix)

    @property
    def _cancelled_key(self) -> str:
        return f"{self.folder}cancelled.json"


def _format_number(start: Start) -> int:
    """Releases that know the first format alone would match no example by its content, and move `live`."""
    further = start.settings.match_content or not start.settings.publish.promote
    return formats.MATCHED if further else formats.FIRST
