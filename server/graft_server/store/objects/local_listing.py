"""What lies in a local folder: names that no object can have are logged once and passed over.

obstore lists a local folder too, but a single stray name, such as one that is not UTF-8, ends its list.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

# Temporaries, and whatever obstore would not list.
_HIDDEN = re.compile(r"(?:\.writing|.*#[0-9]+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Listed(NamedTuple):
    """One object."""

    key: str
    size: int
    """In bytes, with its seal."""
    modified: datetime


def listed(root: Path, prefix: str) -> Iterator[Listed]:
    """Yields the objects below a prefix that is empty or ends in "/", in no order.

    Raises:
        OSError: A folder cannot be read.
    """
    for entry, key in _entries(root, prefix):
        try:
            if entry.is_dir():
                yield from listed(root, key + "/")
            elif entry.is_file():
                found = entry.stat()
                yield Listed(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
        except FileNotFoundError:
            continue  # deleted meanwhile


def folders(root: Path, prefix: str) -> list[str]:
    """Returns the names of the folders directly below a prefix. Raises OSError."""
    return [key.rpartition("/")[2] for entry, key in _entries(root, prefix) if entry.is_dir()]


def _entries(root: Path, prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    try:
        with os.scandir(root / prefix) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if _HIDDEN.fullmatch(entry.name):
            continue
        if _is_name(entry.name):
            yield entry, prefix + entry.name
        else:
            _say_stray(f"{prefix}{entry.name!r}")


def _is_name(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not _CONTROL.search(name)


@functools.lru_cache(maxsize=1024)
def _say_stray(what: str) -> None:
    _log.warning("store: %s can be the name of no object: it is passed over", what)
