"""Writes Parquet files, through pyarrow: rows of values, or a Parquet file once more with further columns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from graft._data_files.columns import DataError

_ROWS: Final = 10_000
"""A group has about so many rows."""
_BATCH: Final = 256
_BYTES: Final = 64 * 1024 * 1024
"""A group has not many more bytes."""
_HUGGING_FACE: Final = {
    "text": {"dtype": "string", "_type": "Value"},
    "number": {"dtype": "float64", "_type": "Value"},
    "flag": {"dtype": "bool", "_type": "Value"},
    "texts": [{"dtype": "string", "_type": "Value"}],
    "numbers": [{"dtype": "float64", "_type": "Value"}],
}


class ParquetColumn(NamedTuple):
    """A column to write."""

    name: str
    kind: str
    """ "text", "whole" (a number of 64 bits), "number", "flag", "texts" or "numbers"."""


def require_parquet(name: str) -> None:
    """Raises DataError if pyarrow is not installed; `name` is the file that is to be written."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415  (an extra)
    except ModuleNotFoundError:
        raise DataError(
            f"{name}: writing Parquet needs pyarrow: pip install 'graft-serve[parquet]'; or end the name with .jsonl"
        ) from None


def write_rows(path: Path, columns: Sequence[ParquetColumn], rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows.

    Args:
        path: Where to.
        columns: What each row holds.
        rows: The rows, each with a value for each column; None where it is missing.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = pa.schema([(it.name, _type(it.kind)) for it in columns])
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            arrays = [_array([row[at] for row in group], it.kind) for at, it in enumerate(columns)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def write_extended(
    path: Path, source: Any, columns: Sequence[ParquetColumn], rows: Iterable[Sequence[Any]]
) -> None:
    """Writes a Parquet file once more, its columns as they are, with others behind them.

    Args:
        path: Where to.
        source: The file, a `pyarrow.parquet.ParquetFile`.
        columns: The columns behind its own.
        rows: What they hold, for each row of the file.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    own = source.schema_arrow
    schema = pa.schema(
        [*own, *(pa.field(it.name, _type(it.kind)) for it in columns)], metadata=_metadata(own, columns)
    )
    values = iter(rows)
    held: list[Any] = []
    with pq.ParquetWriter(path, schema) as writer:
        for batch in source.iter_batches(_BATCH):
            part = list(itertools.islice(values, batch.num_rows))
            arrays = [_array([row[at] for row in part], it.kind) for at, it in enumerate(columns)]
            held.append(pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema))
            if sum(it.num_rows for it in held) >= _ROWS or sum(it.nbytes for it in held) >= _BYTES:
                writer.write_table(pa.Table.from_batches(held))
                held.clear()
        if held:
            writer.write_table(pa.Table.from_batches(held))


def _type(kind: str) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return {
        "text": pa.string(),
        "whole": pa.int64(),
        "number": pa.float64(),
        "flag": pa.bool_(),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float64()),
    }[kind]


def _array(values: list[Any], kind: str) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    if kind == "text":
        values = [_valid(it) for it in values]
    return pa.array(values, _type(kind))


def _valid(text: str | None) -> str | None:
    """A text without the halves of characters that stand for bytes that could not be read."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def _metadata(schema: Any, columns: Sequence[ParquetColumn]) -> dict[bytes, bytes]:
    """What else the file says of its columns; the data sets of Hugging Face want to know of all of them."""
    metadata = dict(schema.metadata or {})
    try:
        known = json.loads(metadata[b"huggingface"])
        known["info"]["features"].update({it.name: _HUGGING_FACE[it.kind] for it in columns})
        metadata[b"huggingface"] = json.dumps(known).encode()
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return metadata


def _groups(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    iterator = iter(rows)
    while group := list(itertools.islice(iterator, _ROWS)):
        yield group
