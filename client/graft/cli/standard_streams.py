"""Standard streams that are closed, or whose other end is."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_STANDARD: Final = (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w"))
_NOBODY_READS: Final = 1
"""The exit code where what was said could not be written."""


def open_closed_streams() -> None:
    """Leads standard streams that were closed into nothing: the next connection would become one of them."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    for name, number, mode in _STANDARD:
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def spell_what_cannot_be_encoded() -> None:
    r"""Has standard output write \xe9 for a character that its encoding lacks, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def flushed(code: int) -> int:
    """Writes what is left, and returns the exit code: 1 where all went well but this.

    Python would complain at its end otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads any more, the disk is full, or it was closed
            code = code or _NOBODY_READS
            _lead_into_nothing(stream.fileno())
    return code


def _lead_into_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)
