"""Features as objects: the arrays of one segment's examples, by view.

A msgpack header with the views' names and shapes, then the arrays' bytes, float16, little-endian, row-major. Behind
them a msgpack map whose `format` is the format, and whose `truncated` lists the rows of inputs that were longer than
the encoder reads. A format whose header is another one has a map as its header, with its `format`.

Features are derived from the examples: damaged ones are deleted when they are read, and so count as lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import CorruptError
from graft_server.store.objects import formats
from graft_server.store.objects.objects import ObjectMissingError, Objects

_log = logging.getLogger(__name__)

Features = Mapping[str, NDArray[np.float16]]
"""View name to features of shape (n, d); every view has the same n."""
FEATURES_MISSING = "FEATURES_MISSING"
"""The reason of a failure after which features must be computed again; metadata["object"] names them."""

_DTYPE = np.dtype("<f2")
_LENGTH_BYTES = 4
_TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True, eq=False)
class StoredFeatures:
    """What an encoder made of n inputs."""

    features: Features
    """Empty if n is 0."""
    truncated: NDArray[np.bool_]
    """shape (n,): whether an input's end was cut off, because it is longer than the encoder reads."""

    def rows(self, which: NDArray[Any]) -> StoredFeatures:
        """Returns some rows, by index or mask; none of any view where no row is left."""
        truncated = self.truncated[which]
        features = {view: array[which] for view, array in self.features.items()} if len(truncated) else {}
        return StoredFeatures(features, truncated)


def encode_features(features: Features, truncated: NDArray[np.bool_] | None = None) -> bytes:
    """Returns the features as bytes, and the rows that are truncated, shape (n,); None: no row is."""
    cut = [] if truncated is None else np.flatnonzero(truncated).tolist()
    trailer = formats.packed({_TRUNCATED: cut})
    header = msgspec.msgpack.encode([(name, array.shape) for name, array in features.items()])
    arrays = [np.ascontiguousarray(array, _DTYPE).tobytes() for array in features.values()]
    return b"".join([len(header).to_bytes(_LENGTH_BYTES, "little"), header, *arrays, trailer])


def decode_features(data: bytes, key: str = "") -> StoredFeatures:
    """Returns read-only arrays over bytes from `encode_features`, which may be without a trailer.

    Raises:
        NewerError: A newer release made them; `key` names them.
    """
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    try:
        return _decoded(data, start, key)
    except (msgspec.DecodeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise formats.unknown(key, str(error)) from None


def _decoded(data: bytes, start: int, key: str) -> StoredFeatures:
    """Reads features whose header ends at `start`."""
    formats.require_known(key, data[_LENGTH_BYTES:start], pack=True)
    header = msgspec.msgpack.decode(data[_LENGTH_BYTES:start], type=list[tuple[str, tuple[int, int]]])
    features = {}
    for name, (rows, width) in header:
        features[name] = np.frombuffer(data, _DTYPE, rows * width, start).reshape(rows, width)
        start += rows * width * _DTYPE.itemsize
    truncated = np.zeros(header[0][1][0] if header else 0, bool)
    if len(data) > start:
        formats.require_known(key, data[start:], pack=True)
        truncated[msgspec.msgpack.decode(data[start:])[_TRUNCATED]] = True
    return StoredFeatures(features, truncated)


def read_features(objects: Objects, key: str) -> StoredFeatures:
    """Returns the features that are stored under a key.

    Raises:
        ObjectMissingError: The features are missing, or were damaged: they can be computed again.
        NewerError: A newer release made them: they stay as they are.
    """
    try:
        return decode_features(objects.get(key), key)
    except CorruptError as error:
        _log.warning("features are computed again: %s", error.message)
        objects.delete([key])
        raise ObjectMissingError(key) from None
