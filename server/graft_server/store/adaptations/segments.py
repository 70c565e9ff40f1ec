"""A writer's changes, in the order of their sequence numbers, as segments that are created once.

Segments are keyed by writer and ordinal, so that two servers that take the same writer's stream collide
instead of interleaving. Every change, even a refused one, has a record with a digest of the change as
sent: a repeat differs from a conflict even after a restart. An erased change keeps its place and nothing
else: any change sent under its number again counts as a repeat.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import ConflictError, CorruptError, DomainError, NewerError
from graft_server.domain.examples import Change, Example, Rejection
from graft_server.domain.names import shown
from graft_server.store.adaptations.generations import Generations, ordinal_of, original_name
from graft_server.store.objects import formats
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects, corrupt

ERASED_DIGEST = 0
"""Stands in place of a digest, which would confirm a guess of the erased change."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one change: a change, a rejection, or that it is unchanged; nothing of it if it was erased."""

    digest: int
    """`content_digest` of the change as it was sent, or ERASED_DIGEST."""
    change: Change | None = None
    rejection: Rejection | None = None
    subject: str = ""
    """The subject of a rejected change."""
    unchanged: str = ""
    """The id of the example of the base that the change repeats: nothing comes of it, or only that id is another."""
    renames: str = ""
    """The id that the base has for the example: the change gives it one of its own."""
    by_content: bool = False
    """Whether the change has its id from an example of the base, which has the same input."""

    @property
    def erased(self) -> bool:
        """Whether the change was erased."""
        return self.change is None and self.rejection is None and not self.unchanged

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the examples that the change is about."""
        own = "" if self.change is None else self.change.id
        return tuple(it for it in (own, self.unchanged, self.renames) if it)


ERASED = Record(ERASED_DIGEST)
"""The remains of an erased change."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive changes of one writer."""

    writer_id: str
    ordinal: int
    """The segment's number in the writer's stream, from 0, without gaps."""
    first_sequence: int
    records: tuple[Record, ...]
    ordinals: int = 1
    """The number of segments it stands for: more than 1 if it was joined from several."""
    rewritten: str = ""
    """The segment's name if it was rewritten."""

    @property
    def name(self) -> str:
        """The name of its object within the writer's folder, and of its features."""
        return self.rewritten or original_name(self.ordinal)

    @property
    def format_number(self) -> int:
        """The format that it is stored in: releases that know the first one alone would double matched examples."""
        matched = any(it.unchanged or it.renames or it.by_content for it in self.records)
        return formats.MATCHED if matched else formats.FIRST

    @property
    def next_ordinal(self) -> int:
        """The ordinal of the segment after it."""
        return self.ordinal + self.ordinals

    @property
    def next_sequence(self) -> int:
        """The sequence number after its last record."""
        return self.first_sequence + len(self.records)

    @property
    def upserts(self) -> list[Example]:
        """The accepted examples in record order, which is the order of the rows of the segment's features."""
        return [it.change.upsert for it in self.records if it.change and it.change.upsert]

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """The rejections, in record order."""
        return tuple(it.rejection for it in self.records if it.rejection)

    def index(self) -> Index:
        """Returns what a writer's log needs of it."""
        return Index(
            self.writer_id,
            self.name,
            self.first_sequence,
            self.next_ordinal,
            np.array([it.digest for it in self.records], np.uint64),
            frozenset(label for it in self.upserts for label in it.labels),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """What a writer's log needs of a segment, so that opening a long stream reads no examples."""

    writer_id: str
    name: str
    """The segment's."""
    first_sequence: int
    next_ordinal: int
    digests: NDArray[np.uint64]
    """The digest of each record."""
    labels: frozenset[str]
    """The labels that its examples carry."""

    @property
    def next_sequence(self) -> int:
        """The sequence number after its last record."""
        return self.first_sequence + len(self.digests)


class _StoredIndex(msgspec.Struct, frozen=True):
    writer_id: str
    name: str
    first_sequence: int
    next_ordinal: int
    digests: bytes
    labels: list[str]


def encode_index(segment: Segment) -> bytes:
    """Returns a segment's index as bytes."""
    it = segment.index()
    digests = it.digests.astype("<u8").tobytes()
    return formats.packed(
        _StoredIndex(it.writer_id, it.name, it.first_sequence, it.next_ordinal, digests, sorted(it.labels))
    )


def read_index(objects: Objects, key: str) -> Index | None:
    """Returns an index, or None where none is stored that can be read: the segment says the same."""
    try:
        data = objects.get(key)
        formats.require_known(key, data, pack=True)
        it = msgspec.msgpack.decode(data, type=_StoredIndex)
    except (ObjectMissingError, CorruptError, NewerError, msgspec.MsgspecError):
        return None
    digests = np.frombuffer(it.digests, "<u8").astype(np.uint64, copy=False)
    return Index(it.writer_id, it.name, it.first_sequence, it.next_ordinal, digests, frozenset(it.labels))


@dataclass(frozen=True, slots=True)
class Placed:
    """A change at its place."""

    sequence: int
    change: Change
    row: int
    """Its row of the segment's features; for a deletion, the row of the upsert before it, or -1."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record at its place."""

    sequence: int
    record: Record
    row: int
    """Its row of the segment's features; without an upsert, the row of the upsert before it, or -1."""


def recorded(segment: Segment, first: int, end: int) -> Iterator[Recorded]:
    """Yields the records of a segment whose sequence numbers are from `first` on and below `end`."""
    row = -1
    for sequence, record in enumerate(segment.records, segment.first_sequence):
        if sequence >= end:
            return
        row += record.change is not None and record.change.upsert is not None
        if sequence >= first:
            yield Recorded(sequence, record, row)


def changes(segment: Segment, first: int, end: int) -> Iterator[Placed]:
    """Yields the accepted changes of a segment whose sequence numbers are from `first` on and below `end`.

    An example that is given an id of its own is removed under the id that the base has for it.
    """
    for it in recorded(segment, first, end):
        change = it.record.change
        if change is None:
            continue
        if it.record.renames:
            yield Placed(it.sequence, Change(delete_id=it.record.renames), it.row - 1)
        yield Placed(it.sequence, change, it.row)


def walk(read: Callable[[int], Segment], end: int) -> Iterator[tuple[Segment, int]]:
    """Yields a writer's segments below a sequence number, each with the first sequence number not yielded before.

    That is not always the segment's first one: the segment may have been joined meanwhile with earlier ones.

    Args:
        read: Reads the segment that stands for an ordinal.
        end: A sequence number that is durable.
    """
    ordinal, sequence = 0, 0
    while sequence < end:
        segment = read(ordinal)
        yield segment, sequence
        ordinal, sequence = segment.next_ordinal, segment.next_sequence


def content_digest(data: bytes) -> int:
    """Returns 64 bits that are equal for equal changes as sent, and never ERASED_DIGEST."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1


def segment_key(folder: str, name: str) -> str:
    """Returns a segment's key within its writer's folder, which ends in "/"."""
    return f"{folder}{name}.seg"


def encode_segment(segment: Segment) -> bytes:
    """Returns a segment as bytes."""
    return formats.packed(segment)


def read_segment(objects: Objects, folder: str, name: str) -> Segment:
    """Returns a segment by its name, or raises ObjectMissingError, CorruptError or NewerError."""
    key = segment_key(folder, name)
    data = objects.get(key)
    formats.require_known(key, data, pack=True)
    try:
        return msgspec.msgpack.decode(data, type=Segment)
    except msgspec.ValidationError as error:
        raise formats.unknown(key, str(error)) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise corrupt(key, str(error)) from None


def read_current(
    objects: Objects, folder: str, generations: Generations, writer_id: str, ordinal: int
) -> Segment:
    """Returns the segment that stands for an ordinal now, or raises ObjectMissingError or CorruptError."""
    while True:
        number = generations.number
        try:
            return read_segment(objects, folder, generations.name(writer_id, ordinal))
        except ObjectMissingError:
            if generations.refresh() == number:
                raise  # it was not replaced meanwhile


class WriterLog:
    """All segments of one writer. Thread-safe."""

    def __init__(
        self,
        objects: Objects,
        folder: str,
        writer_id: str,
        generations: Generations,
        *,
        counts: Callable[[Segment | Index], bool] = lambda _: True,
        confirm: Callable[[Segment], None] = lambda _: None,
        read_index: Callable[[str], Index | None] | None = None,
    ) -> None:
        """Describes the log; `load` reads it.

        Args:
            objects: The store.
            folder: The writer's folder, ending in "/".
            writer_id: The writer.
            generations: The generations of its adaptation.
            counts: Says whether an existing segment belongs to the log; the log ends before one that does not.
            confirm: Called with a segment that `append` has made durable, before it counts. If it raises, the
                segment is deleted again.
            read_index: Reads the index of a rewritten segment by its name; None if there is none.
        """
        self._read_index = read_index
        self.writer_id = writer_id
        self._objects = objects
        self._folder = folder
        self._generations = generations
        self._counts = counts
        self._confirm = confirm
        self._lock = threading.Lock()
        self._next_ordinal = 0
        self._next_sequence = 0
        self._digests: NDArray[np.uint64] = np.empty(64, np.uint64)
        self._labels: set[str] = set()
        self._erasures = generations.erasures(writer_id)

    @property
    def next_sequence(self) -> int:
        """Every change below this number is durable."""
        return self._next_sequence

    @property
    def labels(self) -> frozenset[str]:
        """The labels that its examples carry or once carried."""
        return frozenset(self._labels)

    def load(self) -> Iterator[Segment]:
        """Reads what is not known yet, and yields each segment of it that was not rewritten.

        Of rewritten segments the index is read, where there is one, not the examples.

        Raises:
            CorruptError: A segment is damaged.
            ObjectMissingError: A segment is missing while a later one is there.
        """
        with self._lock:
            self._generations.refresh()
            self._forget_erased()
            if not self._next_ordinal:
                self._require_whole()
            while (segment := self._read_next()) is not None and self._counts(segment):
                if isinstance(segment, Segment):
                    self._add(segment.index())
                    yield segment
                else:
                    self._add(segment)

    def require(self, sequence: int) -> None:
        """Raises CorruptError if not all changes below a number are there, which a commit says are durable."""
        if self._next_sequence < sequence:
            raise corrupt(
                segment_key(self._folder, original_name(self._next_ordinal)),
                f"it is missing, although a commit has the changes of its writer below {sequence}, and those below "
                f"{self._next_sequence} are there",
            )

    def repeated(self, first_sequence: int, digests: Sequence[int]) -> int:
        """Returns how many of the changes, counted from the first, are already durable or were erased since.

        Args:
            first_sequence: The sequence number of the first change.
            digests: `content_digest` of each change.

        Raises:
            ConflictError: The changes begin beyond the next sequence number, or one of them differs from the
                change that has its number.
        """
        next_sequence = self._next_sequence
        if first_sequence > next_sequence:
            raise _conflict(
                "SEQUENCE_GAP",
                f"The batch begins at sequence {first_sequence}, but writer {shown(self.writer_id)} goes on "
                f"at {next_sequence}: send the changes from there.",
                next_sequence,
            )
        known = self._digests[first_sequence : min(next_sequence, first_sequence + len(digests))]
        sent = np.array(digests[: len(known)], np.uint64)
        differing = np.flatnonzero((known != sent) & (known != ERASED_DIGEST))
        if differing.size:
            raise _conflict(
                "SEQUENCE_CONFLICT",
                f"Sequence {first_sequence + differing[0]} of writer {shown(self.writer_id)} was sent before "
                f"with other content: use a new number (the next is {next_sequence}) or another writer_id.",
                next_sequence,
            )
        return len(known)

    def append(self, records: Sequence[Record]) -> Segment:
        """Makes the records durable under the next sequence numbers.

        If a segment with the same records exists already, it counts as this one: an attempt that
        seemed to fail had in fact succeeded.

        Raises:
            ConflictError: Another server has taken the writer's stream; `load` reads what it wrote.
            DomainError: What `confirm` raised.
        """
        with self._lock:
            segment = Segment(self.writer_id, self._next_ordinal, self._next_sequence, tuple(records))
            key = segment_key(self._folder, segment.name)
            try:
                self._objects.create(key, encode_segment(segment))
            except ObjectExistsError:
                if read_segment(self._objects, self._folder, segment.name) != segment:
                    raise self._superseded() from None
            self._generations.refresh()
            if not self._generations.counts(self.writer_id, segment.name):
                # Other servers have continued, and the segment once under this key has been rewritten since.
                self._objects.delete([key])
                raise self._superseded()
            try:
                self._confirm(segment)
            except DomainError:
                self._objects.delete([key])
                raise
            self._add(segment.index())
            return segment

    def _require_whole(self) -> None:
        """Raises ObjectMissingError if a segment is missing while a later one is there."""
        keys = self._objects.keys(self._folder)
        names = (it.removeprefix(self._folder).removesuffix(".seg") for it in keys)
        ordinals = {it for it in map(ordinal_of, names) if it is not None}
        pieces = self._generations.pieces(self.writer_id)
        last = max([*ordinals, *(it.first_ordinal for it in pieces)], default=-1)
        ordinal = 0
        while ordinal <= last:
            piece = self._generations.piece(self.writer_id, ordinal)
            if piece is None and ordinal not in ordinals:
                self._generations.refresh()
                piece = self._generations.piece(self.writer_id, ordinal)
                if piece is None:
                    raise ObjectMissingError(segment_key(self._folder, original_name(ordinal)))
            ordinal = piece.next_ordinal if piece else ordinal + 1

    def _read_next(self) -> Segment | Index | None:
        ordinal = self._next_ordinal
        piece = self._generations.piece(self.writer_id, ordinal)
        if piece is not None and self._read_index is not None:
            index = self._read_index(piece.name)
            if index is not None:
                return index
        try:
            return read_current(self._objects, self._folder, self._generations, self.writer_id, ordinal)
        except ObjectMissingError:
            if self._generations.piece(self.writer_id, ordinal) is not None:
                raise
            return None

    def _forget_erased(self) -> None:
        """Begins anew if records were erased: their digests and labels must not be kept."""
        erasures = self._generations.erasures(self.writer_id)
        if erasures == self._erasures:
            return
        again = WriterLog(
            self._objects,
            self._folder,
            self.writer_id,
            self._generations,
            counts=self._counts,
            read_index=self._read_index,
        )
        for _ in again.load():
            pass
        self._digests, self._labels = again._digests, again._labels
        self._next_ordinal, self._next_sequence = again._next_ordinal, again._next_sequence
        self._erasures = erasures

    def _add(self, segment: Index) -> None:
        first = self._next_sequence
        if not segment.first_sequence <= first <= segment.next_sequence:
            raise corrupt(
                segment_key(self._folder, segment.name),
                f"it begins at sequence {segment.first_sequence} instead of {first}",
            )
        if segment.next_sequence > len(self._digests):
            grown = np.empty(2 * segment.next_sequence, np.uint64)
            grown[:first] = self._digests[:first]
            self._digests = grown
        # A segment joined from several may begin with known records.
        self._digests[first : segment.next_sequence] = segment.digests[first - segment.first_sequence :]
        self._labels.update(segment.labels)
        self._next_ordinal = segment.next_ordinal
        # Last, because `repeated` reads without the lock.
        self._next_sequence = segment.next_sequence

    def _superseded(self) -> ConflictError:
        return _conflict(
            "WRITER_SUPERSEDED",
            f"Another call has gone on with the stream of writer {shown(self.writer_id)}: give each concurrent "
            "call a writer_id of its own.",
            self._next_sequence,
        )


def _conflict(reason: str, message: str, next_sequence: int) -> ConflictError:
    return ConflictError(message, reason=reason, metadata={"next_sequence": str(next_sequence)})
