"""Rewrites segments: without the records of erased examples, or several small ones as one.

Both take the same steps. The new segments and their features are written first, under new names; then one generation
makes them count; then the segments they replace are deleted. A crash leaves objects that nothing names, new ones
before the generation and old ones after it: `sweep` finds both. A name contains the number of its
intended generation, so that once another generation has that number, objects written for the loser are known garbage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from graft_server.store.adaptations.features import StoredFeatures, encode_features, read_features
from graft_server.store.adaptations.generations import Generation, Piece, new_name
from graft_server.store.adaptations.keys import features_key, index_key, writer_folder
from graft_server.store.adaptations.segments import (
    ERASED,
    Record,
    Segment,
    changes,
    encode_index,
    encode_segment,
    read_segment,
    segment_key,
    walk,
)
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects

ORPHAN_AGE = timedelta(days=1)
"""The age, by the store's own time, from which new objects that nothing names are given up; see `give_up`."""

_SEGMENT = re.compile(r"([^/]+)/([^/]+)\.seg")
"""WRITER/NAME.seg"""
_FEATURES = re.compile(r"[^/]+/([^/]+)/([^/]+)\.bin")
"""ENCODER/WRITER/NAME.bin"""
_INDEX = re.compile(r"([^/]+)/([^/]+)\.bin")
"""WRITER/NAME.bin"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The examples to erase."""

    ids: frozenset[str]
    subjects: frozenset[str] = frozenset()
    """Subjects whose rejected changes are to be erased: a rejected change has no example and so no id."""

    def covers(self, record: Record) -> bool:
        """Whether a record is to be erased."""
        if record.subject and record.subject in self.subjects:
            return True
        return not self.ids.isdisjoint(record.ids)


def segments_of(store: AdaptationStore) -> Iterator[tuple[Segment, int]]:
    """Yields all segments of an adaptation that count, by writer, then sequence; each as `segments.walk` does."""
    for writer_id, end in sorted(store.read_positions().items()):
        yield from walk(partial(store.segment, writer_id), end)


def erase(objects: Objects, store: AdaptationStore, wanted: Wanted) -> int:
    """Removes examples from the segments that count, and returns how many states of them there were.

    Objects that still hold them are then garbage: see `sweep`.
    """
    while True:
        number = store.generations.refresh()
        concerned = [it for it, _ in segments_of(store) if any(map(wanted.covers, it.records))]
        if not concerned:
            return 0
        for segment in concerned:
            store.record_rejections(segment)  # a rewritten segment has no events of its own
        written = [_without(objects, store, segment, wanted, number + 1) for segment in concerned]
        places = [it for segment in concerned for it in _examples(segment, wanted)]
        # Descending, so that the lowest number of each writer is kept.
        if _enter(store, number, written, erased=dict(sorted(places, reverse=True))):
            return len(places)
        objects.delete(_keys(objects, store, written))  # another server rewrote segments: look again


def put_together(
    objects: Objects, store: AdaptationStore, encoder_id: str, run: Sequence[tuple[str, int]]
) -> bool:
    """Makes one segment of consecutive small ones, and deletes the small ones.

    All of them must have existed while the adaptation was open, so that the closing commit includes them.

    Args:
        objects: The store.
        store: The adaptation.
        encoder_id: The encoder whose features they must have. Features of other encoders are kept if complete.
        run: (writer, ordinal) of each segment.

    Returns:
        Whether they were joined: not if features are missing or another server rewrites at the same time.
    """
    number = store.generations.refresh()
    segments = [store.segment(writer_id, ordinal) for writer_id, ordinal in run]
    if any(one.next_ordinal != following.ordinal for one, following in pairwise(segments)):
        return False  # they were joined since the run was planned
    features = {
        it: _joined([_features(objects, store, one, it) for one in segments])
        for it in _encoders(objects, store)
    }
    if features.get(encoder_id) is None:
        return False
    for segment in segments:
        store.record_rejections(segment)  # a rewritten segment has no events of its own
    first = segments[0]
    merged = Segment(
        first.writer_id,
        first.ordinal,
        first.first_sequence,
        tuple(record for segment in segments for record in segment.records),
        ordinals=sum(it.ordinals for it in segments),
        rewritten=new_name(first.ordinal, number + 1),
    )
    _write(objects, store, merged)
    for encoder, encoded in features.items():
        if encoded is not None:
            _write_features(objects, store, merged, encoder, encoded)
    entered = _enter(store, number, [merged], erased=None)
    objects.delete(_keys(objects, store, segments if entered else [merged]))
    return entered


