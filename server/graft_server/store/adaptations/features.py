"""Features as objects: the arrays of one segment's examples, by view.

A msgpack header with the views' names and shapes, then the arrays' bytes, float16, little-endian, row-major.

Features are derived from the examples: damaged ones are deleted when they are read, and so count as lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import CorruptError
from graft_server.store.objects.objects import ObjectMissingError, Objects

_log = logging.getLogger(__name__)

Features = Mapping[str, NDArray[np.float16]]
"""View name to features of shape (n, d); every view has the same n."""
FEATURES_MISSING = "FEATURES_MISSING"
"""The reason of a failure after which features must be computed again; metadata["object"] names them."""

_DTYPE = np.dtype("<f2")
_LENGTH_BYTES = 4


def encode_features(features: Features) -> bytes:
    """Returns the features as bytes."""
    header = msgspec.msgpack.encode([(name, array.shape) for name, array in features.items()])
    arrays = [np.ascontiguousarray(array, _DTYPE).tobytes() for array in features.values()]
    return b"".join([len(header).to_bytes(_LENGTH_BYTES, "little"), header, *arrays])


def decode_features(data: bytes) -> dict[str, NDArray[np.float16]]:
    """Returns read-only arrays over bytes from `encode_features`."""
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = msgspec.msgpack.decode(data[_LENGTH_BYTES:start], type=list[tuple[str, tuple[int, int]]])
    features = {}
    for name, (rows, width) in header:
        features[name] = np.frombuffer(data, _DTYPE, rows * width, start).reshape(rows, width)
        start += rows * width * _DTYPE.itemsize
    return features


def read_features(objects: Objects, key: str) -> dict[str, NDArray[np.float16]]:
    """Returns the features that are stored under a key.

    Raises:
        ObjectMissingError: The features are missing, or were damaged: they can be computed again.
    """
    try:
        return decode_features(objects.get(key))
    except CorruptError as error:
        _log.warning("features are computed again: %s", error.message)
        objects.delete([key])
        raise ObjectMissingError(key) from None
