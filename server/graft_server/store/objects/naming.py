"""Gives a written file its name, which must not exist: in one step, also where there are no hard links.

SMB, exFAT and many file systems in user space (FUSE) have no hard links. There a file is renamed by renameat2(2) with
RENAME_NOREPLACE. A file system that can do neither would let two servers overwrite each other's objects: it is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}
"""What link(2) answers where there are no hard links; vfat says EPERM."""
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_C = ctypes.CDLL(None, use_errno=True)


def give_name(temporary: Path, name: Path) -> None:
    """Gives a file a name; its temporary one may remain.

    Raises:
        FileExistsError: The name exists.
        FileNotFoundError: Its folder does not.
        OSError: It cannot be done, for example because the file system can do neither (EOPNOTSUPP).
    """
    try:
        os.link(temporary, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return
    _rename(temporary, name)


def require_naming(folder: Path) -> None:
    """Tries it in a folder; a folder that is full or cannot be written is another fault, which is met later.

    Raises:
        OSError: The file system can neither link files nor rename them without replacing others (EOPNOTSUPP).
    """
    one, other = (folder / f"#{secrets.randbits(63)}" for _ in range(2))
    try:
        one.touch(0o600, exist_ok=False)
        give_name(one, other)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise
    finally:
        for path in (one, other):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _rename(temporary: Path, name: Path) -> None:
    renameat2 = getattr(_C, "renameat2", None)
    if renameat2 is None:
        raise _unsupported(name)
    names = os.fsencode(temporary), os.fsencode(name)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise _unsupported(name)
        raise OSError(number, os.strerror(number), str(name))


def _unsupported(name: Path) -> OSError:
    what = "its file system can neither link files nor rename them without replacing others"
    return OSError(errno.EOPNOTSUPP, what, str(name))
