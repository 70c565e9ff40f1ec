"""Which models were asked for lately, as a hint in the store for the servers that start later.

Nothing depends on it: without it, or with an old one, heads are loaded when they are asked for.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from graft_server.domain.errors import CorruptError, NewerError
from graft_server.store.objects.objects import ObjectMissingError, Objects

FOLDER = "in-use/"
MOST = 1_000
"""The most models in a hint."""
KEPT = 3
"""The hints that are kept: several servers may share the store."""


class _Hint(msgspec.Struct, frozen=True):
    models: list[str]
    """The last one asked for first."""


_NAME = re.compile(r"(\d{20})-[0-9a-f]{16}\.json")


def read(objects: Objects) -> list[str]:
    """Returns the models that were in use lately, those of the newest hint first.

    Raises:
        StoreError: The store cannot be read.
    """
    models: dict[str, None] = {}
    for name in reversed(_names(objects)):
        with suppress(ObjectMissingError, CorruptError, NewerError):
            models |= dict.fromkeys(objects.get_json(FOLDER + name, _Hint).models)
    return list(models)


def write(objects: Objects, models: Sequence[str]) -> None:
    """Writes which models are in use, the last one asked for first; raises StoreError if that fails."""
    names = _names(objects)
    number = int(names[-1].partition("-")[0]) + 1 if names else 1
    key = f"{FOLDER}{number:020d}-{secrets.token_hex(8)}.json"
    objects.create_json(key, _Hint(list(models[:MOST])))
    objects.delete([FOLDER + it for it in names[: 1 - KEPT]])


def _names(objects: Objects) -> list[str]:
    return list(filter(_NAME.fullmatch, objects.names_after(FOLDER, "")))
