"""A data file, or a folder of classes, as a table that is opened anew each time that it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graft._data_files.columns import Columns, Row, RowError
from graft._data_files.folders.tree import FOLDER_COLUMNS, FolderTree
from graft._data_files.options import Reading
from graft._data_files.reader import open_data


class StoredRows:
    """The rows of a data file or of a folder of classes.

    Attributes:
        name: What messages call it.
        folder: Where names of files begin.
        unit: What rows are counted in.
        whole: Whether its rows can be read more than once; a pipe's cannot, and of a folder each file would be opened.
        remarks: What was left out of a folder, in sentences.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Looks at nothing but the folder's list.

        Raises:
            DataError: The folder has no files that are read.
        """
        self._path = Path(path)
        self.name = str(path)
        self._tree = FolderTree(self._path) if self._path.is_dir() else None
        self.folder = self._path if self._tree else self._path.parent
        self.unit = "file" if self._tree else "line"
        self.whole = self._path.is_file()
        self.remarks: tuple[str, ...] = tuple(self._tree.remarks) if self._tree else ()
        self._asked: Columns | None = None

    def place(self, number: int) -> str:
        """Names a row: "line 5", "row 5", or a file of a folder by its path."""
        return self._tree.place(number) if self._tree else f"{self.unit} {number}"

    def fitted(self, columns: Columns) -> Columns:
        """The columns by the names that the file has for them.

        Raises:
            DataError: The file has no such column, or cannot be read.
        """
        if self._tree:
            return FOLDER_COLUMNS
        if not self.whole:
            return columns  # what was read of a pipe is gone
        self._asked = columns
        with open_data(self._path, Reading(), columns) as data:
            self.unit = data.unit
            return data.fitted(columns)

    def rows(self) -> Iterator[Row | RowError]:
        """The rows, as they are read.

        Raises:
            DataError: The file is not in its format.
        """
        if self._tree:
            yield from self._tree.rows()
            return
        with open_data(self._path, Reading(), self._asked or _ANY) as data:
            if self._asked:
                data.fitted(self._asked)
            yield from data.rows()


_ANY = Columns(input="text", label="label")


def is_stored(given: Any) -> bool:
    """Whether it is a path, or a text that names a file or a folder which is there."""
    if isinstance(given, os.PathLike):
        return True
    if not isinstance(given, str) or not given or "\0" in given or len(given) > 4_096:
        return False
    try:
        return Path(given).exists()
    except OSError:
        return False
