"""What becomes of clients when a process forks.

gRPC's threads do not exist in the child, its sockets are the parent's, too, and its epoll instance is shared: a call in
the child waits for ever, and takes from the parent the events that its calls wait for; closing a channel there breaks
the parent's connection. gRPC can put that right only while no thread is in a call, which a library cannot know. So
where a client is connected while its process forks, the child's clients are refused at once, and the child
never touches gRPC. A child of a process that has no connected client may make clients of its own.
"""

from __future__ import annotations

import os
from typing import Any

from graft.errors import FailedPreconditionError

_connected: dict[int, Any] = {}
"""The channels that are open in this process, by identity."""
_inherited: list[Any] = []
"""In a child: what its parent had open. Kept, because destroying it would close the parent's connections."""


def opened(channel: Any) -> None:
    """Notes that a channel is open, before the first use of it."""
    _connected[id(channel)] = channel


def closed(channel: Any) -> None:
    """Notes that a channel was closed."""
    _connected.pop(id(channel), None)


def usable() -> bool:
    """Whether gRPC may be touched in this process."""
    return not _inherited


def require_usable() -> None:
    """Refuses to use gRPC in a process where it cannot work.

    Raises:
        FailedPreconditionError: This process was forked while a client was connected.
    """
    if _inherited:
        raise FailedPreconditionError(
            "This process was forked while a Graft client was connected, and gRPC does not work in such a process: "
            "start processes by 'spawn' or 'forkserver' (multiprocessing.get_context('spawn')), or close the clients "
            "before the fork and make new ones in the child.",
            reason="FORKED",
            domain="graft",
        )


def _in_child() -> None:
    _inherited.extend(_connected.values())
    _connected.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
