"""A server whose backbone is another encoder than before: models are adapted anew by itself, and served meanwhile."""

from __future__ import annotations

import shutil

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft.v1 import model_pb2

HEALTH = health_pb2.HealthCheckResponse
MODELS = ("tests/a", "tests/pinned")


def model_of(wire, name):
    return wire.model.GetModel(model_pb2.GetModelRequest(model=name), timeout=60).model


def report_of(wire, name, version):
    request = model_pb2.GetVersionRequest(model=name, version=version)
    return wire.model.GetVersion(request, timeout=60).version.report


def health_of(wire):
    stub = health_pb2_grpc.HealthStub(wire.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service="graft.v1.PredictionService"), timeout=60).status


def label(wire, model, **selector):
    answer = wire.predict(model, ["my bill is wrong 2"], **selector)
    return answer.version, answer.results[0].single_label.scores[0].label


@pytest.fixture(scope="module")
def before(serving, tmp_path_factory, few):
    """A store that a server in float32 has made, and that server's encoder."""
    store = tmp_path_factory.mktemp("renewed") / "store"
    with serving(store=store) as wire:
        for name in (*MODELS, "tests/bare", "tests/deleted"):
            wire.publish(name, few, adaptation_id="a")
        wire.publish("tests/pinned", few, adaptation_id="b")
        wire.model.SetAlias(model_pb2.SetAliasRequest(model="tests/pinned", alias="live", version=1))
        wire.model.SetAlias(model_pb2.SetAliasRequest(model="tests/a", alias="stable", version=1))
        encoder_id = report_of(wire, "tests/a", 1).encoder_id
    shutil.rmtree(store / "models/tests/bare/_/adaptations")
    return store, encoder_id


@pytest.mark.slow
def test_models_are_adapted_anew_for_another_encoder_and_served_meanwhile(serving, before, few):
    store, encoder_id = before
    latest = {"tests/a": 2, "tests/pinned": 3, "tests/deleted": 2}
    with serving("--precision", "int8", store=store) as wire:
        waiting = dict(latest)
        while waiting:  # every model is answered for all along
            assert health_of(wire) == HEALTH.SERVING
            for name in list(waiting):
                assert label(wire, name)[1] == "bill"
                if model_of(wire, name).latest_version == waiting[name]:
                    del waiting[name]
        aliases = {name: dict(model_of(wire, name).aliases) for name in latest}
        assert aliases["tests/a"] == {"live": 2, "stable": 2}  # which followed
        assert aliases["tests/pinned"] == {"live": 1}  # which was pinned, and stays
        assert label(wire, "tests/pinned") == (1, "bill")
        assert label(wire, "tests/pinned", version=3) == (3, "bill")
        assert label(wire, "tests/a") == (2, "bill")
        assert label(wire, "tests/a", version=1) == (1, "bill")
        report = report_of(wire, "tests/a", 2)
        assert (report.renewal.version, report.renewal.encoder_id) == (1, encoder_id)
        assert report.encoder_id != encoder_id
        assert report.examples == len(few)
        assert any(it.startswith("The server made this version by itself") for it in report.warnings)
        assert not report_of(wire, "tests/a", 1).HasField("renewal")
        # What has no stored examples keeps its version.
        assert dict(model_of(wire, "tests/bare").aliases) == {"live": 1}
        assert label(wire, "tests/bare") == (1, "bill")
        wire.model.DeleteModel(model_pb2.DeleteModelRequest(model="tests/deleted"))
    # Once is enough, for the same server and for those that still have the encoder before.
    for flags in (("--precision", "int8"), ()):
        with serving(*flags, store=store) as wire:
            wire.publish(f"tests/last{len(flags)}", few)
            assert {name: model_of(wire, name).latest_version for name in MODELS} == {
                name: latest[name] for name in MODELS
            }
            assert label(wire, "tests/a")[1] == "bill"
