"""Encoding for models with tuned layers: the layers below the cut are computed once for all rows of a batch.

Rows of such models share a batch with rows of models on the frozen backbone. They go through the lower
layers together; then each row goes through the upper layers of its own model. A model whose layers were all
tuned shares only the batch's place in the queue.

Where a model's tuned layers are an adapter (see `graphs.adapters`), they are the frozen ones and what is added to
them: rows of all adapters at a cut, and of the frozen backbone, go through the upper layers together too.

Graphs of tuned layers take megabytes, not kilobytes as heads do, so only requested ones are kept
loaded, within a budget. Loading happens on a thread, beside the encoder: only requests for that model wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.graphs.adapters import Adapter, in_lanes, places_of, room_of
from graft_server.backbones.graphs.cache import HIDDEN
from graft_server.backbones.preprocessing import Arrays, Preprocessor
from graft_server.backbones.text.preprocessor import is_packed
from graft_server.domain.errors import BackboneError
from graft_server.encoding.encoder import NOT_FINITE, Encoder, Features, open_session, run_bound
from graft_server.onnx_runtime import onnxruntime

_log = logging.getLogger(__name__)

MEMORY_FACTOR = 2.0
"""The memory of a loaded graph over its size: the runtime keeps the weights a second time, packed for the processor."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class TunedLayersRef:
    """A version's tuned layers, loaded or not."""

    key: str
    """Unique in the store."""
    below: int
    """The number of the backbone's layers below them; 0: none."""
    read: Callable[[], bytes]
    """Reads the graph, or the adapter; may raise DomainError."""
    adapted: bool = False
    """Whether it is an adapter."""


class GraphPart:
    """A session over a part of an encoder's graph."""

    def __init__(self, graph: Path | bytes, *, device: str, threads: int) -> None:
        """Loads the graph; see `Encoder`."""
        self._session, self._device = open_session(graph, device, threads)
        self.products = room_of({it.name: it.shape for it in self._session.get_inputs()})
        """The products that have room for adapters: key to (in, out)."""
        self._inputs = {it.name: it.type for it in self._session.get_inputs()}
        self._outputs = [it.name for it in self._session.get_outputs()]

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the outputs by name, from the arrays that the graph reads. Raises BackboneError."""
        inputs = {name: arrays[name] for name in self._inputs}
        if HIDDEN in inputs:
            half = self._inputs[HIDDEN] == "tensor(float16)"
            inputs[HIDDEN] = inputs[HIDDEN].astype(np.float16 if half else np.float32, copy=False)
        try:
            found = _run(self._session, inputs, self._device)
        except Exception as error:
            _log.exception("a part of the encoder failed")
            raise BackboneError(
                "The encoder failed; the server's log has the details. Try again later.",
                reason="ENCODER_FAILED",
            ) from error
        return dict(zip(self._outputs, found, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class TunedLayers:
    """Tuned layers, loaded."""

    below: int
    part: GraphPart | Adapter
    """What runs for them alone, or what is added to the layers that all share."""


def _run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], device: str) -> Sequence[Array]:
    if device == "cuda":
        return run_bound(session, inputs, device)
    found: Sequence[Array] = session.run(None, inputs)
    return found


class TunedLayersCache:
    """The loaded tuned layers. Belongs to one event loop."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._loaded: OrderedDict[str, tuple[TunedLayers, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[TunedLayers]] = {}
        self._loaded_at: dict[str, float] = {}
        """When each of the loaded ones was loaded."""

    @property
    def loaded(self) -> list[str]:
        """The keys of the loaded layers, the most recently used last."""
        return list(self._loaded)

    async def get(self, ref: TunedLayersRef, open_graph: Callable[[bytes], GraphPart]) -> TunedLayers:
        """Returns tuned layers, loaded if need be; the least recently used ones make room.

        A holder of a `TunedLayers` can keep using it: its memory is freed once there is no holder.

        Raises:
            DomainError: The layers cannot be read or loaded.
        """
        known = self._loaded.get(ref.key)
        if known is not None:
            self._loaded.move_to_end(ref.key)
            return known[0]
        task = self._loading.get(ref.key)
        if task is None:
            task = asyncio.create_task(self._load(ref, open_graph))
            self._loading[ref.key] = task
            task.add_done_callback(lambda _: self._loading.pop(ref.key, None))
        return await asyncio.shield(task)

    def renew(self, key: str, least_s: float) -> bool:
        """Has layers that failed loaded anew when they are next used, at most every `least_s` seconds.

        Returns:
            Whether they will be.
        """
        if key not in self._loaded or time.monotonic() - self._loaded_at.get(key, -math.inf) < least_s:
            return False
        self.forget(key)
        return True

    def forget(self, key: str) -> None:
        """Unloads layers whose version was deleted."""
        self._loaded.pop(key, None)
        self._loaded_at.pop(key, None)

    async def _load(self, ref: TunedLayersRef, open_graph: Callable[[bytes], GraphPart]) -> TunedLayers:
        data = await asyncio.to_thread(ref.read)
        part: GraphPart | Adapter
        if ref.adapted:
            part = await asyncio.to_thread(Adapter.decode, ref.key, data)
            size = part.nbytes
        else:
            part = await asyncio.to_thread(open_graph, data)
            size = round(MEMORY_FACTOR * len(data))
        tuned = TunedLayers(ref.below, part)
        self._loaded[ref.key] = tuned, size
        self._loaded_at[ref.key] = time.monotonic()
        while len(self._loaded) > 1 and sum(size for _, size in self._loaded.values()) > self._budget:
            key = next(iter(self._loaded))
            self.forget(key)
            _log.info("tuned layers %s were unloaded to make room", key)
        return tuned


