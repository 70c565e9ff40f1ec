"""What the jobs of a tuning hand each other, as objects of the store.

The job that finds the frozen head chooses the examples and says what part each plays (`TuningSet`); the one that
tunes leaves the tuned layers, their features of all examples, and the head (`TunedParts`); the last one makes a
version of them. Inputs are never copied: whoever needs them reads the examples themselves.

All of it can be made again, and is deleted with the tuning: see `tunings`.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.cross_fitted import nothing_to_gain
from graft_server.domain.report import TuningObjective
from graft_server.store.objects.formats import FIRST, require_format
from graft_server.store.objects.objects import Objects

Array = NDArray[np.float32]


class Part(IntEnum):
    """Which part an example plays."""

    TRAIN = 0
    STOP = 1
    """Held out, to see when to stop."""
    MEASURE = 2
    """Held out, to measure what came out of it: nothing was chosen on these."""
    LEFT_OUT = 3
    """Marked for validation, or without weight."""


@dataclass(frozen=True, slots=True, eq=False)
class TuningSet:
    """The n examples of a tuning, without their inputs. Row i of everything is example i."""

    ids: tuple[str, ...]
    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    part: NDArray[np.int8]
    """shape (n,): a `Part` each."""
    validation: NDArray[np.bool_]
    """Which ones are marked for validation, and count."""
    head: tuple[Array, Array]
    """Weight, shape (d, k), and bias, shape (k,), of the head to start from, calibrated."""
    frozen: Array
    """shape (m, k): what the frozen head says of the examples to measure on, without having seen them."""
    bound: NDArray[np.int64] | None = None
    """shape (n,): equal for examples that are copies of each other or of one group; None where nobody wrote it."""
    fold_of: NDArray[np.int32] | None = None
    """shape (n,): the fold of cross-fitting in which each is held out, from 0; -1: left out. None: there are too few
    examples for a contrastive tuning, or so many that it is none's turn."""
    out_of_fold: Array | None = None
    """shape (n, k): what the frozen head says of each example without having seen it; rows that are left out are 0.
    None together with `fold_of`."""
    soft: Array | None = None
    """shape (n, k): the targets, where some are distributions."""
    names: tuple[str, ...] = ()
    """The label of each class, in words, with its description if it has one; () where nobody wrote them."""

    @property
    def objectives(self) -> tuple[TuningObjective, ...]:
        """What a tuning of them may learn by."""
        suits = {
            TuningObjective.CONTRASTIVE: self.fold_of is not None,
            TuningObjective.CROSS_ENTROPY: bool((self.part == Part.MEASURE).any()),
        }
        return tuple(it for it, does in suits.items() if does)

    @property
    def nothing_to_gain(self) -> bool:
        """Whether a contrastive tuning could not show that it is better than the frozen head."""
        if self.fold_of is None or self.out_of_fold is None:
            return False
        return nothing_to_gain(self.out_of_fold, self.labels, self.fold_of)

    @property
    def together(self) -> NDArray[np.int64]:
        """`bound`, or where nobody wrote it each example for itself."""
        return np.arange(len(self.labels)) if self.bound is None else self.bound

    def write(self, objects: Objects, folder: str) -> str:
        """Creates the object, and returns its key."""
        weight, bias = self.head
        arrays: dict[str, NDArray[Any]] = {
            "ids": np.frombuffer(json.dumps(self.ids).encode(), np.uint8),
            "labels": self.labels,
            "weights": self.weights,
            "part": self.part,
            "validation": self.validation,
            "weight": weight,
            "bias": bias,
            "frozen": self.frozen,
        }
        optional = {
            "bound": self.bound,
            "fold_of": self.fold_of,
            "out_of_fold": self.out_of_fold,
            "soft": self.soft,
        }
        arrays.update({name: it for name, it in optional.items() if it is not None})
        if self.names:
            arrays["names"] = np.frombuffer(json.dumps(self.names).encode(), np.uint8)
        return _create(objects, folder, "examples.npz", _packed(arrays))

    @classmethod
    def read(cls, objects: Objects, key: str) -> TuningSet:
        """Reads the object. Raises ObjectMissingError or CorruptError."""
        found = _unpacked(objects, key)
        ids = tuple(json.loads(found.pop("ids").tobytes()))
        head = found.pop("weight"), found.pop("bias")
        names = found.pop("names", None)
        named = () if names is None else tuple(json.loads(names.tobytes()))
        return cls(
            ids=ids,
            head=head,
            names=named,
            **{name: it for name, it in found.items() if name in cls.__slots__},
        )


