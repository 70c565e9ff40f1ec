"""A head as bytes: MessagePack with raw arrays. Self-describing, so that old versions stay readable.

It carries no digest: the store seals what it keeps.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.errors import CorruptError
from graft_server.heads.head import Head, KernelMap, LinearMap, Map, Member
from graft_server.heads.novelty import Novelty

FORMAT = 1


class _Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class _Linear(msgspec.Struct, frozen=True, tag="linear"):
    weight: _Array
    bias: _Array


class _Kernel(msgspec.Struct, frozen=True, tag="kernel"):
    landmarks: _Array
    gamma: float
    weight: _Array
    bias: _Array
    softness: float


class _Member(msgspec.Struct, frozen=True):
    map: _Linear | _Kernel
    temperature: float
    share: float


class _Novelty(msgspec.Struct, frozen=True):
    anchors: _Array
    logit_scale: float
    similarity_scale: float
    knots: _Array
    shares: _Array


class _Head(msgspec.Struct, frozen=True):
    format: int
    kind: str
    view: str
    members: tuple[_Member, ...]
    temperature: float
    novelty: _Novelty


def encode(head: Head) -> bytes:
    """The head as bytes."""
    novelty = head.novelty
    stored = _Head(
        format=FORMAT,
        kind=head.kind,
        view=head.view,
        members=tuple(
            _Member(_pack_map(member.map), member.temperature, member.share) for member in head.members
        ),
        temperature=head.temperature,
        novelty=_Novelty(
            _pack(novelty.anchors),
            novelty.logit_scale,
            novelty.similarity_scale,
            _pack(novelty.knots),
            _pack(novelty.shares),
        ),
    )
    return msgspec.msgpack.encode(stored)


def decode(data: bytes) -> Head:
    """The head of bytes that `encode` made; raises CorruptError on others."""
    try:
        stored = msgspec.msgpack.decode(data, type=_Head)
        _require(stored.format == FORMAT, "format and release")
        members = tuple(
            Member(_unpack_map(member.map), _positive(member.temperature), _positive(member.share))
            for member in stored.members
        )
        novelty = _unpack_novelty(stored.novelty)
        _require(len(members) > 0, "members")
        shapes = {(member.map.dimension, member.map.bias.shape) for member in members}
        _require(len(shapes) == 1 and members[0].map.dimension == novelty.anchors.shape[1], "members")
        return Head(stored.kind, stored.view, members, _positive(stored.temperature), novelty)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise CorruptError("A stored head cannot be read.", reason="HEAD_CORRUPT") from error


def _pack_map(of: Map) -> _Linear | _Kernel:
    if isinstance(of, LinearMap):
        return _Linear(_pack(of.weight), _pack(of.bias))
    return _Kernel(_pack(of.landmarks), of.gamma, _pack(of.weight), _pack(of.bias), of.softness)


def _unpack_map(stored: _Linear | _Kernel) -> Map:
    weight, bias = _unpack(stored.weight), _unpack(stored.bias)
    _require(weight.ndim == 2 and bias.shape == weight.shape[1:], "weight and bias")
    if isinstance(stored, _Linear):
        return LinearMap(weight, bias)
    landmarks = _unpack(stored.landmarks)
    _require(landmarks.ndim == 2 and len(landmarks) == len(weight), "landmarks and weight")
    return KernelMap(landmarks, _positive(stored.gamma), weight, bias, _positive(stored.softness))


def _unpack_novelty(stored: _Novelty) -> Novelty:
    anchors, knots, shares = _unpack(stored.anchors), _unpack(stored.knots), _unpack(stored.shares)
    _require(anchors.ndim == 2 and len(anchors) > 0, "anchors")
    _require(knots.ndim == 1 and len(knots) > 1 and knots.shape == shares.shape, "knots and shares")
    return Novelty(anchors, _positive(stored.logit_scale), _positive(stored.similarity_scale), knots, shares)


def _positive(value: float) -> float:
    _require(math.isfinite(value) and value > 0, "a positive number and what is stored")
    return value


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} do not fit together")


def _pack(array: NDArray[Any]) -> _Array:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return _Array(little.dtype.str, array.shape, little.tobytes())


def _unpack(array: _Array) -> NDArray[Any]:
    _require(array.dtype in {"<f2", "<f4"}, "dtype and release")
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)
