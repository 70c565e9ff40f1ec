"""How a server on this machine is reached that listens to an address, and where its callers are."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from graft_server.domain.errors import InvalidError

_UNIX: Final = "unix:"
_ANY: Final = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
"""By which host a server is reached that listens on every address."""
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables that gRPC takes a proxy from; the first that is set counts."""


def reached_by(address: str) -> str:
    """The target for an address that is listened on: HOST:PORT, [IPV6]:PORT or unix:PATH.

    Raises:
        InvalidError: It has port 0, in place of which the server has picked one.
    """
    if address.startswith(_UNIX):
        return address
    host, _, port = address.rpartition(":")
    if int(port) == 0:
        raise InvalidError(
            f"listen is {address}, whose port is picked at the start: name the server with --target HOST:PORT.",
            reason="TARGET_UNKNOWN",
            field="target",
        )
    return f"{_ANY.get(host, host)}:{port}"


def is_local(target: str) -> bool:
    """Whether a target is on this machine by its name alone: no proxy leads there."""
    if target.startswith("unix"):
        return True
    host = target.rpartition(":")[0].strip("[]").lower().removeprefix("dns:///").rstrip(".")
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def through_proxy(environment: Mapping[str, str]) -> str:
    """Words for the end of an error, which name the proxy that the call went through; "": there is none."""
    variable = next((it for it in _PROXIES if environment.get(it)), None)
    if variable is None:
        return ""
    proxy = environment[variable].rpartition("@")[2]  # without credentials
    return f" (the call goes through the proxy {proxy} of {variable}, unless no_proxy names the host)"


def address_of(peer: str) -> str:
    """The address of a caller, without its port, which is another one in each connection.

    Args:
        peer: As gRPC gives it: "ipv4:192.0.2.1:50051", "ipv6:%5B2001:db8::1%5D:50051", "unix:PATH".
    """
    family, _, address = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return family
    return unquote(address).rpartition(":")[0].strip("[]")
