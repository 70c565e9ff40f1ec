"""Splits the lines of a delimited file into rows of cells, and never makes one row of several without a sign.

A quote that opens a cell and is a plain character in truth swallows lines up to the next quote. So a row of several
lines is taken for one only where its lines are no rows of their own.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self, TypeAlias

from graft._data_files.formats.lines import MAX_CHARACTERS, Line, TextLines

Cells: TypeAlias = list[str | None]

_MAX_LINES: Final = 10_000
"""The most lines of one row."""
_DOUBTFUL: Final = 20
"""Within so many lines behind a row that cannot be read may be the rest of it."""
_MOST_VALUES: Final = 10_000
"""So many values of a column are kept."""
_ROWS: Final = 0.8
"""Lines of which so many have as many cells as the header has are rows of their own."""
_BACKSLASH: Final = re.compile(r"""\\([\\"'])?""")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "", "b": "", "Z": ""}
_UNBALANCED: Final = "its quotes do not balance"
_BALANCED: Final = "double a quote inside a quoted cell, or give --quote none if quotes are characters"
_REST: Final = "it seems to be the rest of a row above whose quotes do not balance"
_SPLIT_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_NOTHING: Final = "\\N"
"""What databases write for NULL."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a row are written."""

    delimiter: str = ","
    """The character between cells."""
    quote: str = '"'
    """The character around cells that contain the delimiter; "": there is none."""
    backslash: bool = False
    """Whether a backslash takes the meaning from the character behind it."""
    sure: bool = False
    """Whether somebody said so: nothing else is tried."""
    settled: bool = False
    """Whether it is known what backslashes mean."""
    enclosing: bool = False
    """Whether quotes are known to enclose cells."""
    spaced: bool = False
    """Whether spaces stand between a delimiter and the quote behind it."""

    @property
    def plain_quotes(self) -> bool:
        """Whether quotes may well be characters of texts: people write such files without quoting."""
        return self.delimiter in "\t|" and not self.sure


class Record(NamedTuple):
    """What a row's lines hold."""

    line: int
    """The line on which it begins, from 1."""
    cells: Cells
    """Its cells; none if it cannot be read."""
    wrong: str = ""
    """Why it cannot be read."""
    lines: int = 1
    """How many lines it takes."""


