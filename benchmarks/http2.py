"""The least of a gRPC client that a load generator needs: unary calls over HTTP/2 (RFC 9113), a few microseconds each.

A call through grpc.aio costs 0.3 ms of processor, 7% of a machine of two cores whose server it is to measure. Here a
request's headers are the same bytes every time, an answer's are looked at for its status alone, and flow control is
what the server asks for; messages of requests have to fit into one frame.
"""

from __future__ import annotations

import asyncio
from collections import deque

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_MOST = 2**31 - 1
_WINDOW_BYTES = 65_535
"""What may be sent over a connection before the receiver says more."""
_FRAME_BYTES = 16_384
_STATUS = b"grpc-status"
_UNAVAILABLE = 14


class Connection(asyncio.Protocol):
    """A connection to a gRPC server, for calls of one method."""

    def __init__(self, target: str, method: str) -> None:
        self._headers = _header_block(target, method)
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._outgoing = bytearray()
        self._window = _WINDOW_BYTES
        self._waiting: deque[tuple[asyncio.Future[tuple[int, bytes]], bytes]] = deque()
        self._calls: dict[int, tuple[asyncio.Future[tuple[int, bytes]], bytearray]] = {}
        self._next = 1

    @classmethod
    async def open(cls, target: str, method: str) -> Connection:
        """Connects to HOST:PORT."""
        host, _, port = target.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: cls(target, method), host, int(port)
        )
        return connection

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    async def call(self, message: bytes) -> tuple[int, bytes]:
        """Sends a serialized request; gives the gRPC status, and the serialized answer if that is 0."""
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        body = b"\0" + len(message).to_bytes(4, "big") + message
        if len(body) > _FRAME_BYTES:
            raise ValueError(f"a request of {len(message)} bytes does not fit into one frame")
        self._waiting.append((future, body))
        self._send_waiting()
        return await future

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says hello: no table of headers, so that a status comes in letters; answers of any length."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = b"".join(
            name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in ((1, 0), (2, 0), (4, _MOST))
        )
        more = (_MOST - _WINDOW_BYTES).to_bytes(4, "big")
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, more))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- what asyncio gives
        """Fails what is unanswered."""
        for future in [*(it for it, _ in self._calls.values()), *(it for it, _ in self._waiting)]:
            if not future.done():
                future.set_result((_UNAVAILABLE, b""))
        self._calls.clear()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Reads whole frames."""
        received = self._received
        received += data
        place = 0
        while len(received) - place >= 9:
            end = place + 9 + int.from_bytes(received[place : place + 3], "big")
            if len(received) < end:
                break
            kind, flags = received[place + 3], received[place + 4]
            stream = int.from_bytes(received[place + 5 : place + 9], "big")
            self._read(kind, flags, stream, received[place + 9 : end])
            place = end
        del received[:place]

    def _read(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        if kind == _DATA:
            self._calls[stream][1].extend(payload)
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                self._end(stream, _status(payload))
        elif kind == _RESET:
            self._end(stream, _UNAVAILABLE)
        elif kind == _SETTINGS and not flags & _ACK:
            self._write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, bytes(payload)))
        elif kind == _WINDOW and stream == 0:
            self._window += int.from_bytes(payload, "big")
            self._send_waiting()
        elif kind == _GO_AWAY:
            self._transport.close()

    def _end(self, stream: int, status: int) -> None:
        future, answer = self._calls.pop(stream)
        if not future.done():
            future.set_result((status, bytes(answer[5:])))

    def _send_waiting(self) -> None:
        while self._waiting and len(self._waiting[0][1]) <= self._window:
            future, body = self._waiting.popleft()
            self._window -= len(body)
            self._calls[self._next] = (future, bytearray())
            head = _frame(_HEADERS, _END_HEADERS, self._next, self._headers)
            self._write(head + _frame(_DATA, _END_STREAM, self._next, body))
            self._next += 2

    def _write(self, frames: bytes) -> None:
        """Writes with what else this turn of the event loop writes."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing += frames

    def _flush(self) -> None:
        self._transport.write(bytes(self._outgoing))
        self._outgoing.clear()


async def call_compressed(target: str, method: str, encoding: str, message: bytes) -> str:
    """Makes a call with one message of any size that is compressed already, on a connection of its own.

    Returns the status's number, or how the call ended without one.
    """
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    settings = b"".join(name.to_bytes(2, "big") + (0).to_bytes(4, "big") for name in (1, 2))
    headers = _header_block(target, method) + _literal("grpc-encoding", encoding)
    writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_HEADERS, _END_HEADERS, 1, headers))
    body = memoryview(b"\1" + len(message).to_bytes(4, "big") + message)
    windows, first = [_WINDOW_BYTES, _WINDOW_BYTES], _WINDOW_BYTES
    try:
        while True:
            while body and (size := min(_FRAME_BYTES, len(body), *windows)) > 0:
                end = _END_STREAM if size == len(body) else 0
                writer.write(_frame(_DATA, end, 1, bytes(body[:size])))
                windows, body = [it - size for it in windows], body[size:]
                await writer.drain()
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == _SETTINGS and not flags & _ACK:
                places = range(0, len(payload), 6)
                given = {payload[it + 1]: int.from_bytes(payload[it + 2 : it + 6], "big") for it in places}
                windows[1] += given.get(4, first) - first
                first = given.get(4, first)
                writer.write(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                writer.write(_frame(_PING, _ACK, 0, payload))
            elif kind == _WINDOW:
                windows[min(stream, 1)] += int.from_bytes(payload, "big")
            elif kind == _HEADERS and flags & _END_STREAM:
                return str(_status(bytearray(payload)))
            elif kind in (_RESET, _GO_AWAY):
                return "reset"
    except (ConnectionError, asyncio.IncompleteReadError):
        return "closed"
    finally:
        writer.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_block(target: str, method: str) -> bytes:
    """A request's headers in HPACK (RFC 7541), nothing compressed: names by the static table where it has them."""
    post, http, authority, path, content_type = b"\x83", b"\x86", b"\x01", b"\x04", b"\x0f\x10"
    return b"".join(
        [
            post, http, path, _text(method), authority, _text(target), content_type, _text("application/grpc"),
            _literal("te", "trailers"),
        ]
    )  # fmt: skip


def _literal(name: str, value: str) -> bytes:
    return b"\x00" + _text(name) + _text(value)


def _text(value: str) -> bytes:
    return bytes((len(value),)) + value.encode()


def _status(trailers: bytearray) -> int:
    """The gRPC status that an answer ends with; in letters, since we keep no table of headers."""
    start = trailers.find(_STATUS) + len(_STATUS)
    length = trailers[start]
    if start < len(_STATUS) or length > 2:
        raise ValueError(f"no gRPC status in {bytes(trailers)!r}")
    return int(trailers[start + 1 : start + 1 + length])
