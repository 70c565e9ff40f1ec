"""The errors that end an exchange from here: a server that answers no more, or that lost what it acknowledged."""

from __future__ import annotations

from graft._transport.progress_timeout import gave_up
from graft.errors import DataLossError, GraftError, UnavailableError


def acknowledged_lost(durable: int, next_sequence: int) -> DataLossError:
    """The error for a server that had acknowledged everything below one number and asks for a smaller one."""
    return DataLossError(
        f"The server had acknowledged {durable:,} examples and now asks to go on from "
        f"{next_sequence:,}: it is not the same store.",
        reason="ACKNOWLEDGED_EXAMPLES_LOST",
        domain="graft",
    )


def given_up(error: GraftError | None, waited_s: float, *, heard: bool) -> UnavailableError:
    """The error for a server that was waited for in vain.

    Args:
        error: What the last call ended with; None: it went silent, or the server ended it.
        waited_s: How long, in seconds.
        heard: Whether the server ever answered.
    """
    last = error.message if error is not None else "The call went silent, or the server ended it"
    return UnavailableError(
        gave_up(last, waited_s, heard=heard),
        reason=error.reason if error is not None else "",
        domain=error.domain if error is not None else "",
    )
