"""The versions in service: each one's head, loaded when it is first asked for, and held within a bound of memory.

A head takes kilobytes to a few megabytes and needs no session, so a version answers a few milliseconds after it was
first asked for, and one that was not asked for longest can leave. Requests hold the version that they resolved until
they are answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import BackboneError, FaultError, StateError, StoreError
from graft_server.domain.examples import Label
from graft_server.domain.model import LIVE, Manifest, Version
from graft_server.domain.names import check_alias, check_model, shown
from graft_server.domain.prediction import Selector
from graft_server.domain.report import Report
from graft_server.domain.views import names_of, stacked
from graft_server.encoding.encoder import Features
from graft_server.encoding.loading import TrunkState
from graft_server.encoding.trunk import Trunk
from graft_server.encoding.trunks import Trunks
from graft_server.encoding.tuned_layers import TunedLayersRef
from graft_server.heads import Head, HeadOutput, decode
from graft_server.serving import in_use
from graft_server.serving.head_cache import HeadCache, bytes_of
from graft_server.serving.reports import Reports
from graft_server.serving.stored_inputs import Stored, read_stored
from graft_server.serving.trained_on import TrainedOn, read_trained_on
from graft_server.sharing.background import Watchdog, paced, survived
from graft_server.sharing.threads import Threads
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.snapshot import Snapshot
from graft_server.store.catalogue.versions import (
    ADAPTER,
    TOP,
    has_tuned_layers,
    read_head,
    read_part,
)
from graft_server.store.objects.objects import Objects

_log = logging.getLogger(__name__)

POLL_S = 0.5
"""The seconds between two reads of the catalogue for entries of other servers."""
NOTED_EVERY_S = 300.0
"""The seconds between two notes of which models are in use."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedVersion:
    """A version with its head."""

    version: Version
    manifest: Manifest
    labels: tuple[Label, ...]
    head: Head
    trunk: Trunk
    tuned: TunedLayersRef | None = None
    """The tuned layers of its backbone, if it has any."""

    def scores(self, features: Features) -> HeadOutput:
        """Returns the head's output for n rows."""
        return self.head.scores(self._view(features))

    def _view(self, features: Features) -> NDArray[np.float32]:
        """Returns the features that the head reads: one view, or several side by side ("pooled+cls")."""
        missing = [name for name in names_of(self.head.view) if name not in features]
        if missing:
            raise FaultError(
                f"The head reads the view {missing[0]}, which this server's encoder does not give: adapt the "
                "model again.",
                reason="VIEW_MISSING",
            )
        return stacked(features, self.head.view)


