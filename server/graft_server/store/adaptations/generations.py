"""Says which objects hold an adaptation's examples: segments as they were acknowledged, or rewritten ones.

A segment never changes. When an example is erased, or small segments are joined, new objects are written
under new names, and one entry of a numbered log, a generation, says which ordinals each of them stands for: that entry
makes them count, all at once. The objects they replace are then garbage, even after a crash, and a reader that
follows an older generation finds them missing and looks again.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable
from datetime import datetime

import msgspec

from graft_server.store.objects.numbered_log import NumberedLog
from graft_server.store.objects.objects import ObjectExistsError, Objects

_ORIGINAL = re.compile(r"\d{20}")
_REWRITTEN = re.compile(r"\d{20}-(\d{20})-[0-9a-f]{16}")


class Piece(msgspec.Struct, frozen=True):
    """An object that stands for the segments of a range of ordinals."""

    first_ordinal: int
    next_ordinal: int
    next_sequence: int
    """The sequence number after its last record."""
    name: str
    """The name of its object within the writer's folder, and of its features."""


class Generation(msgspec.Struct, frozen=True):
    """One rewrite of segments."""

    time: datetime
    pieces: dict[str, tuple[Piece, ...]]
    """The rewritten segments by writer, ascending."""
    erased: dict[str, int] | None = None
    """Writer to the lowest sequence number of an erased example; None if the records are the same."""


def original_name(ordinal: int) -> str:
    """Returns the name of a segment as it was acknowledged."""
    return f"{ordinal:020d}"


def new_name(ordinal: int, number: int) -> str:
    """Returns a name for a rewritten segment that begins at an ordinal and belongs to generation `number`."""
    return f"{ordinal:020d}-{number:020d}-{secrets.token_hex(8)}"


def ordinal_of(name: str) -> int | None:
    """Returns the ordinal of a segment as it was acknowledged; None for the name of a rewritten one."""
    return int(name) if _ORIGINAL.fullmatch(name) else None


class Generations:
    """The generations of one adaptation, as last read. Thread-safe."""

    def __init__(self, objects: Objects, folder: str) -> None:
        """Describes the generations; `refresh` reads them.

        Args:
            objects: The store.
            folder: The adaptation's folder, ending in "/".
        """
        self._log: NumberedLog[Generation] = NumberedLog(objects, f"{folder}generations/", Generation)
        self._lock = threading.Lock()
        self._pieces: dict[str, dict[int, Piece]] = {}
        self._erasures: dict[str, int] = {}
        self._erased: dict[int, dict[str, int]] = {}

    @property
    def number(self) -> int:
        """The newest generation's number; 0: all segments are as they were acknowledged."""
        return self._log.next_number - 1

    def refresh(self) -> int:
        """Reads the generations written since the last read, and returns the newest one's number."""
        with self._lock:
            self._read()
            return self.number

    def append(self, generation: Generation, number: int) -> None:
        """Makes a generation count, or raises ObjectExistsError if there is one of that number."""
        with self._lock:
            if number != self._log.next_number:
                raise ObjectExistsError(self._log.key(number))
            self._log.append(generation)
            self._apply(generation)

    def erasures(self, writer_id: str) -> int:
        """Returns how many generations have erased records of a writer."""
        return self._erasures.get(writer_id, 0)

    def piece(self, writer_id: str, ordinal: int) -> Piece | None:
        """Returns the rewritten segment that stands for an ordinal, or None."""
        return self._pieces.get(writer_id, {}).get(ordinal)

    def pieces(self, writer_id: str) -> list[Piece]:
        """Returns a writer's rewritten segments that count, ascending."""
        return sorted(set(self._pieces.get(writer_id, {}).values()), key=lambda it: it.first_ordinal)

    def counts(self, writer_id: str, name: str) -> bool:
        """Whether an object of that name counts, if it exists."""
        ordinal = ordinal_of(name)
        if ordinal is not None:
            return self.piece(writer_id, ordinal) is None
        return any(it.name == name for it in self.pieces(writer_id))

    def dead(self, name: str) -> bool:
        """Whether an object that does not count never will: it did once, or its generation is past."""
        written_for = _REWRITTEN.fullmatch(name)
        return ordinal_of(name) is not None if written_for is None else int(written_for[1]) <= self.number

    def known(self, name: str) -> bool:
        """Whether this release gives objects such a name; only a newer one knows what others are."""
        return bool(_ORIGINAL.fullmatch(name) or _REWRITTEN.fullmatch(name))

    def name(self, writer_id: str, ordinal: int) -> str:
        """Returns the name of the object that holds a segment's records."""
        piece = self.piece(writer_id, ordinal)
        return original_name(ordinal) if piece is None else piece.name

    @property
    def last_erasure(self) -> int:
        """The number of the newest generation that erased records, or 0."""
        return max(self._erased, default=0)

    def erased_since(self, number: int) -> dict[str, int]:
        """Writer to the lowest sequence number of an example that was erased after a generation."""
        lowest: dict[str, int] = {}
        for later, erased in list(self._erased.items()):
            for writer_id, sequence in erased.items() if later > number else ():
                lowest[writer_id] = min(sequence, lowest.get(writer_id, sequence))
        return lowest

    def _read(self) -> None:
        while generation := self._log.read_next():
            self._apply(generation)

    def _apply(self, generation: Generation) -> None:
        if generation.erased is not None:
            self._erased[self.number] = generation.erased
        for writer_id, pieces in generation.pieces.items():
            # A new mapping, because it is read without the lock.
            known = dict(self._pieces.get(writer_id, {}))
            for piece in pieces:
                known.update(dict.fromkeys(range(piece.first_ordinal, piece.next_ordinal), piece))
            self._pieces[writer_id] = known
            if generation.erased is not None:
                self._erasures[writer_id] = self.erasures(writer_id) + 1


def names_of(paths: Iterable[str], prefix: str, suffix: str) -> set[tuple[str, str]]:
    """Returns (writer, name) of the keys below a prefix of segments or features."""
    parts = (it.removeprefix(prefix).removesuffix(suffix).partition("/") for it in paths)
    return {(writer, name) for writer, _, name in parts}
