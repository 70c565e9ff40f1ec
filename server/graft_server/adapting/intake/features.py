"""The features of a stream's examples, computed after the acknowledgement and stored next to the examples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter

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


def unheard(_left: int) -> None:
    """Tells nobody."""


class FeatureWriter:
    """Computes the features of one adaptation's segments, behind the stream.

    Attributes:
        taken: How many examples it was given so far.
        encoded: With how many of them it is done, whether or not they have features.
    """

    def __init__(
        self, store: AdaptationStore, trunk: Trunk, on_features: OnFeatures = lambda _segment, _features: None
    ) -> None:
        """Computes with the trunk, for `store`; calls `on_features` with segments whose features are stored."""
        self._store = store
        self._trunk = trunk
        self._caller = behind(f"{store.model}/{store.adaptation_id}")
        self._on_features = on_features
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_encoded: list[Callable[[], None]] = []
        self.taken = 0
        self.encoded = 0

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

    def watch(self, on_encoded: Callable[[], None]) -> None:
        """Has `on_encoded` called whenever examples come, or a part of them has been encoded."""
        self._on_encoded.append(on_encoded)

    @contextmanager
    def watched(self, on_encoded: Callable[[], None]) -> Iterator[None]:
        """Watches for as long as the block runs."""
        self.watch(on_encoded)
        try:
            yield
        finally:
            self._on_encoded.remove(on_encoded)

    async def complete(self, on_left: Callable[[int], None] = unheard) -> None:
        """Returns when every segment has its features, computing those that were lost.

        Args:
            on_left: Told how many changes still lack features, as far as that is known.
        """
        if self._tasks:
            with self.watched(lambda: on_left(self.taken - self.encoded)):
                await asyncio.wait(set(self._tasks))
        missing = await asyncio.to_thread(self._store.missing_features, self._trunk.encoder_id)
        if not missing:
            return
        left = await asyncio.to_thread(self._store.read_positions)
        left = {writer_id: left.get(writer_id, 0) for writer_id, _ in missing}
        for writer_id, segments in groupby(missing, key=itemgetter(0)):
            end = left[writer_id]
            for _, ordinal in segments:
                on_left(sum(left.values()))
                segment = await asyncio.to_thread(self._store.segment, writer_id, ordinal)
                # What is not missing needs no more than the number of the first that is.
                left[writer_id] = max(end - segment.first_sequence, 0)
                lacking = sum(left.values()) + self.encoded
                with self.watched(lambda lacking=lacking: on_left(max(lacking - self.encoded, 0))):  # type: ignore[misc]
                    await self._embed(segment)
                left[writer_id] = max(end - segment.next_sequence, 0)
            left[writer_id] = 0

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
            parts = await self._counted(inputs)
            back = np.argsort([place for places, _ in parts for place in places])
            joined = _joined([part for _, (part, _) in parts])
            features = {view: array[back] for view, array in joined.items()}
            truncated = np.concatenate([cut for _, (_, cut) in parts])[back]
        counts = await asyncio.to_thread(
            self._store.write_features, segment, self._trunk.encoder_id, features, truncated
        )
        if counts:
            self._on_features(segment, features)

    async def _counted(
        self, inputs: Sequence[Input]
    ) -> list[tuple[list[int], tuple[Features, NDArray[np.bool_]]]]:
        """Returns the features of inputs, part by part, and counts them as they come."""
        self.taken += len(inputs)
        self._count(0)
        left = len(inputs)

        async def counted(part: Sequence[Input]) -> tuple[Features, NDArray[np.bool_]]:
            nonlocal left
            found = await self._features(part)
            left -= len(part)
            self._count(len(part))
            return found

        try:
            return await self._trunk.in_turns(self._caller, inputs, counted)
        finally:
            self._count(left)  # those of which nothing comes

    def _count(self, count: int) -> None:
        self.encoded += count
        for told in list(self._on_encoded):
            told()

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
