"""A head as bytes: MessagePack with raw arrays. Self-describing, so that old versions stay readable.

It carries no digest: the store seals what it keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import CorruptError
from graft_server.domain.examples import Task
from graft_server.heads.head import Head, HeadOutput, KernelMap, LinearMap, Map, Member
from graft_server.heads.multilabel import MultiLabelHead, MultiLabelOutput
from graft_server.heads.novelty import Novelty
from graft_server.heads.regression import RegressionHead, RegressionOutput, Spread

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


class _MultiLabel(msgspec.Struct, frozen=True):
    format: int
    kind: str
    view: str
    maps: tuple[_Linear | _Kernel, ...]
    thresholds: _Array
    at_least_one: bool
    novelty: _Novelty
    task: Task = Task.MULTI_LABEL


class _Spread(msgspec.Struct, frozen=True):
    map: _Linear
    least: float
    most: float


class _Regression(msgspec.Struct, frozen=True):
    format: int
    kind: str
    view: str
    maps: tuple[_Linear | _Kernel, ...]
    below: float
    above: float
    spread: _Spread | None
    novelty: _Novelty
    task: Task = Task.REGRESSION


class _AnyTask(msgspec.Struct, frozen=True):
    """What tells the three apart. Heads of the single-label task were first, and do not say so."""

    format: int
    task: Task = Task.SINGLE_LABEL


AnyHead = Head | MultiLabelHead | RegressionHead
AnyOutput = HeadOutput | MultiLabelOutput | RegressionOutput


def encode(head: AnyHead) -> bytes:
    """The head as bytes."""
    match head:
        case MultiLabelHead():
            return msgspec.msgpack.encode(_pack_multi_label(head))
        case RegressionHead():
            return msgspec.msgpack.encode(_pack_regression(head))
        case _:
            return msgspec.msgpack.encode(_pack_single_label(head))


def decode(data: bytes) -> AnyHead:
    """The head of bytes that `encode` made; raises CorruptError on others."""
    try:
        said = msgspec.msgpack.decode(data, type=_AnyTask)
        _require(said.format == FORMAT, "format and release")
        match said.task:
            case Task.MULTI_LABEL:
                return _unpack_multi_label(msgspec.msgpack.decode(data, type=_MultiLabel))
            case Task.REGRESSION:
                return _unpack_regression(msgspec.msgpack.decode(data, type=_Regression))
            case _:
                return _unpack_single_label(msgspec.msgpack.decode(data, type=_Head))
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise CorruptError("A stored head cannot be read.", reason="HEAD_CORRUPT") from error


def _pack_single_label(head: Head) -> _Head:
    return _Head(
        format=FORMAT,
        kind=head.kind,
        view=head.view,
        members=tuple(
            _Member(_pack_map(member.map), member.temperature, member.share) for member in head.members
        ),
        temperature=head.temperature,
        novelty=_pack_novelty(head.novelty),
    )


def _unpack_single_label(stored: _Head) -> Head:
    members = tuple(
        Member(_unpack_map(member.map), _positive(member.temperature), _positive(member.share))
        for member in stored.members
    )
    novelty = _unpack_novelty(stored.novelty)
    _require_alike([member.map for member in members], novelty)
    return Head(stored.kind, stored.view, members, _positive(stored.temperature), novelty)


def _pack_multi_label(head: MultiLabelHead) -> _MultiLabel:
    return _MultiLabel(
        format=FORMAT,
        kind=head.kind,
        view=head.view,
        maps=tuple(map(_pack_map, head.maps)),
        thresholds=_pack(head.thresholds),
        at_least_one=head.at_least_one,
        novelty=_pack_novelty(head.novelty),
    )


def _unpack_multi_label(stored: _MultiLabel) -> MultiLabelHead:
    maps, novelty = tuple(map(_unpack_map, stored.maps)), _unpack_novelty(stored.novelty)
    thresholds = _unpack(stored.thresholds)
    _require_alike(maps, novelty)
    _require(thresholds.shape == maps[0].bias.shape, "thresholds and maps")
    return MultiLabelHead(stored.kind, stored.view, maps, thresholds, stored.at_least_one, novelty)


def _pack_regression(head: RegressionHead) -> _Regression:
    spread = head.spread
    return _Regression(
        format=FORMAT,
        kind=head.kind,
        view=head.view,
        maps=tuple(map(_pack_map, head.maps)),
        below=head.below,
        above=head.above,
        spread=None if spread is None else _Spread(_pack_linear(spread.map), spread.least, spread.most),
        novelty=_pack_novelty(head.novelty),
    )


def _unpack_regression(stored: _Regression) -> RegressionHead:
    maps, novelty = tuple(map(_unpack_map, stored.maps)), _unpack_novelty(stored.novelty)
    spread = None
    if stored.spread is not None:
        spread = Spread(_unpack_linear(stored.spread.map), _positive(stored.spread.least), stored.spread.most)
    _require_alike([*maps, *([spread.map] if spread else [])], novelty)
    _require(len(maps) > 0 and maps[0].bias.shape == (1,), "maps")
    _require(math.isfinite(stored.below) and math.isfinite(stored.above), "interval")
    return RegressionHead(stored.kind, stored.view, maps, stored.below, stored.above, spread, novelty)


def _require_alike(maps: Sequence[Map], novelty: Novelty) -> None:
    shapes = {(one.dimension, one.bias.shape) for one in maps}
    _require(len(shapes) == 1 and maps[0].dimension == novelty.anchors.shape[1], "maps")


def _pack_novelty(novelty: Novelty) -> _Novelty:
    return _Novelty(
        _pack(novelty.anchors),
        novelty.logit_scale,
        novelty.similarity_scale,
        _pack(novelty.knots),
        _pack(novelty.shares),
    )


def _pack_map(of: Map) -> _Linear | _Kernel:
    if isinstance(of, LinearMap):
        return _pack_linear(of)
    return _Kernel(_pack(of.landmarks), of.gamma, _pack(of.weight), _pack(of.bias), of.softness)


def _pack_linear(of: LinearMap) -> _Linear:
    return _Linear(_pack(of.weight), _pack(of.bias))


def _unpack_linear(stored: _Linear) -> LinearMap:
    return LinearMap(*_unpack_weights(stored))


def _unpack_weights(stored: _Linear | _Kernel) -> tuple[NDArray[Any], NDArray[Any]]:
    weight, bias = _unpack(stored.weight), _unpack(stored.bias)
    _require(weight.ndim == 2 and bias.shape == weight.shape[1:], "weight and bias")
    return weight, bias


def _unpack_map(stored: _Linear | _Kernel) -> Map:
    if isinstance(stored, _Linear):
        return _unpack_linear(stored)
    weight, bias = _unpack_weights(stored)
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
