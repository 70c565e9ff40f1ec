"""Answers a whole file: opens it, goes on where an interrupted run was, and says what came of it."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graft._client.sync import Client
from graft._data_files.answers.asked import AskedFolder, AskedRow, Source
from graft._data_files.answers.parquet import parquet_of
from graft._data_files.answers.unfinished import Straight, Unfinished
from graft._data_files.answers.writers import AnswerWriter, Layout
from graft._data_files.columns import DataError
from graft._records.predicting.answer_columns import AnswerColumns
from graft.cli.answering.choice import Chosen, chosen
from graft.cli.answering.output import Output, input_names, not_in, output_of, packed, writer_to
from graft.cli.answering.run import Answering, Pace, Write
from graft.cli.answering.source import AskedAhead, asking_of, opened, read_twice

if TYPE_CHECKING:
    from graft.cli.showing.bars import CountBar
    from graft.cli.showing.terminal import Terminal

_SAID_EVERY_S: Final = 10.0
"""Where there is no terminal, a line of progress is written so often."""
_SHOWN_EVERY_S: Final = 0.2
_OTHERWISE: Final = {
    "model": "the model",
    "asked": "the version, alias or adaptation",
    "version": "the version",
    "identity": "the version's training",
    "inputs": "the columns of the inputs",
    "columns": "the columns of the output",
    "format": "the format of the output",
    "scores": "how many scores",
}


def answer_file(args: argparse.Namespace, client: Client, terminal: Terminal, path: str, kind: str) -> None:
    """Answers a file.

    Args:
        args: The command's arguments.
        client: The client.
        terminal: Where to tell what happens.
        path: The file, a folder of pictures, or "-".
        kind: "table" or "lines".

    Raises:
        DataError: The file cannot be read, the output cannot be written, or an input could not be answered.
    """
    with ExitStack() as stack:
        source = stack.enter_context(terminal.interrupts.opened(path))
        data = stack.enter_context(opened(args, path, kind, source))
        output = output_of(args.output, args.output_format or ("jsonl" if args.json else ""), data.form)
        keys: list[str] = []
        if not data.form.names and source is not None and output.output_format in ("jsonl", "json"):
            ahead = AskedAhead(data)
            data, keys = ahead, list(ahead.keys)
        elif not data.form.names:
            data, keys = read_twice(args, path, data, stack)
        if isinstance(data, AskedFolder) and data.others:
            terminal.note(f"{path}: {data.others:,} files with other endings are left out")
        part = _part(args, terminal, output, path)
        by = chosen(args, client, part)
        names = input_names(data.form, keys, output.output_format)
        columns = AnswerColumns(
            by.task,
            top_k=args.top_k,
            labels=by.labels if args.scores else (),
            prefix=args.prefix,
            taken=names,
        )
        if columns.renamed:
            both = ", ".join(f"{name!r} beside {usual!r}" for usual, name in columns.renamed)
            terminal.note(
                f"the input has columns of the same names, so that what the model says is in {both}"
            )
        form = data.form
        if form.data_format == output.output_format and (lost := not_in(form, [*columns.names, *by.labels])):
            terminal.note(
                f"{output.name} is in UTF-8, because {form.text.encoding} has no way to write {lost!r}"
            )
            form = replace(form, text=replace(form.text, encoding="utf-8", mark=b""))
        layout = Layout(form, names, columns.names)
        FileRun(args, client, terminal, data, output, layout, columns, by).answer(part)


def _part(args: argparse.Namespace, terminal: Terminal, output: Output, path: str) -> Unfinished | Straight:
    """The interrupted run to go on with, or a new one; or where the output is no file that is made anew.

    Raises:
        DataError: The output is there already, or cannot be.
    """
    if output.path is None:
        return Straight(sys.stdout.buffer)
    if output.path.exists() and not (output.path.is_file() or output.path.is_dir()):
        if output.output_format == "parquet":
            raise DataError(f"{output.path} is no file; Parquet is written into files only")
        return Straight(output.path.open("wb"))
    _require_writable(args, terminal, output.path, path)
    part = Unfinished(output.path)
    if args.restart:
        part.drop()
    elif part.path.exists() and not part.exists:
        raise DataError(
            f"{part.path} is there, and nothing says what it is a part of; move it away, or say --restart"
        )
    return part


def _require_writable(args: argparse.Namespace, terminal: Terminal, output: Path, path: str) -> None:
    """Raises DataError where there can be no such file, or one that nobody allows to be replaced."""
    if output.is_dir():
        raise DataError(f"{output} is a folder; give --output the name of a file")
    if not output.absolute().parent.is_dir():
        raise DataError(f"{output}: there is no folder {output.parent}; make it first")
    if output.exists():
        if path != "-" and output.samefile(path):
            raise DataError(f"{output} is the input, too; give --output another name")
        if not args.overwrite:
            _ask(terminal, f"{output} is there already", "Replace it?", "--overwrite replaces it")


def _ask(terminal: Terminal, found: str, question: str, remedy: str) -> None:
    """Raises DataError unless a person says yes."""
    answer = terminal.ask(f"{found}. {question} [y/N] ")
    if (answer or "").lower() not in ("y", "yes"):
        raise DataError(f"{found}; {remedy}")


@dataclass(frozen=True, slots=True)
class FileRun:
    """One run over a file."""

    args: argparse.Namespace
    client: Client
    terminal: Terminal
    data: Source
    output: Output
    layout: Layout
    columns: AnswerColumns
    by: Chosen

    def answer(self, part: Unfinished | Straight) -> None:
        """Answers all rows that are not answered yet.

        Raises:
            DataError: The input is another than that of the interrupted run, or a row could not be answered.
        """
        if isinstance(part, Straight):
            answering = self._ask(part, self.data.rows())
        else:
            self._require_same(part)
            with part:
                rows = self._behind(part)
                hint = f"the rows so far are in {part.path}; the same command goes on behind them"
                self.terminal.interrupts.hint = hint
                answering = self._ask(part, rows)
        self._tell(part, answering)

    def _settings(self) -> dict[str, Any]:
        """What a run is of, as far as it decides what is written."""
        asking = asking_of(self.args).columns
        return {
            "model": self.args.model,
            "asked": self.by.asked,
            "version": self.by.version,
            "identity": self.by.identity,
            "inputs": [asking.input, asking.second, asking.path],
            "columns": [*self.layout.names, *self.layout.answers],
            "format": self.output.output_format,
            "scores": self.columns.scores,
        }

    def _require_same(self, part: Unfinished) -> None:
        """Forgets an interrupted run of something else, if a person says so.

        Raises:
            DataError: Nobody does.
        """
        differs = part.differs(self._settings())
        if part.exists and differs:
            if part.rows:
                what = " and ".join(_OTHERWISE.get(it, it) for it in differs)
                found = f"{part.path} has {part.answered:,} rows of an interrupted run that differs in {what}"
                _ask(self.terminal, found, "Answer all rows anew?", "--restart answers all rows anew")
            part.drop()

    def _behind(self, part: Unfinished) -> Iterator[AskedRow]:
        """The rows that the interrupted run has not answered.

        Raises:
            DataError: Those that it has are no longer what they were.
        """
        rows = self.data.rows()
        if part.rows:
            for row in itertools.islice(rows, part.rows):
                part.skip(row)
            if not part.same_so_far():
                raise DataError(
                    f"the first {part.answered:,} rows of {self.data.name} are not those that {part.path} has the "
                    "answers of; --restart answers all rows anew"
                )
            by = f" by version {self.by.version}" if self.by.version else ""
            self.terminal.say(f"going on behind {part.answered:,} rows that are answered{by}")
        return rows

    def _ask(self, part: Unfinished | Straight, rows: Iterator[AskedRow]) -> Answering:
        """Asks about rows and writes them, each with its answer."""
        out = part.open(self._settings())
        writer = writer_to(out, self.output, self.layout, begun=part.answered > 0)
        if not part.rows:
            writer.begin()
        answering = Answering(rows, self.columns)
        predictions = self.client.predict_stream(
            self.args.model,
            answering.inputs(),
            version=self.by.version or None,
            adaptation_id=self.args.adaptation,
            top_k=self.columns.scores,
            on_progress=self.terminal.say,
        )
        # Rows on the terminal show themselves how far it is.
        hidden = isinstance(part, Straight) and self.terminal.out.is_terminal
        with nullcontext() if hidden else self.terminal.count_bar("answering:") as bar:
            answering.written(predictions, self._writing(part, writer, answering, bar))
        writer.end()
        out.flush()
        if isinstance(part, Unfinished):
            part.finish(self._made_of(part.path))
        else:
            part.finish()
        return answering

    def _made_of(self, part: Path) -> Path | None:
        """The file that is made of the part; None where the part is it."""
        if self.output.output_format == "parquet":
            return parquet_of(part, self.layout, self.columns, getattr(self.data, "parquet", None))
        return packed(part, self.output.packed) if self.output.packed else None

    def _writing(
        self, part: Unfinished | Straight, writer: AnswerWriter, answering: Answering, bar: CountBar | None
    ) -> Write:
        """Writes a row, notes that, and shows how far it is."""
        said, shown = Pace(_SAID_EVERY_S), Pace(_SHOWN_EVERY_S)
        begun = part.answered

        def write(row: AskedRow, values: list[Any] | None, failed: bool) -> None:
            if values is None:
                writer.between(row.whole)
            else:
                writer.row(row, values)
            part.wrote(row, failed=failed)
            if bar is not None and shown.due():
                bar.reading(self.data.done * answering.done)
                bar.show(shown.words(part.answered, begun))
            if said.due() and not self.terminal.err.is_terminal:
                done = self.data.done * answering.done
                share = f", about {done:.0%} of the file" if done else ""
                self.terminal.say(f"{said.words(part.answered, begun)}{share}")

        return write

    def _tell(self, part: Unfinished | Straight, answering: Answering) -> None:
        """Says what came of the rows.

        Raises:
            DataError: Some have no answer.
        """
        by = f" by version {self.by.version}" if self.by.version else ""
        if not part.failed:
            self.terminal.say(f"{part.answered:,} rows answered{by}: {self.output.name}")
            return
        first = f"; the first is {answering.first_error}" if answering.first_error else ""
        raise DataError(
            f"{part.failed:,} of {part.answered:,} rows could not be answered{by}; the column "
            f"{self.columns.names[-1]!r} of {self.output.name} says why{first}"
        )
