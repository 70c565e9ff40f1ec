"""Addresses to listen on: whether each can be used, and if not, why.

gRPC tells no reason, takes a UNIX socket away from a server that listens there, and is content with one of a host's
addresses where another belongs to somebody else. So each address is tried before gRPC gets it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from graft_server.domain.errors import StoreError

_UNIX = "unix:"


def shown(address: str, port: int) -> str:
    """How an address is told once it is listened on, with its real port."""
    return address if address.startswith(_UNIX) else f"{address.rpartition(':')[0]}:{port}"


def require_usable(address: str) -> None:
    """Tries an address: HOST:PORT, [IPV6]:PORT or unix:PATH. A socket file that nobody listens on is removed.

    Raises:
        StoreError: It cannot be listened on; the message has the reason.
    """
    if address.startswith(_UNIX):
        _try_path(address, Path(address.removeprefix(_UNIX)))
        return
    host, _, port = address.rpartition(":")
    _try_host(address, host.removeprefix("[").removesuffix("]"), int(port))


class SocketFile:
    """The file of a UNIX socket that is listened on, which goes with its server."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    @classmethod
    def of(cls, address: str) -> SocketFile | None:
        """That of an address; None: it has none."""
        return cls(Path(address.removeprefix(_UNIX))) if address.startswith(_UNIX) else None

    def remove(self) -> None:
        """Removes it, unless another server's lies there meanwhile."""
        with suppress(OSError):
            if _identity(self._path) == self._identity:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _try_host(address: str, host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _unusable(address, f"the host {host} cannot be found ({why})") from error
    failed: list[OSError] = []
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(place)
        except OSError as error:
            failed.append(error)
    taken = [it for it in failed if it.errno == errno.EADDRINUSE]
    # Of a host with several addresses, one that this machine lacks (IPv6, say) is none that callers would try.
    if taken or len(failed) == len(found):
        first = (taken or failed)[0]
        raise _unusable(address, _why(first, port), in_use=bool(taken)) from first


def _try_path(address: str, path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise _unusable(address, f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unusable(address, f"user id {os.geteuid()} may not write to the folder {folder}")
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise _unusable(address, "a file lies there that is no socket")
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)  # of a server that was killed
    except OSError as error:
        raise _unusable(address, error.strerror or str(error)) from error
    else:
        raise _unusable(address, "another process listens there", in_use=True)


def _why(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process listens there"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case errno.EACCES | errno.EPERM:
            return (
                f"port {port} needs a privilege (CAP_NET_BIND_SERVICE) that user id {os.geteuid()} lacks: grant it, or "
                "listen on a port from 1024 on"
            )
    return error.strerror or str(error)


def _unusable(address: str, why: str, *, in_use: bool = False) -> StoreError:
    return StoreError(
        f"The address {address} cannot be listened on: {why}.",
        reason="ADDRESS_IN_USE" if in_use else "ADDRESS_UNUSABLE",
    )