@dataclass(frozen=True, slots=True)
class Erased:
    """The remains of an erased example in objects that no longer count."""

    id: str
    features: Mapping[str, Mapping[str, NDArray[np.float16]]]
    """Encoder to view to a row of shape (d,), for the encoders whose features are stored."""


def erased_examples(objects: Objects, store: AdaptationStore) -> Iterator[Erased]:
    """Yields the examples that were erased from an adaptation and are still in objects that `sweep` finds."""
    garbage = sorted(it for it in sweep(objects, store) if it.endswith(".seg"))
    if not garbage:
        return
    gone = {
        (segment.writer_id, sequence)
        for segment, _ in segments_of(store)
        for sequence, record in enumerate(segment.records, segment.first_sequence)
        if record.erased
    }
    for key in garbage:
        writer_id, name = key.rpartition(".")[0].split("/")[-2:]
        try:
            segment = read_segment(objects, writer_folder(store.model, store.name, writer_id), name)
        except ObjectMissingError:
            continue  # another server swept
        rows = [
            it
            for it in changes(segment, segment.first_sequence, segment.next_sequence)
            if it.change.upsert is not None and (writer_id, it.sequence) in gone
        ]
        features = {
            encoder_id: found.features
            for encoder_id in _encoders(objects, store)
            if rows and (found := _features(objects, store, segment, encoder_id))
        }
        for it in rows:
            by_encoder = {
                encoder_id: {view: array[it.row] for view, array in views.items()}
                for encoder_id, views in features.items()
            }
            yield Erased(it.change.id, by_encoder)


def sweep(objects: Objects, store: AdaptationStore) -> list[str]:
    """Returns the keys of segments and features that a crash left and that do not count. Delete them.

    These are objects that were replaced, written for a past generation, or too late for the commit that closed the
    adaptation. Objects written for the next generation may still count: see `give_up`. Objects whose names this
    release does not give are a newer one's, and are not included.
    """
    places = _places(objects, store)
    store.refresh()
    late = store.late_segments()
    counts, dead = store.generations.counts, store.generations.dead
    return [key for key, it in places.items() if it in late or (not counts(*it) and dead(it[1]))]


def give_up(objects: Objects, store: AdaptationStore) -> None:
    """Lets `sweep` find old objects that were written for the next generation, which a crash left.

    An empty generation takes that number, so that they never count, whatever a clock says of their age: a server that
    is still writing them finds the number taken, and begins anew.
    """
    number = store.generations.refresh()
    counts, dead = store.generations.counts, store.generations.dead
    waiting = [key for key, it in _places(objects, store).items() if not counts(*it) and not dead(it[1])]
    if not waiting:
        return
    ages = {
        key: age
        for kind in ("writers", "features", "indexes")
        for key, age in objects.ages(f"{store.folder}{kind}/").items()
    }
    if any(ages.get(key, timedelta(0)) > ORPHAN_AGE for key in waiting):
        _enter(store, number, [], erased=None)


def _places(objects: Objects, store: AdaptationStore) -> dict[str, tuple[str, str]]:
    """Returns the keys of segments, features and indexes, each with writer and name; not those of a newer release."""
    segments, features = f"{store.folder}writers/", f"{store.folder}features/"
    indexes = f"{store.folder}indexes/"
    found = [(key, _SEGMENT.fullmatch(key.removeprefix(segments))) for key in objects.keys(segments)]
    found += [(key, _FEATURES.fullmatch(key.removeprefix(features))) for key in objects.keys(features)]
    found += [(key, _INDEX.fullmatch(key.removeprefix(indexes))) for key in objects.keys(indexes)]
    return {key: (it[1], it[2]) for key, it in found if it and store.generations.known(it[2])}


