"""What is left of a text without case, spacing, punctuation and invisible characters: equal for near copies."""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from graft_server.domain.examples import Input, Kind

DROPPED = ("P", "Z", "C", "Sk")
"""Unicode categories of punctuation, separators, invisible characters, and accents that stand alone."""
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0" + "".join(
    map(chr, range(0xFE00, 0xFE10))
)
"""Characters of other categories that show nothing."""
_ASCII = re.compile(r"[^0-9a-z$+<=>|~]+")


class _Kept(dict[int, str | None]):
    """What each character becomes, found out once."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        dropped = character in BLANK or unicodedata.category(character).startswith(DROPPED)
        self[code] = None if dropped else character
        return self[code]


_KEPT = _Kept()


def wording(text: str) -> str:
    """Returns the text without what near copies differ by, or "" if nothing is left."""
    if text.isascii():
        return _ASCII.sub("", text.lower())
    return unicodedata.normalize("NFKC", text).casefold().translate(_KEPT)


def wording_digest(of: Input) -> bytes:
    """Returns 16 bytes that are equal for texts of the same wording; b"" for other inputs, and without any wording."""
    if of.kind not in (Kind.TEXT, Kind.TEXT_PAIR):
        return b""
    words = [wording(of.text), wording(of.second)]
    return (
        blake2b("\0".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if any(words)
        else b""
    )
