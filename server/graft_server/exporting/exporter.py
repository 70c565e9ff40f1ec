"""Bundles on demand: composed by a worker into a temporary folder, and gone once they have been read."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from graft_server.domain.model import BundleFile, Version
from graft_server.encoding.trunk import Trunk
from graft_server.jobs.job import Job, Jobs


@dataclass(frozen=True, slots=True)
class Exporter:
    """Composes bundles."""

    jobs: Jobs
    location: str
    """Where the store is, for workers."""
    cache: Path
    """Where exported encoders are kept."""

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
        backbone = trunk.backbone
        if below:
            await trunk.cut(below)  # on a server that has not served the version yet
        with tempfile.TemporaryDirectory(prefix="graft-bundle-") as folder:
            payload = {
                "store": self.location,
                "model": version.model,
                "version": version.number,
                "manifest": {"key": version.manifest.key, "sha256": version.manifest.sha256},
                "backbone_payload": backbone.payload(),
                "cache": str(self.cache),
                "target": folder,
            }
            job = Job("graft_server.exporting.bundle:compose", payload, key=version.model)
            result = await self.jobs.run(job, lambda _: None)
            yield [
                BundleFile(it["path"], it["size"], it["sha256"], Path(folder) / it["path"])
                for it in result["files"]
            ]
