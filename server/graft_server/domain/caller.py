"""Who waits for answers: callers take turns, and a caller that sends too much is refused before others are."""

from __future__ import annotations

import itertools
from contextvars import ContextVar
from dataclasses import dataclass

_calls = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Caller:
    """One call, and whoever made it. Identities take turns, and within an identity its calls."""

    identity: str = ""
    """Who made the call; "": not known, and then each call is a caller of its own."""
    call: int | str = 0
    """One call: a request with one answer, or a stream with all its requests. A connection is not a call: a proxy has
    one for all its clients. A name stands for work that goes on behind calls, such as an adaptation's."""
    connection: str = ""
    """Where the call came from; "": not known. It takes no turns of its own, but where nobody knows who called, it
    answers for rows that fail in the encoder."""


asking: ContextVar[str] = ContextVar("asking", default="")
"""Where the call that is answered came from, for the log: an address. "": nobody asks, or it is not known."""

NOBODY = Caller()
"""Who asks for what belongs to no call."""


def new_call(identity: str = "", connection: str = "") -> Caller:
    """Returns a caller for a call that begins."""
    return Caller(identity, next(_calls), connection)


def behind(adaptation: str) -> Caller:
    """Returns the caller of the work that goes on behind the calls of an adaptation, MODEL/ADAPTATION."""
    return Caller(call=adaptation)
