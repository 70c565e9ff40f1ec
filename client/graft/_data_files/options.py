"""How a data file is to be read, where its name and its content do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FORMATS: Final = ("csv", "tsv", "jsonl", "json", "parquet", "xlsx")
"""What data files can be."""
QUOTES: Final = ("none", '"', "'")
"""What encloses cells that contain the delimiter."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a data file is to be read; what is empty is found out."""

    data_format: str = ""
    """One of `FORMATS`."""
    delimiter: str = ""
    """The character between cells."""
    quote: str = ""
    """One of `QUOTES`."""
    encoding: str = ""
    """The encoding of the text."""
    names: tuple[str, ...] = ()
    """The names of the columns of a file without a header line; an empty name passes a column over."""
    sheet: str = ""
    """The sheet of an Excel file."""
