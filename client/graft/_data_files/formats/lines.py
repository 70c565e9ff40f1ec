"""The lines of a text file, with their numbers, and with the bytes that are not in the file's encoding."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Self

from graft._data_files.formats.encodings import likely_encoding

MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""The longest line: no server takes more."""
_PIECE: Final = 64 * 1024
# What Python makes of a byte that it cannot decode.
_WRONG: Final = re.compile("[\udc80-\udcff]")


class Line(NamedTuple):
    """A line of a text file. Many are made: a tuple is made faster than a frozen dataclass."""

    number: int
    """Its number, from 1."""
    text: str
    """Its text, with its end."""
    cut: bool = False
    """Whether it is longer than `MAX_CHARACTERS`, and only its beginning is here."""
    encoding: str = "utf-8"
    """The encoding in which it was read."""

    def wrong_byte(self) -> int | None:
        """The first byte that is not in the file's encoding, if there is one."""
        found = None if self.text.isascii() else _WRONG.search(self.text)
        return ord(found.group()) - 0xDC00 if found else None

    def raw(self) -> bytes:
        """Its bytes."""
        return self.text.encode(self.encoding, "surrogateescape")

    def wrong(self) -> str:
        """Why it cannot be read; "" if it can."""
        if self.cut:
            return f"longer than {MAX_CHARACTERS:,} characters, which is more than can be sent; is a quote missing?"
        if (byte := self.wrong_byte()) is not None:
            what = f"byte 0x{byte:02x} is not {self.encoding.upper()}"
            if self.encoding != "utf-8":
                return f"{what}; another encoding is given with --encoding"
            guess, shown = likely_encoding([self.raw()])
            return f"{what}; if the line is {shown!r:.60}, give --encoding {guess}"
        return "it holds a NUL character" if "\0" in self.text else ""


class TextLines:
    r"""The lines of a stream of bytes, which can be put back.

    A line ends with "\n", whatever comes before; where there is none in the head, with "\r".

    Attributes:
        kept: Where it is a list: the lines that were taken, and not put back, since it was emptied.
    """

    def __init__(self, read: Callable[[int], str], encoding: str = "utf-8") -> None:
        """Takes a function that reads a line of at most so many characters, and "" at the end."""
        self._read = read
        self._encoding = encoding
        self._back: deque[Line] = deque()
        self._number = 0
        self.kept: list[Line] | None = None

    @classmethod
    def of_bytes(cls, stream: Any, encoding: str, head: bytes) -> Self:
        """The lines of a stream of bytes, of which `head` comes first: it tells what ends lines."""
        ends = "\r" if b"\r" in head and b"\n" not in head else "\n"
        text = io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline=ends)
        return cls(text.readline, encoding)

    @classmethod
    def of_texts(cls, lines: Iterable[str]) -> Self:
        """Lines that were read already."""
        iterator = iter(lines)
        return cls(lambda _: next(iterator, ""))

    def __iter__(self) -> Iterator[Line]:
        while (line := self.next()) is not None:
            yield line

    def pieces(self) -> Iterator[Line]:
        """The lines, the longer ones in pieces that end behind a character without a meaning for the next one."""
        while text := self._read(_PIECE):
            while text[-1] == "\\" and (more := self._read(1)):
                text += more
            first = text.removeprefix("\ufeff") if not self._number else text
            yield Line(self._number + 1, first, encoding=self._encoding)
            self._number += text[-1] == "\n"

    def next(self) -> Line | None:
        """The next line; None at the end."""
        line = self._back.popleft() if self._back else self._next()
        if self.kept is not None and line is not None:
            self.kept.append(line)
        return line

    def _next(self) -> Line | None:
        text = self._read(MAX_CHARACTERS)
        if not text:
            return None
        cut = len(text) == MAX_CHARACTERS and text[-1] not in "\r\n"
        while cut and (rest := self._read(MAX_CHARACTERS)) and rest[-1] not in "\r\n":
            pass
        self._number += 1
        if self._number == 1:
            text = text.removeprefix("\ufeff")
        return Line(self._number, text, cut, self._encoding)

    def put_back(self, lines: Iterable[Line]) -> None:
        """Has lines that were taken come again, before all others."""
        back = list(lines)
        self._back.extendleft(reversed(back))
        if self.kept and back:
            del self.kept[-len(back) :]