class Records:
    """The rows of a delimited file.

    Attributes:
        width: How many cells a row has; 0: as many as the first one.
        loose: How many cells at the end of a row may be left away.
        blank: Whether rows of empty cells are given, too.
        passed_over: How many rows of empty cells came before the newest row that is given.
        seen: What is among the values of each column, where that tells rows from other lines; None: it does not.
    """

    def __init__(
        self, lines: TextLines, dialect: Dialect, *, seen: Sequence[Container[str] | None] = ()
    ) -> None:
        self._lines = lines
        self._dialect = dialect
        self._single = _Single()
        self._singles = _csv_rows(self._single, dialect) if dialect.quote else iter(())
        self.width = 0
        self.loose = 0
        self.blank = False
        self.passed_over = 0
        self._doubtful = 0
        self.seen = [{*it} if isinstance(it, set) else it for it in seen]
        self._few = [(at, it) for at, it in enumerate(self.seen) if isinstance(it, set)]

    def __iter__(self) -> Iterator[Record]:
        empty = 0
        while (line := self._lines.next()) is not None:
            record = self._record(line)
            if not (record.wrong or self.blank or any(record.cells)):
                empty += 1
                continue
            self.passed_over = empty
            if self._few and record.lines == 1 and len(record.cells) == self.width:
                self._learn(record.cells)
            yield record

    def fits(self, cells: Sequence[str | None]) -> bool:
        """Whether a row has the cells that the header asks for; empty ones behind these do not count."""
        if len(cells) == self.width or not self.width:
            return True
        return self.width - self.loose <= len(cells) and not any(cells[self.width :])

    def _learn(self, cells: Cells) -> None:
        """Notes the values of columns of few values: where rows are in the order of labels, others come later."""
        for at, values in self._few:
            if (cell := cells[at]) and len(values) < _MOST_VALUES:
                values.add(cell)

    def _record(self, line: Line) -> Record:
        if wrong := line.wrong():
            return Record(line.number, [], wrong)
        dialect = self._dialect
        if dialect.quote and dialect.quote in line.text:
            return self._quoted(line)
        if dialect.backslash and not dialect.quote:
            return self._escaped(line)
        cells = self._split(line.text)
        if line.number <= self._doubtful and self._is_rest(line, cells):
            return Record(line.number, [], _REST)
        return Record(line.number, cells)

    def _split(self, text: str) -> Cells:
        cells: Cells = list(text.rstrip("\r\n\x1a").split(self._dialect.delimiter))
        return [None if it == _NOTHING else it for it in cells] if _NOTHING in text else cells

    def _escaped(self, line: Line) -> Record:
        """A row without quotes, in which a backslash hides delimiters and line ends."""
        text, used = line.text.rstrip("\r\n\x1a"), [line]
        while (len(text) - len(text.rstrip("\\"))) % 2 and (more := self._lines.next()) is not None:
            used.append(more)
            text = f"{text[:-1]}\\n{more.text.rstrip(chr(13) + chr(10))}"
        cells = re.split(rf"(?<!\\)((?:\\\\)*){re.escape(self._dialect.delimiter)}", text)
        # Every second part is the pairs of backslashes before a delimiter, which belong to the cell before it.
        parts = ["".join(cells[at : at + 2]) for at in range(0, len(cells), 2)]
        return Record(
            line.number, [None if it == _NOTHING else _unescaped(it) for it in parts], lines=len(used)
        )

    def _quoted(self, line: Line) -> Record:
        """A row with a quote in it."""
        first = self._try(line, self._dialect)
        if first is not None and self.fits(first.cells) and first.lines == 1:
            if line.number <= self._doubtful and line.text.count(self._dialect.quote) % 2:
                self._doubtful = 0  # here the row ends that could not be read
                return Record(line.number, [], f"{_UNBALANCED}: {_BALANCED}")
            return first
        if first is not None and self.fits(first.cells):
            return self._long(line, first)
        if not (self._dialect.backslash or self._dialect.settled or self._dialect.sure) and _has_escape(
            line.text
        ):
            escaped = self._try(line, replace(self._dialect, backslash=True))
            if escaped is not None and self.fits(escaped.cells):
                return self._taken(escaped)
        plain = self._split(line.text)
        if self._dialect.plain_quotes and not self._dialect.enclosing and self.fits(plain):
            return Record(line.number, plain)
        return self._broken(line, first)

    def _try(self, line: Line, dialect: Dialect) -> Record | None:
        """The row in this dialect, with what comes behind it still to be read; None if it is none."""
        if not dialect.backslash and not line.text.count(dialect.quote) % 2:
            # Most rows with quotes take one line.
            self._single.text = line.text
            alone, _ = _parsed(self._singles)
            if alone is not None:
                return Record(line.number, alone)
        used = [line]
        cells, _ = _parsed(_csv_rows(self._feed(used, dialect), dialect))
        self._lines.put_back(used[1:])
        if cells is None or any(it.wrong() for it in used):
            return None
        # Without doubled quotes, the csv module takes what stands behind a closing quote for a part of the cell.
        if dialect.backslash and not _well_escaped(dialect).fullmatch("".join(it.text for it in used)):
            return None
        return Record(line.number, cells, lines=len(used))

    def _feed(self, used: list[Line], dialect: Dialect) -> Iterator[str]:
        line: Line | None = used[0]
        size = 0
        while line is not None:
            size += len(line.text)
            yield _BACKSLASH.sub(_kept, line.text) if dialect.backslash else line.text
            if len(used) >= _MAX_LINES or size > MAX_CHARACTERS:
                return
            line = self._lines.next()
            if line is not None:
                used.append(line)

    def _taken(self, record: Record) -> Record:
        """The row, of which the lines behind the first are taken."""
        for _ in range(record.lines - 1):
            self._lines.next()
        return record

    def _long(self, line: Line, record: Record) -> Record:
        """A row of several lines, if they are not rows of their own."""
        rest = [it for _ in range(record.lines - 1) if (it := self._lines.next()) is not None]
        if self._dialect.sure or not self.width:
            return record
        rows = [self._split(it.text) for it in (line, *rest)]
        right = sum(self.fits(cells) for cells in rows)
        if self._dialect.plain_quotes and not self._dialect.enclosing and right == len(rows):
            self._lines.put_back(rest)
            return Record(line.number, rows[0])
        alike = right if self._dialect.plain_quotes else sum(self._known(cells) for cells in rows)
        if alike < 2:
            return record
        wrong = (
            f"the quotes of lines {line.number} to {rest[-1].number} make one row of them, but the lines look like "
            "rows of their own; give --quote none if quotes are characters, or "
            f"--quote '{self._dialect.quote}' if the lines are one row"
        )
        return Record(line.number, [], wrong, lines=record.lines)

    def _known(self, cells: Cells) -> bool:
        """Whether a row has what other rows have in the columns of few values and of numbers.

        A quote at the edge of a cell may be the one that begins a row of several lines, or ends it.
        """
        told = [(cell, values) for cell, values in zip(cells, self.seen, strict=False) if values]
        quote = self._dialect.quote
        return bool(told) and self.fits(cells) and all((cell or "").strip(quote) in it for cell, it in told)

    def _is_rest(self, line: Line, cells: Cells) -> bool:
        """Whether a line may be the rest of a row that could not be read, and looks like none of the others."""
        return line.number <= self._doubtful and any(self.seen) and not self._known(cells)

    def _broken(self, line: Line, found: Record | None) -> Record:
        """What is wrong with a row that cannot be read; the lines behind it are read on their own."""
        if found is not None:
            rest = [it for _ in range(found.lines - 1) if (it := self._lines.next()) is not None]
            if not rest or not self._are_rows(rest):
                return Record(line.number, found.cells, lines=found.lines)
            self._lines.put_back(rest)
            return self._unbalanced(line)
        used = [line]
        _, ended = _parsed(_csv_rows(self._feed(used, self._dialect), self._dialect))
        if ended or self._are_rows(used[1:-1]):
            self._lines.put_back(used[1:])
            return self._unbalanced(line)
        # A cell of several lines with a quote in it, and not a row with one quote too many.
        self._lines.put_back(used[-1:])
        return self._unbalanced(line, through=used[-2])

    def _unbalanced(self, line: Line, through: Line | None = None) -> Record:
        # What follows may be the rest of this row: the quote that ends it is no part of a row.
        self._doubtful = (through or line).number + _DOUBTFUL
        end = f" (lines {line.number} to {through.number})" if through is not None and through != line else ""
        return Record(line.number, [], f"{_UNBALANCED}{end}: {_BALANCED}")

    def _are_rows(self, lines: Sequence[Line]) -> bool:
        rows = [self._split(it.text) for it in lines if it.text.strip()]
        known = sum(self._known(it) for it in rows)
        return known > 1 or sum(map(self.fits, rows)) >= _ROWS * len(rows)


