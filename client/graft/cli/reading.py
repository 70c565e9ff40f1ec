"""A data file on its way into a command: looked at first, then read by what was found, with ids that lose no row."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, DataError, Row, RowError, Rows
from graft._data_files.folders.tree import FOLDER_COLUMNS, FolderTree
from graft._data_files.merging import MergedLabels
from graft._data_files.reader import Data, numbered_examples, open_data
from graft._data_files.refused import RowsRead
from graft._data_files.survey import Survey, look
from graft._records.adapting.row_counts import RowCounts
from graft._records.evaluation.label_forms import new_labels
from graft._records.inputs.examples import Example
from graft._records.inputs.id_use import IdUse, Use
from graft._records.inputs.swapped import SwapGuess
from graft._streams.look_ahead import LookAhead
from graft.cli.data_options import columns_of, reading_of

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_LOOK_ROWS: Final = 1_000
"""The most rows of a stream that are looked at before the first is sent."""
BEYOND: Final = 1 << 40
"""What is added to the lines of the file of inputs without labels."""
_LOST: Final = {Use.OTHER_INPUT, Use.OTHER_TARGET}
_REMEDY: Final = (
    "Name a column that tells every row from every other, leave --id away, or say --id-repeats replace (the last row "
    "of an id counts) or --id-repeats keep (the first)"
)
_CHOICES: Final = {"r": "replace", "k": "keep", "n": "none"}


@dataclass(frozen=True, slots=True)
class Known:
    """What the server knows of a model whose examples a data file extends."""

    task: str = ""
    """The task where the file leaves it open; "" if there is none."""
    labels: tuple[str, ...] = ()
    """The model's labels."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command wants of its data file."""

    task: str = ""
    """The task; "" if the file is to tell."""
    known_labels: tuple[str, ...] = ()
    """Labels that name similar ones, where similar labels are merged."""
    checked: bool = False
    """Whether ids that lose rows are only told."""
    by_id: bool = True
    """Whether rows of the same id replace each other."""
    known: Callable[[], Known] = Known
    """Asks the server; called when the file was looked at, so that a file that cannot be read is told first."""


class ReadFile:
    """An open data file whose examples are taken once.

    Attributes:
        name: What people call it.
        notes: What was found, in sentences.
        whole: Whether all rows were looked at before, and not the first alone.
    """

    def __init__(
        self,
        data: Data,
        rows: Rows,
        columns: Columns,
        *,
        policy: str,
        notes: list[str],
        pool: Pool | None = None,
    ) -> None:
        self.name = data.name
        self.notes = notes
        self.whole = True
        self._data = data
        self._rows = rows
        self._columns = columns
        self._policy = policy
        self._pool = pool
        self._ids = IdUse()
        self._swap = SwapGuess()
        self._left_out = 0

    def examples(self, on_read: Callable[[float], None], rows: RowsRead) -> Iterator[Example]:
        """The examples; `rows` takes the line of each, for those that the server refuses.

        Raises:
            DataError: The file cannot be read, or an id stands for several examples and nothing allows that.
        """
        data = self._data
        rows.unit, rows.place = data.unit, data.place
        for line, example in numbered_examples(self._rows, self._columns, rows.refuse):
            on_read(data.position / data.size if data.size else 0.0)
            if (taken := self._by_id(line, example)) is not None:
                rows.take(line)
                if not self.whole:  # else the survey has seen it
                    self._swap.add(taken.input, taken.label)
                yield taken
        if self._pool is not None:
            yield from self._pool.examples(rows)

    def counts(self, sent: RowCounts | None, rows: RowsRead) -> RowCounts | None:
        """What became of the file's rows.

        Args:
            sent: What became of those of which an example was made.
            rows: Those of which none could be made.
        """
        if sent is None:
            return None
        blank = self._data.blank_rows + (self._pool.blank_rows if self._pool is not None else 0)
        return sent.with_more(refused=rows.refused_count, left_out=self._left_out, blank=blank)

    @property
    def task(self) -> str:
        """The task, if it is known."""
        return self._columns.task

    def end_notes(self) -> list[str]:
        """What was found while the examples were taken, in sentences."""
        left_out = (
            [f"{self._left_out:,} rows were left out: an earlier row has their id"] if self._left_out else []
        )
        merge = self._columns.merge
        swap = self._swap.said()
        swapped = [f"warning: {swap}; give --input and --label the other way round if so"] if swap else []
        return [*left_out, *swapped, *(merge.notes if isinstance(merge, MergedLabels) else [])]

    def _by_id(self, line: int, example: Example) -> Example | None:
        if self._policy in ("", "replace") or not example.id:
            return example
        if self._policy == "none":
            return replace(example, id="")
        if self._ids.add(example) not in _LOST:
            return example
        if self._policy == "keep":
            self._left_out += 1
            return None
        raise DataError(
            f"{self.name}, line {line}: the id {example.id!r} is not unique: an earlier row has it, with another input "
            f"or label, and would be replaced. {_REMEDY}"
        )


