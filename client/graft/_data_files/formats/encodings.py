"""The encoding of a text file: found out where the bytes tell, named where they only hint at it."""

from __future__ import annotations

import codecs
import difflib
import encodings.aliases
from collections.abc import Sequence
from typing import Final

from graft._data_files.columns import DataError

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE: Final = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_EXAMPLES: Final = (
    "utf-8, utf-16, cp1252 (Excel in Western Europe), latin-1, cp1250, cp1251, shift_jis, gb18030, big5"
)
_LIKELY: Final = ("cp1252", "mac_roman", "cp1251", "cp1250", "shift_jis", "gb18030", "euc_kr", "big5")
# Letters and signs that texts in Western and Central European languages have, by how telling they are.
_USUAL: Final = frozenset("éèêëàâäáãåæçíîïìñóôöòõøœúûüùßÉÀÄÅÖÜØÆÇÑ’‘“”„–—…€£°«»¿¡ąćęłńśźżŁŚŻčďěňřšťůžČŘŠŽőű")


def known_encoding(name: str) -> str:
    """The encoding that Python knows by this name.

    Raises:
        DataError: There is none.
    """
    try:
        "".encode(name)
    except (LookupError, ValueError):
        every = {*encodings.aliases.aliases, *encodings.aliases.aliases.values()}
        near = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(every), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"--encoding: {name!r} is no encoding that is known; {hint}Known are, for example, {_EXAMPLES}"
        ) from None
    return codecs.lookup(name).name


def encoding_of(head: bytes) -> str:
    """The encoding that the beginning of a file has: of the Unicode ones, since the others cannot be told apart."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" not in head:
        return "utf-8"
    ends = {name: _line_ends(head, name) for name in _WIDE}
    best = max(ends, key=lambda name: ends[name])
    return best if ends[best] else "utf-8"


def byte_order_mark(head: bytes) -> bytes:
    """The byte order mark that a file begins with; b"" if there is none."""
    return next(
        (mark for mark, _ in sorted(_MARKS, key=lambda it: -len(it[0])) if head.startswith(mark)), b""
    )


def _line_ends(head: bytes, encoding: str) -> int:
    """How many line ends and delimiters there are in this encoding; 0 if the bytes cannot be in it."""
    unit = 4 if "32" in encoding else 2
    text = head[: len(head) // unit * unit].decode(encoding, errors="replace")
    # A pair of surrogates that the head's end cut is no sign of another encoding.
    if "\0" in text or "\ufffd" in text[:-1]:
        return 0
    return sum(text.count(it) for it in "\r\n\t,; ")


def likely_encoding(wrong: Sequence[bytes]) -> tuple[str, str]:
    """The likeliest encoding of lines that are not UTF-8, and the first of the lines in it."""
    scores: dict[str, float] = {}
    for name in _LIKELY:
        try:
            texts = [it.decode(name) for it in wrong]
        except UnicodeDecodeError:
            continue
        letters = [it for text in texts for it in text if not it.isascii()]
        size = sum(map(len, wrong)) - sum(it.isascii() for text in texts for it in text)
        # Chinese read as Korean is a mixture that nobody writes.
        mixed = any(map(_is_hangul, letters)) and any(map(_is_han, letters))
        scores[name] = sum(map(_telling, letters)) / max(1, size) / (1 + mixed)
    best = max(scores, key=lambda name: scores[name], default="latin-1")
    return best, wrong[0].decode(best, errors="replace").strip()


def _telling(letter: str) -> float:
    """How much a character speaks for the encoding that it comes from, per byte of the largest form."""
    if letter in _USUAL:
        return 1.0
    if "\u0430" <= letter <= "\u044f":  # small Cyrillic letters
        return 0.9
    if "\u3040" <= letter <= "\u30ff" or _is_hangul(letter):  # kana
        return 1.9
    return 1.5 if _is_han(letter) else 0.2 if letter.isalpha() else 0.0


def _is_hangul(letter: str) -> bool:
    return "\uac00" <= letter <= "\ud7a3"


def _is_han(letter: str) -> bool:
    return "\u4e00" <= letter <= "\u9fff"