class Versions:
    """Finds versions, and loads their heads and tuned layers."""

    def __init__(
        self,
        objects: Objects,
        catalogue: Catalogue,
        trunks: Trunks,
        most_bytes: int = 256 << 20,
        on_followed: Callable[[bool], None] = lambda _: None,
        *,
        reading: Threads | None = None,
    ) -> None:
        """Makes it; nothing is loaded.

        Args:
            objects: The store.
            catalogue: Its catalogue.
            trunks: The backbones.
            most_bytes: The memory for heads; a single larger one is held alone.
            on_followed: Called on the event loop with False when the catalogue has not been followed for long, and
                with True when it is again.
            reading: Where the store is read for callers; None: on threads of its own.
        """
        self._reading = reading or Threads("reading", 4)
        self._reports = Reports(objects)
        self._objects = objects
        self._catalogue = catalogue
        self._trunks = trunks
        self._held: HeadCache[ServedVersion] = HeadCache(most_bytes)
        self._loading: dict[str, asyncio.Task[ServedVersion]] = {}
        self._watchdog = Watchdog("following the catalogue", _log, on_followed)
        self._checked = catalogue.snapshot
        """The snapshot in which all held versions are known to exist."""
        self._noted: list[str] = []
        self._noted_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self.asked: Counter[str] = Counter()
        """How often each model was asked for."""
        self.explain: Callable[[Version], str] = lambda _: "Serve the former, or adapt the model again."
        """Says of a version whose encoder this server does not have what becomes of it."""

    @property
    def held_bytes(self) -> int:
        """The memory that the held heads take."""
        return self._held.bytes

    @property
    def held(self) -> list[Version]:
        """The versions whose heads are held; the one asked for last comes last."""
        return [it.version for it in self._held.values()]

    def start(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Begins to follow other servers' publications, cancellations and deletions; calls `on_change` for each."""
        self._watchdog.succeeded()
        self._tasks = [
            asyncio.create_task(self._poll(on_change)),
            asyncio.create_task(self._watchdog.watch()),
        ]

    async def close(self) -> None:
        """Stops following, and notes which models were in use."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await survived(self._note_in_use(), "noting which models are in use", _log)

    def resolve(self, model: str, selector: Selector) -> Version:
        """Finds a version in the catalogue, without reading anything.

        Raises:
            InvalidError: The name is not valid.
            MissingError: There is no such model, version or alias.
        """
        known = self._catalogue.snapshot.model(check_model(model))
        self.asked[model] += 1
        if selector.version:
            return known.version(selector.version)
        return known.alias(check_alias(selector.alias) if selector.alias else LIVE)

    async def serve(self, version: Version) -> ServedVersion:
        """Returns a version with its head, loading it if need be.

        Raises:
            StateError: The version was trained on another encoder than this server has under that name.
            CorruptError: A part of it is damaged.
        """
        key = version.manifest.key
        served = self._held.get(key)
        if served is not None:
            return served
        task = self._loading.get(key)
        if task is None or task.done():
            # One task for all callers, so that a caller who leaves does not cancel it for the others. If it fails,
            # those who wait get the error, and whoever asks next has it tried again.
            task = asyncio.create_task(self._load(version))
            self._loading[key] = task
            task.add_done_callback(lambda ended: self._loaded(key, ended))
        async with self.existing(version):
            return await asyncio.shield(task)

    @asynccontextmanager
    async def existing(self, version: Version) -> AsyncIterator[None]:
        """Work that reads a version's objects: MissingError if it fails because the version was deleted meanwhile."""
        try:
            yield
        except FaultError:
            with suppress(StoreError):
                await self._reading.run(self._catalogue.refresh)
            self._catalogue.snapshot.model(version.model).version(version.number)
            raise

    def _loaded(self, key: str, task: asyncio.Task[ServedVersion]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled():
            task.exception()  # it was raised where somebody waited; if all have left, nobody needs to know

    async def put_in_service(self, version: Version) -> None:
        """Loads a version ahead of its first request."""
        await self.serve(version)
        await survived(self.report(version), f"reading the report of {version.model} ahead", _log)

    def forget(self, version: Version) -> None:
        """Takes a deleted version out of service."""
        self._drop(version.manifest.key)
        self._reports.forget(version)

    async def report(self, version: Version) -> tuple[Manifest, Report]:
        """Reads a version's manifest and report."""
        known = self._reports.known(version)
        if known is not None:
            return known
        async with self.existing(version):
            return await self._reading.run(self._reports.read, version)

    async def trained_on(self, version: Version, manifest: Manifest) -> TrainedOn:
        """Reads which inputs a version was trained on."""
        examples = int(version.summary.get("examples", 0))
        async with self.existing(version):
            return await self._reading.run(
                partial(read_trained_on, self._objects, manifest, examples, erased=version.erased)
            )

    async def stored(self, version: Version, served: ServedVersion) -> Stored:
        """Reads what a version has stored: what is labelled, and what is not."""
        async with self.existing(version):
            return await self._reading.run(read_stored, self._objects, served.manifest, served.head.view)

    async def load_ahead(self) -> None:
        """Loads the "live" heads of the models that were in use last, one by one, as long as there is room.

        Backbones that are loaded on use are not loaded for them.
        """
        async for name in paced(await asyncio.to_thread(in_use.read, self._objects)):
            model = self._catalogue.snapshot.models.get(name)
            if model is None or LIVE not in model.aliases or self._held.full:
                continue
            await survived(self.serve(model.alias(LIVE)), f"loading model {name} ahead", _log)

    async def _note_in_use(self) -> None:
        """Writes which models are in use, for the servers that start later."""
        models = list(dict.fromkeys(it.version.model for it in reversed(self._held.values())))[: in_use.MOST]
        self._noted_at = time.monotonic()
        if models and models != self._noted and not self._catalogue.snapshot.newer:
            await asyncio.to_thread(in_use.write, self._objects, models)
            self._noted = models

    async def _load(self, version: Version) -> ServedVersion:
        manifest, head = await self._reading.run(self._read_head, version)
        trunk = await self._trunk_of(version, manifest)
        tuned = self._tuned_layers_of(version, manifest)
        if tuned is not None and trunk.state is not TrunkState.UNLOADED:
            await trunk.load(tuned)
        served = ServedVersion(version, manifest, manifest.labels, head, trunk, tuned)
        if _exists(self._catalogue.snapshot, version):
            for left in self._held.put(version.manifest.key, served, bytes_of(version, manifest, head)):
                _log.debug("version %d of %s left memory", left.version.number, left.version.model)
        return served

    async def _trunk_of(self, version: Version, manifest: Manifest) -> Trunk:
        try:
            return await self._trunks.of_encoder(manifest.backbone, manifest.encoder_id)
        except BackboneError as error:
            if error.reason != "ENCODER_MISMATCH":
                raise
        trunk = self._trunks.get(manifest.backbone)
        raise StateError(
            f"Version {version.number} of model {shown(version.model)} was trained on features of encoder "
            f"{manifest.encoder_id}, but backbone {shown(trunk.name)} of this server is {trunk.encoder_id}. "
            f"{self.explain(version)}",
            reason="ENCODER_MISMATCH",
        )

    def _tuned_layers_of(self, version: Version, manifest: Manifest) -> TunedLayersRef | None:
        if not has_tuned_layers(manifest):
            return None
        ref, adapted = version.manifest, ADAPTER in manifest.parts
        part = ADAPTER if adapted else TOP
        return TunedLayersRef(
            ref.key, manifest.below, lambda: read_part(self._objects, ref, manifest, part), adapted=adapted
        )

    def _read_head(self, version: Version) -> tuple[Manifest, Head]:
        manifest, head = read_head(self._objects, version.manifest)
        return manifest, decode(head)

    async def _poll(self, on_change: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if await survived(self._follow(on_change), "following the catalogue", _log):
                self._watchdog.succeeded()
            if time.monotonic() - self._noted_at > NOTED_EVERY_S:
                await survived(self._note_in_use(), "noting which models are in use", _log)

    async def _follow(self, on_change: Callable[[], Awaitable[None]]) -> None:
        snapshot = await self._reading.run(self._catalogue.refresh)
        if snapshot is not self._checked:
            for served in self._held.values():
                name = served.version.model
                # A model without changes is the same object in both.
                if snapshot.models.get(name) is not self._checked.models.get(name) and not _exists(
                    snapshot, served.version
                ):
                    self._drop(served.version.manifest.key)
            self._reports.keep_if(lambda it: _exists(snapshot, it))
            self._checked = snapshot
        await on_change()

    def _drop(self, key: str) -> None:
        served = self._held.drop(key)
        if served is not None and served.tuned is not None:
            served.trunk.forget(served.tuned)


def _exists(snapshot: Snapshot, version: Version) -> bool:
    """Whether the catalogue has the version, with the same parts."""
    model = snapshot.models.get(version.model)
    known = model.versions.get(version.number) if model else None
    return known is not None and known.manifest == version.manifest
