"""Locks on files, by which processes know each other's: a process id would mean nothing across containers."""

from __future__ import annotations

import errno
import fcntl

NOT_SUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
"""What file systems that people mount answer where they cannot lock a file, or sync a folder."""


def lock(fd: int, *, wait: bool) -> bool:
    """Locks an open file for this process, until it is closed; returns False where files cannot be locked.

    Raises:
        BlockingIOError: Another process has locked it, and this one is not to wait.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        return False
    return True
