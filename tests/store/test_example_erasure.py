"""Erasing from segments: what counts afterwards, and what a crash at each step leaves."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import ConflictError
from graft_server.domain.examples import Change, Example, Input, Rejection
from graft_server.domain.model import Source
from graft_server.store.adaptations.erasure import (
    ORPHAN_AGE,
    Wanted,
    erase,
    erased_examples,
    give_up,
    sweep,
)
from graft_server.store.adaptations.segments import ERASED, Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_rows
from graft_server.store.objects.objects import Objects

START = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
THEIRS = Wanted(frozenset({"theirs"}), frozenset({"zebulon"}))


@pytest.fixture(params=["folder", "memory"])
def objects(request, tmp_path):
    return Objects.open(tmp_path if request.param == "folder" else "memory:///")


def load(objects):
    return AdaptationStore.create(objects, "m", "job", START)


def upsert(id_):
    return Record(content_digest(id_.encode()), Change(Example(id_, Input(f"text of {id_}"), "a")))


def teach(store):
    """Three segments with features that say which row they are; the middle one has a person's data."""
    rejection = Rejection(4, "LABEL_TOO_LONG", "upsert.label", "label is 'zebulon…'", "w")
    for first, records in enumerate(
        (
            [upsert("0"), upsert("1")],
            [upsert("2"), upsert("theirs"), Record(9, rejection=rejection, subject="zebulon"), upsert("3")],
            [upsert("4"), Record(content_digest(b"gone"), Change(delete_id="theirs"))],
        )
    ):
        segment = store.writer("w").append(records)
        rows = np.full((len(segment.upserts), 1), first, np.float16)
        rows += np.arange(len(rows), dtype=np.float16)[:, None] / 8
        store.write_features(segment, "e", {"pooled": rows})


def rows(objects):
    found = read_rows(objects, "m", [Source("job", {"w": 8})], "e")
    return [it.id for it in found.examples], found.features["pooled"][:, 0].tolist()


LEFT = (["0", "1", "2", "3", "4"], [0, 0.125, 1, 1.25, 2])


def test_what_is_erased_does_not_count_and_the_rest_keeps_its_place_and_features(objects):
    store = load(objects)
    teach(store)
    assert erase(objects, store, THEIRS) == 1
    assert store.segment("w", 1).records[1:3] == (ERASED, ERASED)
    objects.delete(sweep(objects, store))
    for it in (store, load(objects)):
        assert it.writer("w").next_sequence == 8
        assert it.missing_features("e") == []
        assert rows(objects) == LEFT
    assert erase(objects, store, THEIRS) == 0


def test_which_inputs_were_truncated_is_kept_when_others_are_erased(objects):
    store = load(objects)
    segment = store.writer("w").append([upsert("0"), upsert("theirs"), upsert("1"), upsert("2")])
    truncated = np.array([False, True, True, False])
    store.write_features(segment, "e", {"pooled": np.ones((4, 1), np.float16)}, truncated)
    for expected in ({"theirs", "1"}, {"1"}):
        found = read_rows(objects, "m", [Source("job", {"w": 4})], "e")
        assert {it.id for it, cut in zip(found.examples, found.truncated, strict=True) if cut} == expected
        erase(objects, store, THEIRS)


def test_features_of_what_was_erased_can_be_compared_with_until_they_are_swept_away(objects):
    store = load(objects)
    teach(store)
    assert list(erased_examples(objects, store)) == []
    erase(objects, store, THEIRS)
    (left,) = erased_examples(objects, load(objects))
    assert left.id == "theirs"
    assert left.features["e"]["pooled"].tolist() == [1.125]
    # Of the original segment, and of the one that the first erasure made of it.
    erase(objects, store, Wanted(frozenset({"3"})))
    assert sorted(it.id for it in erased_examples(objects, store)) == ["3", "3", "theirs"]
    objects.delete(sweep(objects, store))
    assert list(erased_examples(objects, store)) == []


def test_whatever_is_sent_in_place_of_an_erased_change_is_a_repeat(objects):
    store = load(objects)
    teach(store)
    erase(objects, store, THEIRS)
    store.follow_all()
    for log in (store.writer("w"), load(objects).writer("w")):
        assert log.repeated(3, [12345, 67890]) == 2
        with pytest.raises(ConflictError, match="Sequence 2 "):
            log.repeated(2, [12345])


def test_a_crash_before_the_generation_counts_changes_nothing_and_its_objects_go_when_they_are_old(
    objects, monkeypatch
):
    store = load(objects)
    teach(store)
    before = rows(objects)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store.generations, "append", crash)
        with pytest.raises(KeyboardInterrupt):
            erase(objects, store, THEIRS)
    again = load(objects)
    assert rows(objects) == before
    # They may be about to count, for all that anybody knows.
    assert sweep(objects, again) == []
    give_up(objects, again)
    assert sweep(objects, again) == []
    late = objects.now() + ORPHAN_AGE + timedelta(minutes=1)
    monkeypatch.setattr(objects, "now", lambda: late)
    give_up(objects, again)
    orphans = sweep(objects, again)
    assert len(orphans) == 6  # two segments, their features and their indexes
    objects.delete(orphans)
    assert rows(objects) == before
    assert erase(objects, again, THEIRS) == 1


def test_a_crash_after_the_generation_counts_leaves_what_the_next_start_deletes(objects):
    store = load(objects)
    teach(store)
    erase(objects, store, THEIRS)
    again = load(objects)
    garbage = sweep(objects, again)
    assert len(garbage) == 4  # two segments and their features
    objects.delete(garbage)
    assert not any(
        b"theirs" in objects.get(key) or b"zebulon" in objects.get(key) for key in objects.keys("models/")
    )
    assert rows(objects) == LEFT


def test_a_server_that_does_not_know_of_it_yet_reads_on_and_collides_as_before(objects):
    store, behind = load(objects), load(objects)
    stale = behind.writer("w")
    teach(store)
    erase(objects, store, Wanted(frozenset({"0"})))
    objects.delete(sweep(objects, store))
    before = rows(objects)
    # Its next segment has the name of one that is gone.
    with pytest.raises(ConflictError) as caught:
        stale.append([upsert("late")])
    assert caught.value.reason == "WRITER_SUPERSEDED"
    behind.follow_all()
    assert stale.next_sequence == 8
    assert rows(objects) == before
    assert "late" not in before[0]


def test_features_that_are_written_after_the_erasure_are_not_kept(objects):
    store = load(objects)
    segment = store.writer("w").append([upsert("theirs"), upsert("0")])
    erase(objects, load(objects), THEIRS)
    assert not store.write_features(segment, "e", {"pooled": np.ones((2, 1), np.float16)})
    assert store.missing_features("e") == [("w", 0)]
    assert not objects.keys(f"{store.folder}features/")


def test_two_servers_that_erase_at_once_both_do(objects):
    one, two = load(objects), load(objects)
    teach(one)
    two.generations.refresh()
    assert erase(objects, one, Wanted(frozenset({"2"}))) == 1
    assert erase(objects, two, Wanted(frozenset({"3"}))) == 1
    assert [it.id for it in load(objects).segment("w", 1).upserts] == ["theirs"]
