"""A file that is being written: beside its place until it is whole, with a note of how far it is, to go on there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

from graft._data_files.answers.asked import AskedRow
from graft._data_files.columns import DataError

_EVERY_S: Final = 2.0
"""How often it is noted how far the file is."""


class Fingerprint:
    """Tells whether rows are the ones that were answered before."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, asked: AskedRow) -> None:
        """Takes in what stands in a row."""
        whole = asked.whole
        shown = whole.text or repr(whole.cells)
        self._hash.update(f"{len(shown)}:{shown}".encode(errors="surrogatepass"))

    def __str__(self) -> str:
        return self._hash.hexdigest()


class Unfinished:
    """The part of a file that is written, in FILE.part, and FILE.part.json, which says what it is and how far.

    Attributes:
        path: The part.
        rows: How many rows of the input are behind us, counting empty lines and headers.
        answered: How many rows have been written.
        failed: How many of these have an error in place of an answer.
        run: What the part is of.
    """

    def __init__(self, output: Path) -> None:
        """Finds the part of an interrupted run, if there is one.

        Args:
            output: Where the file belongs once it is whole.
        """
        self.output = output.resolve()  # what a link leads to is replaced, not the link
        self.path = self.output.with_name(f"{self.output.name}.part")
        self._note = self.output.with_name(f"{self.output.name}.part.json")
        self.rows = self.answered = self.failed = 0
        self.run: dict[str, Any] = {}
        self._size = 0
        self._digest = ""
        self._noted = time.monotonic()
        self._file: BinaryIO | None = None
        self.fingerprint = Fingerprint()
        self._read()

    @property
    def exists(self) -> bool:
        """Whether there is a part to go on with."""
        return bool(self.run)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_bytes())
            if self.path.stat().st_size < note["bytes"]:
                return
            self.rows, self.answered, self.failed = note["rows"], note["answered"], note["failed"]
            self._size, self._digest, self.run = note["bytes"], note["digest"], note["run"]

    def differs(self, run: Mapping[str, Any]) -> list[str]:
        """What is asked for otherwise than in the interrupted run."""
        return [it for it in {**self.run, **run} if self.run.get(it) != run.get(it)]

    def open(self, run: Mapping[str, Any]) -> BinaryIO:
        """Opens the part, to go on behind what is noted, or begin where there is no part.

        Raises:
            OSError: It cannot be written.
            DataError: Another command writes it.
        """
        self.run = dict(run)
        if not self.rows:
            self._write_note(0, "")  # a part without a note is somebody else's file
        file = cast("BinaryIO", self.path.open("ab"))
        try:
            _lock(file, self.output)
            file.truncate(self._size)
        except BaseException:
            file.close()
            raise
        self._file = file
        return file

    def skip(self, asked: AskedRow) -> None:
        """Takes in a row that was written before."""
        self.fingerprint.add(asked)

    def drop(self) -> None:
        """Forgets the interrupted run."""
        for path in (self._note, self.path):
            path.unlink(missing_ok=True)
        self.rows = self.answered = self.failed = self._size = 0
        self.run, self._digest = {}, ""

    def same_so_far(self) -> bool:
        """Whether the rows that were taken in are those that the part is of."""
        return str(self.fingerprint) == self._digest

    def wrote(self, asked: AskedRow, *, failed: bool = False) -> None:
        """Notes that a row, or what stands between rows, was written."""
        self.fingerprint.add(asked)
        self.rows += 1
        self.answered += asked.asks
        self.failed += failed
        if time.monotonic() - self._noted >= _EVERY_S:
            self.note()

    def note(self) -> None:
        """Writes down how far the part is."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._write_note(self._file.tell(), str(self.fingerprint))
        self._noted = time.monotonic()

    def _write_note(self, size: int, digest: str) -> None:
        note = {
            "rows": self.rows,
            "answered": self.answered,
            "failed": self.failed,
            "bytes": size,
            "digest": digest,
            "run": self.run,
        }
        new = self._note.with_name(f"{self._note.name}.new")
        new.write_text(json.dumps(note, ensure_ascii=False, indent=1), encoding="utf-8")
        new.replace(self._note)

    def finish(self, whole: Path | None = None) -> None:
        """Puts the part, or the file that was made of it, where it belongs."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        (whole or self.path).replace(self.output)
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            try:
                if self.rows:
                    self.note()
            finally:
                self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Straight:
    """Standard output, or a device: what is written there is written.

    Attributes:
        rows: How many rows of the input were written by an interrupted run: none.
        answered: How many rows have been written.
        failed: How many of these have an error in place of an answer.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.rows = self.answered = self.failed = 0
        self._out = out

    def open(self, run: Mapping[str, Any]) -> BinaryIO:  # noqa: ARG002  (there is nothing to note)
        """Where to write."""
        return self._out

    def wrote(self, asked: AskedRow, *, failed: bool = False) -> None:
        """Counts a row that was written."""
        self.answered += asked.asks
        self.failed += failed

    def finish(self) -> None:
        """Has all of it written."""
        self._out.flush()


def _lock(file: BinaryIO, output: Path) -> None:
    """Keeps other commands from writing the file at the same time, where the system can."""
    try:
        import fcntl  # noqa: PLC0415  (of POSIX systems)
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(f"{output} is being written by another command; wait for it, or end it") from None
    except OSError:
        return  # a file system without locks
