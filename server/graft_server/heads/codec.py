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
from graft_server.heads.head import Head, KernelHead, LinearHead
from graft_server.heads.novelty import Novelty

FORMAT = 1


class _Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class _Head(msgspec.Struct, frozen=True):
    format: int
    form: str
    kind: str
    view: str
    temperature: float
    arrays: dict[str, _Array]
    gamma: float = 0.0


def encode(head: Head) -> bytes:
    """The head as bytes."""
    arrays: dict[str, NDArray[Any]] = {"knots": head.novelty.knots, "shares": head.novelty.shares}
    match head:
        case LinearHead():
            form, gamma = "linear", 0.0
            arrays |= {"weight": head.weight, "bias": head.bias}
        case KernelHead():
            form, gamma = "kernel", head.gamma
            arrays |= {"landmarks": head.landmarks, "weight": head.weight, "bias": head.bias}
        case _:
            raise TypeError(f"{type(head).__name__} has no encoding")
    packed = {name: _pack(array) for name, array in arrays.items()}
    return msgspec.msgpack.encode(_Head(FORMAT, form, head.kind, head.view, head.temperature, packed, gamma))


def decode(data: bytes) -> Head:
    """The head of bytes that `encode` made; raises CorruptError on others."""
    try:
        stored = msgspec.msgpack.decode(data, type=_Head)
        _require(stored.format == FORMAT, "format and release")
        return _head(stored, {name: _unpack(array) for name, array in stored.arrays.items()})
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise CorruptError("A stored head cannot be read.", reason="HEAD_CORRUPT") from error


def _head(stored: _Head, arrays: dict[str, NDArray[Any]]) -> Head:
    novelty = Novelty(arrays["knots"], arrays["shares"])
    weight, bias = arrays["weight"], arrays["bias"]
    _require(novelty.knots.ndim == 1 and novelty.knots.shape == novelty.shares.shape, "the novelty's table")
    _require(weight.ndim == 2 and bias.shape == weight.shape[1:], "weight and bias")
    _require(math.isfinite(stored.temperature) and stored.temperature > 0, "the temperature")
    if stored.form == "linear":
        return LinearHead(stored.kind, stored.view, weight, bias, stored.temperature, novelty)
    if stored.form == "kernel":
        landmarks = arrays["landmarks"]
        _require(landmarks.ndim == 2 and len(landmarks) == len(weight), "landmarks and weight")
        return KernelHead(
            stored.kind, stored.view, landmarks, stored.gamma, weight, bias, stored.temperature, novelty
        )
    raise ValueError(f"form {stored.form} is unknown")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} do not fit together")


def _pack(array: NDArray[Any]) -> _Array:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return _Array(little.dtype.str, array.shape, little.tobytes())


def _unpack(array: _Array) -> NDArray[Any]:
    if array.dtype not in {"<f2", "<f4"}:
        raise ValueError(f"arrays of {array.dtype} are unknown")
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)
