"""Metadata: pairs that callers keep with models, versions and adaptations, to find them again. They decide nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from graft_server.domain.errors import InvalidError
from graft_server.domain.names import shown

MAX_PAIRS = 32
MAX_VALUE_BYTES = 1024
MAX_BYTES = 8192
"""Of all keys and values together: the catalogue holds them in memory, for each version."""

_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62}[A-Za-z0-9])?")


def check_metadata(pairs: Mapping[str, str], field: str) -> dict[str, str]:
    """Returns the pairs sorted by key, or raises InvalidError, which names the pair at fault."""
    for key, value in pairs.items():
        check_key(key, field)
        if (size := len(value.encode())) > MAX_VALUE_BYTES:
            raise InvalidError(
                f"{field}[{shown(key)}] is {shown(value)} and has {size:,} bytes: a value has at most "
                f"{MAX_VALUE_BYTES:,}.",
                reason="METADATA_INVALID",
                field=f"{field}[{key}]",
            )
    if len(pairs) > MAX_PAIRS:
        raise InvalidError(
            f"{field} has {len(pairs):,} pairs: at most {MAX_PAIRS} are kept.",
            reason="METADATA_INVALID",
            field=field,
        )
    size = sum(len(key) + len(value.encode()) for key, value in pairs.items())
    if size > MAX_BYTES:
        raise InvalidError(
            f"{field} has {size:,} bytes: all keys and values together have at most {MAX_BYTES:,}.",
            reason="METADATA_INVALID",
            field=field,
        )
    return dict(sorted(pairs.items()))


def check_key(key: str, field: str) -> str:
    """Returns the key of a pair, or raises InvalidError."""
    if not _KEY.fullmatch(key):
        raise InvalidError(
            f"{field} has the key {shown(key)}: a key is 1 to 64 letters, digits, '.', '_', '/' and '-', beginning and "
            "ending with a letter or digit.",
            reason="METADATA_INVALID",
            field=field,
        )
    return key


def updated(pairs: Mapping[str, str], added: Mapping[str, str], removed: Iterable[str]) -> dict[str, str]:
    """Returns the pairs without the removed keys and with the added pairs; see `check_metadata`."""
    gone = set(removed)
    kept = {key: value for key, value in pairs.items() if key not in gone}
    return check_metadata({**kept, **added}, "set_metadata")