def _without(
    objects: Objects, store: AdaptationStore, segment: Segment, wanted: Wanted, number: int
) -> Segment:
    """Writes a segment and its features without the records of some examples."""
    records = tuple(ERASED if wanted.covers(it) else it for it in segment.records)
    rewritten = replace(segment, records=records, rewritten=new_name(segment.ordinal, number))
    _write(objects, store, rewritten)
    upserts = [it for it in segment.records if it.change is not None and it.change.upsert is not None]
    kept = np.array([not wanted.covers(it) for it in upserts], bool)
    for encoder_id in _encoders(objects, store):
        encoded = _features(objects, store, segment, encoder_id)
        if encoded is not None:
            _write_features(objects, store, rewritten, encoder_id, encoded.rows(kept))
    return rewritten


def _enter(
    store: AdaptationStore, number: int, written: Sequence[Segment], *, erased: dict[str, int] | None
) -> bool:
    """Makes rewritten segments count, unless the generation has changed since they were read."""
    pieces: dict[str, list[Piece]] = {}
    for it in written:
        piece = Piece(it.ordinal, it.next_ordinal, it.next_sequence, it.name)
        pieces.setdefault(it.writer_id, []).append(piece)
    by_writer = {writer_id: tuple(them) for writer_id, them in pieces.items()}
    try:
        store.generations.append(Generation(datetime.now(UTC), by_writer, erased), number + 1)
    except ObjectExistsError:
        return False
    return True


def _examples(segment: Segment, wanted: Wanted) -> list[tuple[str, int]]:
    """Returns (writer, sequence) of the examples to erase."""
    return [
        (segment.writer_id, sequence)
        for sequence, record in enumerate(segment.records, segment.first_sequence)
        if record.change is not None and record.change.upsert is not None and wanted.covers(record)
    ]


def _keys(objects: Objects, store: AdaptationStore, segments: Iterable[Segment]) -> list[str]:
    """Returns the objects of segments: their records, their features and their indexes."""
    encoders = _encoders(objects, store)
    keys: list[str] = []
    for it in segments:
        keys.append(segment_key(writer_folder(store.model, store.name, it.writer_id), it.name))
        keys += [_features_key(store, it, encoder_id) for encoder_id in encoders]
        if it.rewritten:
            keys.append(index_key(store.model, store.name, it.writer_id, it.name))
    return keys


def _encoders(objects: Objects, store: AdaptationStore) -> list[str]:
    return objects.folders(f"{store.folder}features/")


def _features_key(store: AdaptationStore, segment: Segment, encoder_id: str) -> str:
    return features_key(store.model, store.name, encoder_id, segment.writer_id, segment.name)


def _features(
    objects: Objects, store: AdaptationStore, segment: Segment, encoder_id: str
) -> StoredFeatures | None:
    """Returns the features of a segment, or None if none are stored: they are computed when they are needed."""
    try:
        return read_features(objects, _features_key(store, segment, encoder_id))
    except ObjectMissingError:
        return None


def _joined(parts: Sequence[StoredFeatures | None]) -> StoredFeatures | None:
    """Returns the features of all parts joined; None if a part's are missing or have other views."""
    there = [part for part in parts if part is not None]
    filled = [part.features for part in there if part.features]
    if len(there) < len(parts) or any(part.keys() != filled[0].keys() for part in filled):
        return None
    views = filled[0].keys() if filled else ()
    joined = {view: np.concatenate([part[view] for part in filled]) for view in views}
    truncated = [np.zeros(0, bool), *(part.truncated for part in there)]
    return StoredFeatures(joined, np.concatenate(truncated))


def _write(objects: Objects, store: AdaptationStore, segment: Segment) -> None:
    folder = writer_folder(store.model, store.name, segment.writer_id)
    objects.create(segment_key(folder, segment.name), encode_segment(segment))
    index = index_key(store.model, store.name, segment.writer_id, segment.name)
    objects.create(index, encode_index(segment), lasting=False)


def _write_features(
    objects: Objects, store: AdaptationStore, segment: Segment, encoder_id: str, encoded: StoredFeatures
) -> None:
    data = encode_features(encoded.features, encoded.truncated)
    objects.create(_features_key(store, segment, encoder_id), data, lasting=False)
