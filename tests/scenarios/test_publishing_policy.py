"""Continuous publishing: the server commits by itself, once, whoever and however many ask and restart."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from graft.v1 import adaptation_pb2, model_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def every(examples: int = 0, seconds: int = 0) -> adaptation_pb2.PublishPolicy:
    policy = adaptation_pb2.PublishPolicy(every_examples=examples)
    if seconds:
        policy.every.CopyFrom(Duration(seconds=seconds))
    return policy


def commits(wire: Any, model: str) -> list[adaptation_pb2.Publication]:
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id="a")
    return list(wire.adaptation.GetAdaptation(request).adaptation.publications)


def test_every_so_many_examples_a_version_is_published(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", publish=every(examples=6))
    call.examples(0, few[:6])
    committed = call.next("committed")
    assert (committed.commit_id, committed.next_sequence) == ("auto:1", 6)
    assert call.next("published").version == 1
    call.examples(6, few[6:])
    published = call.next("published")
    assert (published.commit_id, published.version) == ("auto:2", 2)
    assert published.summary.examples == 12


def test_examples_in_one_batch_make_one_commit_however_many_they_are(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", publish=every(examples=2))
    call.examples(0, few)
    assert call.next("published").summary.examples == len(few)
    assert [it.commit_id for it in commits(wire, model)] == ["auto:1"]


def test_too_few_classes_do_not_end_the_stream(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", publish=every(examples=3))
    call.examples(0, [row for row in few if row[1] == "lock"][:3])
    failed = call.next("publication_failed")
    assert failed.commit_id == "auto:1"
    assert wire.failure(failed.status).reason == "TOO_FEW_CLASSES"
    call.examples(3, few)
    assert call.next("published").commit_id == "auto:2"


def test_after_so_many_seconds_what_came_in_is_published(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", publish=every(seconds=1))
    call.examples(0, few)
    seen = 0
    while seen < len(few):
        seen = call.next("published").summary.examples


def test_a_commit_of_the_client_counts_as_the_newest(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", publish=every(examples=8))
    call.examples(0, few[:6])
    call.commit("mine")
    call.next("published")
    call.examples(6, few[6:])
    call.accepted(12)
    call.commit("mine-too")
    call.next("published")
    assert [it.commit_id for it in commits(wire, model)] == ["mine", "mine-too"]


def test_a_commit_with_nothing_new_gets_the_version_that_is_there_and_closes(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", publish=every(examples=len(few)))
    call.examples(0, few)
    assert call.next("published").commit_id == "auto:1"
    call.commit("last", close=True)
    (published,) = call.outcomes()
    assert (published.commit_id, published.version) == ("last", 1)
    assert published.summary.examples == len(few)
    versions = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=model)).versions
    assert [it.version for it in versions] == [1]
    assert [it.version for it in commits(wire, model)] == [1, 1]


def test_a_commit_with_nothing_new_trains_again_where_examples_were_erased_since(wire, model, few):
    rows = [adaptation_pb2.ExampleChange(upsert={"id": str(n), "input": {"text": text}, "label": label})
            for n, (text, label) in enumerate(few)]  # fmt: skip
    call = wire.adapt(model=model, adaptation_id="a", publish=every(examples=len(few)))
    call.examples(0, rows)
    assert call.next("published").commit_id == "auto:1"
    wire.model.DeleteExamples(model_pb2.DeleteExamplesRequest(model=model, ids=["0"]), timeout=60)
    call.commit("last", close=True)
    (published,) = call.outcomes()
    assert (published.version, published.summary.examples) == (2, len(few) - 1)


def test_changes_of_all_writers_count(wire, model, few):
    calls = [
        wire.adapt(model=model, adaptation_id="a", writer_id=writer, publish=every(examples=12))
        for writer in ("one", "two")
    ]
    for call, rows in zip(calls, (few[:6], few[6:]), strict=True):
        call.next("started")
        call.examples(0, rows)
    for call in calls:
        assert call.next("published").summary.examples == 12
    assert [it.commit_id for it in commits(wire, model)] == ["auto:1"]


def test_two_servers_make_one_commit_of_what_both_were_sent(serve, connect, model, few):
    first = serve()
    wires = [connect(first), connect(serve(store=first.store))]
    calls = [
        wire.adapt(model=model, adaptation_id="a", writer_id=f"w{n}", publish=every(examples=12))
        for n, wire in enumerate(wires)
    ]
    for call, rows in zip(calls, (few[:6], few[6:]), strict=True):
        call.next("started")
        call.examples(0, rows)
        call.accepted(6)
    watched = wires[0].adaptation.WatchAdaptation(
        adaptation_pb2.WatchAdaptationRequest(model=model, adaptation_id="a"), timeout=60
    )
    published = next(it.published for it in watched if it.WhichOneof("what") == "published")
    assert (published.commit_id, published.version) == ("auto:1", 1)
    assert [it.commit_id for it in commits(wires[1], model)] == ["auto:1"]


def test_what_was_due_when_the_server_died_is_published_by_the_next(serve, connect, model, few):
    first = serve("--workers", "1")
    call = connect(first).adapt(model=model, adaptation_id="a", publish=every(examples=12))
    call.examples(0, few)
    call.accepted(12)
    first.kill()
    wire = connect(serve(store=first.store))
    watched = wire.adaptation.WatchAdaptation(
        adaptation_pb2.WatchAdaptationRequest(model=model, adaptation_id="a"), timeout=60
    )
    published = next(it.published for it in watched if it.WhichOneof("what") == "published")
    assert (published.commit_id, published.version) == ("auto:1", 1)
    versions = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=model)).versions
    assert [it.version for it in versions] == [1]


def test_a_client_cannot_choose_an_id_of_the_servers(wire, model, few):
    call = wire.adapt(model=model)
    call.commit("auto:1")
    failure = call.failure()
    assert (failure.code, failure.fields) == (INVALID, ["commit.commit_id"])


@pytest.mark.parametrize(("policy", "field"), [
    (adaptation_pb2.PublishPolicy(every_examples=-1), "start.publish.every_examples"),
    (adaptation_pb2.PublishPolicy(every=Duration(nanos=1000)), "start.publish.every"),
    (adaptation_pb2.PublishPolicy(every=Duration(seconds=-5)), "start.publish.every"),
])  # fmt: skip
def test_a_policy_that_cannot_work_is_refused(wire, model, policy, field):
    failure = wire.adapt(model=model, publish=policy).failure()
    assert (failure.code, failure.reason, failure.fields) == (INVALID, "PUBLISH_INVALID", [field])


def test_too_many_open_adaptations_are_refused_with_a_delay(serve, connect, model, few):
    wire = connect(serve("--open-adaptations-per-model", "1", "--open-adaptations", "2"))
    first = wire.adapt(model=model, adaptation_id="one")
    first.next("started")
    wire.adapt(model=model, adaptation_id="one", writer_id="another").next("started")
    failure = wire.adapt(model=model, adaptation_id="two").failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ADAPTATIONS")
    assert failure.retry_s > 0
    wire.adapt(model=f"{model}2").next("started")
    assert wire.adapt(model=f"{model}3").failure().reason == "TOO_MANY_ADAPTATIONS"


def test_too_many_publications_are_refused_with_a_delay(serve, connect, model, few):
    wire = connect(serve("--publications-per-model", "1"))
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.commit("one")
    call.commit("two")
    failure = call.failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_PUBLICATIONS")
    assert failure.retry_s > 0
    again = wire.adapt(model=model, adaptation_id="a")
    again.commit("one")
    assert again.next("published").version == 1
    again.commit("two")
    assert again.next("published").commit_id == "two"
