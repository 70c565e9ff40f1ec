"""Answers in Parquet: rows are noted as JSON lines while they come, and made a Parquet file when all are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from graft._data_files.answers.asked import AskedRow
from graft._data_files.answers.writers import Layout, json_text
from graft._data_files.formats.parquet_writing import ParquetColumn, write_extended, write_rows
from graft._data_files.formats.whole import WholeRow
from graft._records.predicting.answer_columns import AnswerColumns

_WHOLE: Final = 2**63


class NotedRows:
    """Notes rows, one a line: what the input's columns hold (null where the input is Parquet), and the answer."""

    def __init__(self, out: BinaryIO, layout: Layout) -> None:
        self._out = out
        self._layout = layout
        self._bare = layout.form.data_format == "parquet"

    def begin(self) -> None:
        """Nothing."""

    def between(self, whole: WholeRow) -> None:
        """Nothing: Parquet has no empty lines."""

    def row(self, asked: AskedRow, values: list[Any]) -> None:
        """Notes a row."""
        cells = None if self._bare else self._layout.cells(asked.whole)
        self._out.write(f"{json_text([cells, values])}\n".encode())

    def end(self) -> None:
        """Nothing."""


def parquet_of(noted: Path, layout: Layout, columns: AnswerColumns, source: Any) -> Path:
    """Makes a Parquet file of noted rows, beside them.

    Args:
        noted: The file of noted rows.
        layout: The columns.
        columns: Those of the answers.
        source: The input, where it is Parquet: a `pyarrow.parquet.ParquetFile`.
    """
    made = noted.with_name(f"{noted.name}.parquet")
    answers = [ParquetColumn(*it) for it in zip(layout.answers, columns.kinds, strict=True)]
    if layout.form.data_format == "parquet":
        write_extended(made, source, answers, (values for _, values in _rows(noted)))
        return made
    kinds = ["text"] * len(layout.names) if layout.form.names else _kinds(noted, len(layout.names))
    own = [ParquetColumn(*it) for it in zip(layout.names, kinds, strict=True)]
    write_rows(made, [*own, *answers], _typed(noted, kinds))
    return made


def _rows(noted: Path) -> Iterator[tuple[list[Any], list[Any]]]:
    with noted.open(encoding="utf-8") as file:
        for line in file:
            cells, values = json.loads(line)
            yield cells, values


def _typed(noted: Path, kinds: list[str]) -> Iterator[list[Any]]:
    for cells, values in _rows(noted):
        yield [*(_of_kind(it, kind) for it, kind in zip(cells, kinds, strict=True)), *values]


def _of_kind(value: Any, kind: str) -> Any:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if kind == "text" else value


def _kinds(noted: Path, count: int) -> list[str]:
    """What each column of JSON holds: numbers or flags where all values are such, else texts."""
    seen: list[set[str]] = [set() for _ in range(count)]
    for cells, _ in _rows(noted):
        for at, value in enumerate(cells):
            if value is not None:
                seen[at].add(_kind(value))
    return ["number" if it == {"number", "whole"} else it.pop() if len(it) == 1 else "text" for it in seen]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "whole" if -_WHOLE <= value < _WHOLE else "text"
    return "number" if isinstance(value, float) else "text"
