"""Why there is no connection, in words that help: gRPC says what the system told it, and not what to do."""

from __future__ import annotations

import re
from typing import Final

from graft._transport.targets import DEFAULT_PORT, Target

NAME_ANOTHER: Final = "or name another"
"""What the command line completes by its option."""
_NO_CONNECTION: Final = re.compile(
    r"connections to all backends failing|failed to connect|DNS resolution failed", re.IGNORECASE
)
_NOT_SAID: Final = re.compile(r"connections to all backends failing; last error: (?:[A-Z_]+: )?")
_TOLD: Final = (
    (
        ("wrong_version_number",),
        "what listens there does not speak TLS; leave the credentials away, or take a port that does",
    ),
    (
        ("handshake failed",),
        "its TLS certificate is not trusted here; give the authority that signed it as root certificate",
    ),
    (
        ("parsing http/2", "settings frame"),
        (
            "what listens there speaks another protocol; the port of a Graft server that is told no other is "
            f"{DEFAULT_PORT}"
        ),
    ),
    (
        ("socket closed", "reset by peer", "broken pipe"),
        (
            "what listens there closed the connection; it may be another service, or one that wants TLS "
            "(credentials=grpc.ssl_channel_credentials() in Python)"
        ),
    ),
)
"""What is said where gRPC's message has certain words."""
_ANY: Final = "0.0.0.0"  # noqa: S104


def unreachable(message: str, target: Target, by_way_of: str) -> str:
    """What to say in place of gRPC's message, which follows as details; "" if it is not about a connection.

    Args:
        message: What gRPC says.
        target: The server that was asked.
        by_way_of: The proxy in the way, as a parenthesis; "" if there is none.
    """
    if not _NO_CONNECTION.search(message):
        return ""
    details = _NOT_SAID.sub("", message)
    return (
        f"no Graft server answers at {target.name}: {_help(message, target)}{by_way_of}; details: {details}"
    )


def _help(message: str, target: Target) -> str:
    found = message.lower()
    for words, told in _TOLD:
        if any(it in found for it in words):
            return told
    start = f"start one with {_start(target)}, wait if it is starting, {NAME_ANOTHER}"
    if "dns resolution failed" in found:
        return f"the name {target.host!r} is not known; check how it is spelled, {NAME_ANOTHER}"
    return f"there is no such socket; {start}" if "no such file" in found else start


def _start(target: Target) -> str:
    """The command that starts a server at a target."""
    serve = "graft-server serve --store ./store"
    if target.address.startswith("unix"):
        return f"'{serve} --listen {target.name}'"
    port = target.address.rpartition(":")[2]
    if not target.local:
        return f"'{serve} --listen {_ANY}:{port}' there"
    return f"'{serve}'" if port == str(DEFAULT_PORT) else f"'{serve} --listen {target.host}:{port}'"
