"""Looking at adaptations from outside: get, list, watch and cancel."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2

OPEN, CLOSED, CANCELLED = (
    adaptation_pb2.ADAPTATION_STATE_OPEN,
    adaptation_pb2.ADAPTATION_STATE_CLOSED,
    adaptation_pb2.ADAPTATION_STATE_CANCELLED,
)


def get(wire: Any, model: str, adaptation_id: str = "a") -> adaptation_pb2.Adaptation:
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id=adaptation_id)
    return wire.adaptation.GetAdaptation(request, timeout=60).adaptation


def watch(wire: Any, model: str, from_event: int = 0) -> Any:
    request = adaptation_pb2.WatchAdaptationRequest(model=model, adaptation_id="a", from_event=from_event)
    return wire.adaptation.WatchAdaptation(request, timeout=60)


def numbered(events: Any) -> list[tuple[int, str]]:
    return [(it.event, it.WhichOneof("what")) for it in events if it.event]


def cancel(wire: Any, model: str) -> adaptation_pb2.Adaptation:
    request = adaptation_pb2.CancelAdaptationRequest(model=model, adaptation_id="a")
    return wire.adaptation.CancelAdaptation(request, timeout=60).adaptation


@pytest.fixture
def finished(wire, model, few):
    """An adaptation "a" with a rejection, a failed commit, a published one, and a close."""
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, [("", "lock")])
    call.accepted(1)
    call.commit("early")
    call.next("publication_failed")
    call.examples(1, few)
    call.commit("enough", close=True)
    call.next("published")
    call.half_close()
    assert list(call.responses) == []
    return model


def test_get_describes_writers_and_publications(wire, finished, few):
    adaptation = get(wire, finished)
    assert (adaptation.model, adaptation.adaptation_id, adaptation.state) == (finished, "a", CLOSED)
    assert adaptation.backbone == "minilm"
    assert adaptation.HasField("create_time")
    assert [(it.writer_id, it.next_sequence) for it in adaptation.writers] == [("default", len(few) + 1)]
    early, enough = adaptation.publications
    assert (early.commit_id, early.state) == ("early", adaptation_pb2.PUBLICATION_STATE_FAILED)
    assert wire.failure(early.status).reason == "TOO_FEW_CLASSES"
    assert (enough.commit_id, enough.state, enough.version) == (
        "enough",
        adaptation_pb2.PUBLICATION_STATE_PUBLISHED,
        1,
    )


def test_a_watcher_is_told_everything_in_order_and_then_the_end(wire, finished):
    events = list(watch(wire, finished))
    kinds = [kind for _, kind in numbered(events)]
    assert [number for number, _ in numbered(events)] == list(range(1, len(kinds) + 1))
    # The rejection is recorded beside the stream, so its place among the first events is open.
    assert sorted(kinds[:3]) == ["committed", "publication_failed", "rejected"]
    assert kinds[3:] == ["committed", "state", "published"]
    by_kind = {kind: event for event, (_, kind) in zip(events, numbered(events), strict=True)}
    assert by_kind["rejected"].rejected.rejected[0].sequence == 0
    assert by_kind["state"].state == CLOSED
    assert by_kind["published"].published.version == 1


def test_from_event_resumes_without_gap_or_repeat(wire, finished):
    whole = numbered(watch(wire, finished))
    for first in range(1, len(whole) + 1):
        assert numbered(watch(wire, finished, from_event=first)) == whole[first - 1 :]
    assert numbered(watch(wire, finished, from_event=len(whole) + 1)) == []


def test_a_live_watcher_gets_the_same_events_as_a_late_one(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.next("started")
    live = watch(wire, model)
    call.examples(0, [*few, ("", "lock")])
    call.commit("one")
    call.next("published")
    call.commit("two", close=True)
    call.next("published")
    call.half_close()
    seen = numbered(live)
    assert seen == numbered(watch(wire, model))
    assert sorted(kind for _, kind in seen) == [
        "committed",
        "committed",
        "published",
        "published",
        "rejected",
        "state",
    ]


def test_every_watcher_sees_the_last_event(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.next("started")
    watchers = [watch(wire, model) for _ in range(10)]
    call.examples(0, few)
    call.commit("c", close=True)
    expected = [(1, "committed"), (2, "state"), (3, "published")]
    assert [numbered(it) for it in watchers] == [expected] * 10


def test_list_gives_the_newest_first_in_pages(wire, model):
    for number in range(5):
        wire.adapt(model=model, adaptation_id=f"a{number}").next("started")
    seen, token = [], ""
    while True:
        request = adaptation_pb2.ListAdaptationsRequest(model=model, page_size=2, page_token=token)
        page = wire.adaptation.ListAdaptations(request)
        assert len(page.adaptations) <= 2
        seen += [it.adaptation_id for it in page.adaptations]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["a4", "a3", "a2", "a1", "a0"]
    assert not wire.adaptation.ListAdaptations(
        adaptation_pb2.ListAdaptationsRequest(model=f"{model}/x")
    ).adaptations


def test_cancelling_ends_calls_and_keeps_versions(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.commit("c")
    call.next("published")
    assert cancel(wire, model).state == CANCELLED
    failure = call.failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTATION_CANCELLED")
    assert wire.adapt(model=model, adaptation_id="a").failure().reason == "ADAPTATION_CANCELLED"
    assert wire.predict(model, ["the lock"]).version == 1
    assert cancel(wire, model).state == CANCELLED


def test_a_watcher_is_told_of_the_cancellation_and_then_the_end(wire, model):
    wire.adapt(model=model, adaptation_id="a").next("started")
    watcher = watch(wire, model)
    cancel(wire, model)
    (event,) = watcher
    assert (event.event, event.state) == (1, CANCELLED)


def test_cancelling_gives_up_unfinished_publications(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    for number in range(4):
        call.commit(f"c{number}")
        call.next("committed")
    adaptation = cancel(wire, model)
    assert len(adaptation.publications) == 4
    states = {it.state for it in adaptation.publications}
    assert states <= {
        adaptation_pb2.PUBLICATION_STATE_CANCELLED,
        adaptation_pb2.PUBLICATION_STATE_PUBLISHED,
    }
    assert adaptation.publications[-1].state == adaptation_pb2.PUBLICATION_STATE_CANCELLED
    assert wire.failure(adaptation.publications[-1].status).reason == "ADAPTATION_CANCELLED"
    events = list(watch(wire, model))
    finished = [it for _, it in numbered(events) if it in ("published", "publication_failed")]
    assert len(finished) == 4
    published = sum(it.state == adaptation_pb2.PUBLICATION_STATE_PUBLISHED for it in adaptation.publications)
    models = wire.model.ListModels(model_pb2.ListModelsRequest(prefix=model)).models
    assert sum(it.versions for it in models) <= max(published, 1)


def test_a_watcher_is_told_of_what_another_server_does(serve, connect, few):
    here, there = connect(serve()), connect(serve())
    call = here.adapt(model="tests/m", adaptation_id="a")
    call.examples(0, few)
    call.accepted(len(few))
    watcher = watch(there, "tests/m")
    call.commit("c", close=True)
    call.next("published")
    events = [it for it in watcher if it.event]
    assert numbered(events) == [(1, "committed"), (2, "state"), (3, "published")]
    assert events[-1].published.summary.examples == len(few)
