"""Tables as rows: pandas, polars, Arrow, splits of data sets, structured arrays, and rows as mappings.

None of the libraries is imported: an object that comes from one is told by its type's module, or by a protocol.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.header import Header, fitted
from graft._records.inputs.shapes import is_array
from graft._records.inputs.targets import plain
from graft._tables.hugging_face import names_of_codes
from graft._tables.options import name_of
from graft._tables.stored import StoredRows, is_stored

_CHUNK: Final = 4_096
"""So many rows are turned into Python's own values at once."""
_SPLIT_CHUNK: Final = 256
"""So many of a split, whose rows may be images."""
_SAMPLE: Final = 100
"""So many rows show how numbers are written."""

Cells = Sequence[Sequence[Any]]
"""The cells of some rows: one sequence for each column."""


Chunks = Callable[[Sequence[int], int], Iterable[Cells]]
"""Gives the cells of the columns at some places, so many rows at a time."""


class Source(Protocol):
    """A source of rows in memory, as a `Rows` of data files is one on disk."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def folder(self) -> Path:
        """Where names of files begin."""

    @property
    def unit(self) -> str:
        """What rows are counted in."""

    @property
    def whole(self) -> bool:
        """Whether its rows can be read more than once."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left out, in sentences."""

    def place(self, number: int) -> str:
        """Names a row by its number."""

    def fitted(self, columns: Columns) -> Columns:
        """The columns by the names that it has for them; DataError if it has no such column."""

    def rows(self) -> Iterator[Row | RowError]:
        """The rows."""


def _nothing(_: int) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Frame:
    """A table with named columns."""

    name: str
    """What messages call it."""
    names: tuple[str, ...]
    """The names of its columns."""
    chunks: Chunks
    """Gives the cells of the columns at these places, so many rows at a time at most."""
    whole: bool = True
    """Whether its rows can be read more than once."""
    label_of_row: Callable[[int], str] = _nothing
    """What a row is called where that is not its position; else ""."""
    only: str = ""
    """The column, if it has one only."""
    wanted: Collection[str] | None = None
    """The columns that its rows have; None: all."""

    folder = Path()
    unit = "row"
    remarks: ClassVar[tuple[str, ...]] = ()

    def place(self, number: int) -> str:
        """Names a row by its position, counted from 0."""
        label = self.label_of_row(number)
        return f"row {number} ({label})" if label else f"row {number}"

    def fitted(self, columns: Columns) -> Columns:
        """The columns by the names that the table has for them.

        Raises:
            DataError: It has no such column, or several.
        """
        sample: list[Sequence[Any]] = []
        if self.whole:
            for cells in self.chunks(range(len(self.names)), _SAMPLE):
                sample = [*zip(*cells, strict=True)]
                break
        return fitted(columns, Header(self.names, sample, given=True), self.name)

    def narrowed(self, wanted: Collection[str]) -> Frame:
        """The same table with these columns alone: the others cost time."""
        return replace(self, wanted=frozenset(wanted))

    def rows(self) -> Iterator[Row | RowError]:
        """The rows, by position from 0."""
        wanted = [
            at for at, name in enumerate(self.names) if name and (self.wanted is None or name in self.wanted)
        ]
        names = [self.names[at] for at in wanted]
        position = 0
        for cells in self.chunks(wanted, _CHUNK):
            for row in zip(*cells, strict=True):
                yield Row(position, dict(zip(names, row, strict=True)), unit="row")
                position += 1


@dataclass(slots=True)
class Records:
    """Rows as mappings, each with keys of its own: a list of dicts, a csv.DictReader, a generator."""

    name: str
    """What messages call it."""
    items: Iterable[Any]
    """The mappings."""
    whole: bool
    """Whether they can be read more than once."""

    folder = Path()
    unit = "row"
    remarks: ClassVar[tuple[str, ...]] = ()

    def place(self, number: int) -> str:
        """Names a row by its position, counted from 0."""
        return f"row {number}"

    def fitted(self, columns: Columns) -> Columns:
        """The columns as they are asked for: a key that no row has is told when the rows were read."""
        return columns

    def rows(self) -> Iterator[Row | RowError]:
        """The rows, by position from 0."""
        for position, item in enumerate(self.items):
            yield row_of(self.name, position, item)


