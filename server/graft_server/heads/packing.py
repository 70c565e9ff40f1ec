"""The parts of heads as they are stored: structures of raw arrays. Readers check that they fit together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import KernelMap, LinearMap, Map
from graft_server.heads.novelty import Novelty

FORMAT = 1


class StoredArray(msgspec.Struct, frozen=True):
    """An array, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class StoredLinear(msgspec.Struct, frozen=True, tag="linear"):
    """A `LinearMap`."""

    weight: StoredArray
    bias: StoredArray


class StoredKernel(msgspec.Struct, frozen=True, tag="kernel"):
    """A `KernelMap`."""

    landmarks: StoredArray
    gamma: float
    weight: StoredArray
    bias: StoredArray
    softness: float


StoredMap = StoredLinear | StoredKernel


class StoredNovelty(msgspec.Struct, frozen=True):
    """A `Novelty`."""

    anchors: StoredArray
    logit_scale: float
    similarity_scale: float
    knots: StoredArray
    shares: StoredArray


def require(holds: bool, what: str) -> None:
    """Raises ValueError unless the parts that were read fit together."""
    if not holds:
        raise ValueError(f"{what} do not fit together")


def require_alike(maps: Sequence[Map], novelty: Novelty) -> None:
    """Raises ValueError unless the maps, at least one, have one shape and read the same features as the novelty."""
    shapes = {(one.dimension, one.bias.shape) for one in maps}
    require(len(shapes) == 1 and maps[0].dimension == novelty.anchors.shape[1], "maps")


def positive(value: float) -> float:
    """Returns the number; raises ValueError unless it is finite and above 0."""
    require(math.isfinite(value) and value > 0, "a positive number and what is stored")
    return value


def pack_array(array: NDArray[Any]) -> StoredArray:
    """An array as it is stored."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return StoredArray(little.dtype.str, array.shape, little.tobytes())


def unpack_array(array: StoredArray) -> NDArray[Any]:
    """The reverse of `pack_array`, of float16 and float32 alone."""
    require(array.dtype in {"<f2", "<f4"}, "dtype and release")
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)


def pack_map(of: Map) -> StoredMap:
    """A map as it is stored."""
    if isinstance(of, LinearMap):
        return pack_linear(of)
    return StoredKernel(
        pack_array(of.landmarks), of.gamma, pack_array(of.weight), pack_array(of.bias), of.softness
    )


def pack_linear(of: LinearMap) -> StoredLinear:
    """A linear map as it is stored."""
    return StoredLinear(pack_array(of.weight), pack_array(of.bias))


def unpack_map(stored: StoredMap) -> Map:
    """The reverse of `pack_map`."""
    if isinstance(stored, StoredLinear):
        return unpack_linear(stored)
    weight, bias = _unpack_weights(stored)
    landmarks = unpack_array(stored.landmarks)
    require(landmarks.ndim == 2 and len(landmarks) == len(weight), "landmarks and weight")
    return KernelMap(landmarks, positive(stored.gamma), weight, bias, positive(stored.softness))


def unpack_linear(stored: StoredLinear) -> LinearMap:
    """The reverse of `pack_linear`."""
    return LinearMap(*_unpack_weights(stored))


def pack_novelty(novelty: Novelty) -> StoredNovelty:
    """A novelty as it is stored."""
    return StoredNovelty(
        pack_array(novelty.anchors),
        novelty.logit_scale,
        novelty.similarity_scale,
        pack_array(novelty.knots),
        pack_array(novelty.shares),
    )


def unpack_novelty(stored: StoredNovelty) -> Novelty:
    """The reverse of `pack_novelty`."""
    anchors, knots, shares = map(unpack_array, (stored.anchors, stored.knots, stored.shares))
    require(anchors.ndim == 2 and len(anchors) > 0, "anchors")
    require(knots.ndim == 1 and len(knots) > 1 and knots.shape == shares.shape, "knots and shares")
    return Novelty(anchors, positive(stored.logit_scale), positive(stored.similarity_scale), knots, shares)


def _unpack_weights(stored: StoredMap) -> tuple[NDArray[Any], NDArray[Any]]:
    weight, bias = unpack_array(stored.weight), unpack_array(stored.bias)
    require(weight.ndim == 2 and bias.shape == weight.shape[1:], "weight and bias")
    return weight, bias
