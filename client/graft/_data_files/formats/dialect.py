"""How the cells of a delimited file are written, as far as the file's beginning tells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from graft._data_files.columns import Columns
from graft._data_files.formats.lines import TextLines
from graft._data_files.formats.records import Cells, Dialect, Record, Records
from graft._data_files.header import like
from graft._data_files.options import Reading

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
_NEARLY_ALL: Final = 0.95
_NUMBER: Final = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)


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
    seen: list[Container[str] | None] = field(default_factory=list)
    """What is among the values of each column, where there are few, or all are numbers."""
    wrong: str = ""
    """Why the header cannot be read."""


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
    spaced = _is_spaced(beginning.lines, delimiter, quote)
    found = Found(Dialect(delimiter, quote, sure=bool(reading.quote), spaced=spaced), skipped)
    _look(found, beginning, reading)
    if not found.dialect.sure and (better := _by_evidence(found, beginning)) != found.dialect:
        found.dialect = better
        _look(found, beginning, reading)
    return found


def _quote(reading: Reading, beginning: Beginning, skipped: int) -> str:
    if reading.quote:
        return "" if reading.quote == "none" else reading.quote
    header = beginning.lines[skipped].strip() if len(beginning.lines) > skipped else ""
    return "'" if re.fullmatch(r"('[^']*')([,;\t|]'[^']*')+", header) else '"'


def _is_spaced(lines: Sequence[str], delimiter: str, quote: str) -> bool:
    """Whether more cells in quotes have spaces between the delimiter and the quote than have none."""
    if not quote or delimiter in " \t":
        return False
    mark = re.escape(delimiter)
    cell = re.compile(rf"{mark}( *){quote}[^{quote}]*{quote}\s*(?={mark}|$)")
    spaces = [found[1] for it in lines[:_SAMPLE] if quote in it for found in cell.finditer(it)]
    return sum(map(bool, spaces)) > len(spaces) / 2


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
    return all(it in names or like(it, names) for it in columns.required)


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
    found.wrong = ""
    records.width = len(header)
    for record in records:
        if not header:
            if record.wrong:
                found.wrong = f"line {found.skipped + record.line}: {record.wrong}"
                break
            header = [(it or "").strip() for it in record.cells]
            records.width = found.named = len(header)
            continue
        if not record.wrong:
            found.sample.append(record.cells)
        if len(found.sample) >= _SAMPLE:
            break
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


class _Numbers(Container[str]):
    """Contains what is written as a number."""

    def __contains__(self, cell: object) -> bool:
        return isinstance(cell, str) and _NUMBER.fullmatch(cell) is not None


def _values(cells: Iterable[str | None]) -> Container[str] | None:
    """The values of a column that occur again, or numbers where nearly all are; None where neither tells a row."""
    counts = Counter(it for it in cells if it)
    again = {value for value, count in counts.items() if count > 1}
    if again and len(counts) <= min(_FEW, counts.total() / 2):
        return again
    numbers = _Numbers()
    return numbers if sum(it in numbers for it in counts) > _NEARLY_ALL * len(counts) else None


@dataclass(slots=True)
class _Trial:
    """How the first rows read in a dialect."""

    dialect: Dialect
    bad: int = 0
    """How many lines cannot be read, or have too few or too many cells."""
    joined: int = 0
    """How many times quotes make one row of lines that are rows of their own."""
    enclosing: int = 0
    """How many rows read right only if quotes enclose cells."""


def _by_evidence(found: Found, beginning: Beginning) -> Dialect:
    """The dialect that the first rows speak for."""
    dialect = found.dialect
    lines = beginning.lines[found.skipped :]
    if not any(dialect.quote in it or "\\" in it for it in lines):
        return dialect
    quoted = _trial(found, lines, dialect)
    escaped = (
        _trial(found, lines, replace(dialect, backslash=True)) if any('\\"' in it for it in lines) else None
    )
    best = escaped if escaped is not None and escaped.bad < quoted.bad else quoted
    if not dialect.plain_quotes:
        return replace(best.dialect, settled=escaped is not None)
    raw = _trial(found, lines, replace(dialect, quote=""))
    tie = raw.bad == best.bad and not best.enclosing
    # A writer that doubles quotes was at work, though some rows may be broken.
    sure = best.enclosing > best.bad
    if (raw.bad < best.bad and not sure) or (tie and _are_characters(best, lines)):
        best = raw
    # Databases write tables so, with nothing around cells.
    if dialect.delimiter == "\t" and any("\\" in it for it in lines):
        hidden = _trial(found, lines, replace(dialect, quote="", backslash=True))
        nothing = any(None in it for it in found.sample)
        if (hidden.bad < best.bad and not sure) or (
            hidden.bad == best.bad and not best.enclosing and nothing
        ):
            best = hidden
    return replace(best.dialect, settled=escaped is not None, enclosing=best.enclosing > 0)


def _trial(found: Found, lines: Sequence[str], dialect: Dialect) -> _Trial:
    trial = _Trial(dialect)
    records = Records(TextLines.of_texts(lines), replace(dialect, sure=True))
    records.width = len(found.names)
    for record in records:
        if record.wrong or not records.fits(record.cells):
            trial.bad += record.lines
        elif dialect.quote and dialect.quote in lines[record.line - 1]:
            begin = record.line - 1
            _weigh(trial, record, records, lines[begin : begin + record.lines])
    return trial


def _weigh(trial: _Trial, record: Record, records: Records, lines: Sequence[str]) -> None:
    """Counts what a row with quotes says about them."""
    quote, delimiter = trial.dialect.quote, trial.dialect.delimiter
    split = [it.rstrip("\r\n").split(delimiter) for it in lines]
    rows = sum(records.fits(it) for it in split)
    hidden = f"\\{quote}" if trial.dialect.backslash else quote * 2
    if record.lines > 1:
        doubled = any(hidden in it.strip(f"{quote}\r\n") for it in lines)
        trial.joined += rows == len(lines)
        trial.enclosing += rows < 2 or doubled
    else:
        doubled = any(it[:1] == it[-1:] == quote and hidden in it[1:-1] for it in split[0])
        trial.enclosing += doubled or not rows


def _are_characters(quoted: _Trial, lines: Sequence[str]) -> bool:
    """Whether quotes are characters of texts, where the rows read right with and without them."""
    if quoted.joined:
        return True
    quote, delimiter = quoted.dialect.quote, quoted.dialect.delimiter
    needless: dict[int, int] = {}
    others: dict[int, int] = {}
    for line in lines:
        for at, cell in enumerate(line.rstrip("\r\n").split(delimiter)):
            if len(cell) > 1 and cell[0] == cell[-1] == quote:
                # Who writes quotes only where they are needed does not write these.
                needless[at] = needless.get(at, 0) + (not any(it in cell[1:-1] for it in (quote, ",")))
            elif cell and not cell.replace(".", "").replace("-", "").isdecimal():
                others[at] = others.get(at, 0) + 1
    return any(count and others.get(at) for at, count in needless.items())