def row_of(name: str, position: int, item: Any) -> Row | RowError:
    """The row that a mapping is, or what is wrong with it."""
    values = mapping_of(item)
    if values is None:
        what = f"a row must be a mapping, as those before it, not {type(item).__name__}"
        return RowError(name, position, what, unit="row")
    if (more := values.get(None)) and isinstance(more, list):  # csv.DictReader's surplus cells
        return RowError(name, position, f"there are {len(more):,} cells more than columns", unit="row")
    found = {name_of(key): value for key, value in values.items() if key is not None}
    return Row(position, found, sparse=True, unit="row")


def mapping_of(item: Any) -> Mapping[Any, Any] | None:
    """A row as a mapping: a mapping itself, a named tuple of more than two fields, a row of a database."""
    if isinstance(item, Mapping):
        return item
    if isinstance(item, tuple) and hasattr(item, "_asdict") and len(item) > 2:
        found: Mapping[Any, Any] = item._asdict()
        return found
    if not isinstance(item, str | bytes | tuple | list) and type(item).__module__ == "sqlite3":
        return dict(zip(item.keys(), item, strict=True))
    return None


def source_of(given: Any, *, named: bool) -> Source | None:
    """The table that an object is; None if it is none.

    Args:
        given: What a caller handed in.
        named: Whether the caller named columns: a dict of columns is a table then.

    Raises:
        DataError: It is a table that cannot be read.
        TypeError: It is several tables.
    """
    for told, made in _KINDS:
        if told(given):
            return made(given)
    if isinstance(given, Mapping):
        return _of_columns(given) if named and given and _are_columns(given) else None
    if is_array(given):
        return _of_records(given) if given.dtype.names and given.ndim == 1 else None
    if isinstance(given, list | tuple) and given and mapping_of(given[0]) is not None:
        return Records(_called(given, "list of rows"), given, whole=True)
    if hasattr(given, "__arrow_c_stream__") and hasattr(given, "columns"):
        return _of_stream(given)
    return None


def _from(given: Any, module: str, *names: str) -> bool:
    """Whether an object's type, or one that it derives from, is one of a module's."""
    return any(
        it.__module__.partition(".")[0] == module and it.__name__ in names for it in type(given).__mro__
    )


def _called(given: Any, what: str = "") -> str:
    return f"the {what or type(given).__name__}"


def _of_pandas(given: Any) -> Frame:
    """A data frame; levels of its index that have names of their own are columns, too, behind the others."""
    index = given.index
    names = [name_of(it) for it in given.columns]
    levels = [
        at
        for at, name in enumerate(index.names)
        if name is not None and name_of(name) not in names  # a column comes first
    ]
    own = len(names)

    def chunks(wanted: Sequence[int], size: int) -> Iterator[Cells]:
        for start in range(0, len(given), size):
            part = given.iloc[start : start + size]
            yield [
                part.iloc[:, at].tolist()
                if at < own
                else part.index.get_level_values(levels[at - own]).tolist()
                for at in wanted
            ]

    def label(position: int) -> str:
        return f"index {plain(index[position])!r}"

    usual = type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1
    return Frame(
        _called(given),
        (*names, *(name_of(index.names[at]) for at in levels)),
        chunks,
        label_of_row=_nothing if usual else label,
        only=names[0] if own == 1 else "",
    )


def _frame(name: str, names: Iterable[str], chunks: Chunks, *, whole: bool = True) -> Frame:
    named = tuple(names)
    return Frame(name, named, chunks, whole=whole, only=named[0] if len(named) == 1 else "")


def _of_polars(given: Any) -> Frame:
    frame = given.collect() if type(given).__name__ == "LazyFrame" else given

    def chunks(wanted: Sequence[int], size: int) -> Iterator[Cells]:
        for start in range(0, len(frame), size):
            part = frame.slice(start, size)
            yield [part.to_series(at).to_list() for at in wanted]

    return _frame(_called(given), frame.columns, chunks)


def _of_arrow(given: Any) -> Frame:
    def chunks(wanted: Sequence[int], size: int) -> Iterator[Cells]:
        batches = given if type(given).__name__ == "RecordBatchReader" else None
        if batches is None:
            batches = given.to_batches(max_chunksize=size) if hasattr(given, "to_batches") else [given]
        for batch in batches:
            for start in range(0, batch.num_rows, size):
                part = batch.slice(start, size)
                yield [part.column(at).to_pylist() for at in wanted]

    whole = type(given).__name__ != "RecordBatchReader"
    return _frame(_called(given), given.schema.names, chunks, whole=whole)


