"""What moves `live`: publications, unless it is pinned or their adaptation does not promote; and who releases it."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from graft_server.domain.errors import ConflictError
from graft_server.domain.model import LIVE, HeldBack, LiveThen, ManifestRef, Model, Version
from graft_server.store.catalogue import stored_state
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.entries import Entry
from graft_server.store.objects.objects import Objects


@pytest.fixture
def objects() -> Objects:
    return Objects.open("memory:///")


@pytest.fixture
def catalogue(objects: Objects) -> Catalogue:
    """Model "m" with versions 1, 2 and 3."""
    catalogue = Catalogue(objects)
    for commit in "xyz":
        publish(catalogue, commit)
    return catalogue


def publish(catalogue: Catalogue, commit_id: str, model: str = "m", **settings: Any) -> Version:
    return catalogue.publish(
        model=model,
        adaptation_id="job",
        commit_id=commit_id,
        manifest=ManifestRef(f"models/{model}/_/versions/{commit_id}/manifest.json", "0" * 64),
        summary={},
        **settings,
    )


def known(catalogue: Catalogue, model: str = "m") -> Model:
    return catalogue.refresh().model(model)


def test_live_stays_where_somebody_rolled_it_back_to(catalogue):
    pinned = catalogue.move_alias("m", LIVE, 2).live_pinned
    assert pinned is not None
    version = publish(catalogue, "later")
    assert version.number == 4
    assert version.held_back == HeldBack(2, pinned)
    assert version.live_then == LiveThen(2, pinned)
    assert known(catalogue).aliases == {LIVE: 2}
    assert publish(catalogue, "later") == version, "a repeat says the same"


def test_live_follows_where_it_was_pointed_at_the_newest(catalogue):
    assert catalogue.move_alias("m", LIVE, 3).live_pinned is None
    version = publish(catalogue, "later")
    assert (version.held_back, version.live_then) == (None, LiveThen(4))
    assert known(catalogue).aliases == {LIVE: 4}


def test_live_is_pinned_also_where_it_is_already(catalogue):
    publish(catalogue, "aside", promote=False)
    assert known(catalogue).aliases == {LIVE: 3}
    assert known(catalogue).live_pinned is None
    pinned = catalogue.move_alias("m", LIVE, 3).live_pinned
    assert pinned is not None
    entries = catalogue.snapshot.entries
    assert catalogue.move_alias("m", LIVE, 3).live_pinned == pinned
    assert catalogue.snapshot.entries == entries, "nothing changes, nothing is written"


@pytest.mark.parametrize("newest", [3, 4])
def test_pointing_live_at_the_newest_releases_it(catalogue, newest):
    catalogue.move_alias("m", LIVE, 1)
    if newest == 4:
        publish(catalogue, "later")
    assert catalogue.move_alias("m", LIVE, newest, if_newest=True).live_pinned is None
    assert publish(catalogue, "latest").held_back is None
    assert known(catalogue).aliases == {LIVE: newest + 1}


def test_another_old_version_keeps_it_pinned(catalogue):
    first = catalogue.move_alias("m", LIVE, 1).live_pinned
    second = catalogue.move_alias("m", LIVE, 2).live_pinned
    assert first is not None
    assert second is not None
    assert second >= first
    assert publish(catalogue, "later").held_back == HeldBack(2, second)


def test_what_is_newest_is_decided_when_the_alias_moves(objects, catalogue):
    other = Catalogue(objects)
    publish(other, "later")
    with pytest.raises(ConflictError) as raised:
        catalogue.move_alias("m", LIVE, 3, if_newest=True)
    assert raised.value.reason == "NEWEST_MOVED"
    assert known(catalogue).aliases == {LIVE: 4}
    assert catalogue.move_alias("m", LIVE, 3).live_pinned is not None, "by now it is not the newest"


def test_a_pin_and_a_publication_at_once_leave_no_third_outcome(tmp_path):
    servers = [Catalogue(Objects.open(tmp_path)) for _ in range(2)]
    for number in range(12):
        model = f"m{number}"
        for commit in "xy":
            publish(servers[0], commit, model)
        threads = [
            threading.Thread(target=servers[0].move_alias, args=(model, LIVE, 1)),
            threading.Thread(target=publish, args=(servers[1], "z", model)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = known(servers[0], model)
        # Whichever came first, the roll-back holds: what was published before it was left, and after it stayed aside.
        assert found.aliases == {LIVE: 1}
        assert found.live_pinned is not None
        assert found.version(3).held_back in (None, HeldBack(1, found.live_pinned))


def test_deleting_other_versions_changes_nothing_about_a_pin(catalogue):
    pinned = catalogue.move_alias("m", LIVE, 1).live_pinned
    for number in (3, 2):
        catalogue.delete_version("m", number)
    assert known(catalogue).latest_version == 1
    assert publish(catalogue, "later").held_back == HeldBack(1, pinned)
    assert catalogue.move_alias("m", LIVE, 4).live_pinned is None


def test_the_newest_and_pinned_one_is_released_by_pointing_live_at_it_again(catalogue):
    catalogue.move_alias("m", LIVE, 1)
    for number in (3, 2):
        catalogue.delete_version("m", number)
    assert catalogue.move_alias("m", LIVE, 1).live_pinned is None
    assert publish(catalogue, "later").held_back is None


def test_a_pinned_version_that_is_taken_away_releases_live(catalogue):
    catalogue.move_alias("m", LIVE, 1)
    catalogue.erase_examples("m", {"job": 1}, lambda it: it.number == 1)
    assert catalogue.discard_version("m", 1) is not None
    assert known(catalogue).aliases == {LIVE: 3}
    assert known(catalogue).live_pinned is None
    assert publish(catalogue, "later").held_back is None


def test_other_aliases_never_follow_and_pin_nothing(catalogue):
    assert catalogue.move_alias("m", "canary", 1).live_pinned is None
    catalogue.move_alias("m", "newest", 3, if_newest=True)
    publish(catalogue, "later")
    assert known(catalogue).aliases == {LIVE: 4, "canary": 1, "newest": 3}
    pinned = catalogue.move_alias("m", LIVE, 1).live_pinned
    catalogue.move_alias("m", "canary", 4)
    assert catalogue.move_alias("m", "canary", 0).live_pinned == pinned


def test_a_publication_that_is_not_promoted_leaves_live_alone(catalogue):
    version = publish(catalogue, "aside", promote=False)
    assert version.held_back == HeldBack(3)
    assert known(catalogue).aliases == {LIVE: 3}
    assert publish(catalogue, "next").held_back is None
    assert known(catalogue).aliases == {LIVE: 5}


def test_a_first_version_that_is_not_promoted_is_live_nowhere(objects):
    catalogue = Catalogue(objects)
    assert publish(catalogue, "x", promote=False).held_back == HeldBack(0)
    assert known(catalogue).aliases == {}
    assert publish(catalogue, "y", promote=False).held_back == HeldBack(0)
    assert catalogue.move_alias("m", LIVE, 1, expected_version=0).live_pinned is not None
    assert publish(catalogue, "z").held_back is not None


def test_a_renewal_takes_a_pinned_live_with_it_and_it_stays_pinned(catalogue):
    pinned = catalogue.move_alias("m", LIVE, 2).live_pinned
    renewed = publish(catalogue, "z/encoder", renews=3)
    assert renewed.held_back == HeldBack(2, pinned)
    catalogue.delete_version("m", 4)
    catalogue.delete_version("m", 3)
    moved = publish(catalogue, "y/encoder", renews=2)
    assert moved.held_back is None
    assert known(catalogue).aliases == {LIVE: 5}
    assert known(catalogue).live_pinned == pinned
    assert publish(catalogue, "later").held_back == HeldBack(5, pinned)


def test_a_deleted_models_pin_does_not_outlive_it(catalogue):
    catalogue.move_alias("m", LIVE, 1)
    catalogue.delete_model("m")
    assert publish(catalogue, "again").held_back is None
    assert known(catalogue).live_pinned is None


def test_pins_and_metadata_survive_restarts_and_reach_other_servers(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_state, "EVERY", 4)
    one, two = Catalogue(Objects.open(tmp_path)), Catalogue(Objects.open(tmp_path))
    for commit in "xyz":
        publish(one, commit, metadata={"source": f"{commit}.csv"})
    one.move_alias("m", LIVE, 1)  # and the state is stored
    one.update_metadata("m", {"owner": "ann", "team": "support"}, [])
    one.update_metadata("m", {"owner": "bob"}, ["team", "never"])
    publish(two, "later")
    assert stored_state.stored(Objects.open(tmp_path))
    for catalogue in (one, two, Catalogue(Objects.open(tmp_path))):
        assert catalogue.refresh() == one.snapshot
        model = known(catalogue)
        assert (model.aliases, model.metadata) == ({LIVE: 1}, {"owner": "bob"})
        assert model.version(4).held_back == HeldBack(1, model.live_pinned)
        assert model.version(2).metadata == {"source": "y.csv"}
    one.delete_model("m")
    publish(one, "again")
    assert known(one).metadata == {}


def test_entries_without_pins_and_metadata_are_read_as_before():
    stored = {
        "publish": b'{"type":"publish","time":"2026-01-02T00:00:00Z","model":"m","version":1,"adaptation_id":"a",'
        b'"commit_id":"c","manifest":{"key":"k","sha256":"0"},"aliases":["live"],"summary":{}}',
        "move_alias": b'{"type":"move_alias","time":"2026-01-02T00:00:00Z","model":"m","alias":"live","version":1}',
    }
    published, moved = (msgspec.json.decode(it, type=Entry) for it in stored.values())
    assert (published.metadata, published.held_back) == ({}, None)
    assert moved.pinned is False
