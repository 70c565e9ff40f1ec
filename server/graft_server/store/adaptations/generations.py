"""Says which objects hold an adaptation's examples: segments as they were acknowledged, or rewritten ones.

A segment never changes. When an example is erased, or small segments are joined, new objects are written
under new names, and one entry of a numbered log, a generation, says which ordinals each of them stands for: that entry
makes them count, all at once. The objects they replace are then garbage, even after a crash, and a reader that
follows an older generation finds them missing and looks again.

A stream of months has ten thousands of generations, of which few pieces are left. After every 64th the state is stored,
so that opening the adaptation reads that and the generations after it.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec

from graft_server.domain.errors import CorruptError, NewerError, StoreError
from graft_server.store.objects.numbered_log import NumberedLog
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects, corrupt

_log = logging.getLogger(__name__)

STORED_EVERY = 64
"""The generations from one stored state to the next."""

_ORIGINAL = re.compile(r"\d{20}")
_STATE = re.compile(r"\d{20}\.json")
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


class _State(msgspec.Struct, frozen=True):
    """What the generations up to one amount to."""

    number: int
    pieces: dict[str, list[Piece]]
    erasures: dict[str, int]
    erased: dict[int, dict[str, int]]


class _Pieces:
    """A writer's rewritten segments that count, ascending and without overlaps."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self.all = list(pieces)
        self._firsts = [it.first_ordinal for it in self.all]

    def at(self, ordinal: int) -> Piece | None:
        """Returns the piece that stands for an ordinal, or None."""
        place = bisect_right(self._firsts, ordinal) - 1
        if place < 0 or ordinal >= self.all[place].next_ordinal:
            return None
        return self.all[place]

    def put(self, piece: Piece) -> None:
        """Puts a piece in the place of those whose ordinals it stands for."""
        first = bisect_left(self._firsts, piece.first_ordinal)
        end = bisect_left(self._firsts, piece.next_ordinal)
        self.all[first:end] = [piece]
        self._firsts[first:end] = [piece.first_ordinal]


class Generations:
    """The generations of one adaptation, as last read. Thread-safe."""

    def __init__(self, objects: Objects, folder: str) -> None:
        """Describes the generations; `refresh` reads them.

        Args:
            objects: The store.
            folder: The adaptation's folder, ending in "/".
        """
        self._objects = objects
        self._log: NumberedLog[Generation] = NumberedLog(objects, f"{folder}generations/", Generation)
        self._states = f"{folder}generation-states/"
        self._lock = threading.Lock()
        self._restored = False
        self._pieces: dict[str, _Pieces] = {}
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
            self._apply([(number, generation)])
            if number % STORED_EVERY == 0:
                self._store()

    def erasures(self, writer_id: str) -> int:
        """Returns how many generations have erased records of a writer."""
        return self._erasures.get(writer_id, 0)

    def piece(self, writer_id: str, ordinal: int) -> Piece | None:
        """Returns the rewritten segment that stands for an ordinal, or None."""
        pieces = self._pieces.get(writer_id)
        return pieces.at(ordinal) if pieces else None

    def pieces(self, writer_id: str) -> list[Piece]:
        """Returns a writer's rewritten segments that count, ascending."""
        pieces = self._pieces.get(writer_id)
        return list(pieces.all) if pieces else []

    def counts(self, writer_id: str, name: str) -> bool:
        """Whether an object of that name counts, if it exists."""
        if not self.known(name):
            return False
        piece = self.piece(writer_id, int(name[:20]))
        return piece is None if ordinal_of(name) is not None else piece is not None and piece.name == name

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
        if not self._restored:
            self._restore()
            self._restored = True
        read: list[tuple[int, Generation]] = []
        while generation := self._log.read_next():
            read.append((self.number, generation))
        self._apply(read)

    def _apply(self, generations: Sequence[tuple[int, Generation]]) -> None:
        """Applies generations with their numbers, in order."""
        changed: dict[str, _Pieces] = {}
        for number, generation in generations:
            if generation.erased is not None:
                self._erased[number] = generation.erased
            for writer_id, pieces in generation.pieces.items():
                if writer_id not in changed:
                    known = self._pieces.get(writer_id)
                    changed[writer_id] = _Pieces(known.all if known else ())
                for piece in pieces:
                    changed[writer_id].put(piece)
                if generation.erased is not None:
                    self._erasures[writer_id] = self.erasures(writer_id) + 1
        # New pieces in the place of the old, because they are read without the lock.
        self._pieces.update(changed)

    def _restore(self) -> None:
        """Begins with the newest stored state."""
        for name in sorted(
            filter(_STATE.fullmatch, self._objects.names_after(self._states, "")), reverse=True
        ):
            try:
                state = self._objects.get_json(self._states + name, _State)
            except (ObjectMissingError, CorruptError, NewerError) as error:
                _log.warning("a stored state of generations is passed over: %s", error.message)
                continue
            if not self._objects.exists(self._log.key(state.number)):
                raise corrupt(
                    self._log.key(state.number), "it is missing, although a state after it is stored"
                )
            self._pieces = {writer_id: _Pieces(them) for writer_id, them in state.pieces.items()}
            self._erasures, self._erased = state.erasures, state.erased
            self._log.next_number = state.number + 1
            return

    def _store(self) -> None:
        pieces = {writer_id: it.all for writer_id, it in self._pieces.items()}
        state = _State(self.number, pieces, self._erasures, self._erased)
        try:
            before = sorted(filter(_STATE.fullmatch, self._objects.names_after(self._states, "")))
            with suppress(ObjectExistsError):
                self._objects.create_json(f"{self._states}{self.number:020d}.json", state)
            self._objects.delete([self._states + it for it in before[:-1]])
        except StoreError as error:
            _log.warning("the state of generations could not be stored: %s", error.message)


def names_of(paths: Iterable[str], prefix: str, suffix: str) -> set[tuple[str, str]]:
    """Returns (writer, name) of the keys below a prefix of segments or features."""
    parts = (it.removeprefix(prefix).removesuffix(suffix).partition("/") for it in paths)
    return {(writer, name) for writer, _, name in parts}
