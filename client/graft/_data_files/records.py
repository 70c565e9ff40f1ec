"""Splits the lines of a delimited file into rows of cells, and never makes one row of several without a sign.

A quote that opens a cell and is a plain character in truth swallows lines up to the next quote. So a row of several
lines is taken for one only where its lines are no rows of their own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from graft._data_files.lines import MAX_CHARACTERS, Line, TextLines

Cells: TypeAlias = list[str | None]

_MAX_LINES: Final = 10_000
"""The most lines of one row."""
_DOUBTFUL: Final = 20
"""Within so many lines behind a row that cannot be read may be the rest of it."""
_ROWS: Final = 0.8
"""Lines of which so many have as many cells as the header has are rows of their own."""
_ESCAPED: Final = re.compile(r'\\([\\"\'])')
_HELD: Final = "\0"
"""A backslash, while quotes are read: rows with this character are refused."""
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "", "b": "", "Z": ""}
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

    @property
    def plain_quotes(self) -> bool:
        """Whether quotes may well be characters of texts: people write such files without quoting."""
        return self.delimiter in "\t|" and not self.sure


@dataclass(frozen=True, slots=True)
class Record:
    """What a row's lines hold."""

    line: int
    """The line on which it begins, from 1."""
    cells: Cells
    """Its cells; none if it cannot be read."""
    wrong: str = ""
    """Why it cannot be read."""
    by: Dialect | None = None
    """The dialect in which it was read, where that is another one than the file's."""
    plain: int = 0
    """How many lines were found to be rows of their own although quotes seem to make them one."""
    lines: int = 1
    """How many lines it takes."""


class Records:
    """The rows of a delimited file.

    Attributes:
        width: How many cells a row has; 0: as many as the first one.
        loose: How many cells at the end of a row may be left away.
        seen: The values of each column, where there are few; None: there are many.
    """

    def __init__(self, lines: TextLines, dialect: Dialect, *, seen: Sequence[set[str] | None] = ()) -> None:
        self._lines = lines
        self._dialect = dialect
        self._raw = replace(dialect, quote="", backslash=False)
        self.width = 0
        self.loose = 0
        self._doubtful = 0
        self.seen = seen

    def __iter__(self) -> Iterator[Record]:
        while (line := self._lines.next()) is not None:
            record = self._record(line)
            if record.wrong or any(record.cells):
                yield record

    def fits(self, cells: Sequence[str | None]) -> bool:
        """Whether a row has the cells that the header asks for; empty ones behind these do not count."""
        least = self.width - self.loose
        return not self.width or (least <= len(cells) and not any(cells[self.width :]))

    def _record(self, line: Line) -> Record:
        if wrong := line.wrong():
            return Record(line.number, [], wrong)
        dialect = self._dialect
        if dialect.quote and dialect.quote in line.text:
            return self._quoted(line)
        if dialect.backslash and not dialect.quote:
            return self._escaped(line)
        return Record(line.number, self._split(line.text))

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
            odd = line.number <= self._doubtful and line.text.count(self._dialect.quote) % 2
            return self._unbalanced(line) if odd else first
        if not self._dialect.backslash and not self._dialect.sure and _has_escape(line.text):
            other = replace(self._dialect, backslash=True)
            escaped = self._try(line, other)
            if escaped is not None and self.fits(escaped.cells):
                return self._taken(escaped)
        if first is not None and self.fits(first.cells):
            return self._long(line, first)
        plain = self._split(line.text)
        if self._dialect.plain_quotes and self.fits(plain):
            return Record(line.number, plain, by=self._raw)
        return self._broken(line, first)

    def _try(self, line: Line, dialect: Dialect) -> Record | None:
        """The row in this dialect, with what comes behind it still to be read; None if it is none."""
        used = [line]
        cells, _ = _parsed(self._feed(used, dialect), dialect)
        self._lines.put_back(used[1:])
        if cells is None or any(it.wrong() for it in used):
            return None
        by = None if dialect == self._dialect else dialect
        return Record(line.number, cells, by=by, lines=len(used))

    def _feed(self, used: list[Line], dialect: Dialect) -> Iterator[str]:
        line: Line | None = used[0]
        size = 0
        while line is not None:
            size += len(line.text)
            yield _hidden(line.text, dialect.quote) if dialect.backslash else line.text
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
        if self._dialect.plain_quotes and right == len(rows):
            self._lines.put_back(rest)
            return Record(line.number, rows[0], by=self._raw, plain=len(rows))
        ambiguous = right > 1 if self._dialect.plain_quotes else right == len(rows) and self._known(rows)
        if not ambiguous:
            return record
        wrong = (
            f"the quotes of lines {line.number} to {rest[-1].number} make one row of them, but the lines look like "
            "rows of their own; give --quote none if quotes are characters, or "
            f"--quote '{self._dialect.quote}' if the lines are one row"
        )
        return Record(line.number, [], wrong, lines=record.lines)

    def _known(self, rows: Sequence[Cells]) -> bool:
        """Whether rows have in one column, of few values, what other rows have there."""
        for at, values in enumerate(self.seen):
            if values is not None and all(len(cells) > at and cells[at] in values for cells in rows):
                return True
        return False

    def _broken(self, line: Line, found: Record | None) -> Record:
        """What is wrong with a row that cannot be read; the lines behind it are read on their own."""
        if found is not None:
            rest = [it for _ in range(found.lines - 1) if (it := self._lines.next()) is not None]
            if not rest or not self._are_rows(rest):
                return Record(line.number, found.cells, lines=found.lines)
            self._lines.put_back(rest)
            return self._unbalanced(line)
        used = [line]
        _, ended = _parsed(self._feed(used, self._dialect), self._dialect)
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
        return Record(
            line.number,
            [],
            f"its quotes do not balance{end}: double a quote inside a quoted cell, or give --quote none if quotes are "
            "characters",
        )

    def _are_rows(self, lines: Sequence[Line]) -> bool:
        right = sum(self.fits(self._split(it.text)) for it in lines if it.text.strip())
        return right >= _ROWS * sum(1 for it in lines if it.text.strip())


def _parsed(feed: Iterator[str], dialect: Dialect) -> tuple[Cells | None, bool]:
    """The cells of the first row of `feed`, None if it is malformed; and whether `feed` ended within a quoted cell."""
    csv.field_size_limit(MAX_CHARACTERS)
    reader = csv.reader(feed, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
    try:
        found = next(reader)
    except (csv.Error, StopIteration) as error:
        return None, "end of data" in str(error)
    restore: Callable[[str], str] = (lambda it: it.replace(_HELD, "\\")) if dialect.backslash else str
    return [None if it == _NOTHING else restore(it) for it in found], False


def _hidden(text: str, quote: str) -> str:
    """The text with escaped characters as quoting without escapes writes them."""
    written = {"\\": _HELD, quote: quote * 2}
    return _ESCAPED.sub(lambda it: written.get(it[1], it[1]), text)


def _has_escape(text: str) -> bool:
    return '\\"' in text or "\\'" in text


def _unescaped(text: str) -> str:
    return _SPLIT_ESCAPE.sub(lambda it: _ESCAPES.get(it[1], it[1]), text) if "\\" in text else text
