"""What a client's target means: the address in gRPC's syntax, and whether it is on this machine."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from graft.errors import ArgumentError

DEFAULT_TARGET: Final = "127.0.0.1:50051"
DEFAULT_PORT: Final = 50051
_HTTPS_PORT: Final = 443
_PLAIN_URL: Final = ("http", "grpc", "h2c", "tcp")
_SECURE_URL: Final = ("https", "grpcs")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_RESOLVED = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds|passthrough):(.*)", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is."""

    name: str
    """What the caller wrote."""
    address: str
    """The same in gRPC's syntax, for example "dns:///graft.internal:50051"."""
    host: str
    """The host's name or address; "" for a socket file, and where gRPC's resolver alone knows."""
    local: bool
    """Whether it is certain to be on this machine: loopback, or a socket file. No proxy leads there."""


def target_of(name: str) -> Target:
    """Reads a target: "host", "host:port", "[ipv6]:port", "unix:PATH", or what gRPC resolves, like "dns:///host:port".

    Raises:
        ArgumentError: It is none; the message says what would be right.
    """
    if not isinstance(name, str):
        raise _refused(f"the target is a {type(name).__name__}; give a text, HOST:PORT")
    if not name.strip():
        raise _refused(f"the target is empty; give HOST:PORT, for example {DEFAULT_TARGET!r}")
    text = name.strip()
    if found := _UNPRINTABLE.search(text):
        raise _refused(
            f"the target {name!r} contains {found[0]!r}; give HOST:PORT, for example {DEFAULT_TARGET!r}"
        )
    if resolved := _RESOLVED.fullmatch(text):
        return _resolved(name, text, *resolved.groups())
    if url := _URL.fullmatch(text):
        raise _refused_url(text, url[1].lower(), url[2])
    host, port = _host_and_port(text)
    shown = f"[{host}]" if ":" in host else host
    return Target(name, f"dns:///{shown}:{port}", host, is_local(host))


def default_target(environment: Mapping[str, str] | None = None) -> str:
    """The server that is asked where none is named: GRAFT_SERVER, or the one that listens as GRAFT_LISTEN says."""
    environment = os.environ if environment is None else environment
    if server := environment.get("GRAFT_SERVER", "").strip():
        return server
    addresses = environment.get("GRAFT_LISTEN", "").replace(",", " ").split()
    return reached_by(addresses[0]) if addresses else DEFAULT_TARGET


def reached_by(listened: str) -> str:
    """The target by which a server on this machine is reached that listens to an address."""
    if listened.startswith("unix"):
        return listened
    host, _, port = listened.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
    return f"{anywhere.get(host, host)}:{port}"


def is_local(host: str) -> bool:
    """Whether a host is this machine by its name alone: localhost, a loopback address, or the unspecified one."""
    plain = host.lower().rstrip(".").strip("[]")
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(plain.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def _resolved(name: str, text: str, scheme: str, rest: str) -> Target:
    if scheme.startswith("unix"):
        if not rest.strip("/"):
            raise _refused(f"the target {name!r} names no socket; give unix:PATH")
        return Target(name, text, "", local=True)
    # "dns://resolver/host:port", "ipv4:a:1,b:2"
    first = unquote(rest.rpartition("/")[2] if rest.startswith("//") else rest).partition(",")[0]
    if not first:
        raise _refused(f"the target {name!r} names no host; give HOST:PORT, for example {DEFAULT_TARGET!r}")
    if scheme not in ("dns", "ipv4", "ipv6"):
        return Target(name, text, "", local=False)
    host = re.sub(r":\d+$", "", first) if first.startswith("[") or first.count(":") == 1 else first
    host = host.strip("[]")
    return Target(name, text, host, is_local(host))


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise _refused(f"the target {text!r} is not [IPV6]:PORT, for example '[::1]:{DEFAULT_PORT}'")
        port = rest[1:] if rest else str(DEFAULT_PORT)
    elif text.count(":") > 1:
        host, port = text, str(DEFAULT_PORT)
    else:
        host, _, port = text.partition(":")
        port = port if ":" in text else str(DEFAULT_PORT)
    if ":" in host and not _is_ipv6(host):
        raise _refused(f"the target {text!r} is not HOST:PORT, and {host!r} is no IPv6 address")
    if not host or any(it in host for it in "/?#@"):
        raise _refused(f"the target {text!r} is not HOST:PORT, for example {DEFAULT_TARGET!r}")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise _refused(
            f"the target {text!r} has the port {port!r}; give HOST:PORT with a port from 1 to 65535"
        )
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _refused_url(text: str, scheme: str, rest: str) -> ArgumentError:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    host = authority or "HOST"
    bare = host if re.search(r":\d+$", host) else f"{host}:{_HTTPS_PORT if scheme in _SECURE_URL else 80}"
    if scheme in _SECURE_URL:
        right = f"{bare!r} with credentials=grpc.ssl_channel_credentials() for TLS"
    elif scheme in _PLAIN_URL:
        right = repr(bare if scheme == "http" or ":" in host else f"{host}:{DEFAULT_PORT}")
    else:
        right = f"HOST:PORT, for example {DEFAULT_TARGET!r}"
    return _refused(f"the target {text!r} is a URL, and gRPC takes none; give {right}")


def _refused(message: str) -> ArgumentError:
    return ArgumentError(message, reason="TARGET_INVALID", domain="graft")