def _of_stream(given: Any) -> Frame:
    """What gives an Arrow stream of record batches, by whatever library."""
    try:
        arrow = sys.modules.get("pyarrow") or importlib.import_module("pyarrow")
        reader = arrow.RecordBatchReader.from_stream(given)
    except ImportError:
        raise DataError(
            f"{_called(given)} is read by pyarrow, which is not installed: pip install 'graft-serve[parquet]'"
        ) from None
    except ValueError as error:
        raise DataError(f"{_called(given)} cannot be read as a table: {error}") from None
    return _of_arrow(reader.read_all())


def _of_split(given: Any) -> Frame:
    """A split of a data set of Hugging Face's `datasets`: classes by their names, images and clips by their files."""
    features = given.features
    plain = given.with_format("arrow")

    def chunks(wanted: Sequence[int], size: int) -> Iterator[Cells]:
        named = [names_of_codes(features[given.column_names[at]]) for at in wanted]
        for batch in plain.iter(batch_size=min(size, _SPLIT_CHUNK)):
            yield [
                [name(it) for it in batch.column(at).to_pylist()] if name else batch.column(at).to_pylist()
                for at, name in zip(wanted, named, strict=True)
            ]

    return _frame(_called(given), given.column_names, chunks)


def _of_streamed_split(given: Any) -> Records:
    """A split that comes as a stream."""
    features = given.features or {}
    named = {column: name for column, it in features.items() if (name := names_of_codes(it)) is not None}
    encoded = given.decode(False) if features and hasattr(given, "decode") else given

    def rows() -> Iterator[Mapping[str, Any]]:
        for row in encoded:
            yield {column: named[column](it) if column in named else it for column, it in row.items()}

    return Records(_called(given), rows(), whole=False)


def _of_records(given: Any) -> Frame:
    names: tuple[str, ...] = given.dtype.names

    def chunks(wanted: Sequence[int], size: int) -> Iterator[Cells]:
        for start in range(0, len(given), size):
            part = given[start : start + size]
            yield [part[names[at]].tolist() for at in wanted]

    return _frame("the array of records", names, chunks)


def _are_columns(given: Mapping[Any, Any]) -> bool:
    return all(hasattr(it, "__len__") and not isinstance(it, str | bytes | Mapping) for it in given.values())


def _of_columns(given: Mapping[Any, Any]) -> Frame:
    lengths = {name_of(name): len(it) for name, it in given.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length:,}" for name, length in lengths.items())
        raise DataError(f"the dict of columns has columns of different lengths ({listed})")
    columns = [values_of(it) for it in given.values()]

    def chunks(wanted: Sequence[int], size: int) -> Iterator[Cells]:
        if columns and len(columns[0]):
            yield [columns[at][:size] if size < _CHUNK else columns[at] for at in wanted]

    return _frame("the dict of columns", lengths, chunks)


def values_of(column: Any) -> Sequence[Any]:
    """The values of a column, as Python has them: of a list, an array, a Series, an Arrow array."""
    for method in ("to_pylist", "to_list", "tolist"):
        if callable(found := getattr(column, method, None)):
            values: Sequence[Any] = found()
            return values
    return column if isinstance(column, Sequence) else list(column)


def _refuse_splits(given: Any) -> Frame:
    splits = [str(it) for it in given]
    shown = ", ".join(splits) or "none"
    raise TypeError(
        f"a {type(given).__name__} is several tables, its splits: {shown}; give one, as "
        f"data[{splits[0] if splits else 'train'!r}]"
    )


_KINDS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any], Source]], ...]] = (
    (is_stored, StoredRows),
    (lambda it: _from(it, "pandas", "DataFrame"), _of_pandas),
    (lambda it: _from(it, "polars", "DataFrame", "LazyFrame"), _of_polars),
    (lambda it: _from(it, "pyarrow", "Table", "RecordBatch", "RecordBatchReader"), _of_arrow),
    (lambda it: _from(it, "datasets", "DatasetDict", "IterableDatasetDict"), _refuse_splits),
    (lambda it: _from(it, "datasets", "Dataset"), _of_split),
    (lambda it: _from(it, "datasets", "IterableDataset"), _of_streamed_split),
)
"""The kinds of tables: what tells one, and what reads it."""
