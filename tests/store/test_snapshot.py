"""What entries of the catalogue's log say, replayed without a store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from graft_server.domain.model import LIVE, ManifestRef
from graft_server.store.catalogue.entries import (
    CancelAdaptation,
    DeleteModel,
    DeleteVersion,
    Entry,
    EraseExamples,
    MoveAlias,
    Publish,
    Redact,
)
from graft_server.store.catalogue.snapshot import Replay, Snapshot

TIME = datetime(2026, 1, 2, tzinfo=UTC)


def publish(model: str, version: int, **fields: Any) -> Publish:
    known: dict[str, Any] = {
        "adaptation_id": "a",
        "commit_id": f"c{version}",
        "manifest": ManifestRef(f"{model}/{version}", "digest"),
        "aliases": (LIVE,),
        "summary": {},
        **fields,
    }
    return Publish(TIME, model, version, **known)


def replayed(*entries: Entry) -> tuple[Replay, Snapshot]:
    replay = Replay()
    for number, entry in enumerate(entries, 1):
        replay.apply(entry, number)
    return replay, replay.snapshot(len(entries), [])


def test_versions_and_aliases_are_as_the_entries_say_in_their_order():
    _, snapshot = replayed(
        publish("m", 1),
        publish("m", 2),
        MoveAlias(TIME, "m", LIVE, 1),
        MoveAlias(TIME, "m", "canary", 2),
        MoveAlias(TIME, "m", "canary", 0),
        DeleteVersion(TIME, "m", 2),
    )
    model = snapshot.model("m")
    assert list(model.versions) == [1]
    assert model.aliases == {LIVE: 1}
    assert snapshot.entries == 6


def test_a_snapshot_stays_as_it_was_when_more_is_replayed():
    replay, before = replayed(publish("m", 1), CancelAdaptation(TIME, "m", "a"))
    replay.apply(publish("m", 2), 3)
    replay.apply(DeleteModel(TIME, "m"), 4)
    assert list(before.model("m").versions) == [1]
    assert before.cancelled == {("m", "a")}
    assert not before.deletions


def test_a_model_that_was_deleted_goes_on_counting_and_its_ids_are_free():
    replay, snapshot = replayed(
        publish("m", 1),
        publish("n", 1),
        CancelAdaptation(TIME, "m", "a"),
        EraseExamples(TIME, "m", (1,), {"a": 1}),
        DeleteModel(TIME, "m"),
    )
    assert list(snapshot.models) == ["n"]
    assert snapshot.deletions == {"m": 5}
    assert not snapshot.cancelled
    assert not snapshot.erased
    assert replay.last_numbers["m"] == 1
    assert replay.published("n", "a", "c1")
    assert not replay.published("m", "a", "c1")


def test_what_was_trained_on_erased_examples_says_so_until_it_is_written_anew():
    anew = ManifestRef("m/1-anew", "digest")
    _, snapshot = replayed(
        publish("m", 1),
        publish("m", 2),
        EraseExamples(TIME, "m", (1,), {"a": 3}),
        Redact(TIME, "m", 1, anew),
    )
    first, second = snapshot.model("m").versions.values()
    assert (first.erased, first.redacted, first.manifest) == (True, True, anew)
    assert (second.erased, second.redacted) == (False, False)
    assert snapshot.erasures == {"m": 3}
    assert snapshot.erased == {("m", "a"): 3}
    assert snapshot.replaced == {"m": (ManifestRef("m/1", "digest"),)}


def test_entries_that_speak_of_what_a_damaged_one_said_change_nothing():
    _, snapshot = replayed(
        MoveAlias(TIME, "m", LIVE, 1),
        DeleteVersion(TIME, "m", 1),
        Redact(TIME, "m", 1, ManifestRef("k", "d")),
    )
    assert not snapshot.models
