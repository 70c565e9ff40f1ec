"""A folder of images or clips, in folders named after their classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._records.media import ENDINGS, class_files

FOLDER_COLUMNS = Columns(input="path", label="label", path=True)
"""What a `FolderTree` holds."""


class FolderTree:
    """Images or clips in folders named after their classes, as if a file listed them.

    Rows have the columns "path", relative to the folder, and "label".
    """

    def __init__(self, folder: str | Path) -> None:
        self.name = str(folder)
        self.folder = Path(folder)
        self._files = list(class_files(self.folder))
        self.size = len(self._files)
        self.position = 0
        if not self._files:
            raise DataError(
                f"{folder}: no images or clips in it; put them into one folder for each class, with the endings "
                f"{', '.join(sorted(ENDINGS))}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    unit = "line"
    """What rows are counted in."""

    def fitted(self, columns: Columns) -> Columns:
        """The columns of a folder."""
        return columns

    def rows(self) -> Iterator[Row | RowError]:
        """A row a file."""
        for number, (file, label) in enumerate(self._files, start=1):
            self.position = number
            yield Row(number, {"path": file.relative_to(self.folder).as_posix(), "label": label})
