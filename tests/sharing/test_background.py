"""Work in the background: one round that fails ends neither the rounds after it nor the server's knowledge."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from graft_server.adapting.publishing import continuous
from graft_server.adapting.publishing.continuous import ContinuousPublishing
from graft_server.domain.adaptation import AdaptationSettings, PublishPolicy, Start
from graft_server.domain.errors import StoreError
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import ManifestRef
from graft_server.encoding.trunk import TrunkSettings
from graft_server.encoding.trunks import Trunks
from graft_server.serving import versions
from graft_server.serving.versions import Versions
from graft_server.sharing.background import survived
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.objects.objects import Objects

LOG = logging.getLogger("graft_server.tests")


@pytest.mark.parametrize(
    ("error", "logged"),
    [(StoreError("it is full", reason="STORE_FULL"), "it is full"), (OSError("gone"), "Traceback")],
)
def test_a_round_that_fails_is_logged_and_survived(caplog, error, logged):
    async def failing() -> None:
        raise error

    assert not asyncio.run(survived(failing(), "a round", LOG))
    assert "a round failed" in caplog.text
    assert logged in caplog.text


def test_cancellation_passes():
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await survived(cancelled(), "a round", LOG)

    asyncio.run(main())


def test_what_other_servers_publish_is_followed_after_a_round_that_raised_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "POLL_S", 0)
    objects = Objects.open(tmp_path / "store")
    ours, theirs = Catalogue(objects), Catalogue(objects)
    manifest = ManifestRef("key", "0" * 64)

    async def main() -> None:
        served = Versions(objects, ours, Trunks({}, "", TrunkSettings(cache=tmp_path)))
        failed, followed = asyncio.Event(), asyncio.Event()

        async def on_change() -> None:
            if not failed.is_set():
                failed.set()
                raise OSError("the folder was away for a moment")
            if "m" in ours.snapshot.models:
                followed.set()

        served.start(on_change)
        async with asyncio.timeout(20):
            await failed.wait()
            theirs.publish(model="m", adaptation_id="a", commit_id="c", manifest=manifest, summary={})
            await followed.wait()
        await served.close()

    asyncio.run(main())


def test_the_clock_of_continuous_publishing_survives_whatever_looking_and_committing_raise(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(continuous, "LOOK_S", 0.01)
    settings = AdaptationSettings("minilm", publish=PublishPolicy(every_examples=1))
    start = Start(settings, datetime(2026, 1, 2, tzinfo=UTC))
    store = AdaptationStore.create(Objects.open(tmp_path), "m", "a", start)
    change = Change(upsert=Example("1", Input("a text"), label="x"))
    store.writer("w").append([Record(content_digest(b"a text"), change)])
    failures = [OSError("looking"), OSError("looking"), RuntimeError("committing")]
    committed: list[str] = []
    done = asyncio.Event()

    async def look() -> None:
        if len(failures) > 1:
            raise failures.pop(0)

    async def commit(commit_id: str) -> None:
        if failures:
            raise failures.pop(0)
        store.commit(commit_id, store.positions)
        committed.append(commit_id)
        done.set()

    async def main() -> None:
        clock = ContinuousPublishing(store, look, lambda: True, lambda: False, commit)
        clock.wake()
        async with asyncio.timeout(20):
            await done.wait()
        await clock.close()

    asyncio.run(main())
    assert not failures
    assert committed == ["auto:1"]
