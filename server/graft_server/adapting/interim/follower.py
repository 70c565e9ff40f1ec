"""The interim head of an open adaptation: it is live a moment after a label arrives, long before a version.

It follows the stored segments, whoever wrote them: this server hands over what it has just encoded, and looks
for what others wrote while somebody asks. It is derived from what is stored, so nothing of it is: after a restart
it is built again from stored features (100,000 rows take seconds), when somebody wants it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.interim.learner import VIEW, FittedHead, Learner, Log, Row
from graft_server.adapting.interim.table import LEARNERS
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.domain.caller import behind
from graft_server.domain.errors import DomainError, FaultError, StateError
from graft_server.domain.examples import Label
from graft_server.domain.names import shown
from graft_server.encoding import encoder
from graft_server.encoding.trunk import Trunk
from graft_server.heads import HeadOutput
from graft_server.heads.head import AnsweringHead
from graft_server.store.adaptations.features import Features
from graft_server.store.adaptations.segments import Segment
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import ObjectMissingError

_log = logging.getLogger(__name__)

LOOK_S = 1.0
"""The seconds between two looks for other servers' segments while requests come in."""
KEPT_S = 600.0
"""How long after the last request it is kept, if no stream of this server feeds it."""
LACKING_S = 2.0
"""How long features of another server's segment are waited for before they are computed here."""
ROUND_S = 0.1
"""How long changes are learned before what was learned so far is shown."""
HANDED_OVER_ROWS = 8_192
"""The most rows that wait in memory to be learned; further rows are read from the store again."""


@dataclass(frozen=True, slots=True, eq=False)
class InterimHead:
    """The current head of an open adaptation."""

    model: str
    adaptation_id: str
    next_sequence: int
    """The number of changes, of all writers, that it has learned."""
    labels: tuple[Label, ...]
    head: AnsweringHead
    trunk: Trunk

    def scores(self, features: encoder.Features) -> HeadOutput:
        """Returns its output for n rows."""
        return self.head.scores(features[VIEW])


class _MovedError(Exception):
    """Segments were put together in such a way that it is lost what has been learned: begin anew."""


@dataclass(slots=True)
class _Followed:
    """The position up to which one writer's segments were learned."""

    store: AdaptationStore
    log: Log
    end: int | None
    """The sequence number where they end; None: nowhere yet."""
    ordinal: int = 0
    sequence: int = 0


