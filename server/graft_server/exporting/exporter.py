"""Bundles on demand: composed by a worker, and gone once they have been read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from graft_server.domain.model import BundleFile, Version
from graft_server.encoding.trunk import Trunk
from graft_server.exporting.contract import COMPOSE, Composing
from graft_server.jobs.job import Jobs, unwatched
from graft_server.store.handover import Handover


@dataclass(frozen=True, slots=True)
class Exporter:
    """Composes bundles."""

    jobs: Jobs
    handover: Handover
    """Where bundles come from."""

    @asynccontextmanager
    async def bundle(self, version: Version, trunk: Trunk, below: int) -> AsyncIterator[list[BundleFile]]:
        """Composes a version's bundle; its files exist for as long as the block runs.

        Args:
            version: The version.
            trunk: Its backbone.
            below: How many of the backbone's layers are below its tuned ones, if it has any.

        Raises:
            BackboneError: The backbone cannot be used.
            FaultError: The composed graph does not agree with the served version.
        """
        await trunk.ready()  # its graph may have to be made yet
        if below:
            await trunk.cut(below)  # on a server that has not served the version yet
        folder = self.handover.new_folder()
        payload = Composing(
            model=version.model,
            version=version.number,
            manifest=version.manifest,
            backbone=trunk.name,
            encoder_id=trunk.encoder_id,
            folder=folder,
            cache=await asyncio.to_thread(self.handover.identity),
        )
        try:
            composed = await trunk.run(self.jobs, COMPOSE.job(payload, version.model), unwatched)
            files = composed.files
            await asyncio.to_thread(self.handover.take, folder, [it.path for it in files])
            place = self.handover.local(folder)
            yield [BundleFile(it.path, it.size, it.sha256, place / it.path) for it in files]
        finally:
            await asyncio.to_thread(self.handover.drop, folder)
