"""The versions in service: each one's head, loaded when it is first asked for.

A head takes kilobytes to a few megabytes and needs no session, so a new version is live as soon as its parameters
are read, and nothing else is affected. Requests hold the version that they resolved until they are answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import BackboneError, DomainError, FaultError, StateError
from graft_server.domain.examples import Label
from graft_server.domain.model import LIVE, Manifest, Version
from graft_server.domain.names import check_alias, check_model, shown
from graft_server.domain.prediction import Selector
from graft_server.domain.report import Report
from graft_server.domain.views import names_of, stacked
from graft_server.encoding.encoder import Features
from graft_server.encoding.trunk import Trunk, TrunkState
from graft_server.encoding.trunks import Trunks
from graft_server.encoding.tuned_layers import TunedLayersRef
from graft_server.heads import Head, HeadOutput, decode
from graft_server.serving.trained_on import TrainedOn, read_trained_on
from graft_server.sharing.background import survived
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.versions import HEAD, TOP, read_manifest, read_part, read_report
from graft_server.store.objects.objects import Objects

_log = logging.getLogger(__name__)

POLL_S = 0.5
"""The seconds between two reads of the catalogue for entries of other servers."""


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

    def __init__(self, objects: Objects, catalogue: Catalogue, trunks: Trunks) -> None:
        self._objects = objects
        self._catalogue = catalogue
        self._trunks = trunks
        self._served: dict[str, ServedVersion] = {}
        self._loading: dict[str, asyncio.Task[ServedVersion]] = {}
        self._poller: asyncio.Task[None] | None = None
        self.asked: Counter[str] = Counter()
        """How often each model was asked for."""
        self.explain: Callable[[Version], str] = lambda _: "Serve the former, or adapt the model again."
        """Says of a version whose encoder this server does not have what becomes of it."""

    def start(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Begins to follow other servers' publications, cancellations and deletions; calls `on_change` for each."""
        self._poller = asyncio.create_task(self._poll(on_change))

    async def close(self) -> None:
        """Stops following."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

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
        served = self._served.get(version.manifest.key)
        if served is not None:
            return served
        key = version.manifest.key
        task = self._loading.get(key)
        if task is None:
            # One task for all callers, so that a caller who leaves does not cancel it for the others.
            task = asyncio.create_task(self._load(version))
            self._loading[key] = task
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)

    async def put_in_service(self, version: Version) -> None:
        """Loads a version ahead of its first request."""
        await self.serve(version)

    def forget(self, version: Version) -> None:
        """Takes a deleted version out of service."""
        self._drop(version.manifest.key)

    async def report(self, version: Version) -> tuple[Manifest, Report]:
        """Reads a version's manifest and report."""
        return await asyncio.to_thread(read_report, self._objects, version.manifest)

    async def trained_on(self, version: Version, manifest: Manifest) -> TrainedOn:
        """Reads which inputs a version was trained on."""
        examples = int(version.summary.get("examples", 0))
        return await asyncio.to_thread(
            read_trained_on, self._objects, manifest, examples, erased=version.erased
        )

    async def preload(self) -> None:
        """Loads the versions that "live" points at, but not their backbones if those are loaded on use."""
        for model in self._catalogue.snapshot.models.values():
            try:
                if LIVE in model.aliases:
                    await self.serve(model.alias(LIVE))
            except DomainError as error:
                _log.error("model %s cannot be served: %s", model.name, error.message)

    async def _load(self, version: Version) -> ServedVersion:
        manifest, head = await asyncio.to_thread(self._read_head, version)
        trunk = await self._trunk_of(version, manifest)
        tuned = self._tuned_layers_of(version, manifest)
        if tuned is not None and trunk.state is not TrunkState.UNLOADED:
            await trunk.load(tuned)
        served = ServedVersion(version, manifest, manifest.labels, head, trunk, tuned)
        self._served[version.manifest.key] = served
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
        if TOP not in manifest.parts:
            return None
        ref = version.manifest
        return TunedLayersRef(ref.key, manifest.below, lambda: read_part(self._objects, ref, manifest, TOP))

    def _read_head(self, version: Version) -> tuple[Manifest, Head]:
        manifest = read_manifest(self._objects, version.manifest)
        return manifest, decode(read_part(self._objects, version.manifest, manifest, HEAD))

    async def _poll(self, on_change: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await survived(self._follow(on_change), "following the catalogue", _log)

    async def _follow(self, on_change: Callable[[], Awaitable[None]]) -> None:
        snapshot = await asyncio.to_thread(self._catalogue.refresh)
        existing = {
            version.manifest.key for model in snapshot.models.values() for version in model.versions.values()
        }
        for key in self._served.keys() - existing:
            self._drop(key)
        await on_change()

    def _drop(self, key: str) -> None:
        served = self._served.pop(key, None)
        if served is not None and served.tuned is not None:
            served.trunk.forget(served.tuned)