class SplitEncoder:
    """An encoder, its cuts, and batches whose rows separate at them. `encode…` may be called from several threads."""

    def __init__(self, encoder: Encoder | Any, preprocessor: Preprocessor) -> None:
        """Wraps an encoder of the whole frozen backbone, and the preprocessor that collates its items."""
        self._encoder = encoder
        self._collate = preprocessor.collate
        self._packed = is_packed(preprocessor)
        self._cuts: dict[int, tuple[GraphPart, GraphPart]] = {}
        self._adapted: dict[int, GraphPart] = {}
        """What is above a cut, or for 0 all of it, with room for adapters."""
        self._expired: set[int] = set()
        self._expired_adapted: set[int] = set()

    def has_adapted(self, layer: int) -> bool:
        """Whether the part above a cut with room for adapters is loaded, and not to be loaded anew."""
        return layer in self._adapted and layer not in self._expired_adapted

    def add_adapted(self, layer: int, part: GraphPart) -> None:
        """Puts the part above a cut with room for adapters in service."""
        self._adapted[layer] = part
        self._expired_adapted.discard(layer)

    def has_cut(self, layer: int) -> bool:
        """Whether the parts below and above a cut are loaded, and not to be loaded anew."""
        return layer in self._cuts and layer not in self._expired

    def expire_cut(self, layer: int) -> None:
        """Has the parts below and above a cut loaded anew before they are next asked for; until then they stay."""
        self._expired.add(layer)
        self._expired_adapted.add(layer)

    def add_cut(self, layer: int, below: GraphPart, above: GraphPart) -> None:
        """Puts the parts below and above a cut in service."""
        self._cuts[layer] = below, above
        self._expired.discard(layer)

    def encode(self, items: Sequence[Any]) -> Features:
        """Encodes all rows with the frozen backbone; see `Encoder.encode`."""
        features: Features = self._encoder.encode(items)
        return features

    def encode_by(self, tuned: TunedLayers, items: Sequence[Any]) -> Features:
        """Encodes all rows with the same tuned layers; see `encode_with`."""
        return self.encode_with(items, {tuned: np.arange(len(items))})[tuned]

    def encode_with(
        self, items: Sequence[Any], rows_of: Mapping[TunedLayers | None, NDArray[np.int64]]
    ) -> dict[TunedLayers | None, Features]:
        """Encodes each row with its own upper layers.

        Args:
            items: The preprocessor's items.
            rows_of: Tuned layers to the rows that go through them; None: the frozen ones.

        Returns:
            For each of them, features of shape (items, d), with only its own rows filled.

        Raises:
            BackboneError: The device failed, or a computed feature is not finite.
        """
        by_cut: dict[int, list[TunedLayers | None]] = {}
        for tuned in rows_of:
            if tuned is not None:
                by_cut.setdefault(tuned.below, []).append(tuned)
        frozen = rows_of.get(None)
        shared = max(by_cut)
        together = shared > 0 or any(isinstance(it.part, Adapter) for it in by_cut[0] if it is not None)
        if frozen is not None and together:
            by_cut[shared].append(None)  # they pass the lower layers, or the adapters' graph, in any case
        found: dict[TunedLayers | None, Features] = {}
        for cut, tuned_layers in by_cut.items():
            found |= self._through(cut, items, {tuned: rows_of[tuned] for tuned in tuned_layers})
        if frozen is not None and not together:
            found[None] = _spread(self.encode([items[row] for row in frozen]), frozen, len(items))
        return found

    def _through(
        self, cut: int, items: Sequence[Any], rows_of: Mapping[TunedLayers | None, NDArray[np.int64]]
    ) -> dict[TunedLayers | None, Features]:
        """Encodes rows whose layers begin at the same cut."""
        found: dict[TunedLayers | None, Features] = {}
        passes = _passes(rows_of)
        every = [items[row] for some in passes for it in some for row in rows_of[it]]
        inputs: Arrays = self._collate(every)
        lower: dict[str, Array] = self._cuts[cut][0].run(inputs) if cut else {}
        hidden = lower.pop(HIDDEN, None)
        start = 0
        for some in passes:
            # The rows of one model are adjacent, and those of all adapters.
            rows = np.concatenate([rows_of[it] for it in some])
            end = start + len(rows)
            arrays = self._part(every, inputs, hidden, start, end)
            features = self._run(cut, some, rows_of, every[start:end], arrays)
            if None in some:
                features |= {view: array[start:end] for view, array in lower.items()}
            first = 0
            for tuned in some:
                last = first + len(rows_of[tuned])
                own = {view: array[first:last] for view, array in features.items()}
                found[tuned] = _spread(own, rows_of[tuned], len(items))
                first = last
            start = end
        return found

    def _run(
        self,
        cut: int,
        some: Sequence[TunedLayers | None],
        rows_of: Mapping[TunedLayers | None, NDArray[np.int64]],
        items: Sequence[Any],
        arrays: dict[str, Array],
    ) -> dict[str, Array]:
        """What the layers above a cut make of the rows of one model, or of several that have adapters."""
        adapters = [_adapter(it) for it in some]
        if not any(adapters):
            (tuned,) = some
            part = self._cuts[cut][1] if tuned is None else tuned.part
            return cast("GraphPart", part).run(arrays)
        part = self._adapted[cut]
        each = places_of(items, arrays, packed=self._packed)
        ends = np.cumsum([0, *(len(rows_of[it]) for it in some)])
        places = [sum(each[start:end]) for start, end in pairwise(ends)]
        return part.run({**arrays, **in_lanes(adapters, places, part.products)})

    def _part(
        self, items: Sequence[Any], inputs: Arrays, hidden: Array | None, start: int, end: int
    ) -> dict[str, Array]:
        """Returns the inputs of a graph above the cut for some adjacent rows."""
        if len(items) == end - start:
            return {**inputs} if hidden is None else {**inputs, HIDDEN: hidden}
        if hidden is None:
            return {**self._collate(items[start:end])}
        if not self._packed:
            return {name: array[start:end] for name, array in inputs.items()} | {HIDDEN: hidden[start:end]}
        before = sum(map(len, items[:start]))
        tokens = slice(before, before + sum(map(len, items[start:end])))
        return {**self._collate(items[start:end]), HIDDEN: hidden[:, tokens]}


def _passes(
    rows_of: Mapping[TunedLayers | None, NDArray[np.int64]],
) -> list[list[TunedLayers | None]]:
    """What goes through the upper layers together, in the order of the rows: frozen ones go with adapters."""
    adapted = [it for it in rows_of if _adapter(it) is not None]
    if not adapted:
        return [[it] for it in rows_of]
    together: list[TunedLayers | None] = [*adapted, *(it for it in rows_of if it is None)]
    return [together, *([it] for it in rows_of if it not in together)]


def _adapter(tuned: TunedLayers | None) -> Adapter | None:
    return tuned.part if tuned is not None and isinstance(tuned.part, Adapter) else None


def _spread(features: Mapping[str, Array], rows: NDArray[np.int64], count: int) -> Features:
    """Returns features of some rows of a batch, at their places among all rows."""
    if not all(np.isfinite(array).all() for array in features.values()):
        raise BackboneError(
            "The encoder gave features that are not finite numbers. Try again later.",
            reason=NOT_FINITE,
        )
    if len(rows) == count and (rows == np.arange(count)).all():
        return features
    spread = {view: np.zeros((count, array.shape[1]), array.dtype) for view, array in features.items()}
    for view, array in features.items():
        spread[view][rows] = array
    return spread