class Interim:
    """Follows one adaptation. Belongs to one event loop; learning happens on threads, one at a time."""

    def __init__(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        feature_writer: FeatureWriter,
        publisher: Publisher,
        on_learned: Callable[[], None],
    ) -> None:
        self._store = store
        self._trunk = trunk
        self._feature_writer = feature_writer
        self._publisher = publisher
        self._on_learned = on_learned
        self._caller = behind(f"{store.model}/{store.adaptation_id}")
        self._supported = store.start.settings.task in LEARNERS
        self._state: Learner | None = None
        self._followed: dict[Log, _Followed] = {}
        self._handed_over: dict[tuple[str, int], tuple[Segment, NDArray[np.float16]]] = {}
        self._lacking: dict[tuple[Log, int], float] = {}
        self._shown: InterimHead | None = None
        self._metrics: dict[str, float] = {}
        self._error: DomainError | None = None
        self._asked = 0.0
        self._looked = 0.0
        self._awake = False
        self._rounds = asyncio.Condition()
        self._finished_rounds = 0
        self._worker: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether a request came not long ago."""
        return self._asked > 0 and time.monotonic() - self._asked < KEPT_S

    @property
    def busy(self) -> bool:
        """Whether learning is under way."""
        return self._worker is not None and not self._worker.done()

    @property
    def metrics(self) -> dict[str, float]:
        """The figures of the stream so far, by name; empty until this server has learned a row."""
        return dict(self._metrics)

    def offer(self, segment: Segment, features: Features) -> None:
        """Hands over a segment of this adaptation that has just been encoded and stored."""
        if not self._supported:
            return
        waiting = sum(len(rows) for _, rows in self._handed_over.values())
        if waiting + len(segment.records) <= HANDED_OVER_ROWS:
            rows = features.get(VIEW, np.zeros((0, 0), np.float16))
            self._handed_over[segment.writer_id, segment.ordinal] = (segment, rows)
        self._wake()

    async def head(self) -> InterimHead:
        """The newest head.

        Raises:
            StateError: Its task has no interim heads (INTERIM_UNSUPPORTED).
            StateError: It has not learned anything yet (INTERIM_EMPTY).
            DomainError: Its stored examples or features cannot be read.
        """
        if not self._supported:
            supported = " and ".join(task.words for task in LEARNERS)
            raise StateError(
                f"Adaptation {shown(self._store.adaptation_id)} is a {self._store.start.settings.task.words} one, and "
                f"only {supported} ones have an interim head: commit, and predict with the version.",
                reason="INTERIM_UNSUPPORTED",
            )
        now = time.monotonic()
        first = self._state is None or not self.wanted
        self._asked = now
        if first or now - self._looked > LOOK_S:
            rounds = self._finished_rounds
            self._wake()
            if first or self._shown is None:
                async with self._rounds:
                    await self._rounds.wait_for(lambda: self._finished_rounds > rounds)
        if self._error is not None:
            raise self._error
        if self._shown is None:
            raise StateError(
                f"Adaptation {shown(self._store.adaptation_id)} of model {shown(self._store.model)} has no examples "
                "and no declared labels yet: there is nothing to answer with. Send some, or declare labels in start.",
                reason="INTERIM_EMPTY",
            )
        return self._shown

    def drop(self) -> None:
        """Forgets everything; it is built again from what is stored, when it is wanted."""
        self._state, self._shown = None, None
        self._followed, self._lacking = {}, {}
        self._handed_over.clear()

    async def close(self) -> None:
        """Stops following."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self.drop()

    def _wake(self) -> None:
        self._awake = True
        if not self.busy:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._awake:
            self._awake = False
            try:
                await self._catch_up()
                self._error = None
            except _MovedError:
                self.drop()
                self._awake = True
            except DomainError as error:
                _log.warning("the interim head of %s: %s", self._store.model, error.message)
                self._error = error
                self.drop()
            except Exception:  # noqa: BLE001 - whatever it is, those who wait get an error
                _log.exception("the interim head of %s", self._store.model)
                self._error = FaultError(
                    "The interim head failed; the server's log has the details.", reason="INTERNAL"
                )
                self.drop()
            async with self._rounds:
                self._finished_rounds += 1
                self._rounds.notify_all()

    async def _catch_up(self) -> None:
        state = self._state or await self._begin()
        self._looked = time.monotonic()
        while True:
            more = await asyncio.to_thread(self._learn, state)
            if unnamed := state.unnamed:
                named = await self._publisher.names.features(unnamed, self._trunk, self._caller)
                rows = named.get(VIEW, ())
                state.name({label.name: row for label, row in zip(unnamed, rows, strict=False)})
            fitted = await self._publisher.learning.run(state.fit) if self.wanted else None
            if self._state is not state:  # dropped meanwhile
                self._awake = True
                return
            self._shown = self._head(fitted) if fitted is not None else None
            self._metrics = state.metrics
            self._on_learned()
            if not more:
                break
        now = time.monotonic()
        if any(now - since > LACKING_S for since in self._lacking.values()):
            self._lacking.clear()
            await self._feature_writer.complete()
            self._awake = True

    def _head(self, fitted: FittedHead) -> InterimHead:
        own = [it for it in self._followed.values() if it.store is self._store]
        return InterimHead(
            model=self._store.model,
            adaptation_id=self._store.adaptation_id,
            next_sequence=sum(it.sequence for it in own),
            labels=fitted.labels,
            head=fitted.head,
            trunk=self._trunk,
        )

    async def _begin(self) -> Learner:
        """Begins anew, with every feature stored that was lost."""
        await self._trunk.ready()
        settings = self._store.start.settings
        lineage = await self._publisher.earlier(self._store)
        for store in lineage:
            await FeatureWriter(store, self._trunk).complete()
        if await asyncio.to_thread(self._store.missing_features, self._trunk.encoder_id):
            await self._feature_writer.complete()
        state = LEARNERS[settings.task](
            self._trunk.backbone.dimension, self._store.start.labels, closed_labels=settings.closed_labels
        )
        self._followed = {}
        for place, (source, store) in enumerate(zip(self._store.start.lineage, lineage, strict=True)):
            for writer_id, end in sorted(source.watermarks.items()):
                log = Log(place, writer_id)
                self._followed[log] = _Followed(store, log, end)
        self._state = state
        return state

    def _learn(self, state: Learner) -> bool:
        """Learns what is there, for about ROUND_S, and returns whether there may be more. Runs on a thread."""
        began = time.monotonic()
        own = len(self._store.start.lineage)
        for writer_id in self._store.writer_ids():
            log = Log(own, writer_id)
            self._followed.setdefault(log, _Followed(self._store, log, None))
        for followed in self._followed.values():
            while (found := self._next(followed)) is not None:
                segment, rows = found
                end = segment.next_sequence if followed.end is None else followed.end
                state.learn(followed.log, segment, end, rows.astype(np.float32), self._row)
                followed.ordinal = segment.next_ordinal
                followed.sequence = segment.next_sequence
                if time.monotonic() - began > ROUND_S:
                    return True
        return False

    def _next(self, followed: _Followed) -> tuple[Segment, NDArray[np.float16]] | None:
        if followed.end is not None and followed.sequence >= followed.end:
            return None
        writer_id, ordinal = followed.log.writer_id, followed.ordinal
        if followed.store is self._store:
            handed_over = self._handed_over.pop((writer_id, ordinal), None)
            if handed_over is not None:
                return handed_over
        try:
            segment = followed.store.segment(writer_id, ordinal)
        except ObjectMissingError:
            return None
        if segment.first_sequence != followed.sequence:
            raise _MovedError
        if not segment.upserts:
            return segment, np.zeros((0, 0), np.float16)
        try:
            features = followed.store.features(segment, self._trunk.encoder_id)[VIEW]
        except ObjectMissingError:
            self._lacking.setdefault((followed.log, ordinal), time.monotonic())
            return None
        self._lacking.pop((followed.log, ordinal), None)
        return segment, features

    def _row(self, log: Log, ordinal: int, row: int, id_: str) -> Row:
        followed = self._followed[log]
        segment = followed.store.segment(log.writer_id, ordinal)
        ids = [example.id for example in segment.upserts]
        if segment.ordinal != ordinal or not (row < len(ids) and ids[row] == id_):
            # It was put together with others meanwhile. If all of them are learned, its newest state is the one.
            if segment.next_ordinal > followed.ordinal or id_ not in ids:
                raise _MovedError
            row = len(ids) - 1 - ids[::-1].index(id_)
        try:
            features = followed.store.features(segment, self._trunk.encoder_id)[VIEW][row]
        except ObjectMissingError:
            raise _MovedError from None  # begin anew, with every feature
        return Row(segment.upserts[row], features.astype(np.float32))
