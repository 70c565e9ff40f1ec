"""A trunk that is loaded on its first use: by one for all who wait, and again after it failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from graft_server.backbones.backbone import Backbone
from graft_server.domain.errors import BackboneError
from graft_server.encoding.loading import TrunkSettings, TrunkState
from graft_server.encoding.trunk import Trunk
from graft_server.jobs.job import Place
from graft_server.jobs.local.pool import LocalJobs


@pytest.fixture
def folder(backbone: Backbone, tmp_path: Path) -> Path:
    """The default backbone's files, in a folder that can be changed."""
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for file in backbone.folder.rglob("*"):
        if file.is_file():
            place = copy / file.relative_to(backbone.folder)
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(file)
    return copy


@asynccontextmanager
async def on_use(
    folder: Path, cache: Path, told: list[TrunkState], retry_s: float = 600.0
) -> AsyncIterator[Trunk]:
    settings = TrunkSettings(cache=cache, device="cpu", measure_s=0, probe_s=0, retry_s=retry_s)
    trunk = Trunk("copy", str(folder), settings, lambda it: told.append(it.state), on_use=True)
    jobs = LocalJobs(1, place=Place(cache=str(cache), backbones={"copy": str(folder)}))
    await trunk.open(jobs)
    yield trunk
    await trunk.close()
    await jobs.close()


def test_it_is_loaded_once_for_all_who_wait_also_if_one_leaves(folder, encoder_cache):
    told: list[TrunkState] = []

    async def scenario() -> None:
        async with on_use(folder, encoder_cache, told) as trunk:
            assert trunk.state is TrunkState.UNLOADED
            leaving, *others = [asyncio.create_task(trunk.ready()) for _ in range(4)]
            while trunk.state is TrunkState.UNLOADED:  # noqa: ASYNC110 -- nothing tells it
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(*others)
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert trunk.state is TrunkState.READY

    asyncio.run(scenario())
    assert told == [TrunkState.READY]


def test_it_is_tried_again_after_it_failed(folder, encoder_cache):
    told: list[TrunkState] = []

    async def scenario() -> None:
        async with on_use(folder, encoder_cache, told) as trunk:
            weights, aside = folder / "model.safetensors", folder / "aside"
            weights.rename(aside)
            for _ in range(2):
                with pytest.raises(BackboneError, match=r"no model\.safetensors"):
                    await trunk.ready()
                assert trunk.state is TrunkState.FAILED
            aside.rename(weights)
            await trunk.ready()
            assert trunk.error == ""

    asyncio.run(scenario())
    assert told == [TrunkState.FAILED, TrunkState.FAILED, TrunkState.READY]


async def ready_by_itself(trunk: Trunk) -> None:
    """Returns once it is READY; nobody asks it to be."""
    while trunk.state is not TrunkState.READY:
        assert trunk.state is TrunkState.FAILED, "who asks meanwhile is told at once"
        await asyncio.sleep(0)


def test_after_a_failure_it_is_loaded_though_nobody_asks_again(folder, encoder_cache):
    told: list[TrunkState] = []

    async def scenario() -> None:
        async with on_use(folder, encoder_cache, told, retry_s=0.01) as trunk, asyncio.timeout(60):
            weights, aside = folder / "model.safetensors", folder / "aside"
            weights.rename(aside)
            with pytest.raises(BackboneError):
                await trunk.ready()
            aside.rename(weights)
            await ready_by_itself(trunk)

    asyncio.run(scenario())
    assert told == [TrunkState.FAILED, TrunkState.READY]


def test_one_that_failed_at_the_start_is_loaded_once_it_can_be(folder, encoder_cache):
    async def scenario() -> None:
        weights, aside = folder / "model.safetensors", folder / "aside"
        weights.rename(aside)
        settings = TrunkSettings(cache=encoder_cache, device="cpu", measure_s=0, retry_s=0.01)
        trunk = Trunk("copy", str(folder), settings)
        jobs = LocalJobs(1, place=Place(cache=str(encoder_cache), backbones={"copy": str(folder)}))
        with pytest.raises(BackboneError, match=r"no model\.safetensors"):
            await trunk.open(jobs)
        with pytest.raises(BackboneError, match=r"no model\.safetensors"):
            await trunk.ready()
        aside.rename(weights)
        async with asyncio.timeout(60):
            await ready_by_itself(trunk)
        assert trunk.encoder_id
        await trunk.close()
        await jobs.close()

    asyncio.run(scenario())


def test_it_can_be_closed_while_it_waits_for_its_next_try(folder, encoder_cache):
    async def scenario() -> None:
        async with on_use(folder, encoder_cache, []) as trunk:
            (folder / "model.safetensors").unlink()
            with pytest.raises(BackboneError):
                await trunk.ready()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_it_is_not_loaded_from_other_files_than_it_was_described_by(folder, encoder_cache):
    async def scenario() -> None:
        async with on_use(folder, encoder_cache, []) as trunk:
            settings = folder / "sentence_bert_config.json"
            settings.unlink(missing_ok=True)
            settings.write_text('{"max_seq_length": 64}')
            with pytest.raises(BackboneError) as raised:
                await trunk.ready()
            assert raised.value.reason == "BACKBONE_CHANGED"

    asyncio.run(scenario())


def test_it_can_be_closed_unused_and_while_it_is_loaded(folder, encoder_cache):
    async def scenario() -> None:
        async with on_use(folder, encoder_cache, []) as trunk:
            pass
        async with on_use(folder, encoder_cache, []) as trunk:
            waiting = asyncio.create_task(trunk.ready())
            await asyncio.sleep(0)
        with pytest.raises((asyncio.CancelledError, BackboneError)):
            await waiting

    asyncio.run(scenario())


def test_a_state_follows_those_alone_that_the_diagram_shows(folder, encoder_cache):
    async def scenario() -> None:
        async with on_use(folder, encoder_cache, []) as trunk:
            assert trunk.state is TrunkState.UNLOADED
            for state in (TrunkState.READY, TrunkState.FAILED, TrunkState.UNLOADED):
                with pytest.raises(RuntimeError, match=f"a trunk does not go from UNLOADED to {state.name}"):
                    trunk._turn(state)
            assert trunk.state is TrunkState.UNLOADED

    asyncio.run(scenario())


def test_a_trunk_that_was_not_opened_cannot_be_used(folder, encoder_cache):
    settings = TrunkSettings(cache=encoder_cache, device="cpu", measure_s=0)

    async def scenario(*, on_use: bool) -> None:
        trunk = Trunk("copy", str(folder), settings, on_use=on_use)
        for use in (trunk.ready, lambda: trunk.cut(1), lambda: trunk.prepare_all([])):
            with pytest.raises(BackboneError) as raised:
                await use()
            assert raised.value.reason == "BACKBONE_LOADING"
        await trunk.close()

    asyncio.run(scenario(on_use=False))
    asyncio.run(scenario(on_use=True))
