"""An encoder that begins to fail while it serves, and answers again: seen by callers, by ListBackbones, by health."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE
from graft_server.domain.errors import BackboneError
from graft_server.domain.examples import Input
from graft_server.encoding.encoder import Encoder
from graft_server.encoding.loading import TrunkSettings, TrunkState
from graft_server.encoding.queueing import Lane
from graft_server.encoding.recovery import RecoveringEncoder
from graft_server.encoding.trunk import Trunk

SOON_S = 0.01
UNKNOWN_TOKEN = 10**9
"""A token that the vocabulary does not have: the encoder fails on it."""


@pytest.fixture(scope="module")
def graphs(encoder_cache: Path, backbone, tmp_path_factory) -> tuple[Path, Path]:
    """The default encoder's graph, and the same with weights that are not numbers."""
    sound = EncoderCache(encoder_cache).graph(backbone.encoder_id)
    model = onnx.load(str(sound))
    weight = max(model.graph.initializer, key=lambda it: len(it.raw_data) if len(it.dims) == 1 else 0)
    broken = np.full(list(weight.dims), np.nan, np.float32)
    weight.CopyFrom(numpy_helper.from_array(broken, weight.name))
    path = tmp_path_factory.mktemp("broken") / "encoder.onnx"
    onnx.save(model, str(path))
    return sound, path


def opened(graph: Path) -> Encoder:
    return Encoder(graph, device="cpu", threads=1)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


def fails(encoder: RecoveringEncoder) -> str:
    with pytest.raises(BackboneError) as raised:
        encoder.encode([np.arange(1000, 1005)])
    return raised.value.reason


def test_a_batch_that_fails_by_its_own_fault_changes_nothing(encoder):
    async def scenario() -> None:
        changes: list[bool] = []
        watched = RecoveringEncoder(encoder, lambda: encoder, changes.append, probe_s=SOON_S)
        with pytest.raises(BackboneError):
            watched.encode([np.array([UNKNOWN_TOKEN])])
        await asyncio.sleep(0)
        assert watched._recovering is not None
        await watched._recovering
        assert changes == []

    run(scenario)


def test_an_encoder_that_fails_is_told_once_and_again_when_a_new_session_answers(graphs):
    sound, broken = graphs
    healed = asyncio.Event()

    async def scenario() -> None:
        changes: list[bool] = []

        def changed(answers: bool) -> None:
            changes.append(answers)
            if answers:
                healed.set()

        watched = RecoveringEncoder(opened(broken), lambda: opened(sound), changed, probe_s=SOON_S)
        assert (
            await asyncio.gather(*[asyncio.to_thread(fails, watched) for _ in range(3)])
            == ["ENCODER_NOT_FINITE"] * 3
        )
        await healed.wait()
        assert changes == [False, True]
        assert np.isfinite(watched.encode([np.arange(1000, 1005)])["pooled"]).all()
        await watched.close()

    run(scenario)


def test_a_session_that_cannot_be_opened_is_tried_again(graphs, tmp_path):
    sound, broken = graphs
    graph = tmp_path / "encoder.onnx"
    tries: list[Path] = []

    def reopen() -> Encoder:
        tries.append(graph)
        if len(tries) == 3:
            shutil.copy(sound, graph)
        return opened(graph)

    async def scenario() -> None:
        healed = asyncio.Event()
        watched = RecoveringEncoder(
            opened(broken), reopen, lambda answers: healed.set() if answers else None, probe_s=SOON_S
        )
        fails(watched)
        await healed.wait()
        assert len(tries) == 3

    run(scenario)


def test_whatever_opening_a_session_raises_it_is_tried_again(graphs):
    sound, broken = graphs
    tries: list[None] = []

    def reopen() -> Encoder:
        tries.append(None)
        if len(tries) < 3:
            raise MemoryError
        return opened(sound)

    async def scenario() -> None:
        healed = asyncio.Event()
        watched = RecoveringEncoder(
            opened(broken), reopen, lambda answers: healed.set() if answers else None, probe_s=SOON_S
        )
        fails(watched)
        await healed.wait()
        assert len(tries) == 3

    run(scenario)


def test_an_encoder_that_raises_what_it_should_not_is_failing_too(encoder):
    class Dead:
        def encode(self, _: Any) -> Any:
            raise ZeroDivisionError

    async def scenario() -> None:
        turned: asyncio.Queue[bool] = asyncio.Queue()
        watched = RecoveringEncoder(encoder, lambda: encoder, turned.put_nowait, probe_s=SOON_S)
        watched._encoder = Dead()  # type: ignore[assignment]
        with pytest.raises(ZeroDivisionError):
            watched.encode([np.arange(1000, 1005)])
        assert await turned.get() is False
        assert await turned.get() is True

    run(scenario)


async def prepared(trunk: Trunk, text: str) -> Any:
    (found,) = await trunk.prepare_all([Input(text)])
    return found


def test_a_trunk_fails_and_recovers_with_its_encoder(graphs, encoder_cache):
    _, broken = graphs

    async def scenario() -> None:
        turned: asyncio.Queue[TrunkState] = asyncio.Queue()
        settings = TrunkSettings(encoder_cache, device="cpu", cores=1, budget=64, measure_s=0, probe_s=SOON_S)
        trunk = Trunk(DEFAULT_NAME, DEFAULT_SOURCE, settings, lambda it: turned.put_nowait(it.state))
        await trunk.open(None)  # type: ignore[arg-type]
        text = await prepared(trunk, "my card was declined")
        before = await trunk.encode([text], lane=Lane.PREDICT)

        working, trunk._loaded.encoder._encoder = trunk._loaded.encoder._encoder, opened(broken)
        trunk._loaded.encoder._reopen = lambda: opened(broken)
        with pytest.raises(BackboneError):
            await trunk.encode([text], lane=Lane.PREDICT)
        assert await turned.get() is TrunkState.FAILED
        with pytest.raises(BackboneError) as raised:
            await trunk.encode([text], lane=Lane.PREDICT)
        assert raised.value.reason == "ENCODER_FAILED"
        assert "is failing; the server keeps asking it" in raised.value.message

        trunk._loaded.encoder._reopen = lambda: working
        assert await turned.get() is TrunkState.READY
        after = await trunk.encode([text], lane=Lane.PREDICT)
        np.testing.assert_allclose(after.arrays["pooled"], before.arrays["pooled"], atol=1e-6)
        assert turned.empty()
        await trunk.close()

    run(scenario)


def test_a_trunk_can_be_closed_while_its_encoder_fails(graphs, encoder_cache):
    _, broken = graphs

    async def scenario() -> None:
        failed = asyncio.Event()
        settings = TrunkSettings(encoder_cache, device="cpu", cores=1, budget=64, measure_s=0, probe_s=60)
        trunk = Trunk(DEFAULT_NAME, DEFAULT_SOURCE, settings, lambda _: failed.set())
        await trunk.open(None)  # type: ignore[arg-type]
        trunk._loaded.encoder._encoder = opened(broken)
        with pytest.raises(BackboneError):
            await trunk.encode([await prepared(trunk, "a text")], lane=Lane.PREDICT)
        await failed.wait()
        await trunk.close()

    run(scenario)
