"""A folder of images or clips, in folders named after their classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.folders.layout import Found, Layout
from graft._records.inputs.media import ENDINGS, unusable

FOLDER_COLUMNS = Columns(input="path", label="label", split="split", path=True)
"""What a `FolderTree` holds."""


class FolderTree:
    """Images or clips in folders named after their classes, as if a file listed them.

    Rows have the columns "path", relative to the folder, "label" and "split".

    Attributes:
        remarks: What a person should know of the folder before it is used: what was left out, and why.
        losses: Those of them that say that images or clips are missing.
    """

    unit = "file"
    """What rows are counted in."""
    blank_rows = 0
    """A folder has none."""

    def __init__(self, folder: str | Path) -> None:
        """Lists the folder.

        Raises:
            DataError: It has no folders of classes, or no file in them that is read.
        """
        self.name = str(folder)
        self.folder = Path(folder)
        layout = Layout.of(self.folder)
        self._files: list[Found] = layout.files
        self.losses = layout.losses()
        self.remarks = self.losses + layout.remarks()
        self.size = len(self._files)
        self.position = 0
        if not self._files:
            said = " ".join(self.remarks)
            raise DataError(
                f"{folder}: no images or clips in it; put them into one folder for each class, with the endings "
                f"{', '.join(sorted(ENDINGS))}{f'. {said}' if said else ''}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def fitted(self, columns: Columns) -> Columns:
        """The columns of a folder."""
        return columns

    def place(self, number: int) -> str:
        """Names the file of a row."""
        return self._files[number - 1].path.relative_to(self.folder).as_posix()

    def rows(self) -> Iterator[Row | RowError]:
        """A row a file; in place of a file that is no image or clip, what is wrong with it."""
        for number, found in enumerate(self._files, start=1):
            self.position = number
            path = self.place(number)
            reason = unusable(found.path)
            if reason:
                yield RowError(self.name, number, reason, path=path)
            else:
                yield Row(number, {"path": path, "label": found.label, "split": found.split}, unit=self.unit)
