"""The metadata that identifies the caller to a server, from a function that is called anew for each call.

Metadata and not gRPC's call credentials, which need a secure channel: a proxy beside the client may do the TLS.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

from graft.errors import ArgumentError, GraftError, UnauthenticatedError

_KEY = re.compile(r"[a-z0-9._-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Pairs of key and value. Values are texts; those of keys that end in "-bin" are bytes."""
Auth: TypeAlias = Callable[[], Metadata]
"""Returns the metadata of the next call; called in the thread that makes it."""
AsyncAuth: TypeAlias = Callable[[], Metadata | Awaitable[Metadata]]
"""Gives the metadata of the next call, or a coroutine that does."""


def asked(auth: Auth | None) -> Metadata:
    """Returns the result of `auth`; no metadata if there is none.

    Raises:
        UnauthenticatedError: It raised, or returned metadata that cannot be sent.
    """
    if auth is None:
        return ()
    try:
        given = auth()
    except Exception as error:
        raise _raised(error) from error
    return _checked(given)


async def asked_async(auth: AsyncAuth | None) -> Metadata:
    """What `auth` gives, awaited where it has to be; otherwise like `asked`."""
    if auth is None:
        return ()
    try:
        given = auth()
        if inspect.isawaitable(given):
            given = await given
    except Exception as error:
        raise _raised(error) from error
    return _checked(given)


def checked_metadata(given: object) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata of every call, as it can be sent.

    Raises:
        ArgumentError: It cannot.
    """
    return _pairs(given, "metadata=", _argument_error)


def _raised(error: Exception) -> UnauthenticatedError:
    return _failed(f"auth= raised {type(error).__name__}: {error}")


def _checked(given: object) -> Metadata:
    return _pairs(given, "auth=", _failed)


def _pairs(
    given: object, source: str, failed: Callable[[str], GraftError]
) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata as a tuple. Messages name keys and types alone: values are secrets."""
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise failed(f"{source} gave a {type(given).__name__}; it must give pairs of key and value")
    pairs: list[tuple[str, str | bytes]] = []
    for pair in given:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise failed(f"{source} gave a {type(pair).__name__} among the pairs of key and value")
        key, value = pair
        if not isinstance(key, str) or key != key.lower():
            raise failed(f"{source} gave the key {key!r}; it must be a text in lower case")
        if not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise failed(
                f"{source} gave the key {key!r}; it may consist of letters, digits, '-', '_' and '.', and must not "
                "begin with 'grpc-'"
            )
        wanted = bytes if key.endswith("-bin") else str
        if not isinstance(value, wanted):
            kind = type(value).__name__
            raise failed(f"{source} gave {key!r} a value of type {kind}; it must be {wanted.__name__}")
        if isinstance(value, str) and not _VALUE.fullmatch(value):
            raise failed(
                f"{source} gave {key!r} a value with characters other than printable ASCII; give bytes under a key "
                "that ends in '-bin'"
            )
        pairs.append((key, value))
    return tuple(pairs)


def _failed(message: str) -> UnauthenticatedError:
    return UnauthenticatedError(message, reason="AUTH_FAILED", domain="graft")


def _argument_error(message: str) -> ArgumentError:
    return ArgumentError(message, reason="METADATA_INVALID", domain="graft")
