"""Backbones of a running server: loaded at start or on first use, and those that cannot be, which stop no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft.v1 import model_pb2
from graft_server.backbones.source import DEFAULT_NAME

BROKEN = {
    "empty": ("BACKBONE_WEIGHTS_MISSING", "there is no model.safetensors in its folder"),
    "pickled": ("BACKBONE_WEIGHTS_MISSING", "pickle"),
    "without-tokenizer": ("BACKBONE_FILE_MISSING", "tokenizer.json"),
    "damaged-tokenizer": ("BACKBONE_FILE_INVALID", "tokenizer.json"),
    "unknown": ("BACKBONE_ARCHITECTURE_UNSUPPORTED", "'mamba' is not supported. These are: text: bert"),
    "damaged-weights": ("BACKBONE_LOAD_FAILED", "transformers cannot load it (SafetensorError)"),
    "other-weights": (
        "BACKBONE_WEIGHTS_OTHER",
        "weights that the architecture bert needs are not in its files (",
    ),
    "image-without-processor": ("BACKBONE_FILE_MISSING", "preprocessor_config.json"),
    "audio-without-processor": ("BACKBONE_FILE_MISSING", "preprocessor_config.json"),
    "clip-without-tokenizer": ("BACKBONE_FILE_MISSING", "tokenizer.json"),
}
MEDIA = {
    "image-without-processor": "resnet",
    "audio-without-processor": "whisper",
    "clip-without-tokenizer": "clip",
}


def states(wire: Any) -> dict[str, model_pb2.Backbone]:
    return {
        it.name: it for it in wire.model.ListBackbones(model_pb2.ListBackbonesRequest(), timeout=60).backbones
    }


def break_checkpoint(name: str, good: Path, folder: Path) -> None:
    """Makes of a good checkpoint one that is broken as its name says."""
    if name == "empty":
        folder.mkdir()
        return
    shutil.copytree(good, folder)
    if name.endswith("without-processor"):
        (folder / "preprocessor_config.json").unlink()
        return
    weights, tokenizer, config = (
        folder / it for it in ("model.safetensors", "tokenizer.json", "config.json")
    )
    if name == "pickled":
        weights.rename(folder / "pytorch_model.bin")
    elif name.endswith("without-tokenizer"):
        tokenizer.unlink()
    elif name == "damaged-tokenizer":
        tokenizer.write_text("{")
    elif name == "unknown":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mamba"}))
    elif name == "other-weights":
        shutil.copy(good.parent / "gpt2" / weights.name, weights)
    else:
        weights.write_bytes(weights.read_bytes()[:-100])


@pytest.fixture(scope="module")
def broken(serving_many, text_checkpoints, media_checkpoints, tmp_path_factory) -> Iterator[Any]:
    """A server of the default backbone and others, none of which can be loaded."""
    folder = tmp_path_factory.mktemp("broken")
    for name in BROKEN:
        good = media_checkpoints / MEDIA[name] if name in MEDIA else text_checkpoints / "bert"
        break_checkpoint(name, good, folder / name)
    with serving_many({name: folder / name for name in BROKEN}) as wire:
        yield wire


@pytest.mark.parametrize("name", BROKEN)
def test_a_backbone_that_cannot_be_loaded_says_why_and_stops_no_other(broken, few, model, name):
    reason, said = BROKEN[name]
    found = states(broken)
    assert found[name].state == model_pb2.BACKBONE_STATE_FAILED
    assert said in found[name].error
    assert found[name].memory_bytes == 0
    failure = broken.adapt(model=model, backbone=name).failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, reason)
    assert failure.message == found[name].error
    assert found[DEFAULT_NAME].state == model_pb2.BACKBONE_STATE_READY
    assert found[DEFAULT_NAME].memory_bytes > 10_000_000, "its weights alone have 45 MB in half precision"
    assert broken.publish(model, few, backbone=DEFAULT_NAME).version == 1


def test_a_backbone_is_loaded_by_the_first_example_or_the_first_prediction(serve, connect, tmp_path, few):
    wire = connect(serve("--load-on-use", "all", store=tmp_path / "store"))
    before = states(wire)[DEFAULT_NAME]
    assert before.state == model_pb2.BACKBONE_STATE_UNLOADED
    assert (before.memory_bytes, before.architecture, before.feature_dimension) == (0, "bert", 384)
    assert "text" in before.input_kinds
    wire.publish("tests/on-use", few)
    loaded = states(wire)[DEFAULT_NAME]
    assert loaded.state == model_pb2.BACKBONE_STATE_READY
    assert loaded.memory_bytes > 0
    expected = wire.predict("tests/on-use", [few[0][0]]).results[0].single_label

    again = connect(serve("--load-on-use", DEFAULT_NAME, store=tmp_path / "store"))
    assert states(again)[DEFAULT_NAME].state == model_pb2.BACKBONE_STATE_UNLOADED
    assert again.predict("tests/on-use", [few[0][0]]).results[0].single_label == expected
    assert states(again)[DEFAULT_NAME].state == model_pb2.BACKBONE_STATE_READY


def test_a_backbone_on_use_that_is_gone_by_then_fails_alone(
    serving_many, text_checkpoints, tmp_path_factory, few
):
    folder = tmp_path_factory.mktemp("vanishing") / "roberta"
    shutil.copytree(text_checkpoints / "roberta", folder)
    with serving_many({"roberta": folder}, "--load-on-use=roberta") as wire:
        assert states(wire)["roberta"].state == model_pb2.BACKBONE_STATE_UNLOADED
        (folder / "model.safetensors").unlink()
        failure = wire.adapt(model="tests/gone", backbone="roberta").failure()
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "BACKBONE_WEIGHTS_MISSING")
        found = states(wire)
        assert found["roberta"].state == model_pb2.BACKBONE_STATE_FAILED
        assert found["roberta"].error == failure.message
        assert found[DEFAULT_NAME].state == model_pb2.BACKBONE_STATE_READY
        assert wire.publish("tests/other", few).version == 1


def test_health_of_predictions_follows_a_default_backbone_on_use_and_heals_though_nobody_predicts(
    serve, connect, text_checkpoints, tmp_path
):
    folder = tmp_path / "roberta"
    shutil.copytree(text_checkpoints / "roberta", folder)
    wire = connect(serve(f"--backbone=roberta={folder}", "--load-on-use=roberta"))
    health = health_pb2_grpc.HealthStub(wire.channel)
    asked = health_pb2.HealthCheckRequest(service="graft.v1.PredictionService")
    told = health.Watch(asked, timeout=60)
    assert next(told).status == health_pb2.HealthCheckResponse.SERVING
    weights, aside = folder / "model.safetensors", folder / "aside"
    weights.rename(aside)
    assert wire.adapt(model="tests/heals").failure().reason == "BACKBONE_WEIGHTS_MISSING"
    assert next(told).status == health_pb2.HealthCheckResponse.NOT_SERVING
    overall = health.Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert overall.status == health_pb2.HealthCheckResponse.SERVING, "a restart would not help"
    aside.rename(weights)
    assert next(told).status == health_pb2.HealthCheckResponse.SERVING
    assert states(wire)["roberta"].state == model_pb2.BACKBONE_STATE_READY
    told.cancel()
