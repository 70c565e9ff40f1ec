"""What goes live: publications that promote and that do not, pins, and how everybody hears of it."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2

PROMOTE_NOTHING = adaptation_pb2.PublishPolicy(promote=False)


def known(wire: Any, model: str) -> model_pb2.Model:
    return wire.model.GetModel(model_pb2.GetModelRequest(model=model)).model


def move(model: str, version: int = 0, alias: str = "live", **fields: Any) -> model_pb2.SetAliasRequest:
    return model_pb2.SetAliasRequest(model=model, alias=alias, version=version, **fields)


def publication(wire: Any, model: str, adaptation_id: str) -> adaptation_pb2.Publication:
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id=adaptation_id)
    (found,) = wire.adaptation.GetAdaptation(request).adaptation.publications
    return found


def happened(wire: Any, model: str, adaptation_id: str) -> adaptation_pb2.Published:
    request = adaptation_pb2.WatchAdaptationRequest(model=model, adaptation_id=adaptation_id)
    events = wire.adaptation.WatchAdaptation(request, timeout=60)
    (found,) = [it.published for it in events if it.WhichOneof("what") == "published"]
    return found


def test_after_a_roll_back_the_next_publication_does_not_take_over_and_says_so(wire, model, few, server):
    assert wire.publish(model, few).live_version == 1
    assert wire.publish(model, few).live_version == 2
    rolled_back = wire.model.SetAlias(move(model, 1)).model
    assert rolled_back.HasField("live_pinned_time")
    assert rolled_back.live.version == 1
    published = wire.publish(model, few, adaptation_id="third")
    for told in (published, publication(wire, model, "third"), happened(wire, model, "third")):
        assert (told.version, told.live_version) == (3, 1)
        assert told.live_pinned_time == rolled_back.live_pinned_time
    assert wire.predict(model, ["x"]).version == 1
    assert known(wire, model).live_pinned_time == rolled_back.live_pinned_time
    (said,) = (it for it in server.log if model in it and "live=no" in it)
    assert "live_stays=1 held_back=pinned" in said

    released = wire.model.SetAlias(move(model, latest=True)).model
    assert (released.live.version, released.HasField("live_pinned_time")) == (3, False)
    assert wire.model.SetAlias(move(model, alias="canary", latest=True)).model.aliases["canary"] == 3
    failure = wire.fails(wire.model.SetAlias, move(model, 1, latest=True))
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["version"])
    failure = wire.fails(wire.model.SetAlias, move(f"{model}/none", latest=True))
    assert failure.reason == "MODEL_NOT_FOUND"
    failure = wire.fails(wire.model.SetAlias, move(model, latest=True, expected_version=1))
    assert failure.reason == "ALIAS_MOVED"
    following = wire.publish(model, few, adaptation_id="fourth")
    assert (following.live_version, following.HasField("live_pinned_time")) == (4, False)
    assert wire.predict(model, ["x"]).version == 4
    assert known(wire, model).aliases["canary"] == 3


def test_versions_that_are_not_promoted_are_asked_for_by_number(wire, model, few):
    first = wire.publish(model, few, adaptation_id="a", publish=PROMOTE_NOTHING)
    assert (first.version, first.live_version, first.HasField("live_version")) == (1, 0, True)
    assert not known(wire, model).HasField("live")
    with pytest.raises(grpc.RpcError) as raised:
        wire.predict(model, ["x"])
    assert wire.failure(raised.value).reason == "ALIAS_NOT_FOUND"
    assert wire.predict(model, ["x"], version=1).version == 1
    second = wire.publish(model, few)
    assert second.live_version == 2
    third = wire.publish(model, few, adaptation_id="c", publish=PROMOTE_NOTHING)
    assert (third.live_version, third.HasField("live_pinned_time")) == (2, False)
    assert publication(wire, model, "c").live_version == 2
    assert wire.predict(model, ["x"]).version == 2


def test_a_start_that_promotes_is_not_resumed_as_one_that_does_not(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", publish=PROMOTE_NOTHING)
    call.next("started")
    call.half_close()
    failure = wire.adapt(model=model, adaptation_id="a").failure()
    assert failure.reason == "START_MISMATCH"
    assert "another publish" in failure.message
    wire.adapt(model=model, adaptation_id="a", publish=PROMOTE_NOTHING).next("started")


PAIRS = {"source": "tickets 2026.csv", "git/sha": "f00", "note": "ä\n\t"}


@pytest.fixture(scope="module")
def noted(shared_wire: Any, few: Any) -> str:
    """A model whose adaptation "a" has metadata, and published version 1."""
    model = f"tests/{uuid.uuid4().hex}"
    shared_wire.publish(model, few, adaptation_id="a", metadata=PAIRS)
    return model


def test_a_model_says_how_good_its_live_version_is(wire, noted, few):
    listed = wire.model.ListModels(model_pb2.ListModelsRequest(prefix=noted)).models[0]
    versions = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=noted)).versions
    assert dict(versions[0].metadata) == PAIRS
    versions[0].ClearField("metadata")
    assert listed.live == versions[0]
    assert listed.live.report.examples == len(few)


# ------------------------------------------------------------------------------------------------ metadata

WRONG = {
    "of an empty key": ({"": "x"}, "metadata"),
    "of a key with a space": ({"a b": "x"}, "metadata"),
    "of a long key": ({"k" * 65: "x"}, "metadata"),
    "of a long value": ({"key": "x" * 1025}, "metadata[key]"),
    "of many pairs": ({f"k{number}": "" for number in range(33)}, "metadata"),
    "of many bytes": ({f"k{number}": "é" * 400 for number in range(11)}, "metadata"),
}


@pytest.mark.parametrize("case", WRONG)
def test_metadata_out_of_bounds_is_refused_with_its_field(wire, few_model, model, case):
    pairs, field = WRONG[case]
    failure = wire.adapt(model=model, metadata=pairs).failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "METADATA_INVALID")
    assert failure.fields == [f"start.{field}"]
    request = model_pb2.UpdateModelRequest(model=few_model, set_metadata=pairs)
    failure = wire.fails(wire.model.UpdateModel, request)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "METADATA_INVALID")
    assert failure.fields == [f"set_{field}"]


def test_metadata_is_found_again_with_adaptation_versions_and_model(wire, noted):
    model = noted
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id="a")
    assert dict(wire.adaptation.GetAdaptation(request).adaptation.metadata) == PAIRS
    listed = wire.adaptation.ListAdaptations(adaptation_pb2.ListAdaptationsRequest(model=model)).adaptations
    assert dict(listed[0].metadata) == PAIRS
    found = wire.model.GetVersion(model_pb2.GetVersionRequest(model=model)).version
    assert dict(found.metadata) == PAIRS
    assert dict(known(wire, model).metadata) == {}

    def update(**fields: Any) -> dict[str, str]:
        request = model_pb2.UpdateModelRequest(model=model, **fields)
        return dict(wire.model.UpdateModel(request).model.metadata)

    assert update(set_metadata={"owner": "ann", "team": "x"}) == {"owner": "ann", "team": "x"}
    assert update(set_metadata={"owner": "bob"}, remove_metadata=["team", "none"]) == {"owner": "bob"}
    assert dict(known(wire, model).metadata) == {"owner": "bob"}
    full = {f"k{number}": "" for number in range(31)}
    update(set_metadata=full)
    failure = wire.fails(
        wire.model.UpdateModel, model_pb2.UpdateModelRequest(model=model, set_metadata={"more": ""})
    )
    assert (failure.reason, failure.fields) == ("METADATA_INVALID", ["set_metadata"])
    assert len(update(set_metadata={"more": ""}, remove_metadata=["k0"])) == 32


def test_metadata_is_a_setting_of_the_start(wire, model):
    wire.adapt(model=model, adaptation_id="a", metadata={"a": "1"}).next("started")
    failure = wire.adapt(model=model, adaptation_id="a", metadata={"a": "2"}).failure()
    assert failure.reason == "START_MISMATCH"
    assert "another metadata" in failure.message


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({}, "METADATA_UNNAMED", "set_metadata"),
        (
            {"set_metadata": {"a": "1"}, "remove_metadata": ["b", "a"]},
            "METADATA_INVALID",
            "remove_metadata[1]",
        ),
        ({"remove_metadata": ["a", "no key"]}, "METADATA_INVALID", "remove_metadata[1]"),
    ],
)
def test_a_change_of_metadata_that_says_nothing_is_refused(wire, few_model, fields, reason, field):
    failure = wire.fails(wire.model.UpdateModel, model_pb2.UpdateModelRequest(model=few_model, **fields))
    assert (failure.code, failure.reason, failure.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        reason,
        [field],
    )


# ---------------------------------------------------------------------------------------------- cancelling


def cancel(wire: Any, model: str) -> adaptation_pb2.CancelAdaptationResponse:
    request = adaptation_pb2.CancelAdaptationRequest(model=model, adaptation_id="a")
    return wire.adaptation.CancelAdaptation(request, timeout=60)


def test_cancelling_what_is_published_changes_nothing_and_says_so(wire, noted):
    for _ in range(2):
        answer = cancel(wire, noted)
        assert (answer.changed, answer.given_up) == (False, 0)
        assert answer.adaptation.state == adaptation_pb2.ADAPTATION_STATE_CLOSED
        (found,) = answer.adaptation.publications
        assert (found.state, found.version) == (adaptation_pb2.PUBLICATION_STATE_PUBLISHED, 1)
    assert wire.predict(noted, ["x"]).version == 1


def test_cancelling_an_open_adaptation_changes_it_once(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.commit("c")
    call.next("published")
    answer = cancel(wire, model)
    assert (answer.changed, answer.given_up) == (True, 0)
    assert answer.adaptation.state == adaptation_pb2.ADAPTATION_STATE_CANCELLED
    assert cancel(wire, model).changed is False
    assert wire.predict(model, ["x"]).version == 1
