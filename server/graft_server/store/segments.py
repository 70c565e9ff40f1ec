"""A writer's changes, in the order of their sequence numbers, as segments that are created once.

Segments are keyed by writer and ordinal, so that two servers that take the same writer's stream collide
instead of interleaving. Every change has a record, also one that was refused, with a digest of what was
sent: a repeat can be told from a conflict even after a restart.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.errors import ConflictError
from graft_server.examples import Change, Example, Rejection
from graft_server.names import shown
from graft_server.store.objects import ObjectExistsError, Objects, corrupt


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one change. Exactly one of change and rejection is not None."""

    digest: int
    """`content_digest` of the change as it was sent."""
    change: Change | None = None
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive changes of one writer."""

    writer_id: str
    ordinal: int
    """From 0, without gaps."""
    first_sequence: int
    records: tuple[Record, ...]

    @property
    def next_sequence(self) -> int:
        """The sequence number after the last."""
        return self.first_sequence + len(self.records)

    @property
    def upserts(self) -> list[Example]:
        """The accepted examples in record order: what the rows of the segment's features belong to."""
        return [it.change.upsert for it in self.records if it.change and it.change.upsert]

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """What was refused, in record order."""
        return tuple(it.rejection for it in self.records if it.rejection)


def content_digest(data: bytes) -> int:
    """Returns 64 bits that are equal for equal changes as sent."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def segment_key(folder: str, ordinal: int) -> str:
    """Returns a segment's key within its writer's folder, which ends in "/"."""
    return f"{folder}{ordinal:020d}.seg"


def read_segment(objects: Objects, folder: str, ordinal: int) -> Segment:
    """Returns a segment, or raises ObjectMissingError or CorruptError."""
    key = segment_key(folder, ordinal)
    try:
        return msgspec.msgpack.decode(objects.get(key), type=Segment)
    except msgspec.DecodeError as error:
        raise corrupt(key, str(error)) from None


class WriterLog:
    """All segments of one writer. Thread-safe."""

    def __init__(self, objects: Objects, folder: str, writer_id: str) -> None:
        """Describes the log; `load` reads it."""
        self.writer_id = writer_id
        self._objects = objects
        self._folder = folder
        self._lock = threading.Lock()
        self._next_ordinal = 0
        self._next_sequence = 0
        self._digests: NDArray[np.uint64] = np.empty(64, np.uint64)
        self._labels: set[str] = set()

    @property
    def next_sequence(self) -> int:
        """Every change below this number is durable."""
        return self._next_sequence

    @property
    def labels(self) -> frozenset[str]:
        """The labels that its examples carry, or carried once."""
        return frozenset(self._labels)

    def load(self) -> Iterator[Segment]:
        """Reads the segments that are not known yet and yields each.

        Raises:
            CorruptError: A segment is damaged.
            ObjectMissingError: A segment is missing while a later one is there.
        """
        with self._lock:
            for _ in range(len(self._objects.keys(self._folder)) - self._next_ordinal):
                segment = read_segment(self._objects, self._folder, self._next_ordinal)
                self._add(segment)
                yield segment

    def repeated(self, first_sequence: int, digests: Sequence[int]) -> int:
        """Returns how many of the changes, from the first on, are durable already.

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
        differing = np.flatnonzero(known != np.array(digests[: len(known)], np.uint64))
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

        Where a segment with the very same records is there already, it counts as this one: an attempt that
        seemed to fail had in fact succeeded.

        Raises:
            ConflictError: Another server has taken the writer's stream; `load` reads what it wrote.
        """
        with self._lock:
            segment = Segment(self.writer_id, self._next_ordinal, self._next_sequence, tuple(records))
            try:
                self._objects.create(
                    segment_key(self._folder, segment.ordinal), msgspec.msgpack.encode(segment)
                )
            except ObjectExistsError:
                if read_segment(self._objects, self._folder, segment.ordinal) != segment:
                    raise _conflict(
                        "WRITER_SUPERSEDED",
                        f"Another call has gone on with the stream of writer {shown(self.writer_id)}: give "
                        "each concurrent call a writer_id of its own.",
                        segment.first_sequence,
                    ) from None
            self._add(segment)
            return segment

    def _add(self, segment: Segment) -> None:
        if segment.first_sequence != self._next_sequence:
            raise corrupt(
                segment_key(self._folder, segment.ordinal),
                f"it begins at sequence {segment.first_sequence} instead of {self._next_sequence}",
            )
        if segment.next_sequence > len(self._digests):
            grown = np.empty(2 * segment.next_sequence, np.uint64)
            grown[: self._next_sequence] = self._digests[: self._next_sequence]
            self._digests = grown
        self._digests[segment.first_sequence : segment.next_sequence] = [it.digest for it in segment.records]
        self._labels.update(label for it in segment.upserts for label in it.labels)
        self._next_ordinal += 1
        # Last, because `repeated` reads without the lock.
        self._next_sequence = segment.next_sequence


def _conflict(reason: str, message: str, next_sequence: int) -> ConflictError:
    return ConflictError(message, reason=reason, metadata={"next_sequence": str(next_sequence)})
