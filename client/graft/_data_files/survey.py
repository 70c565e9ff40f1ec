"""What the rows of a data file show before any is sent: how label cells are to be read, and which ids lose rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from graft._data_files.absent import Absent
from graft._data_files.cells import Cells, is_no_number
from graft._data_files.columns import Columns, Origin, Row, RowError
from graft._data_files.examples import example_of
from graft._data_files.targets import CODE, labels_in
from graft._records.inputs.id_use import IdUse
from graft._records.inputs.list_cells import list_of
from graft._records.inputs.swapped import SwapGuess
from graft._records.inputs.targets import is_collection, is_missing, plain
from graft._records.inputs.task_guess import Guess, TaskGuess

_MAX_CELLS: Final = 1_000_000
"""The most different cells of labels that are counted."""
_SEPARATORS: Final = ("|", ";", ",")
_MOSTLY: Final = 0.5
"""The share of label cells that must look like lists for all of them to be read so."""
_RECUR: Final = 0.6
"""The share of the parts of cells that must occur in several cells for a separator to be suspected."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """How the rows of a file are read, and why."""

    columns: Columns
    notes: tuple[str, ...]
    """What was found, in sentences, with what overrules it."""
    doubt: str = ""
    """Of the notes, the one that says how the task was guessed, where it may be another."""


class Survey:
    """Looks at rows, one at a time."""

    def __init__(self, origin: Origin, columns: Columns) -> None:
        """Begins.

        Args:
            origin: The file.
            columns: What the caller says of its columns.
        """
        self.rows = 0
        """Rows that can be used."""
        self.missing = 0
        """Rows without a target."""
        self.ids = IdUse()
        """How ids are used."""
        self.labels: Counter[str] = Counter()
        """The rows that carry each label, as label cells stand if they are texts."""
        self.absent = Absent(origin.name, columns)
        """Columns that no row has."""
        self._origin = origin
        self._columns = columns
        self._cells: Counter[str] = Counter()
        self._zeros_and_ones: set[int] = set()
        self._numbers = False
        self._guess = TaskGuess()
        self.swap = SwapGuess()
        """Whether inputs and labels look swapped."""

    def add(self, row: Row | RowError) -> None:
        """Looks at a row."""
        if isinstance(row, RowError):
            return
        self.rows += 1
        self.absent.see(row)
        if self._columns.id is not None:
            self._add_id(row)
        if self._columns.labels_from:
            return
        cells = Cells(self._origin.name, row)
        value: Any = plain(cells.value(self._columns.target)) if cells.has(self._columns.target) else None
        if is_missing(value) or (isinstance(value, str) and self._columns.value and is_no_number(value)):
            self.missing += 1
        elif isinstance(value, str):
            if len(self._cells) < _MAX_CELLS:
                self._cells[value] += 1
            if self.swap.open and not (self._columns.path or self._columns.value):
                self.swap.add(plain(cells.value(self._columns.input)), value)
        elif not self._columns.value:
            self._see_list(value)
            self.labels.update(set(labels_in(value, self._columns)))
        self._guess.add(("", value if _may_tell(value) else None))

    def _see_list(self, value: Any) -> None:
        """Looks at a list of numbers: rows of indicators hold zeros and ones alone, and all as many."""
        if isinstance(value, list) and value and all(isinstance(it, int | float) for it in value):
            self._numbers |= any(it not in (0, 1) for it in value)
            self._zeros_and_ones.add(len(value))

    @property
    def open(self) -> bool:
        """Whether the next row may tell how to read those before it: all targets are missing, or may be codes."""
        if self._columns.value or self._columns.labels_from or self._columns.separator:
            return False
        codes = all(CODE.fullmatch(cell.strip()) for cell in self._cells)
        return codes and (bool(self._cells) or self._guess.open)

    def _add_id(self, row: Row) -> None:
        try:
            example = example_of(self._origin, row, self._columns, opened=False)
        except RowError:
            return
        if example.id:
            self.ids.add(example)

    def reading(self, task: str, cells: str, *, whole: bool = True, usual: str = "") -> Surveyed:
        """How to read the rows.

        Args:
            task: The task that the caller names; "" for none.
            cells: "read" reads cells that look like lists as lists, "keep" no cell as anything but what it says, and
                "" what most cells tell.
            whole: Whether the survey saw all rows; else it counts none.
            usual: The task where targets leave it open, because they are whole numbers or there are none; "" for none.
        """
        columns = self._columns
        notes: list[str] = []
        if columns.labels_from:
            return Surveyed(replace(columns, task="multi_label"), ())
        missing = self._missing_notes() if whole else ()
        texts = sum(self._cells.values())
        task = task.replace("-", "_") or ("regression" if columns.value else "")
        if task == "regression":
            return Surveyed(replace(columns, task=task), missing)
        found = {cell: it for cell in self._cells if (it := list_of(cell)) is not None}
        lists = sum(self._cells[cell] for cell in found)
        for it in found.values():
            self._see_list(it)
        read = bool(columns.separator) or cells == "read" or (cells == "" and lists > _MOSTLY * texts)
        if lists and not columns.separator:
            notes.append(self._of_lists(found, texts, read=read, asked=bool(task)))
        codes = cells == "" and texts > 0 and all(CODE.fullmatch(cell.strip()) for cell in self._cells)
        if codes:
            notes.append(self._of_codes())
        guess, said = Guess(""), ""
        if not task:
            several = bool(columns.separator) or (read and any(isinstance(it, list) for it in found.values()))
            guess = Guess("multi_label") if several else self._guess.result()
            usual = usual.replace("-", "_")
            if usual and (not guess.task or (guess.doubtful and usual != "multi_label")):
                guess = Guess(usual)
            said = guess.said("--task {}")
            notes.append(said)
        numbers = self._numbers or len(self._zeros_and_ones) > 1
        columns = replace(
            columns, task=task or guess.task, lists=read and lists > 0, numbers=numbers, codes=codes
        )
        self._count_labels(columns)
        if not read:
            notes.append(self._of_separators())
        if texts and not codes and not lists:
            notes.append(self._of_numbers(texts))
        return Surveyed(columns, (*filter(None, notes), *missing), said if guess.doubtful else "")

    def _count_labels(self, columns: Columns) -> None:
        for cell, count in self._cells.items():
            for label in set(labels_in(cell, columns)):
                self.labels[label] += count

    def _missing_notes(self) -> tuple[str, ...]:
        if not self.missing:
            return ()
        column = self._columns.target
        rows = f"{self.missing:,} of {self.rows:,} rows have no {column!r}"
        none = "; where no label applies, write []" if self._columns.separator else ""
        return (f"{rows}: they count as unlabelled{none}",)

    def _of_lists(self, lists: Mapping[str, Any], texts: int, *, read: bool, asked: bool) -> str:
        example = next(iter(lists))
        cells = f"{sum(map(self._cells.__getitem__, lists)):,} of {texts:,} cells of {self._columns.label!r}"
        found = f"{cells} look like lists of labels, such as {example:.60}"
        if read:
            single = not asked and all(isinstance(it, list) and len(it) < 2 for it in lists.values())
            one = "; --task single-label makes a model of one label each" if single else ""
            return f"{found}: read as lists; --label-cells keep makes a label of each cell{one}"
        return f"warning: {found}: each is one label; --label-cells read reads them as lists"

    def _of_codes(self) -> str:
        first = ", ".join(sorted(self._cells)[:3])
        return (
            f"the labels of {self._columns.label!r} are whole numbers written as fractions ({first}), which a missing "
            "value makes of codes: read without the fraction; --label-cells keep keeps it"
        )

    def _of_separators(self) -> str:
        for separator in _SEPARATORS:
            parted = [
                {part.strip() for part in cell.split(separator)} - {""}
                for cell in self._cells
                if separator in cell
            ]
            whole = {cell.strip() for cell in self._cells if separator not in cell}
            parts = Counter(part for cell in parted for part in cell)
            again = sum(count > 1 or part in whole for part, count in parts.items())
            if len(parted) > 1 and again >= _RECUR * len(parts):
                shown = ", ".join(part for part, _ in parts.most_common(3))
                return (
                    f"{len(parted):,} labels contain {separator!r}, and their parts recur ({shown}): if cells hold "
                    f"several labels, say --label-separator {separator!r}"
                )
        return ""

    def _of_numbers(self, texts: int) -> str:
        numbers = [cell for cell in self._cells if _is_fraction(cell)]
        if len(numbers) * 2 <= len(self._cells) or len(self._cells) * 2 <= texts:
            return ""
        return (
            f"the labels of {self._columns.label!r} are numbers, such as {numbers[0]:.20}, {len(self._cells):,} "
            f"different ones in {texts:,} rows: if they are to be predicted as numbers, say --task regression"
        )


def look(rows: Iterable[Row | RowError], survey: Survey) -> None:
    """Has a survey look at all rows."""
    for row in rows:
        survey.add(row)


def _may_tell(value: Any) -> bool:
    return isinstance(value, Mapping | str | int | float | Decimal) or is_collection(value)


def _is_fraction(cell: str) -> bool:
    try:
        return bool(float(cell) % 1)
    except ValueError:
        return False
