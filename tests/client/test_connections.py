"""How clients reach servers: targets, proxies in the environment, what answers that is no server."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

import graft
from graft._transport.failures import explained
from graft._transport.proxies import route_to
from graft._transport.retry import Retries, is_resumable
from graft._transport.targets import default_target, is_local, target_of

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("http://localhost:50051", "is a URL, and gRPC takes none; give 'localhost:50051'"),
        ("http://graft.internal", "give 'graft.internal:80'"),
        (
            "https://graft.internal",
            "give 'graft.internal:443' with credentials=grpc.ssl_channel_credentials()",
        ),
        ("https://user:secret@graft.internal/path?q", "give 'graft.internal:443' with"),
        ("grpc://graft.internal", "give 'graft.internal:50051'"),
        ("ftp://graft.internal", "give HOST:PORT"),
        ("", "the target is empty"),
        (" ", "the target is empty"),
        ("a host:1", "contains ' '"),
        ("host\n:1", r"contains '\\n'"),
        ("host:", "has the port ''"),
        ("host:http", "has the port 'http'"),
        ("host:0", "has the port '0'"),
        ("host:65536", "has the port '65536'"),
        (":50051", "is not HOST:PORT"),
        ("host:1/path", "has the port '1/path'"),
        ("host/path", "is not HOST:PORT"),
        ("[::1", r"is not \[IPV6\]:PORT"),
        ("a:b:c", "no IPv6 address"),
        ("unix:", "names no socket"),
        ("dns:///", "names no host"),
        (7, "the target is a int; give a text"),
    ],
)
@pytest.mark.parametrize("kind", [graft.Client, graft.AsyncClient])
def test_what_is_no_target_is_refused_at_once_with_what_is_right(target: Any, says: str, kind: Any) -> None:
    with pytest.raises(graft.InvalidArgumentError, match=says) as refused:
        kind(target)
    assert refused.value.reason == "TARGET_INVALID"
    assert isinstance(refused.value, ValueError)
    if "secret" in str(target):
        assert "secret" not in says


@pytest.mark.parametrize(
    ("target", "host", "local"),
    [
        ("localhost", "localhost", True),
        ("LOCALHOST.:7", "LOCALHOST.", True),
        ("127.0.0.1:7", "127.0.0.1", True),
        ("127.8.9.10", "127.8.9.10", True),
        ("[::1]:7", "::1", True),
        ("::1", "::1", True),
        ("[::ffff:127.0.0.1]:7", "::ffff:127.0.0.1", True),
        ("0.0.0.0:7", "0.0.0.0", True),  # noqa: S104
        ("unix:/run/graft.sock", "", True),
        ("unix:///run/graft.sock", "", True),
        ("unix-abstract:graft", "", True),
        ("dns:///localhost:7", "localhost", True),
        ("dns:localhost:7", "localhost", True),
        ("ipv4:127.0.0.1:7", "127.0.0.1", True),
        ("ipv6:%5B::1%5D:7", "::1", True),
        ("dns://8.8.8.8/graft.internal:7", "graft.internal", False),
        ("graft.internal", "graft.internal", False),
        ("localhost.example.com", "localhost.example.com", False),
        ("10.0.0.1:7", "10.0.0.1", False),
        ("[2001:db8::1]:7", "2001:db8::1", False),
    ],
)
def test_a_target_knows_its_host_and_whether_that_is_this_machine(
    target: str, host: str, local: bool
) -> None:
    found = target_of(target)
    assert (found.host, found.local) == (host, local)
    assert is_local(host) == local or not host


@pytest.mark.parametrize(
    ("environment", "target"),
    [
        ({}, "127.0.0.1:50051"),
        ({"GRAFT_SERVER": "there:7", "GRAFT_LISTEN": "0.0.0.0:8"}, "there:7"),
        ({"GRAFT_SERVER": " ", "GRAFT_LISTEN": "0.0.0.0:8"}, "127.0.0.1:8"),
        ({"GRAFT_LISTEN": "[::]:8"}, "[::1]:8"),
        ({"GRAFT_LISTEN": "unix:/run/graft.sock"}, "unix:/run/graft.sock"),
        ({"GRAFT_LISTEN": "10.0.0.7:8,127.0.0.1:9"}, "10.0.0.7:8"),
    ],
)
def test_commands_ask_the_server_that_the_environment_names(environment: dict[str, str], target: str) -> None:
    assert default_target(environment) == target


def test_a_client_without_a_target_asks_the_server_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRAFT_SERVER", "127.0.0.1:1")
    with graft.Client() as client:
        assert client.target == "127.0.0.1:1"
    assert graft.AsyncClient().target == "127.0.0.1:1"


PROXY = {"http_proxy": "http://user:secret@proxy.example:3128"}


@pytest.mark.parametrize(
    ("target", "environment", "proxy"),
    [
        ("graft.internal", PROXY, "http://proxy.example:3128"),
        ("graft.internal", {**PROXY, "grpc_proxy": "http://other:1"}, "http://other:1"),
        ("graft.internal", {**PROXY, "no_proxy": "example.com, .internal"}, None),
        ("graft.internal", {**PROXY, "NO_PROXY": "*"}, None),
        ("graft.internal", {**PROXY, "no_proxy": "other"}, "http://proxy.example:3128"),
        ("10.1.2.3", {**PROXY, "no_proxy": "10.0.0.0/8"}, None),
        ("10.1.2.3", {"https_proxy": "http://[2001:db8::1]:3128"}, "http://[2001:db8::1]:3128"),
        ("graft.internal", {"http_proxy": "socks5://proxy.example:1080"}, None),
        ("graft.internal", {"http_proxy": "http://[broken"}, None),
        ("graft.internal", {"ALL_PROXY": "http://proxy.example:3128"}, None),
        ("localhost", PROXY, None),
        ("127.0.0.9", PROXY, None),
        ("[::1]:7", PROXY, None),
        ("unix:/run/graft.sock", PROXY, None),
    ],
)
def test_the_proxy_in_the_way_is_known_and_loopback_has_none(
    target: str, environment: dict[str, str], proxy: str | None
) -> None:
    route = route_to(target_of(target), environment)
    assert (route.proxy and route.proxy.url) == proxy
    if target_of(target).local:
        assert route.direct


ROUTE = route_to(target_of("graft.internal:7"), PROXY)
STRAIGHT = route_to(target_of("graft.internal:7"), {})


@pytest.mark.parametrize(
    ("code", "message", "kind", "says", "again"),
    [
        (
            "UNAVAILABLE",
            "last error: HTTP proxy returned response code 403",
            "PermissionDenied",
            "403",
            False,
        ),
        ("UNAVAILABLE", "last error: HTTP proxy returned response code 407", "Unauthenticated", "407", False),
        (
            "UNAVAILABLE",
            "last error: HTTP proxy returned response code 502",
            "Unavailable",
            "Bad Gateway",
            True,
        ),
        ("UNKNOWN", "Received http2 header with status: 413", "ResourceExhausted", "32 MiB", False),
        ("UNAVAILABLE", "Received http2 header with status: 503", "Unavailable", "503", True),
        ("UNAVAILABLE", "Received http2 header with status: 429", "Unavailable", "429", False),
        (
            "PERMISSION_DENIED",
            "Received http2 header with status: 403",
            "PermissionDenied",
            "Forbidden",
            False,
        ),
        ("UNKNOWN", "Received http2 header with status: 499", "Graft", "499", False),
        (
            "UNAVAILABLE",
            "Trying to connect an http1.x server (HTTP status 400)",
            "Unavailable",
            "HTTP/1.1",
            False,
        ),
        ("UNAVAILABLE", "Connection refused", "Unavailable", "Connection refused (calls go through", True),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "DeadlineExceeded", "did not answer before", False),
    ],
)
def test_what_gprc_says_is_explained(code: str, message: str, kind: str, says: str, again: bool) -> None:
    raised = graft.errors.from_status(
        graft.errors.status_pb2.Status(code=grpc.StatusCode[code].value[0], message=message)
    )
    told = explained(raised, ROUTE)
    assert type(told).__name__ == f"{kind}Error"
    assert says in told.message
    assert "the proxy http://proxy.example:3128" in told.message
    assert "secret" not in told.message
    assert is_resumable(told) == again
    assert "proxy.example" not in explained(raised, STRAIGHT).message


def test_what_a_server_says_is_left_as_it_is() -> None:
    said = graft.UnavailableError("draining", reason="DRAINING", domain="graft")
    assert explained(said, ROUTE) is said


def unavailable(message: str = "gone") -> graft.UnavailableError:
    return graft.UnavailableError(message)


def test_a_call_that_may_have_been_carried_out_is_not_repeated_unless_that_is_as_good() -> None:
    assert Retries(10.0, repeatable=True).delay_s(unavailable()) > 0
    with pytest.raises(graft.UnavailableError):
        Retries(10.0, repeatable=False).delay_s(unavailable())
    assert Retries(10.0, repeatable=False).delay_s(unavailable("failed to connect to all addresses")) > 0


def test_tries_end_after_the_fourth_and_with_the_deadline() -> None:
    retries = Retries(None, repeatable=True)
    for _ in range(4):
        assert 0 < retries.delay_s(unavailable()) < 2
    with pytest.raises(graft.UnavailableError):
        retries.delay_s(unavailable())
    with pytest.raises(graft.UnavailableError):
        Retries(0.01, repeatable=True).delay_s(unavailable())


def test_a_deadline_that_passes_after_a_failed_try_tells_why_that_failed() -> None:
    retries = Retries(10.0, repeatable=True)
    retries.delay_s(unavailable("connection refused"))
    with pytest.raises(graft.DeadlineExceededError, match="connection refused"):
        retries.delay_s(graft.DeadlineExceededError("no answer"))
    gateway = Retries(10.0, repeatable=True)
    told = explained(unavailable("http2 header with status: 502"), STRAIGHT)
    gateway.delay_s(told)
    assert (gateway.left_s() or 99) <= 3.0
    with pytest.raises(graft.UnavailableError, match="Bad Gateway"):
        gateway.delay_s(graft.DeadlineExceededError("no answer"))


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that talks so on every connection; its port."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def http1(status: int) -> Callable[[socket.socket], None]:
    """Answers whatever comes with a status of HTTP/1.1."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % status)

    return talk


