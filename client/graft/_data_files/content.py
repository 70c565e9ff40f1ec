"""Opens data files: compressed or not, from disk or from a pipe, and finds out what they hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final

from graft._data_files.columns import DataError
from graft._data_files.options import Reading

ENDINGS: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}
_PACKED: Final[dict[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": lambda it: gzip.GzipFile(fileobj=it),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
PACKED_ENDINGS: Final = (".gz", ".bz2", ".xz")
_NOT_READ: Final = {
    b"\xd0\xcf\x11\xe0": "an Excel file of the old format (.xls), or one with a password; save it as .xlsx or as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; unpack it with unzstd",
    b"7z\xbc\xaf": "a 7z archive; unpack it with 7z x",
    b"Rar!": "a RAR archive; unpack it",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"SQLite format 3": "an SQLite database; save the table as CSV",
    b"\x89HDF": "an HDF5 file; save the table as CSV",
    b"%PDF": "a PDF",
}
_BINARY: Final = ("parquet", "xlsx")
HEAD_BYTES: Final = 1024 * 1024
"""So much of a file tells how it is written."""
_PIPED_BYTES: Final = 64 * 1024
"""So much of a pipe does: whoever writes into it may take their time."""


class Content:
    """The bytes of a data file, unpacked.

    Attributes:
        stream: The bytes.
        head: The first of them.
        whole: Whether there are no more.
        data_format: What they are: one of `FORMATS`.
        size: The bytes of the file on disk; 0 if unknown.
    """

    def __init__(self, path: str | Path, reading: Reading, source: BinaryIO | None, stack: ExitStack) -> None:
        """Opens a file.

        Args:
            path: Its path; "-" is standard input.
            reading: What is known of it.
            source: Where it is read from instead.
            stack: What closes it.

        Raises:
            DataError: It cannot be opened, or is not of a kind that is read.
        """
        self._path = str(path)
        self._stack = stack
        self.size = 0
        self._raw: Any = self._opened(source)
        seekable = bool(self.size)
        self.stream: Any = self._raw if seekable else _Ahead(self._raw)
        for mark, unpacked in _PACKED.items():
            if _peeked(self.stream, 6).startswith(mark):
                packed = stack.enter_context(unpacked(self.stream))
                self.stream = _Ahead(io.BufferedReader(packed))
                break
        first = _peeked(self.stream, 16)
        self.data_format = self._format(reading, first)
        if self.data_format in _BINARY:
            self.head, self.whole = b"", False
            return
        wanted = HEAD_BYTES if seekable else _PIPED_BYTES
        # An object a line needs no look ahead, and whoever writes it into a pipe may wait for us.
        json = first.lstrip()[:1] == b"{" and not seekable
        self.head = first if json and b"\n" in first else _peeked(self.stream, wanted, once=json)
        self.whole = not json and len(self.head) < wanted
        if not self.data_format:
            self.data_format = self._by_content(reading)

    def position(self) -> int:
        """The bytes of the file on disk that have been read; 0 if unknown."""
        try:
            return int(self._raw.tell()) if self.size and not self._raw.closed else 0
        except OSError:
            return 0

    def seekable(self) -> BinaryIO:
        """The bytes as a file in which one can go to and fro."""
        if self.stream is self._raw:
            return self._raw  # type: ignore[no-any-return]
        spooled = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
        shutil.copyfileobj(self.stream, spooled)
        spooled.seek(0)
        return spooled

    def _opened(self, source: BinaryIO | None) -> Any:
        if source is not None:
            return source
        if self._path == "-":
            return sys.stdin.buffer
        path = Path(self._path)
        try:
            raw = path.open("rb")
            # A pipe that has a name has no size, and neither has a file of /proc.
            self.size = path.stat().st_size if path.is_file() else 0
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror or error}") from None
        return self._stack.enter_context(raw)

    def _format(self, reading: Reading, first: bytes) -> str:
        """The format, by what was said, by the first bytes and by the name; "" if these do not tell."""
        if first.startswith(b"PAR1"):
            return "parquet"
        if first.startswith(b"PK\x03\x04"):
            return self._zipped()
        for mark, what in _NOT_READ.items():
            if first.startswith(mark):
                raise DataError(f"{self._path}: it is {what}")
        name = self._path.lower()
        for packed in PACKED_ENDINGS:
            name = name.removesuffix(packed)
        known = reading.data_format or ENDINGS.get(Path(name).suffix, "")
        if known in _BINARY:
            raise DataError(f"{self._path}: not {'a Parquet' if known == 'parquet' else 'an Excel'} file")
        return known

    def _zipped(self) -> str:
        head = _peeked(self.stream, 4096)
        if b"xl/" in head or b"[Content_Types].xml" in head or b"docProps" in head:
            return "xlsx"
        if b"mimetype" in head and b"opendocument" in head:
            raise DataError(f"{self._path}: it is an OpenDocument file; save it as .xlsx or as CSV")
        raise DataError(
            f"{self._path}: it is a zip archive; unpack it (unzip {self._path}) and give a file from it"
        )

    def _by_content(self, reading: Reading) -> str:
        text = self.head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
        if not reading.delimiter and text[:1] in (b"{", b"["):
            return "json"
        return "csv"


class _Ahead(io.RawIOBase):
    """A stream of which the first bytes can be looked at before they are read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._held = b""
        self._at = 0

    def readable(self) -> bool:
        return True

    def look(self, wanted: int, *, once: bool) -> bytes:
        """The next bytes: so many, or fewer at the end of the stream or where `once` one read gives fewer."""
        parts, found = [self._held[self._at :]], len(self._held) - self._at
        while found < wanted:
            parts.append(self._stream.read1(wanted - found))
            found += len(parts[-1])
            if not parts[-1] or once:
                break
        self._held, self._at = b"".join(parts), 0
        return self._held[:wanted]

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        if self._at < len(self._held):
            data = self._held[self._at : self._at + size]
            self._at += size
        else:
            self._held, self._at = b"", 0
            data = self._stream.read1(size)
        buffer[: len(data)] = data
        return len(data)


def _peeked(stream: Any, wanted: int, *, once: bool = False) -> bytes:
    """The first bytes of a stream, which stay in it."""
    if isinstance(stream, _Ahead):
        return stream.look(wanted, once=once)
    head: bytes = stream.read(wanted)
    stream.seek(0)
    return head
