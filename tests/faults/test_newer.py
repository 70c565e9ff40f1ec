"""A store that a newer release writes to as well: what is served, what is refused, and that nothing of it is lost."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft.v1 import adaptation_pb2, model_pb2
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

NEWER = b'{"format":2,"type":"publish_many","model":"tests/sound"}'
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health(wire, service):
    stub = health_pb2_grpc.HealthStub(wire.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status


def publications(wire):
    request = adaptation_pb2.GetAdaptationRequest(model="tests/sound", adaptation_id="open")
    return wire.adaptation.GetAdaptation(request, timeout=60).adaptation.publications


def files(folder):
    return {it: it.read_bytes() for it in folder.rglob("*") if it.is_file() and "events" not in it.parts}


def test_a_server_beside_a_newer_one_serves_what_it_knows_and_leaves_the_rest_to_it(serving, tmp_path, few):
    store, newer = tmp_path / "store", f"catalogue/{2:020d}.json"
    with serving(store=store) as wire:
        wire.publish("tests/sound", few)
        call = wire.adapt(model="tests/sound", adaptation_id="open")
        call.examples(0, few)
        call.accepted(len(few))
    objects = Objects.open(store)
    AdaptationStore.load(objects, "tests/sound", "open").commit("left", {"default": len(few)})
    objects.create(newer, NEWER)
    before = files(store)
    with serving(store=store) as wire:
        assert wire.predict("tests/sound", ["the lock"]).version == 1
        assert [health(wire, f"graft.v1.{it}Service") for it in ("Adaptation", "Prediction", "Model")] == [
            NOT_SERVING,
            SERVING,
            SERVING,
        ]
        assert health(wire, "") == SERVING
        refused = [wire.adapt(model="tests/sound").failure(), wire.adapt(model="tests/new").failure()]
        call = wire.adapt(model="tests/sound", adaptation_id="open")
        assert call.next("started").next_sequence == len(few)
        call.commit("now")
        refused.append(call.failure())
        for ask, request in (
            (wire.model.SetAlias, model_pb2.SetAliasRequest(model="tests/sound", alias="a", version=1)),
            (wire.model.DeleteModel, model_pb2.DeleteModelRequest(model="tests/sound")),
            (wire.model.DeleteVersion, model_pb2.DeleteVersionRequest(model="tests/sound", version=1)),
            (wire.model.DeleteExamples, model_pb2.DeleteExamplesRequest(model="tests/sound", ids=["a"])),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                ask(request, timeout=60)
            refused.append(wire.failure(raised.value))
        for failure in refused:
            assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CATALOGUE_NEWER")
            assert failure.metadata["object"] == newer
            assert "upgrade this server" in failure.message
        # A commit that was left is nobody's failure: it waits for the newer server.
        assert [it.state for it in publications(wire)] == [adaptation_pb2.PUBLICATION_STATE_QUEUED]
    assert files(store) == before
    objects.delete([newer])  # as one that knows what it says
    with serving(store=store) as wire:
        watched = adaptation_pb2.WatchAdaptationRequest(model="tests/sound", adaptation_id="open")
        for response in wire.adaptation.WatchAdaptation(watched, timeout=60):
            if response.WhichOneof("what") == "published":
                break
        assert [it.version for it in publications(wire)] == [2]
