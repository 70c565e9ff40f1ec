"""How the cells of a delimited file are written, as far as the file's beginning tells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from graft._data_files.columns import Columns
from graft._data_files.header import like
from graft._data_files.lines import TextLines
from graft._data_files.options import Reading
from graft._data_files.records import Cells, Dialect, Record, Records

_DELIMITERS: Final = (",", ";", "\t", "|")
_SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line with which Excel is told what separates cells."""
_SPACED: Final = re.compile(r'"[^"]*"( "[^"]*")+\s*')
"""The header of R's `write.table`."""
_TRIED: Final = 200
"""So many rows decide the delimiter."""
_SAMPLE: Final = 1_000
"""So many rows are kept, to look at columns."""
_FEW: Final = 1_000
"""A column with more values than these is no column of labels."""
_GOOD: Final = 0.8


@dataclass(slots=True)
class Found:
    """What the beginning of a file tells."""

    dialect: Dialect
    """How cells are written."""
    skipped: int = 0
    """How many lines come before the header."""
    names: tuple[str, ...] = ()
    """The header's names; empty if the file has no row."""
    named: int = 0
    """How many columns the file's first row names: one less where R wrote the rows' names, too."""
    sample: list[Cells] = field(default_factory=list)
    """The first rows."""
    seen: list[set[str] | None] = field(default_factory=list)
    """The values of each column, where there are few."""


@dataclass(slots=True)
class _Evidence:
    """How many rows speak for what."""

    characters: int = 0
    """Quotes are characters."""
    enclosing: int = 0
    """Quotes enclose cells."""
    backslashes: int = 0
    """A backslash comes before quotes in cells."""


class Beginning:
    """The first lines of a file, which can be read again and again."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines

    def records(self, dialect: Dialect, skipped: int) -> Records:
        """The rows of the lines, in a dialect."""
        return Records(TextLines.of_texts(self.lines[skipped:]), dialect)


def found_dialect(beginning: Beginning, reading: Reading, usual: str, columns: Columns | None) -> Found:
    """Finds out how a file is written.

    Args:
        beginning: Its first lines.
        reading: What is known already.
        usual: The delimiter that the file's name speaks for.
        columns: The columns that are asked for.
    """
    separator = _SEPARATOR_LINE.fullmatch(beginning.lines[0]) if beginning.lines else None
    skipped = 1 if separator else 0
    delimiter = reading.delimiter or (separator[1] if separator else "")
    quote = _quote(reading, beginning, skipped)
    if not delimiter:
        delimiter = _delimiter(beginning, skipped, usual, quote, columns)
    found = Found(Dialect(delimiter, quote, sure=bool(reading.quote)), skipped)
    _look(found, beginning, reading)
    if not found.dialect.sure:
        found.dialect = _by_evidence(found, beginning)
        _look(found, beginning, reading)
    return found


def _quote(reading: Reading, beginning: Beginning, skipped: int) -> str:
    if reading.quote:
        return "" if reading.quote == "none" else reading.quote
    header = beginning.lines[skipped].strip() if len(beginning.lines) > skipped else ""
    return "'" if re.fullmatch(r"('[^']*')([,;\t|]'[^']*')+", header) else '"'


def _delimiter(beginning: Beginning, skipped: int, usual: str, quote: str, columns: Columns | None) -> str:
    header = next((it for it in beginning.lines[skipped:] if it.strip()), "")
    if _SPACED.fullmatch(header):
        return " "
    scores: dict[str, float] = {}
    for delimiter in dict.fromkeys((usual, *_DELIMITERS)):
        names, score = _score(beginning, skipped, Dialect(delimiter, quote))
        if len(names) > 1:
            if columns is not None and _has(names, columns):
                return delimiter
            scores[delimiter] = score
    if scores.get(usual, 0.0) >= _GOOD / 2:
        return usual
    best = max(scores, key=lambda it: scores[it], default=usual)
    return best if scores.get(best, 0.0) >= _GOOD else usual


def _has(names: Sequence[str], columns: Columns) -> bool:
    """Whether the columns that are asked for are among these."""
    asked = columns.value or columns.label
    return all(it in names or like(it, names) for it in (columns.input, asked))


def _score(beginning: Beginning, skipped: int, dialect: Dialect) -> tuple[list[str], float]:
    """The header's names in a dialect, and the share of the first rows that fit it."""
    records = beginning.records(dialect, skipped)
    names: list[str] = []
    right = rows = 0
    for record in records:
        if not records.width:
            names = [(it or "").strip() for it in record.cells]
            records.width = len(names)
            continue
        rows += 1
        right += not record.wrong and records.fits(record.cells)
        if rows >= _TRIED:
            break
    return names, right / rows if rows else 1.0