def http2(status: int) -> Callable[[socket.socket], None]:
    """Answers the first request of a connection with a status of HTTP/2, in headers alone."""

    def talk(connection: socket.socket) -> None:
        received = connection.makefile("rb")
        received.read(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        connection.sendall(frame(4, 0, 0, b"") + frame(4, 1, 0, b""))
        while head := received.read(9):
            received.read(int.from_bytes(head[:3]))
            if head[3] == 1:  # HEADERS
                headers = b"\x08\x03%d" % status + b"\x00\x0ccontent-type\x09text/html"
                connection.sendall(frame(1, 5, int.from_bytes(head[5:]), headers))

    return talk


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


CALLS = {
    "models": lambda client: client.models(),
    "adapt": lambda client: client.adapt("m", [("a", "b")]),
    "export": lambda client: client.export("m", "never-made"),
}


def raised_by(target: str, call: str, kind: str, **settings: Any) -> graft.GraftError:
    """The error of a call, which would otherwise wait for minutes."""

    def asked() -> None:
        with graft.Client(target, **settings) as client:
            CALLS[call](client)

    async def asked_async() -> None:
        async with graft.AsyncClient(target, **settings) as client:
            await CALLS[call](client)

    with pytest.raises(graft.GraftError) as raised:
        asked() if kind == "blocking" else asyncio.run(asked_async())
    return raised.value


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("make", "status"), [(http1, 413), (http1, 403)])
def test_the_status_of_an_http_server_is_told_at_once(kind: str, call: str, make: Any, status: int) -> None:
    with serving(make(status)) as port:
        error = raised_by(f"127.0.0.1:{port}", call, kind)
    assert f"HTTP status {status}" in error.message
    assert error.metadata == {"http_status": str(status)}


