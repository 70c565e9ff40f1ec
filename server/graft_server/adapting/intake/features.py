"""The features of a stream's examples, computed after the acknowledgement and stored next to the examples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.caller import behind
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Input
from graft_server.domain.views import POOLED
from graft_server.encoding.queueing import Lane
from graft_server.encoding.trunk import Trunk
from graft_server.sharing.background import survived
from graft_server.store.adaptations.features import Features
from graft_server.store.adaptations.segments import Segment
from graft_server.store.adaptations.store import AdaptationStore

STORED_TYPE = "float16"

_log = logging.getLogger(__name__)


OnFeatures = Callable[[Segment, Features], None]


class FeatureWriter:
    """Computes the features of one adaptation's segments, behind the stream."""

    def __init__(
        self, store: AdaptationStore, trunk: Trunk, on_features: OnFeatures = lambda _segment, _features: None
    ) -> None:
        """Computes with the trunk, for `store`; calls `on_features` with segments whose features are stored."""
        self._store = store
        self._trunk = trunk
        self._caller = behind(f"{store.model}/{store.adaptation_id}")
        self._on_features = on_features
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether features are being computed."""
        return bool(self._tasks)

    def follow(self, segment: Segment, on_done: Callable[[], None]) -> None:
        """Computes the segment's features in the background; calls `on_done` at the end, whether it succeeds or not."""
        task = asyncio.create_task(self._follow(segment))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: on_done())

    async def complete(self, on_progress: Callable[[int, int], None]) -> None:
        """Returns when every segment has its features, computing those that were lost.

        Args:
            on_progress: Called with the number of finished segments, and of all.
        """
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        missing = await asyncio.to_thread(self._store.missing_features, self._trunk.encoder_id)
        for done, (writer_id, ordinal) in enumerate(missing):
            on_progress(done, len(missing))
            segment = await asyncio.to_thread(self._store.segment, writer_id, ordinal)
            await self._embed(segment)

    async def close(self) -> None:
        """Drops pending features; they are computed when they are needed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, segment: Segment) -> None:
        # Features are derived: `complete` computes them when they are needed, and fails if it must.
        await survived(self._embed(segment), "computing the features of a segment", _log)

    async def _embed(self, segment: Segment) -> None:
        upserts = segment.upserts
        features: Features = {}
        truncated = np.zeros(len(upserts), bool)
        if upserts:
            inputs = [example.input for example in upserts]
            parts = await self._trunk.in_turns(self._caller, inputs, self._features)
            back = np.argsort([place for places, _ in parts for place in places])
            joined = _joined([part for _, (part, _) in parts])
            features = {view: array[back] for view, array in joined.items()}
            truncated = np.concatenate([cut for _, (_, cut) in parts])[back]
        counts = await asyncio.to_thread(
            self._store.write_features, segment, self._trunk.encoder_id, features, truncated
        )
        if counts:
            self._on_features(segment, features)

    async def _features(self, inputs: Sequence[Input]) -> tuple[Features, NDArray[np.bool_]]:
        """Returns features of n >= 1 inputs, and whether each is longer than the backbone reads.

        A row that can no longer be prepared, or on which the encoder fails, is NaN: no head reads it.
        """
        prepared = await self._trunk.prepare_all(inputs, self._caller)
        truncated = np.array([not isinstance(it, InvalidError) and it.truncated for it in prepared])
        good = [row for row, it in enumerate(prepared) if not isinstance(it, InvalidError)]
        if not good:
            return self._nothing(len(inputs)), truncated
        encoded = await self._trunk.encode(
            [it for it in prepared if not isinstance(it, InvalidError)],
            lane=Lane.ADAPT,
            caller=self._caller,
        )
        for place, error in encoded.faults.items():
            _log.warning("an example of %s has no features: %s", self._store.model, error.message)
            truncated[good[place]] = False
        kept = [place for place in range(len(good)) if place not in encoded.faults]
        if not kept:
            return self._nothing(len(inputs)), truncated
        features = {view: array.astype(STORED_TYPE)[kept] for view, array in encoded.arrays.items()}
        return _spread(features, [good[place] for place in kept], len(inputs)), truncated

    def _nothing(self, count: int) -> Features:
        """Returns features of rows that have none."""
        return {POOLED: np.full((count, self._trunk.backbone.dimension), np.nan, STORED_TYPE)}


def _joined(parts: Sequence[Features]) -> Features:
    """Returns the rows of all parts; NaN where a part lacks a view, because no input of it could be prepared."""
    if len(parts) == 1:
        return parts[0]
    counts = [len(next(iter(part.values()))) for part in parts]
    widths = {view: array.shape[1] for part in parts for view, array in part.items()}
    return {
        view: np.concatenate(
            [
                part.get(view, np.full((count, width), np.nan, STORED_TYPE))
                for part, count in zip(parts, counts, strict=True)
            ]
        )
        for view, width in widths.items()
    }


def _spread(features: Features, rows: Sequence[int], count: int) -> Features:
    """Returns features of `count` rows: the given ones at `rows`, NaN elsewhere."""
    if len(rows) == count:
        return features
    spread = {view: np.full((count, array.shape[1]), np.nan, STORED_TYPE) for view, array in features.items()}
    for view, array in features.items():
        spread[view][list(rows)] = array
    return spread
