"""Which proxy of the environment gRPC goes through, so that an error can name it; none where the server is local.

gRPC reads the variables grpc_proxy, https_proxy and http_proxy (the first that is set) and no_grpc_proxy or no_proxy,
in small letters, and sends CONNECT to the proxy; it knows http:// alone, no SOCKS.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from graft._transport.targets import Target

_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXEMPT_VARIABLES = ("no_grpc_proxy", "no_proxy", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that calls go through."""

    url: str
    """Without user and password."""
    variable: str
    """The environment variable that names it."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a server."""

    target: Target
    direct: bool
    """Whether gRPC is told to take no proxy."""
    proxy: Proxy | None
    """The proxy in the way; None: there is none."""


def route_to(target: Target, environment: Mapping[str, str] | None = None) -> Route:
    """The way to a target in an environment."""
    environment = os.environ if environment is None else environment
    if target.local or _exempt(target.host, environment):
        return Route(target, direct=True, proxy=None)
    for variable in _PROXY_VARIABLES:
        if value := environment.get(variable):
            return Route(target, direct=False, proxy=_proxy(value, variable))
    return Route(target, direct=False, proxy=None)


def _proxy(value: str, variable: str) -> Proxy | None:
    try:
        url = urlsplit(value)
        host, port = url.hostname, url.port
    except ValueError:
        return None
    if url.scheme.lower() != "http" or not host:
        return None  # gRPC passes over it
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"http://{shown}" + (f":{port}" if port else ""), variable)


def _exempt(host: str, environment: Mapping[str, str]) -> bool:
    listed = next((environment[it] for it in _EXEMPT_VARIABLES if environment.get(it)), "")
    return any(_matches(host, entry.strip()) for entry in listed.split(",") if entry.strip())


def _matches(host: str, entry: str) -> bool:
    if entry == "*" or (host and host.lower().endswith(entry.lower())):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
