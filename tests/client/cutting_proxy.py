"""A TCP proxy that breaks its first connections, each after so many bytes, as a bad network would.

Or it falls silent and keeps them open, as a machine does that vanishes without a word.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_CHUNK = 4096
# Linger for 0 s: closing sends a reset instead of what is left in the buffers.
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Cut:
    """When to break a connection."""

    after_bytes: int
    """How many bytes pass first."""
    upstream: bool
    """Whether those that the client sends are counted, or those that the server sends."""
    silent: bool = False
    """Whether the connection stays open, with nothing passing any more in either direction."""


class CuttingProxy:
    """Listens on `target`; connection i is broken by cut i, and those after the last cut are left alone."""

    def __init__(self, server: str, cuts: Sequence[Cut]) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.broken = 0

    @property
    def target(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Begins to accept connections."""
        self._spawn(self._accept)

    def stop(self) -> None:
        """Closes everything and waits for every thread."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._sockets:
            _close(end)
        for thread in self._threads[1:]:
            thread.join()

    def _spawn(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                cut = self._cuts.pop(0) if self._cuts else None
                self._sockets += [client, server]
                gone = threading.Event()
                self._spawn(self._pass, client, server, cut if cut and cut.upstream else None, gone)
                self._spawn(self._pass, server, client, cut if cut and not cut.upstream else None, gone)

    def _pass(
        self, source: socket.socket, sink: socket.socket, cut: Cut | None, gone: threading.Event
    ) -> None:
        left = cut.after_bytes if cut else None
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK if left is None else min(_CHUNK, left)):
                if gone.is_set():
                    continue
                sink.sendall(data)
                if left is not None:
                    left -= len(data)
                    if left == 0:
                        self.broken += 1
                        if not (cut and cut.silent):
                            break
                        gone.set()
                        left = None
        for end in (source, sink):
            _close(end)


@contextlib.contextmanager
def cutting_proxy(server: str, cuts: Sequence[Cut]) -> Iterator[CuttingProxy]:
    """A proxy that runs for as long as the context."""
    proxy = CuttingProxy(server, cuts)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RDWR)
    end.close()
