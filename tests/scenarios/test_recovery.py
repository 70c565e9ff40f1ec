"""A default backbone that fails under a running server, and recovers: what health and ListBackbones say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np
import onnx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import numpy_helper

from graft.v1 import model_pb2, model_pb2_grpc
from graft_server.app import App
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.encoding.encoder import Encoder
from graft_server.settings import Settings

PREDICTION = "graft.v1.PredictionService"
Health = health_pb2.HealthCheckResponse


def test_health_follows_the_default_backbone(encoder_cache, backbone, tmp_path):
    asyncio.run(_health_follows(Settings(
        listen="127.0.0.1:0", store=str(tmp_path / "store"), cache=str(encoder_cache), drain_seconds=0.1,
        measure_seconds=0,
    ), broken(EncoderCache(encoder_cache).graph(backbone.encoder_id), tmp_path)))  # fmt: skip


async def _health_follows(settings: Settings, broken_graph: Path) -> None:
    app = App(settings)
    target = await app.start()
    async with asyncio.timeout(60), grpc.aio.insecure_channel(target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        following = health.Watch(health_pb2.HealthCheckRequest(service=PREDICTION))
        statuses = aiter(following)
        assert (await anext(statuses)).status == Health.SERVING

        encoder = app.service.trunks.get("")._loaded.encoder
        encoder._probe_s = 0.01
        working = encoder._encoder
        encoder._encoder = Encoder(broken_graph, device="cpu", threads=1)
        encoder._reopen = lambda: Encoder(broken_graph, device="cpu", threads=1)
        encoder._loop.call_soon(encoder._failed)
        assert (await anext(statuses)).status == Health.NOT_SERVING
        assert await _state(channel) == model_pb2.BACKBONE_STATE_FAILED
        everything = await health.Check(health_pb2.HealthCheckRequest())
        assert everything.status == Health.SERVING

        encoder._reopen = lambda: working
        assert (await anext(statuses)).status == Health.SERVING
        assert await _state(channel) == model_pb2.BACKBONE_STATE_READY
        following.cancel()
    await app.stop()


async def _state(channel: grpc.aio.Channel) -> int:
    listed = await model_pb2_grpc.ModelServiceStub(channel).ListBackbones(model_pb2.ListBackbonesRequest())
    (only,) = listed.backbones
    return int(only.state)


def broken(sound: Path, folder: Path) -> Path:
    """The graph with weights that are not numbers."""
    model = onnx.load(str(sound))
    weight = next(it for it in model.graph.initializer if list(it.dims) == [384])
    weight.CopyFrom(numpy_helper.from_array(np.full(384, np.nan, np.float32), weight.name))
    path = folder / "broken.onnx"
    onnx.save(model, str(path))
    return path
