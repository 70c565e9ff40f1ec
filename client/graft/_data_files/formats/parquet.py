"""The rows of a Parquet file, through pyarrow."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.formats.whole import WholeRow
from graft._data_files.header import Header

_BATCH: Final = 256
"""So many rows are in memory at once: one may hold a picture."""


class ParquetTable:
    """A Parquet file: the columns, and the rows as they are read.

    Attributes:
        header: The columns.
        unit: What rows are counted in.
        file: The `pyarrow.parquet.ParquetFile`.
    """

    unit = "row"

    def __init__(self, name: str, file: BinaryIO) -> None:
        """Opens the file.

        Raises:
            DataError: pyarrow is not installed, or the file is damaged.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415  (an extra)
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ModuleNotFoundError:
            raise DataError(
                f"{name}: reading Parquet needs pyarrow: pip install 'graft-serve[parquet]'; or save the table as "
                "CSV or JSON lines"
            ) from None
        self._name = name
        self._error: type[Exception] = pa.ArrowException
        try:
            self.file = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{name}: not a whole Parquet file ({error})") from None
        schema = self.file.schema_arrow
        self._classes = _class_names(schema.metadata or {})
        self.header = Header(tuple(schema.names))
        self._wanted: list[str] | None = None

    def only(self, columns: Columns) -> None:
        """Has only the columns read that are asked for."""
        asked = (
            *(columns.input, columns.second, columns.label, columns.value, columns.id, columns.weight),
            *(columns.group, columns.split, columns.subject, columns.confirmed, *columns.labels_from),
        )
        names = {*self.header.names}
        self._wanted = [it for it in dict.fromkeys(asked) if it in names]

    def rows(self) -> Iterator[Row | RowError]:
        """The rows."""
        return (it.row for it in self._read(self._wanted) if it.row is not None)

    def whole_rows(self) -> Iterator[WholeRow]:
        """The rows, with all of their cells."""
        return self._read(None)

    def _read(self, wanted: list[str] | None) -> Iterator[WholeRow]:
        number = 0
        try:
            for batch in self.file.iter_batches(_BATCH, columns=wanted):
                columns = [it.to_pylist() for it in batch.columns]
                names = batch.schema.names
                for cells in zip(*columns, strict=True):
                    number += 1
                    found = [self._value(key, it) for key, it in zip(names, cells, strict=True)]
                    yield WholeRow(Row(number, dict(zip(names, found, strict=True)), unit=self.unit), found)
        except (self._error, OSError) as error:
            raise DataError(f"{self._name}, behind row {number}: damaged ({error})") from None

    def _value(self, column: str, value: Any) -> Any:
        """A value as JSON would have it; the number of a class is the class's name."""
        names = self._classes.get(column)
        if names is not None:
            return [_class(it, names) for it in value] if isinstance(value, list) else _class(value, names)
        if isinstance(value, decimal.Decimal):
            return float(value)
        return str(value) if isinstance(value, dt.date | dt.time | dt.timedelta) else value


def _class(value: Any, names: list[str]) -> Any:
    if not isinstance(value, int):
        return value
    # The data sets of Hugging Face write -1 for a label that is not known.
    return names[value] if 0 <= value < len(names) else None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes by column, as the data sets of Hugging Face keep them."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    found: dict[str, list[str]] = {}
    for column, feature in features.items():
        inner = feature if isinstance(feature, dict) else {}
        inner = (
            inner.get("feature", inner) if inner.get("_type") in ("Sequence", "List", "LargeList") else inner
        )
        inner = inner[0] if isinstance(inner, list) and inner else inner
        if (
            isinstance(inner, dict)
            and inner.get("_type") == "ClassLabel"
            and isinstance(inner.get("names"), list)
        ):
            found[column] = inner["names"]
    return found