class _Single:
    """Feeds one line at a time to one parser of the csv module: to make a parser takes longer than to parse a line."""

    def __init__(self) -> None:
        self.text = ""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not self.text:
            raise StopIteration
        text, self.text = self.text, ""
        return text


def _csv_rows(feed: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    """The rows of `feed`, as the csv module reads them in a dialect with quotes."""
    csv.field_size_limit(MAX_CHARACTERS)
    return csv.reader(
        feed,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        escapechar="\\" if dialect.backslash else None,
        doublequote=not dialect.backslash,
        skipinitialspace=dialect.spaced,
        strict=True,
    )


def _parsed(rows: Iterator[list[str]]) -> tuple[Cells | None, bool]:
    """The cells of the next row, None if it is malformed; and whether the text ended within a quoted cell."""
    try:
        found = next(rows)
    except (csv.Error, StopIteration) as error:
        return None, "end of data" in str(error)
    return ([None if it == _NOTHING else it for it in found] if _NOTHING in found else [*found]), False


@functools.cache
def _well_escaped(dialect: Dialect) -> re.Pattern[str]:
    """A row in whose quoted cells each quote is escaped."""
    quote, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
    enclosed = rf"{quote}[^{quote}\\]*(?:\\.[^{quote}\\]*)*{quote}"
    cell = rf"(?:{enclosed}|(?!{quote})[^{delimiter}\r\n]*)"
    return re.compile(rf"{cell}(?:{delimiter}{cell})*[\r\n]*", re.DOTALL)


def _kept(found: re.Match[str]) -> str:
    """A backslash, escaped itself where it escapes nothing."""
    return found[0] if found[1] else "\\\\"


def _has_escape(text: str) -> bool:
    return '\\"' in text or "\\'" in text


def _unescaped(text: str) -> str:
    return _SPLIT_ESCAPE.sub(lambda it: _ESCAPES.get(it[1], it[1]), text) if "\\" in text else text