class Pool:
    """The file of inputs without labels, whose rows follow those of the data file.

    Attributes:
        blank_rows: How many rows without a value were passed over so far.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        """Says how it is read: as the data file is, without its columns of targets.

        Raises:
            DataError: There is no such file, or it has no such columns.
        """
        self.blank_rows = 0
        self._path: str = args.unlabelled
        self._reading = reading_of(args)
        wanted = columns_of(args)
        self._columns = Columns(
            wanted.input, "", id=wanted.id, subject=wanted.subject, path=wanted.path, second=wanted.second
        )
        if Path(self._path).is_dir():
            raise DataError(
                f"--unlabelled {self._path} is a folder: give a file with a column of inputs, or with --path of names "
                "of files"
            )
        with self._opened() as data:
            data.fitted(self._columns)

    def examples(self, rows: RowsRead) -> Iterator[Example]:
        """The examples; `rows` takes the line of each, beyond all of the data file's.

        Raises:
            DataError: The file cannot be read as such, or none of its rows.
        """
        before, name = rows.place, self._path
        with self._opened() as data:

            def refuse(error: RowError) -> None:
                rows.refuse(RowError(name, error.line, error.reason, path=f"{name}, {error.place}"))

            def place(line: int) -> str:
                return before(line) if line < BEYOND else f"{name}, {data.place(line - BEYOND)}"

            rows.place = place
            for line, example in numbered_examples(data, self._columns, refuse):
                rows.take(BEYOND + line)
                yield example
            self.blank_rows = data.blank_rows

    def _opened(self) -> Data:
        return open_data(self._path, self._reading, self._columns)


@contextlib.contextmanager
def read_file(
    args: argparse.Namespace, terminal: Terminal, wanting: Callable[[], Wanted]
) -> Iterator[ReadFile]:
    """Opens the data file of a command and looks at it: at all of a file, at the first rows of a stream.

    Args:
        args: The command's arguments.
        terminal: Where notes go, and where a person is asked.
        wanting: Called when the file is open, before anything is read of it: a stream may be long in coming.

    Raises:
        DataError: The file cannot be read as such, or rows would be lost by their ids and nobody allows that.
    """
    with opened(args, terminal) as data:
        wanted = wanting()
        columns = FOLDER_COLUMNS if isinstance(data, FolderTree) else data.fitted(columns_of(args))
        survey = Survey(data, columns)
        notes: list[str] = []
        whole = args.data != "-" and Path(args.data).is_file()
        rows: Rows = data
        if isinstance(data, FolderTree):
            # To look at a folder means to open all its files, and its labels are names.
            whole = bool(args.merge_labels)
            look(data.rows() if whole else (), survey)
        elif whole:
            survey = _looked_at(args, columns)
            if survey.swap.likely:
                columns, survey = _unswapped(args, terminal, columns, survey, wanted)
            notes += _of_swap(args, survey)
        else:
            rows = _Ahead(data, survey)
        known = wanted.known()
        reading = survey.reading(wanted.task, args.label_cells, whole=whole, usual=known.task)
        labels = dict.fromkeys((*wanted.known_labels, *known.labels))
        merge = MergedLabels(tuple(labels)) if args.merge_labels else None
        if merge is not None and whole:
            merge.prefer_frequent(survey.labels)
        notes += reading.notes
        notes += new_labels(survey.labels, known.labels, merged=merge is not None) if whole else ()
        policy = "replace"
        if columns.id is not None and wanted.by_id:
            policy = _policy(args, terminal, survey.ids, wanted, whole=whole)
            notes += _of_ids(args, survey.ids, wanted)
        for note in notes:
            terminal.note(note)
        pool = Pool(args) if getattr(args, "unlabelled", None) else None
        merged = replace(reading.columns, merge=merge)
        file = ReadFile(data, rows, merged, policy=policy, notes=notes, pool=pool)
        file.whole = whole
        yield file


def _looked_at(args: argparse.Namespace, columns: Columns) -> Survey:
    """Looks at all rows of a file."""
    with open_data(args.data, reading_of(args), columns_of(args)) as data:
        data.fitted(columns)
        survey = Survey(data, columns)
        look(data.rows(), survey)
    survey.absent.require()
    return survey


def _unswapped(
    args: argparse.Namespace, terminal: Terminal, columns: Columns, survey: Survey, wanted: Wanted
) -> tuple[Columns, Survey]:
    """Asks about columns that look swapped, and returns those that are meant, with what their rows show.

    Raises:
        DataError: Neither the columns as they are nor swapped ones are meant.
    """
    if wanted.checked:
        return columns, survey
    answer = terminal.ask(
        f"{args.data}: {survey.swap.said()}. [s]wap them (--input {columns.label} --label {columns.input}), [t]ake "
        "them as they are, or stop? "
    )
    if answer is None or answer[:1].lower() == "t":
        return columns, survey
    if answer[:1].lower() != "s":
        raise DataError(
            f"{args.data}: the columns of inputs and labels are to be named by --input and --label"
        )
    columns = replace(columns, input=columns.label, label=columns.input)
    args.input, args.label = columns.input, columns.label
    return columns, _looked_at(args, columns)


def _of_swap(args: argparse.Namespace, survey: Survey) -> list[str]:
    if not (said := survey.swap.said()):
        return []
    return [f"warning: {said}; is --input {args.label} --label {args.input} meant?"]


@contextlib.contextmanager
def opened(args: argparse.Namespace, terminal: Terminal) -> Iterator[Data]:
    """Opens the data file of a command."""
    with (
        terminal.interrupts.opened(args.data) as source,
        open_data(args.data, reading_of(args), columns_of(args), source=source) as data,
    ):
        for remark in data.remarks if isinstance(data, FolderTree) else ():
            terminal.remark(remark)
        yield data


def _policy(args: argparse.Namespace, terminal: Terminal, ids: IdUse, wanted: Wanted, *, whole: bool) -> str:
    """What happens to a row whose id an earlier row has: "replace", "keep", "none" (has no id), or "refuse"."""
    if args.id_repeats:
        return str(args.id_repeats)
    if wanted.checked:
        return "replace"
    if not whole:
        return "refuse"
    if not ids.lossy:
        return "replace"
    found = (
        f"{args.data}: the column {args.id!r} is not unique: {ids.said('rows', _inputs(args))}. A row replaces an "
        f"earlier row of the same id, so that {ids.lost:,} rows would be lost"
    )
    answer = terminal.ask(
        f"{found}. [r]eplace earlier rows, [k]eep the first of each id, take all with [n]o id, or stop? "
    )
    if (policy := _CHOICES.get((answer or "")[:1].lower())) is not None:
        return policy
    raise DataError(f"{found}. {_REMEDY}")


def _inputs(args: argparse.Namespace) -> str:
    return "files" if args.path else "texts"


def _of_ids(args: argparse.Namespace, ids: IdUse, wanted: Wanted) -> list[str]:
    notes = []
    if ids.lossy and (wanted.checked or args.id_repeats):
        what = {
            "": f"{ids.lost:,} rows would be replaced by later ones of the same id, which adapt refuses. {_REMEDY}",
            "keep": f"{ids.lost:,} rows are left out, because an earlier row has their id",
            "replace": f"{ids.lost:,} rows are replaced by later ones of the same id",
        }[args.id_repeats]
        notes.append(
            f"warning: the column {args.id!r} is not unique: {ids.said('rows', _inputs(args))}; {what}"
        )
    if same := ids.repeats[Use.SAME]:
        notes.append(f"{same:,} rows repeat an earlier row of the same id exactly: nothing is lost")
    return notes


def told_at_the_end(data: ReadFile, terminal: Terminal, more: Sequence[str] = ()) -> list[str]:
    """Says what was found while the examples were taken, and returns all that was found."""
    late = [*more, *data.end_notes()]
    for note in late:
        terminal.note(note)
    return [*data.notes, *late]


def shown_values(args: argparse.Namespace, lines: Collection[int]) -> dict[int, str]:
    """The inputs and targets on some lines of a command's data file, cut, by line: read once more, where they can be.

    Args:
        args: The command's arguments.
        lines: The lines; numbers of rows where rows are no lines.
    """
    if not lines or not Path(args.data).is_file():
        return {}
    found: dict[int, str] = {}
    last = max(lines)
    with (
        contextlib.suppress(DataError, OSError),
        open_data(args.data, reading_of(args), columns_of(args)) as data,
    ):
        columns = data.fitted(columns_of(args))
        for row in data.rows():
            if row.line in lines and isinstance(row, Row):
                cells = (columns.input, columns.target)
                values = (Cells(data.name, row).value(it) for it in cells if it in row.values)
                found[row.line] = ", ".join(f"{value!r:.60}" for value in values)
            if row.line >= last:
                break
    return found


class _Ahead:
    """The rows of a stream, of which a survey sees the first before any is taken."""

    def __init__(self, data: Data, survey: Survey) -> None:
        self.name = data.name
        self.folder = data.folder
        self._data = data
        self._rest = data.rows()
        self._first: list[Row | RowError] = []
        self._look(survey)

    def fitted(self, columns: Columns) -> Columns:
        """The columns by the names that the stream has for them."""
        return self._data.fitted(columns)

    def rows(self) -> Iterator[Row | RowError]:
        """All rows, as they are read."""
        yield from self._first
        yield from self._rest

    def _look(self, survey: Survey) -> None:
        ahead = LookAhead(_LOOK_ROWS)
        # What comes next may be long in coming, and what is there is to be sent: one row mostly tells.
        while survey.open and ahead.within and (row := next(self._rest, None)) is not None:
            ahead.at(row.values.values() if isinstance(row, Row) else ())
            self._first.append(row)
            survey.add(row)
