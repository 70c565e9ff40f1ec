"""The rows of a data file: which example each one is, and which of them could not be used."""

from __future__ import annotations

import bisect
import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, overload

from graft._data_files.columns import RowError

_KEPT: Final = 100
_KINDS: Final = 1_000
"""So many different kinds of reasons are told apart."""
FIRST: Final = 3
"""So many rows of each kind are named."""
_VARIES: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\b\d[\d,.]*|\b0x[0-9a-f]+")


class RowsRead(Sequence[int]):
    """The line of each example by its index, and the first 100 rows that are no examples.

    Attributes:
        unit: What rows are counted in: "line", "row" or "file".
        place: Names a row by its number: "line 5", or a file of a folder by its path.
        refused_count: How many rows could not be used.
        refused: The first of these, with the reason.
        kinds: How many rows could not be used for each kind of reason: the reason without its numbers and quotations.
        first_of_kind: The first three rows of each kind.
        first_sequence: The number that the first example has at the server.
    """

    def __init__(self, unit: str = "line") -> None:
        self.unit = unit
        self.place: Callable[[int], str] = f"{unit} {{}}".format
        self.refused_count = 0
        self.refused: list[RowError] = []
        self.kinds: Counter[str] = Counter()
        self.first_of_kind: dict[str, list[RowError]] = {}
        self.first_sequence = 0
        self._taken = 0
        # Most rows are one line further than the row before: only where that changes, something is kept.
        self._changes = array("q")
        self._offsets = array("q")

    def take(self, line: int) -> None:
        """Notes the line of the next example."""
        offset = line - self._taken
        if not self._offsets or self._offsets[-1] != offset:
            self._changes.append(self._taken)
            self._offsets.append(offset)
        self._taken += 1

    def refuse(self, error: RowError) -> None:
        """Notes a row that is no example."""
        self.refused_count += 1
        if len(self.refused) < _KEPT:
            self.refused.append(error)
        kind = _VARIES.sub("…", error.reason)
        if kind in self.kinds or len(self.kinds) < _KINDS:
            self.kinds[kind] += 1
            first = self.first_of_kind.setdefault(kind, [])
            if len(first) < FIRST:
                first.append(error)

    def __len__(self) -> int:
        return self._taken

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._taken))]
        if not 0 <= index < self._taken:
            raise IndexError(index)
        return index + self._offsets[bisect.bisect_right(self._changes, index) - 1]

    def line(self, sequence: int) -> int | None:
        """The line of the example that has this number at the server; None if it is none of these."""
        index = sequence - self.first_sequence
        return self[index] if 0 <= index < self._taken else None