@dataclass(frozen=True, slots=True, eq=False)
class TunedParts:
    """What a tuning made, but for the tuned graph, which may be large and lies beside it."""

    features: NDArray[np.float16]
    """shape (n, d): the tuned graph's features of all examples; shape (0, d), where cross-fitting showed a loss, so
    that there is no graph."""
    head: tuple[Array, Array]
    """The head that was tuned along: weight, shape (d, k), and bias, shape (k,)."""
    top_bytes: int = 0
    """The size of the tuned graph."""
    by_fold: NDArray[np.float16] | None = None
    """shape (f, n, d): features of all examples by a backbone that was tuned without fold 0, 1 to f - 1; None: none
    was held out so."""

    rank: int = 0
    """Of the adapter that the tuned graph can be cut down to, and which lies beside it too; 0: there is none."""
    compressed: NDArray[np.float16] | None = None
    """shape (n, d): the adapter's features of all examples."""
    compressed_by_fold: NDArray[np.float16] | None = None
    """shape (f, n, d): as `by_fold`, by what those trainings were cut down to."""
    adapter_bytes: int = 0
    """The adapter's size."""

    @property
    def cut_down(self) -> TunedParts | None:
        """The same of the adapter alone; None if there is none, or where not every fold says what it is worth."""
        if not self.rank or self.compressed is None:
            return None
        if (self.by_fold is None) is not (self.compressed_by_fold is None):
            return None
        return TunedParts(self.compressed, self.head, self.adapter_bytes, self.compressed_by_fold)

    def write(self, objects: Objects, folder: str, top: bytes, adapter: bytes = b"") -> str:
        """Creates the objects, and returns the key of this one.

        Args:
            objects: The store.
            folder: The prefix of the tuning's objects.
            top: The tuned graph: from the hidden states at the cut, or from the encoder's inputs, to "pooled"; b"":
                there is none.
            adapter: What it can be cut down to; b"": nothing.
        """
        weight, bias = self.head
        arrays: dict[str, NDArray[Any]] = {
            "features": self.features,
            "weight": weight,
            "bias": bias,
            "top_bytes": np.array(len(top)),
        }
        optional = {
            "by_fold": self.by_fold,
            "compressed": self.compressed,
            "compressed_by_fold": self.compressed_by_fold,
        }
        arrays.update({name: it for name, it in optional.items() if it is not None})
        if adapter:
            arrays |= {"rank": np.array(self.rank), "adapter_bytes": np.array(len(adapter))}
        key = _create(objects, folder, "tuned.npz", _packed(arrays))
        if top:
            objects.create(_top_key(key), top, lasting=False)
        if adapter:
            objects.create(_adapter_key(key), adapter, lasting=False)
        return key

    @classmethod
    def read(cls, objects: Objects, key: str) -> TunedParts:
        """Reads the object. Raises ObjectMissingError or CorruptError."""
        found = _unpacked(objects, key)
        head = found["weight"], found["bias"]
        return cls(
            found["features"],
            head,
            int(found["top_bytes"]),
            found.get("by_fold"),
            int(found.get("rank", 0)),
            found.get("compressed"),
            found.get("compressed_by_fold"),
            int(found.get("adapter_bytes", 0)),
        )


def read_top(objects: Objects, key: str) -> bytes:
    """Reads the tuned graph that lies beside `TunedParts`. Raises ObjectMissingError or CorruptError."""
    return objects.get(_top_key(key))


def read_adapter(objects: Objects, key: str) -> bytes:
    """Reads the adapter that lies beside `TunedParts`. Raises ObjectMissingError or CorruptError."""
    return objects.get(_adapter_key(key))


def write_probabilities(objects: Objects, folder: str, probabilities: Array) -> str:
    """Creates an object of what a tuned version says of the examples to measure on, and returns its key.

    Args:
        objects: The store.
        folder: The prefix of the tuning's objects.
        probabilities: shape (m, k).
    """
    return _create(objects, folder, "measured.npz", _packed({"probabilities": probabilities}))


def read_probabilities(objects: Objects, key: str) -> Array:
    """Reads what `write_probabilities` wrote, shape (m, k). Raises ObjectMissingError or CorruptError."""
    return _unpacked(objects, key)["probabilities"]


def _create(objects: Objects, folder: str, name: str, data: bytes) -> str:
    """A job that runs twice makes two: whoever asked knows which one counts."""
    key = f"{folder}{secrets.token_hex(8)}/{name}"
    objects.create(key, data, lasting=False)
    return key


def _top_key(key: str) -> str:
    return key.rpartition("/")[0] + "/top.onnx"


def _adapter_key(key: str) -> str:
    return key.rpartition("/")[0] + "/adapter.npz"


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays, format=np.array(FIRST))
    return data.getvalue()


def _unpacked(objects: Objects, key: str) -> dict[str, NDArray[Any]]:
    """Reads the arrays of an object. Raises ObjectMissingError, CorruptError or NewerError."""
    found = dict(np.load(io.BytesIO(objects.get(key))))
    require_format(key, int(found.pop("format", 1)))
    return found
