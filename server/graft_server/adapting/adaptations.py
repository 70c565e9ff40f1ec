"""All adaptations that this server works on: opening, resuming, finding, recovering them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from graft_server.adapting import announcing
from graft_server.adapting.adaptation import Adaptation
from graft_server.adapting.basing import Base, base_of, live_version
from graft_server.adapting.intake.bases import Bases
from graft_server.adapting.intake.foreseen import (
    CHECK_BYTES,
    CHECKS_BYTES,
    Foreseen,
    read_foreseen,
    take_room,
)
from graft_server.adapting.interim.follower import KEPT_S, InterimHead
from graft_server.adapting.limits import AdaptationLimits, require_fewer
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.adapting.session import Session
from graft_server.adapting.starting import checked, identified, require_same
from graft_server.adapting.work import Reason
from graft_server.domain.adaptation import (
    AdaptationState,
    Start,
    StartRequest,
)
from graft_server.domain.errors import (
    DomainError,
    DrainingError,
    MissingError,
    StoreError,
)
from graft_server.domain.examples import ExamplesWanted, Modality, StoredExample
from graft_server.domain.model import LiveThen
from graft_server.domain.names import check_identifier, check_model, shown
from graft_server.domain.stream import LiveVersion
from graft_server.encoding.trunk import Trunk
from graft_server.encoding.trunks import Trunks
from graft_server.sharing.background import paced
from graft_server.sharing.memory import Intake
from graft_server.sharing.room import Room, Share
from graft_server.sharing.threads import Threads
from graft_server.store.adaptations.keys import parsed_name, stored_name
from graft_server.store.adaptations.listing import (
    Beginnings,
    list_all_adaptations,
    may_go_on,
    missing_adaptation,
    remove_adaptation,
)
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.stored_examples import StoredExamples
from graft_server.store.catalogue.snapshot import Snapshot
from graft_server.store.catalogue.versions import read_manifest

_log = logging.getLogger(__name__)

_USUAL = AdaptationLimits()
_UNKNOWN = datetime.min.replace(tzinfo=UTC)
"""When a damaged adaptation began."""


class Adaptations:
    """The adaptations of this server."""

    def __init__(self, publisher: Publisher, trunks: Trunks, limits: AdaptationLimits = _USUAL) -> None:
        self._limits = limits
        self._intake = Intake(limits.intake_bytes)
        self._bases = Bases()
        self.checks = Room(CHECKS_BYTES, CHECK_BYTES)
        """Room for what checks beside a base keep in memory."""
        self._publisher = publisher
        self._trunks = trunks
        self._open: dict[tuple[str, str], Adaptation] = {}
        self._loading: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._forgetting: asyncio.TimerHandle | None = None
        self._beginnings = Beginnings(publisher.objects)
        self._stored_examples = StoredExamples(publisher.objects)
        self._followed = publisher.catalogue.snapshot.entries
        """The number of entries of the catalogue that all adaptations have followed."""
        self._following = asyncio.Lock()
        self._dropped: set[Adaptation] = set()
        """Adaptations whose model was deleted and whose objects are not all removed."""
        self._draining = False
        self.followers: list[Callable[[], Awaitable[None]]] = []
        """Who else follows the catalogue, before the adaptations do."""

    @property
    def reading(self) -> Threads:
        """Where what callers ask for is read from the store."""
        return self._publisher.reading

    async def backbone_of(self, request: StartRequest) -> str:
        """Returns the backbone of a checked request that names none; "" if its first example decides.

        It is the backbone of the adaptation, if that exists; or that of the version that it goes on from; or the
        server's default one, if all read the same.
        """
        key = (request.model, request.adaptation_id)
        try:
            adaptation = self._open.get(key)
            store = adaptation.store if adaptation else await self.store_of(*key)
        except MissingError:
            if (base := await self.base(request)) is not None:
                return base.backbone
            return "" if len({it.modality for it in self._trunks} - {None}) > 1 else self._trunks.default
        return store.start.settings.backbone

    def backbone_for(self, modality: Modality | None) -> str:
        """Returns the backbone for examples of a modality: the default one, or the first that reads them."""
        return self._trunks.reading(modality).name

    def check(self, request: StartRequest, backbone: str = "") -> StartRequest:
        """Returns the request with its defaults filled in; its backbone too, where it has none.

        Raises:
            InvalidError: The request can never work.
            MissingError: This server has no such backbone.
            BackboneError: The backbone could not be described.
        """
        request = identified(request)
        trunk = self._trunks.get(backbone or request.settings.backbone)
        return replace(request, settings=checked(request.settings, trunk))

    def trunk(self, backbone: str) -> Trunk:
        """The backbone of that name; raises MissingError if there is none."""
        return self._trunks.get(backbone)

    async def start(self, request: StartRequest) -> Adaptation:
        """Opens or resumes an adaptation for a checked request.

        Raises:
            StateError: It exists with other settings (START_MISMATCH).
            MissingError: It is new, and there is no such version, or alias, to go on from.
            NewerError: It is new, and a newer release wrote to the catalogue.
            DrainingError: This server is going away.
            OverloadError: The server already takes the examples of as many adaptations as it may.
        """
        key = (request.model, request.adaptation_id)
        async with self._lock(key):
            adaptation = self._open.get(key)
            if adaptation is None:
                adaptation = self._adopt(await self._stored(request))
            # Late, so that it also stops callers who came in before the server began to drain.
            if self._draining:
                raise DrainingError
            require_same(adaptation.store.start, request)
            if not adaptation.attended:
                self._require_room(request.model)
            return adaptation

    async def join(self, request: StartRequest) -> Session:
        """Opens or resumes an adaptation for a checked request, and begins a call of its writer.

        Where the server takes the examples of as many adaptations as it may, the one that has been idle longest makes
        way.

        Raises:
            DomainError: See `start` and `Adaptation.join`.
        """
        adaptation = await self.start(request)
        # Counted before anything else is awaited, so that the limits hold exactly.
        self._require_call()
        return await adaptation.join_expected(request.writer_id)

    async def get(self, model: str, adaptation_id: str) -> Adaptation:
        """Finds an adaptation in its newest state.

        Raises:
            MissingError: There is none.
        """
        check_model(model)
        check_identifier(adaptation_id, "adaptation_id")
        key = (model, adaptation_id)
        async with self._lock(key):
            adaptation = self._open.get(key)
            if adaptation is None:
                return self._adopt(await self._load(key))
            await adaptation.refresh()
            return adaptation

    async def interim(self, model: str, adaptation_id: str) -> InterimHead:
        """The interim head of an open adaptation.

        Raises:
            MissingError: There is no such adaptation.
            StateError: It is closed or cancelled, or its head has not learned anything yet (INTERIM_EMPTY).
        """
        adaptation = self._open.get((model, adaptation_id)) or await self.get(model, adaptation_id)
        adaptation.require_open()
        if self._forgetting is None:
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(KEPT_S + 1, self._forget_later)
        return await adaptation.interim.head()

    async def begun(self, model: str) -> list[tuple[datetime, str]]:
        """Returns when each of a model's adaptations began, and its id, newest first; damaged ones last."""
        check_model(model)
        begun = await self._publisher.reading.run(self._begun, model)
        return sorted(((time, adaptation_id) for adaptation_id, time in begun.items()), reverse=True)

    async def store_of(self, model: str, adaptation_id: str) -> AdaptationStore:
        """Returns the stored state of an adaptation, even if this server does not have its backbone."""
        adaptation = self._open.get((model, adaptation_id))
        if adaptation is None:
            return await self._load((model, adaptation_id))
        await adaptation.refresh()
        return adaptation.store

    async def positions_of(self, store: AdaptationStore) -> Mapping[str, int]:
        """Returns the next sequence number of each writer; of an open adaptation at least as is known here."""
        adaptation = self._open.get((store.model, store.adaptation_id))
        if adaptation is None:
            return await self._publisher.reading.run(store.read_positions)
        found = None if adaptation.refresh.late else await adaptation.read_positions()
        return store.positions if found is None else found

    async def examples(
        self, model: str, wanted: ExamplesWanted, first: tuple[str, str, int] | None
    ) -> Iterator[StoredExample]:
        """Yields stored examples of a model by adaptation, writer and sequence; iterate in a thread.

        Args:
            model: The model.
            wanted: Which of them.
            first: (adaptation, writer, sequence) of the first one wanted; None: all.

        Raises:
            MissingError: There is no such adaptation or version, or no such model.
        """
        ids = sorted(adaptation_id for _, adaptation_id in await self.begun(model))
        named = wanted.adaptation_id
        if named and check_identifier(named, "adaptation_id") not in ids:
            raise missing_adaptation(model, named)
        if wanted.version:
            version = self._publisher.catalogue.snapshot.model(model).version(wanted.version)
            manifest = await self._publisher.reading.run(
                read_manifest, self._publisher.objects, version.manifest
            )
            return self._stored_examples.of_version(wanted.version, manifest, wanted, first)
        if not ids:
            self._publisher.catalogue.snapshot.model(model)
        names = [self._name(model, it) for it in ids if first is None or it >= first[0]]
        return self._stored_examples.listed(model, names, wanted, first)

    def running(self, model: str, adaptation_id: str) -> str:
        """The commit of an adaptation that this server trains, or ""."""
        adaptation = self._open.get((model, adaptation_id))
        return adaptation.running if adaptation else ""

    async def require_existing(self, adaptation: Adaptation) -> None:
        """Raises MissingError if an adaptation was deleted with its model, here or by another server."""
        with suppress(StoreError):
            await asyncio.to_thread(self._publisher.catalogue.refresh)
        model, adaptation_id = adaptation.key
        if self._publisher.catalogue.snapshot.deletions.get(model, 0) > adaptation.store.start.born:
            raise missing_adaptation(model, adaptation_id)

    def live_then(self, model: str, version: int) -> LiveThen | None:
        """Returns where `live` pointed once a version was published; None: there is no such version any more."""
        found = self._publisher.version(model, version)
        return None if found is None else found.live_then

    def metrics(self, model: str, adaptation_id: str) -> Mapping[str, float]:
        """Returns how well an adaptation is learned, if this server follows it."""
        adaptation = self._open.get((model, adaptation_id))
        return adaptation.interim.metrics if adaptation else {}

    def forget_idle(self) -> None:
        """Forgets unused adaptations; they can be loaded again."""
        self._open = {key: it for key, it in self._open.items() if not it.idle}

    def _forget_later(self) -> None:
        self._forgetting = None
        self.forget_idle()

    async def recover(self) -> None:
        """Takes up the commits that a server left unfinished, and the adaptations with a publish policy."""
        objects = self._publisher.objects
        found = await asyncio.to_thread(lambda: list(list_all_adaptations(objects, gently=True)))
        async for model, name in paced(found):
            adaptation_id, _ = parsed_name(name)
            if name != self._name(model, adaptation_id):
                continue  # it was deleted with its model
            try:
                if not await asyncio.to_thread(may_go_on, objects, model, name):
                    continue
                store = await self._load((model, adaptation_id))
                unfinished = store.commits.keys() - store.outcomes.keys()
                by_itself = store.start.settings.publish.automatic and store.state is AdaptationState.OPEN
                if unfinished or by_itself:
                    (await self.get(model, adaptation_id)).resume()
                    announcing.taken_up(store, len(unfinished))
            except DomainError as error:
                # One damaged adaptation must not prevent serving the others.
                _log.error("adaptation %s of %s cannot be used: %s", adaptation_id, model, error.message)
            except Exception:  # noqa: BLE001 - logged; the others are taken up
                _log.exception("adaptation %s of %s cannot be taken up", adaptation_id, model)

    async def follow(self) -> None:
        """Applies the catalogue's new entries here: cancellations, erasures and deletions by any server.

        Several callers do it one after the other. A failed entry is applied again at the next call; the others
        are applied all the same.

        Raises:
            Exception: The first failure.
        """
        for follow in self.followers:
            await follow()
        async with self._following:
            snapshot = self._publisher.catalogue.snapshot
            # Also one that was loaded while the newest entries were being followed.
            behind = [it for it in (*self._dropped, *self._open.values()) if it.followed < snapshot.entries]
            if snapshot.entries == self._followed and not behind:
                return
            failed: list[Exception] = []
            for adaptation in behind:
                try:
                    await self._catch_up(adaptation, snapshot)
                except Exception as error:  # noqa: BLE001 - raised once the others have been followed
                    failed.append(error)
            for model, entry in (*snapshot.erasures.items(), *snapshot.deletions.items()):
                if entry > self._followed:
                    self._stored_examples.forget(model)
                    await asyncio.to_thread(self._publisher.tuner.forget, model, entry)
            if failed:
                raise failed[0]
            self._followed = snapshot.entries

    async def _catch_up(self, adaptation: Adaptation, snapshot: Snapshot) -> None:
        """Applies the catalogue's new entries to one adaptation."""
        key, store = adaptation.key, adaptation.store
        if snapshot.deletions.get(key[0], 0) > store.start.born:
            if self._open.get(key) is adaptation:
                del self._open[key]  # later callers get another one
                self._dropped.add(adaptation)
            await adaptation.end(Reason.DELETED)
            # This server may have written more objects after the deleting server listed them.
            if not snapshot.newer:
                await asyncio.to_thread(remove_adaptation, self._publisher.objects, key[0], store.name)
            self._dropped.discard(adaptation)
        elif key in snapshot.cancelled and adaptation.working:
            await adaptation.end(Reason.CANCELLED)
        elif snapshot.erasures.get(key[0], 0) > adaptation.followed:
            await adaptation.forget_erased()
        adaptation.followed = snapshot.entries

    @property
    def unfinished(self) -> int:
        """How many commits wait, or are trained."""
        return sum(it.unfinished for it in self._open.values())

    async def close(self) -> None:
        """Stops working, and asks all callers to call again; the next server takes up durable commits."""
        self._draining = True
        if self._forgetting is not None:
            self._forgetting.cancel()
        endings = [it.end(Reason.DRAINING) for it in self._open.values()]
        failed = [
            it for it in await asyncio.gather(*endings, return_exceptions=True) if isinstance(it, Exception)
        ]
        if failed:
            raise failed[0]

    async def base(self, request: StartRequest) -> Base | None:
        """Returns the version that a new adaptation goes on from; see `base_of`."""
        return await base_of(self._publisher.objects, self._publisher.catalogue, request)

    async def foreseen(self, request: StartRequest, base: Base, share: Share) -> Foreseen:
        """Returns what foresees what would come of a request's changes beside its base, and stores nothing.

        The examples of the base take room of `share`; see `take_room`, also for what it raises.
        """
        take_room(share, base.extension.base_examples)
        return await self._publisher.reading.run(
            read_foreseen,
            self._publisher.objects,
            request.model,
            base,
            request.adaptation_id,
            request.writer_id,
        )

    def live(self, model: str) -> LiveVersion | None:
        """Returns the version of a model that answers where a request selects none, as far as is known here."""
        return live_version(self._publisher.catalogue.snapshot, model)

    async def _stored(self, request: StartRequest) -> AdaptationStore:
        objects, key = self._publisher.objects, (request.model, request.adaptation_id)
        try:
            return await self._load(key)
        except MissingError:
            # Only now: an existing adaptation has its lineage, even if its base was deleted since.
            base = await self.base(request)
        snapshot = await asyncio.to_thread(self._publisher.catalogue.refresh)
        snapshot.require_known()
        start = Start(
            request.settings,
            datetime.now(UTC),
            base.lineage if base else (),
            snapshot.entries,
            base.extension if base else None,
            base.labels if base else (),
        )
        name = stored_name(request.adaptation_id, snapshot.deletions.get(request.model, 0))
        store = await asyncio.to_thread(AdaptationStore.create, objects, request.model, name, start)
        announcing.started(store)
        return store

    async def _load(self, key: tuple[str, str]) -> AdaptationStore:
        """Reads an adaptation; MissingError also if its model was deleted and its objects are not yet."""
        store = await self._publisher.reading.run(
            AdaptationStore.load, self._publisher.objects, key[0], self._name(*key)
        )
        if self._publisher.catalogue.snapshot.deletions.get(key[0], 0) > store.start.born:
            raise missing_adaptation(*key)
        return store

    def _name(self, model: str, adaptation_id: str) -> str:
        """Returns the name that an adaptation is stored by, as far as this server knows of deletions."""
        return stored_name(adaptation_id, self._publisher.catalogue.snapshot.deletions.get(model, 0))

    def _begun(self, model: str) -> dict[str, datetime]:
        """Returns when each of a model's adaptations began, by id."""
        deletion = self._publisher.catalogue.snapshot.deletions.get(model, 0)
        return {
            adaptation_id: created or _UNKNOWN
            for name, created in self._beginnings.of(model).items()
            for adaptation_id, began in [parsed_name(name)]
            if began == deletion
        }

    def _adopt(self, store: AdaptationStore) -> Adaptation:
        self.forget_idle()
        trunk = self._trunks.get(store.start.settings.backbone)
        adaptation = Adaptation(
            store, trunk, self._publisher, self._intake, bases=self._bases, admit=self._admit
        )
        adaptation.followed = self._followed
        self._open[store.model, store.adaptation_id] = adaptation
        return adaptation

    def _require_room(self, model: str) -> None:
        """Raises OverloadError if one more adaptation of the model is one too many, and no other one makes way."""
        limits = self._limits
        attended = [it for it in self._open.values() if it.attended]
        of_model = [it for it in attended if it.store.model == model]
        if len(of_model) >= limits.open_per_model and not self._made_way(of_model):
            require_fewer(len(of_model), limits.open_per_model, "open adaptations", shown(model))
        attended = [it for it in attended if it.attended]
        if len(attended) >= limits.open and not self._made_way(attended):
            require_fewer(len(attended), limits.open, "open adaptations")

    def _require_call(self) -> None:
        """Raises OverloadError if one more call is one too many, and no other one makes way."""
        count = sum(it.calls for it in self._open.values())
        if count < self._limits.calls:
            return
        idlest = max(
            ((session, it) for it in self._open.values() if (session := it.idlest()) is not None),
            key=lambda it: it[0].idle_s,
            default=None,
        )
        if idlest is None or not self._makes_way(idlest[0].idle_s):
            require_fewer(count, self._limits.calls, "open calls")
        else:
            idlest[1].make_way(idlest[0])

    def _makes_way(self, idle_s: float) -> bool:
        """Whether what was idle for so long, in seconds, makes way; never what is at work, which is 0."""
        return idle_s > 0 and idle_s >= self._limits.idle_s

    def _made_way(self, attended: Sequence[Adaptation]) -> bool:
        """Whether the adaptation that has been idle longest makes way, if that is long enough."""
        idlest = max(attended, key=lambda it: it.idle_s, default=None)
        if idlest is None or not self._makes_way(idlest.idle_s):
            return False
        announcing.makes_way(idlest.store, idlest.idle_s)
        idlest.make_way()
        return True

    def _admit(self, adaptation: Adaptation) -> None:
        """Raises OverloadError if one more commit of the adaptation is one too many."""
        model = adaptation.store.model
        unfinished = {key: it.unfinished for key, it in self._open.items()}
        of_model = sum(count for key, count in unfinished.items() if key[0] == model)
        require_fewer(of_model, self._limits.publications_per_model, "unfinished publications", shown(model))
        require_fewer(sum(unfinished.values()), self._limits.publications, "unfinished publications")

    def _lock(self, key: tuple[str, str]) -> asyncio.Lock:
        return self._loading.setdefault(key, asyncio.Lock())