@pytest.mark.parametrize("status", [413, 403, 404])
def test_the_status_of_a_gateway_is_told_at_once(status: int) -> None:
    with serving(http2(status)) as port:
        error = raised_by(f"127.0.0.1:{port}", "models", "blocking")
    assert f"HTTP status {status}" in error.message
    assert "a proxy before it" in error.message


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
@pytest.mark.parametrize("call", CALLS)
def test_the_refusal_of_a_proxy_is_told_at_once_and_the_proxy_named(
    kind: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(http1(403)) as port:
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
        error = raised_by("graft.example:50051", call, kind)
    assert isinstance(error, graft.PermissionDeniedError)
    assert f"The proxy http://127.0.0.1:{port}, asked for a connection to graft.example" in error.message
    assert "no_proxy=graft.example" in error.message


def test_no_proxy_stands_before_this_machine(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("http_proxy", "https_proxy", "grpc_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://{NOBODY}")
    port = server.target.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost"):
        with graft.Client(f"{host}:{port}") as client:
            assert client.health() == "serving"
    ended = subprocess.run(
        [sys.executable, "-m", "graft_server.cli", "health", "--target", server.target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_unix_sockets_and_ipv6_are_reached(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    path = f"unix:{tmp_path}/graft.sock"
    server.add_insecure_port(path)
    targets = [path, f"unix://{tmp_path}/graft.sock"]
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        port = server.add_insecure_port("[::1]:0")
        targets += [f"[::1]:{port}", f"ipv6:[::1]:{port}"]
    server.start()
    for target in targets:
        with graft.Client(target) as client, pytest.raises(graft.UnimplementedError):
            client.models()
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("target", "reason"),
    [("no-such-host.invalid:7", "DNS resolution failed"), (NOBODY, "Connection refused")],
)
@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_the_reason_why_a_server_is_not_reached_is_told(target: str, reason: str, kind: str) -> None:
    error = raised_by(target, "models", kind, timeout=1.0)
    assert isinstance(error, graft.UnavailableError)
    assert reason in error.message


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ([("Authorization", "x")], "lower case"),
        ([("a key", "x")], "letters, digits"),
        ([("grpc-timeout", "1S")], "must not begin with 'grpc-'"),
        ([("key", "line\nbreak")], "printable ASCII"),
        ([("key", "sécret")], "printable ASCII"),
        ([("key", None)], "value of type NoneType"),
        ([("key-bin", "text")], "must be bytes"),
        ([("key",)], "pairs of key and value"),
        ("authorization", "pairs of key and value"),
        (7, "pairs of key and value"),
    ],
)
@pytest.mark.parametrize("kind", [graft.Client, graft.AsyncClient])
def test_metadata_that_cannot_be_sent_is_refused_at_once(metadata: Any, says: str, kind: Any) -> None:
    with pytest.raises(graft.InvalidArgumentError, match=says) as refused:
        kind(NOBODY, metadata=metadata)
    assert refused.value.reason == "METADATA_INVALID"
    assert "sécret" not in str(refused.value)
