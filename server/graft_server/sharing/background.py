"""Background work, which must continue when one round of it fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from graft_server.domain.errors import DomainError


async def survived(work: Awaitable[object], doing: str, log: logging.Logger) -> bool:
    """Awaits one round of work, logs what it raises, and returns whether it raised nothing.

    A domain error is logged by its message, any other exception with its traceback: a task that ended because of it
    would leave the server without its work until the next restart. Cancellation passes through.

    Args:
        work: One round.
        doing: What the round does, for the log: "following the catalogue".
        log: The logger of the module whose work it is.
    """
    try:
        await work
    except DomainError as error:
        log.warning("%s failed, and is tried again: %s", doing, error.message)
    except Exception:
        log.exception("%s failed, and is tried again", doing)
    else:
        return True
    return False
