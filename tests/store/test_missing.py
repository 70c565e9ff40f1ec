"""Objects of an adaptation that are missing: named by what knows better, and never written over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import CorruptError, StateError
from graft_server.domain.examples import Change, Example, Input
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

START = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(params=["folder", "memory"])
def objects(request, tmp_path):
    return Objects.open(tmp_path if request.param == "folder" else "memory:///")


def load(objects) -> AdaptationStore:
    return AdaptationStore.create(objects, "m", "job", START)


def append(store, *ids):
    for it in ids:
        change = Change(Example(it, Input(f"text of {it}"), "a"))
        store.writer("w").append([Record(content_digest(it.encode()), change)])


def numbered(store, kind, number, digits=20):
    return f"{store.folder}{kind}/{number:0{digits}d}.json"


def test_a_commit_that_is_missing_before_others_is_named(objects):
    store = load(objects)
    append(store, "1", "2")
    behind = load(objects)
    for n in range(3):
        store.commit(f"c{n}", {"w": 1 + n % 2})
    missing = numbered(store, "commits", 2)
    objects.delete([missing])
    for act in (
        lambda: load(objects),
        behind.refresh,
        lambda: behind.commit("c9", {"w": 2}),
        lambda: behind.writer("w").append([Record(7, Change(delete_id="1"))]),
    ):
        with pytest.raises(CorruptError, match=missing):
            act()
    assert not objects.exists(missing)
    assert list(store.commits) == ["c0", "c1", "c2"]  # who has read them goes on


@pytest.mark.parametrize("close", [False, True])
def test_a_last_commit_that_is_missing_is_known_from_what_follows_from_it(objects, close):
    store = load(objects)
    append(store, "1")
    store.commit("c1", {"w": 1})
    behind = load(objects)
    store.commit("c2", {"w": 1}, close=close, writer_id="w")
    if not close:
        store.finish("c2", version=2)
    missing = numbered(store, "commits", 2)
    objects.delete([missing])
    for act in (lambda: load(objects), lambda: behind.commit("c3", {"w": 1})):
        with pytest.raises(CorruptError, match=missing):
            act()
    assert not objects.exists(missing)


def test_a_last_segment_that_is_missing_is_known_from_the_commits(objects):
    store = load(objects)
    append(store, "1", "2", "3")
    store.commit("c1", {"w": 2})
    append(store, "4")
    folder = f"{store.folder}writers/w/"
    objects.delete([f"{folder}{3:020d}.seg"])
    assert load(objects).writer("w").next_sequence == 3  # nothing knows of it
    objects.delete([f"{folder}{2:020d}.seg"])
    assert load(objects).writer("w").next_sequence == 2
    objects.delete([f"{folder}{1:020d}.seg"])
    again = load(objects)
    for _ in range(2):
        with pytest.raises(CorruptError, match=f"{1:020d}.seg"):
            again.writer("w")
    assert objects.keys(folder) == [f"{folder}{0:020d}.seg"]


def test_a_last_segment_that_is_missing_is_known_from_the_closing(objects):
    store = load(objects)
    append(store, "1", "2")
    store.commit("c1", {"w": 2}, close=True, writer_id="w")
    objects.delete([f"{store.folder}writers/w/{1:020d}.seg"])
    with pytest.raises(CorruptError, match=f"{1:020d}.seg"):
        load(objects).writer("w")


def test_an_event_that_is_missing_before_others_is_named(objects):
    store = load(objects)
    for n in range(3):
        store.commit(f"c{n}", {})
    behind = load(objects)
    missing = numbered(store, "events", 2)
    objects.delete([missing])
    for act in (behind.events.read, lambda: behind.commit("c3", {})):
        with pytest.raises(CorruptError, match=missing):
            act()
    assert not objects.exists(missing)
    assert [it.number for it in behind.events.read(3)] == [3]


def test_nothing_is_missing_where_another_server_goes_on(objects):
    one, other = load(objects), load(objects)
    append(one, "1")
    one.commit("c1", {"w": 1})
    one.finish("c1", version=1)
    assert other.commit("c2", {"w": 1}).commit_id == "c2"
    append(other, "2")
    one.commit("c3", {"w": 2}, close=True, writer_id="w")
    with pytest.raises(StateError, match="closed"):
        other.commit("c4", {"w": 2})
    assert list(other.commits) == ["c1", "c2", "c3"]
    assert load(objects).writer("w").next_sequence == 2


def test_commits_are_copied_when_they_change_and_not_for_each_look(objects):
    store = load(objects)
    store.commit("c1", {})
    before = store.commits
    assert store.commits is before
    assert store.outcomes is store.outcomes
    store.commit("c2", {})
    assert (list(before), list(store.commits)) == (["c1"], ["c1", "c2"])
    store.finish("c1", version=1)
    assert list(store.outcomes) == ["c1"]
