"""What shows itself in a notebook. What draws it is loaded when it is shown: programs that show nothing lack it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any


class Shown:
    """Shows itself as HTML where Jupyter, VS Code or another notebook asks."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Returns the cell's content: it needs no other file, runs nothing, and its style is for itself alone."""
        html: str = _drawing("cells").cell(self)
        return html


class Saved(Shown):
    """Shows itself, and writes itself as a page."""

    __slots__ = ()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the whole report as one HTML page, which needs no other file and can be mailed and printed.

        Args:
            path: The file, whose name ends in .html. One that is there is replaced.

        Returns:
            The path.

        Raises:
            ValueError: The name ends otherwise.
            OSError: The file cannot be written.
        """
        file = Path(path)
        if file.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"the report is saved as an HTML page: {str(path)!r} must end in .html")
        file.write_text(_drawing("page").page(self), encoding="utf-8")
        return file


def _drawing(module: str) -> Any:
    return importlib.import_module(f"graft._report.{module}")
