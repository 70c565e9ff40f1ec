"""The stored examples of a model: every accepted one, in the state that its change gave it.

They are listed a page at a time. An index of the adaptation, which is read once and then kept up to date, says where
a page begins and which states later ones replaced. An index of a version says which states it was made of.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from graft_server.domain.examples import ExamplesWanted, StoredExample
from graft_server.domain.model import Manifest
from graft_server.store.adaptations.erasure import segments_of
from graft_server.store.adaptations.keys import parsed_name
from graft_server.store.adaptations.segments import Segment, changes
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_states
from graft_server.store.objects.objects import Objects

KEPT_IDS = 200_000
"""The ids in all kept indices: 30 MB. A larger index is read anew for each page."""
LABEL_IDS = 4
"""The ids that take as much memory as a declared label with a description."""

Place = tuple[str, int]
"""Writer and sequence."""
FullPlace = tuple[str, str, int]
"""Adaptation, writer and sequence."""
Kept = TypeVar("Kept", "ExampleIndex", "VersionIndex")


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
        return 1 + len(self._latest) + LABEL_IDS * len(self._store.start.labels)

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

    def at(self, places: Iterable[Place]) -> Iterator[StoredExample]:
        """Yields the examples at some places, which are in order, without erased ones; reads their segments alone."""
        segment: Segment | None = None
        for writer_id, sequence in places:
            if segment is None or segment.writer_id != writer_id or sequence >= segment.next_sequence:
                known = self._segments[writer_id]
                _, ordinal = known[bisect_right(known, sequence, key=lambda it: it[0]) - 1]
                segment = self._store.segment(writer_id, ordinal)
            change = segment.records[sequence - segment.first_sequence].change
            if change is not None and change.upsert is not None:
                superseded = self._latest.get(change.id) != (writer_id, sequence)
                yield StoredExample(self._store.adaptation_id, writer_id, sequence, change.upsert, superseded)

    def knows(self, ids: Collection[str]) -> bool:
        """Whether one of the ids occurs in the adaptation."""
        return any(it in self._latest for it in ids)

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


class VersionIndex:
    """An index of the examples that a version was trained or measured on, as it was made."""

    def __init__(self, objects: Objects, manifest: Manifest) -> None:
        """Reads it.

        Raises:
            ObjectMissingError: A segment is missing.
            CorruptError: A segment is damaged.
        """
        labels = {label.name for label in manifest.labels}
        self._places: dict[str, list[Place]] = {source.adaptation_id: [] for source in manifest.sources}
        self._ids: dict[str, list[str]] = {name: [] for name in self._places}
        self._confirmed: set[FullPlace] = set()
        states = read_states(objects, manifest.model, manifest.sources)
        for it in sorted(states, key=lambda it: (it.writer_id, it.sequence)):
            # What was sent without a target or weight, or with a label beside a closed set, was left out.
            if it.example.labelled and it.example.weight > 0 and labels.issuperset(it.example.labels):
                self._places[it.adaptation_id].append((it.writer_id, it.sequence))
                self._ids[it.adaptation_id].append(it.example.id)
                if it.example.confirmed:
                    self._confirmed.add(it.place)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names that the adaptations are stored by, oldest first."""
        return tuple(self._places)

    @property
    def weight(self) -> int:
        """How many ids' worth of memory it takes."""
        return 1 + sum(map(len, self._ids.values()))

    def places(self, source: str, ids: Collection[str], first: Place) -> Iterator[tuple[Place, str]]:
        """Yields where its examples of some ids, or all, lie in an adaptation, from a place on, with their ids."""
        places, named = self._places[source], self._ids[source]
        for at in range(bisect_left(places, first), len(places)):
            if not ids or named[at] in ids:
                yield places[at], named[at]

    def as_made(self, source: str, stored: StoredExample, id_: str) -> StoredExample:
        """Returns a stored example as it was when the version was made: by its id, and confirmed if it was."""
        confirmed = (source, stored.writer_id, stored.sequence) in self._confirmed
        example = stored.example
        if example.id == id_ and example.confirmed == confirmed:
            return stored
        return replace(stored, example=replace(example, id=id_, confirmed=confirmed))


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
        self._indices: OrderedDict[tuple[str, str | int], ExampleIndex | VersionIndex] = OrderedDict()
        """By model, and by adaptation or version."""
        self._forgotten = 0

    def listed(
        self, model: str, names: Sequence[str], wanted: ExamplesWanted, first: FullPlace | None
    ) -> Iterator[StoredExample]:
        """Yields what is stored of a model's examples, in the order of the adaptations, then writer, then sequence.

        Args:
            model: The model.
            names: The names that its adaptations are stored by, in order.
            wanted: Which of them.
            first: Adaptation, writer and sequence of the first one; None: all.
        """
        yield from self._matching(
            wanted, names, first, lambda name, begin: self._all(model, name, wanted, begin)
        )

    def of_version(
        self, number: int, manifest: Manifest, wanted: ExamplesWanted, first: FullPlace | None
    ) -> Iterator[StoredExample]:
        """Yields the examples that a version was made of, in the order of its lineage, then writer, then sequence.

        Args:
            number: The version's number.
            manifest: Its manifest.
            wanted: Which of them.
            first: Adaptation, writer and sequence of the first one; None: all.

        Raises:
            ObjectMissingError: A segment is missing.
            CorruptError: A segment is damaged.
        """
        model = manifest.model
        version = self._kept((model, number), VersionIndex, lambda: VersionIndex(self._objects, manifest))

        def of(name: str, begin: Place) -> Iterator[StoredExample]:
            ids: dict[Place, str] = {}

            def noted() -> Iterator[Place]:
                for place, id_ in version.places(name, wanted.ids, begin):
                    ids[place] = id_
                    yield place

            if next(version.places(name, wanted.ids, begin), None) is not None:
                for it in self.of(model, name).at(noted()):
                    yield version.as_made(name, it, ids.pop((it.writer_id, it.sequence)))

        yield from self._matching(wanted, version.sources, first, of)

    def _all(self, model: str, name: str, wanted: ExamplesWanted, first: Place) -> Iterator[StoredExample]:
        index = self.of(model, name)
        return index.examples(first) if not wanted.ids or index.knows(wanted.ids) else iter(())

    def _matching(
        self,
        wanted: ExamplesWanted,
        names: Sequence[str],
        first: FullPlace | None,
        of: Callable[[str, Place], Iterator[StoredExample]],
    ) -> Iterator[StoredExample]:
        ids = [parsed_name(name)[0] for name in names]
        begin = ids.index(first[0]) if first is not None and first[0] in ids else 0
        for id_, name in zip(ids[begin:], names[begin:], strict=True):
            if wanted.adaptation_id not in ("", id_):
                continue
            place = first[1:] if first is not None and id_ == first[0] else ("", 0)
            yield from (it for it in of(name, place) if wanted.covers(it.example))

    def of(self, model: str, adaptation_id: str) -> ExampleIndex:
        """Returns the up-to-date index of an adaptation.

        Raises:
            MissingError: There is no such adaptation.
        """

        def read() -> ExampleIndex:
            return ExampleIndex(AdaptationStore.load(self._objects, model, adaptation_id))

        return self._kept((model, adaptation_id), ExampleIndex, read, ExampleIndex.refresh)

    def _kept(
        self,
        key: tuple[str, str | int],
        kind: type[Kept],
        read: Callable[[], Kept],
        refresh: Callable[[Kept], None] = lambda _: None,
    ) -> Kept:
        """Returns an index, up to date; reads it if it is not kept."""
        with self._lock:
            forgotten, index = self._forgotten, self._indices.get(key)
        if not isinstance(index, kind):
            index = read()
        refresh(index)
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