def _look(found: Found, beginning: Beginning, reading: Reading) -> None:
    """Finds the header, and what the columns hold."""
    records = beginning.records(found.dialect, found.skipped)
    header = list(reading.names)
    found.sample = []
    records.width = len(header)
    for record in records:
        if not header:
            header = [(it or "").strip() for it in record.cells]
            records.width = found.named = len(header)
            continue
        if not record.wrong and len(found.sample) < _SAMPLE:
            found.sample.append(record.cells)
    found.named = found.named or len(header)
    if not reading.names and _has_row_names(header, found.sample):
        header.insert(0, "")
    found.names = tuple(header)
    found.seen = [
        _values(it[at] for it in found.sample if len(it) == len(header)) for at in range(len(header))
    ]


def _has_row_names(header: Sequence[str], rows: Sequence[Cells]) -> bool:
    """Whether each row begins with its name, which R's `write.table` gives no column."""
    first = [it[0] for it in rows]
    return (
        bool(rows)
        and all(len(it) == len(header) + 1 and it[-1] for it in rows)
        and len(set(first)) == len(first)
        and all(it and it.isdecimal() for it in first)
    )


def _values(cells: Iterable[str | None]) -> set[str] | None:
    """The values of a column in which some occur again; None where none does, or there are many."""
    found = [it for it in cells if it]
    values = set(found)
    return values if len(values) < len(found) and len(values) <= _FEW else None


def _by_evidence(found: Found, beginning: Beginning) -> Dialect:
    """The dialect that the first rows speak for."""
    dialect = found.dialect
    if not any(dialect.quote in it or "\\" in it for it in beginning.lines):
        return dialect
    records = beginning.records(dialect, found.skipped)
    records.width = len(found.names)
    evidence = _Evidence()
    columns: list[list[int]] = [[0, 0] for _ in found.names]
    numbered = dict(enumerate(beginning.lines[found.skipped :], start=1))
    for record in records:
        _weigh(evidence, record, numbered[record.line], dialect)
        if record.lines == 1 and not record.wrong:
            _weigh_needless(columns, numbered[record.line], dialect)
    needless = any(quoted and others for quoted, others in columns)
    against = evidence.characters > evidence.enclosing or (needless and not evidence.enclosing)
    if dialect.plain_quotes and against:
        dialect = replace(dialect, quote="")
    elif evidence.backslashes:
        return replace(dialect, backslash=True)
    escaped = dialect.delimiter == "\t" and not evidence.enclosing and _hides(found, beginning)
    return replace(dialect, quote="", backslash=True) if escaped else dialect


def _weigh(evidence: _Evidence, record: Record, text: str, dialect: Dialect) -> None:
    """Counts what a row, whose first line is `text`, says about quotes."""
    if dialect.quote not in text:
        return
    if record.by is not None and record.by.backslash:
        evidence.backslashes += 1
    elif record.by is not None:
        evidence.characters += 1
    elif not record.wrong:
        cells = text.rstrip("\r\n").split(dialect.delimiter)
        doubled = any(it.startswith(dialect.quote) and dialect.quote * 2 in it[1:-1] for it in cells)
        evidence.enclosing += record.lines > 1 or doubled or len(cells) != len(record.cells)


def _weigh_needless(columns: list[list[int]], text: str, dialect: Dialect) -> None:
    """Counts quoted cells that need no quotes, and cells of the same column that have none."""
    for counts, cell in zip(columns, text.rstrip("\r\n").split(dialect.delimiter), strict=False):
        if len(cell) > 1 and cell[0] == cell[-1] == dialect.quote:
            inner = cell[1:-1]
            counts[0] += not any(it in inner for it in (dialect.quote, ",", dialect.delimiter))
        elif cell and not cell.replace(".", "").replace("-", "").isdecimal():
            counts[1] += 1


def _hides(found: Found, beginning: Beginning) -> bool:
    """Whether backslashes take the meaning from delimiters or line ends, as databases write tables."""
    width = len(found.names)
    plain = Dialect(found.dialect.delimiter, "")
    escaped = replace(plain, backslash=True)
    if any(None in it for it in found.sample):
        return True
    if not any("\\\t" in it or it.rstrip("\r\n").endswith("\\") for it in beginning.lines):
        return False
    return _fitting(beginning, found.skipped, escaped, width) > _fitting(
        beginning, found.skipped, plain, width
    )


def _fitting(beginning: Beginning, skipped: int, dialect: Dialect, width: int) -> float:
    records = beginning.records(dialect, skipped)
    records.width = width
    fits = [records.fits(it.cells) for it in _bounded(records)]
    return sum(fits) / len(fits) if fits else 0.0


def _bounded(records: Records) -> Iterator[Record]:
    for number, record in enumerate(records):
        if number >= _SAMPLE:
            return
        yield record
