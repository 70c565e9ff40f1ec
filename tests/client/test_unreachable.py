"""Where no server answers, the sentence that helps comes first, and what gRPC says behind it."""

from __future__ import annotations

import pytest

from graft._transport.failures import explained
from graft._transport.proxies import route_to
from graft._transport.retry import is_resumable
from graft._transport.targets import target_of
from graft.errors import GraftError, UnavailableError, UnimplementedError

FAILING = "connections to all backends failing; last error: "
REFUSED = (
    f"{FAILING}UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: connect: Connection refused (111)"
)


@pytest.mark.parametrize(
    ("target", "message", "helps"),
    [
        ("127.0.0.1:50051", REFUSED, "start one with 'graft-server serve --store ./store', "),
        (
            "localhost:7",
            REFUSED,
            "start one with 'graft-server serve --store ./store --listen localhost:7', ",
        ),
        ("10.0.0.7:7", REFUSED, "'graft-server serve --store ./store --listen 0.0.0.0:7' there, "),
        (
            "unix:/tmp/x",
            f"{FAILING}UNKNOWN: unix:/tmp/x: connect: No such file or directory (2)",
            "there is no such socket; start one with 'graft-server serve --store ./store --listen unix:/tmp/x', ",
        ),
        ("nosuch.invalid:7", "DNS resolution failed for nosuch.invalid:7", "'nosuch.invalid' is not known"),
        ("h:7", f"{FAILING}UNAVAILABLE: ipv4:1.2.3.4:7: Failed parsing HTTP/2", "speaks another protocol"),
        (
            "h:7",
            f"{FAILING}UNKNOWN: connection attempt timed out before receiving SETTINGS frame",
            "speaks another protocol",
        ),
        ("h:7", f"{FAILING}UNAVAILABLE: ipv4:1.2.3.4:7: Socket closed", "wants TLS"),
        ("h:7", f"{FAILING}UNAVAILABLE: recvmsg:Connection reset by peer", "wants TLS"),
        ("h:7", f"{FAILING}Ssl handshake failed: WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("h:7", f"{FAILING}Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "certificate is not trusted"),
    ],
)
def test_what_helps_comes_before_the_details(target: str, message: str, helps: str) -> None:
    told = explained(UnavailableError(message), route_to(target_of(target), {}))
    assert told.message.startswith(f"no Graft server answers at {target}: ")
    head, details = told.message.split("; details: ")
    assert helps in head
    assert details
    assert FAILING not in told.message
    assert is_resumable(told) == is_resumable(UnavailableError(message))


def test_the_proxy_in_the_way_is_named() -> None:
    route = route_to(target_of("graft.internal:7"), {"http_proxy": "http://proxy.example:3128"})
    told = explained(UnavailableError(REFUSED), route)
    assert "the proxy http://proxy.example:3128" in told.message


def test_a_call_that_broke_on_its_way_is_told_as_it_is() -> None:
    error = UnavailableError("Socket closed")
    assert explained(error, route_to(target_of("h:7"), {})) is error


def test_another_grpc_server_is_told_from_a_graft_server() -> None:
    told: GraftError = explained(UnimplementedError("Method not found!"), route_to(target_of("h:7"), {}))
    assert told.message.startswith("h:7 does not know this method: it is another gRPC server")
