"""The stored examples of a model: every accepted one, in the state that its change gave it.

They are listed a page at a time. An index of the adaptation, which is read once and then kept up to date, says where
a page begins and which states later ones replaced.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator

from graft_server.domain.examples import StoredExample
from graft_server.store.adaptations.erasure import segments_of
from graft_server.store.adaptations.segments import changes
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

KEPT_IDS = 200_000
"""The ids in all kept indices: 30 MB. A larger index is read anew for each page."""
LABEL_IDS = 4
"""The ids that take as much memory as a declared label with a description."""

Place = tuple[str, int]
"""Writer and sequence."""


def ids_of_subject(store: AdaptationStore, subject: str) -> set[str]:
    """Returns the ids of the examples that belong, or once belonged, to a subject."""
    return {it.id for segment, _ in segments_of(store) for it in segment.upserts if it.subject == subject}


def earlier_ids(store: AdaptationStore, ids: Collection[str]) -> set[str]:
    """Returns the ids under which earlier adaptations have those of the examples that this one gave other ids."""
    return {
        record.renames
        for segment, _ in segments_of(store)
        for record in segment.records
        if record.renames and record.change is not None and record.change.id in ids
    }


class ExampleIndex:
    """An index of the examples of one adaptation. Thread-safe."""

    def __init__(self, store: AdaptationStore) -> None:
        """Describes the index; `refresh` reads it."""
        self._store = store
        self._lock = threading.Lock()
        self._erasure = 0
        self._latest: dict[str, Place] = {}
        """The place of the latest change of each id, in the order that training reads them."""
        self._segments: dict[str, list[tuple[int, int]]] = {}
        """Writer to the first sequence number of each segment, as it was read, and its ordinal."""
        self._ends: dict[str, tuple[int, int]] = {}
        """Writer to the sequence number and the ordinal at which reading continues."""

    def __len__(self) -> int:
        """How many ids it has."""
        return len(self._latest)

    @property
    def weight(self) -> int:
        """How many ids' worth of memory it takes, its adaptation's declared labels included."""
        return 1 + len(self._latest) + LABEL_IDS * len(self._store.start.settings.labels)

    def refresh(self) -> None:
        """Reads what was stored since the last read; reads everything if examples were erased."""
        with self._lock:
            self._store.refresh()
            erasure = self._store.generations.last_erasure
            if erasure != self._erasure:
                self._latest, self._segments, self._ends = {}, {}, {}
            for writer_id, end in self._store.read_positions().items():
                self._read(writer_id, end)
            self._erasure = erasure

    def examples(self, first: Place = ("", 0)) -> Iterator[StoredExample]:
        """Yields the examples from a place on, by writer, then sequence, without erased ones."""
        for writer_id, (end, _) in sorted(self._ends.items()):
            if writer_id < first[0]:
                continue
            start = first[1] if writer_id == first[0] else 0
            if start >= end:
                continue
            segments = self._segments[writer_id]
            _, ordinal = segments[bisect_right(segments, start, key=lambda it: it[0]) - 1]
            while start < end:
                segment = self._store.segment(writer_id, ordinal)
                for it in changes(segment, start, end):
                    if it.change.upsert is not None:
                        place = writer_id, it.sequence
                        superseded = self._latest.get(it.change.id, place) != place
                        yield StoredExample(self._store.adaptation_id, *place, it.change.upsert, superseded)
                start, ordinal = max(start, segment.next_sequence), segment.next_ordinal

    def _read(self, writer_id: str, end: int) -> None:
        sequence, ordinal = self._ends.get(writer_id, (0, 0))
        known = self._segments.setdefault(writer_id, [])
        while sequence < end:
            segment = self._store.segment(writer_id, ordinal)
            for it in changes(segment, sequence, segment.next_sequence):
                place = writer_id, it.sequence
                self._latest[it.change.id] = max(place, self._latest.get(it.change.id, place))
            known.append((sequence, ordinal))
            sequence, ordinal = segment.next_sequence, segment.next_ordinal
        self._ends[writer_id] = sequence, ordinal


class StoredExamples:
    """The examples of all models, with the most recently used indices. Thread-safe."""

    def __init__(self, objects: Objects, kept_ids: int = KEPT_IDS) -> None:
        """Reads nothing yet.

        Args:
            objects: The store.
            kept_ids: The most ids that the kept indices may have.
        """
        self._objects = objects
        self._kept_ids = kept_ids
        self._lock = threading.Lock()
        self._indices: OrderedDict[tuple[str, str], ExampleIndex] = OrderedDict()
        self._forgotten = 0

    def of(self, model: str, adaptation_id: str) -> ExampleIndex:
        """Returns the up-to-date index of an adaptation.

        Raises:
            MissingError: There is no such adaptation.
        """
        key = model, adaptation_id
        with self._lock:
            forgotten, index = self._forgotten, self._indices.get(key)
        if index is None:
            index = ExampleIndex(AdaptationStore.load(self._objects, model, adaptation_id))
        index.refresh()
        with self._lock:
            if forgotten == self._forgotten:  # otherwise it may hold examples erased while it was read
                self._indices[key] = index
                self._indices.move_to_end(key)
            while self._indices and sum(it.weight for it in self._indices.values()) > self._kept_ids:
                self._indices.popitem(last=False)
        return index

    def forget(self, model: str) -> None:
        """Drops the indices of a model whose examples were erased or that was deleted."""
        with self._lock:
            self._forgotten += 1
            for key in [it for it in self._indices if it[0] == model]:
                del self._indices[key]
