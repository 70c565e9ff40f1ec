"""What became of the rows that an adaptation, or its check, was given: each is counted once, and the sums add up."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from graft.v1 import adaptation_pb2

_LABELLED: Final = 0
_UNLABELLED: Final = 1
_DELETION: Final = 2
_MAX_ROWS: Final = 10_000_000
_MAX_IDS: Final = 2_000_000
"""What is kept for more would be a burden: a byte a row, about 100 an id."""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What became of rows. `read` is the sum of the others."""

    read: int
    """The number of rows, or examples, that were given."""
    examples: int
    """Those that are stored with a target, and count: for training, or held out."""
    replaced: int = 0
    """Those that a later row of the same id replaced."""
    refused: int = 0
    """Those that were refused, by the client or by the server."""
    unlabelled: int = 0
    """Those that are stored without a target."""
    deleted: int = 0
    """Those that a later deletion took back."""
    deletions: int = 0
    """The deletions themselves."""
    left_out: int = 0
    """Those that were left out because an earlier row has their id."""
    blank: int = 0
    """Rows without a value, and rows that repeat the header."""

    def with_more(self, *, refused: int = 0, left_out: int = 0, blank: int = 0) -> RowCounts:
        """The counts with further rows, of which no example was made."""
        return replace(
            self,
            read=self.read + refused + left_out + blank,
            refused=self.refused + refused,
            left_out=self.left_out + left_out,
            blank=self.blank + blank,
        )

    def said(self, noun: str = "row") -> str:
        """The counts in one line, such as "of 412 rows: 400 examples, 7 replaced by a later row of the same id"."""
        named = [
            f"{self.examples:,} example{'' if self.examples == 1 else 's'}",
            *(
                f"{count:,} {what}"
                for count, what in (
                    (self.replaced, f"replaced by a later {noun} of the same id"),
                    (self.refused, "refused"),
                    (self.unlabelled, "without a label"),
                    (self.deleted, "taken back by a later deletion"),
                    (self.deletions, "deletions" if self.deletions > 1 else "deletion"),
                    (self.left_out, f"left out because an earlier {noun} has the same id"),
                    (self.blank, "blank, or the header once more"),
                )
                if count
            ),
        ]
        return f"of {self.read:,} {noun}{'' if self.read == 1 else 's'}: {', '.join(named)}"


class RowTally:
    """Counts the changes of a stream as they are sent, and what became of them once it is known which were refused."""

    def __init__(self) -> None:
        self._kinds = bytearray()
        self._last: dict[int, int] = {}
        self._repeats: dict[int, array[int]] = {}
        self._complete = True

    def add(self, change: adaptation_pb2.ExampleChange) -> None:
        """Counts the next change."""
        if len(self._kinds) >= _MAX_ROWS or len(self._last) >= _MAX_IDS:
            self._complete = False
            return
        number = len(self._kinds)
        if change.WhichOneof("change") == "delete_id":
            self._kinds.append(_DELETION)
            self._use(change.delete_id, number)
            return
        example = change.upsert
        self._kinds.append(_UNLABELLED if example.WhichOneof("target") is None else _LABELLED)
        if example.id:
            self._use(example.id, number)

    def counts(self, refused: Iterable[int], refused_count: int) -> RowCounts | None:
        """The counts; None where there were too many rows to tell.

        Args:
            refused: The places of refused changes in the stream, as many as are known.
            refused_count: How many were refused.
        """
        if not self._complete:
            return None
        known = set(refused)
        gone = {it for it in known if 0 <= it < len(self._kinds)}  # others are of earlier calls
        replaced, deleted = self._undone(gone)
        counted = gone | replaced | deleted
        unlabelled, deletions = (
            self._kinds.count(kind) - sum(self._kinds[it] == kind for it in counted)
            for kind in (_UNLABELLED, _DELETION)
        )
        others = len(replaced) + len(deleted) + unlabelled + deletions
        # Beyond the rejections that are kept, which rows were refused is not known: they are taken for labelled ones.
        refused_count = min(refused_count - len(known) + len(gone), len(self._kinds) - others)
        return RowCounts(
            read=len(self._kinds),
            examples=len(self._kinds) - others - refused_count,
            replaced=len(replaced),
            refused=refused_count,
            unlabelled=unlabelled,
            deleted=len(deleted),
            deletions=deletions,
        )

    def _use(self, id_: str, number: int) -> None:
        key = hash(id_)
        before = self._last.get(key)
        if before is not None:
            self._repeats.setdefault(key, array("q", [before])).append(number)
        self._last[key] = number

    def _undone(self, gone: set[int]) -> tuple[set[int], set[int]]:
        """The rows that a later row replaced, and those that a later deletion took back."""
        replaced: set[int] = set()
        deleted: set[int] = set()
        for numbers in self._repeats.values():
            present: int | None = None
            for number in numbers:
                if number in gone:
                    continue
                deletion = self._kinds[number] == _DELETION
                if present is not None:
                    (deleted if deletion else replaced).add(present)
                present = None if deletion else number
        return replaced, deleted
