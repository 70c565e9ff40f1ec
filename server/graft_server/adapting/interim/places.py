"""Where each example's row is, by id: 16 bytes an example, so that a correction can find what it corrects."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

MERGED_AT = 4_096
"""The new ids, or an eighth of all if that is more, that a dict keeps before they are merged into the arrays."""
GONE = -1


class Places:
    """A map from ids to numbers of 0 or more. Ids are known by 64 bits of their digest."""

    def __init__(self) -> None:
        self._keys: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._places: NDArray[np.int64] = np.zeros(0, np.int64)
        self._recent: dict[int, int] = {}

    def get(self, id_: str) -> int | None:
        """The id's place, or None."""
        key = _key(id_)
        place = self._recent.get(key)
        if place is None:
            at = int(np.searchsorted(self._keys, np.uint64(key)))
            found = at < len(self._keys) and int(self._keys[at]) == key
            place = int(self._places[at]) if found else GONE
        return None if place == GONE else place

    def set(self, id_: str, place: int) -> None:
        """Puts an id at a place."""
        self._put(_key(id_), place)

    def remove(self, id_: str) -> None:
        """Forgets an id."""
        self._put(_key(id_), GONE)

    def _put(self, key: int, place: int) -> None:
        self._recent[key] = place
        if len(self._recent) > max(MERGED_AT, len(self._keys) // 8):
            self._merge()

    def _merge(self) -> None:
        keys = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        places = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        kept = ~np.isin(self._keys, keys)
        keys = np.concatenate([self._keys[kept], keys[places != GONE]])
        places = np.concatenate([self._places[kept], places[places != GONE]])
        order = np.argsort(keys)
        self._keys, self._places = keys[order], places[order]
        self._recent = {}


def _key(id_: str) -> int:
    return int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8).digest(), "little")
