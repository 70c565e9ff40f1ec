"""Listing what is stored a page at a time, by an index that follows what is written, put together and erased."""

from datetime import UTC, datetime

import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import MissingError
from graft_server.domain.examples import Change, Example, Input
from graft_server.store.adaptations.compaction import FAN_IN, compact
from graft_server.store.adaptations.erasure import Wanted, erase
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.stored_examples import StoredExamples
from graft_server.store.objects.objects import Objects

START = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
def objects():
    return Objects.open("memory:///")


@pytest.fixture
def segments_read(objects, monkeypatch):
    """The segments that are read from now on."""
    read = []
    get = objects.get

    def noting(key):
        if key.endswith(".seg"):
            read.append(key)
        return get(key)

    monkeypatch.setattr(objects, "get", noting)
    return read


def load(objects):
    return AdaptationStore.create(objects, "m", "job", START)


def write(store, writer, *ids, delete=()):
    changes = [Change(Example(it, Input(f"text of {it}"), "a")) for it in ids]
    changes += [Change(delete_id=it) for it in delete]
    records = [Record(content_digest(repr((writer, n, it)).encode()), it) for n, it in enumerate(changes)]
    segment = store.writer(writer).append(records)
    store.write_features(segment, "e", {"pooled": np.zeros((len(ids), 1), np.float16)} if ids else {})


def listed(stored, first=("", 0)):
    found = stored.of("m", "job").examples(first)
    return [(it.writer_id, it.sequence, it.example.id, it.superseded) for it in found]


def teach(store):
    write(store, "v", "a", "b", "c")
    write(store, "w", "a", delete=("b",))
    write(store, "v", "d", "c")
    write(store, "w", "e")


WHOLE = [
    ("v", 0, "a", True),
    ("v", 1, "b", True),
    ("v", 2, "c", True),
    ("v", 3, "d", False),
    ("v", 4, "c", False),
    ("w", 0, "a", False),
    ("w", 2, "e", False),
]


def test_a_list_that_begins_anywhere_is_the_rest_of_the_whole_one(objects):
    teach(load(objects))
    stored = StoredExamples(objects)
    assert listed(stored) == WHOLE
    for writer, sequence in [("v", n) for n in range(6)] + [("w", n) for n in range(4)] + [("x", 0)]:
        assert listed(stored, (writer, sequence)) == [it for it in WHOLE if it[:2] >= (writer, sequence)]


def test_a_later_page_reads_what_it_shows_and_nothing_before(objects, segments_read):
    store = load(objects)
    for n in range(40):
        write(store, "w", f"{n}")
    stored = StoredExamples(objects)
    first = stored.of("m", "job").examples()
    assert next(first).sequence == 0
    segments_read.clear()
    page = stored.of("m", "job").examples(("w", 30))
    assert [next(page).sequence for _ in range(3)] == [30, 31, 32]
    # One more to see where the writer is.
    assert len(segments_read) == 4


def test_what_is_stored_later_is_listed_and_replaces_what_was(objects):
    store = load(objects)
    teach(store)
    stored = StoredExamples(objects)
    listed(stored)
    write(store, "w", "d")
    write(store, "z", "f")
    assert listed(stored) == [
        *WHOLE[:3],
        ("v", 3, "d", True),
        *WHOLE[4:],
        ("w", 3, "d", False),
        ("z", 0, "f", False),
    ]


def test_what_is_erased_is_listed_no_more(objects):
    teach(load(objects))
    stored = StoredExamples(objects)
    listed(stored)
    erase(objects, load(objects), Wanted(frozenset({"c"})))
    assert listed(stored) == [it for it in WHOLE if it[2] != "c"]


def test_pages_go_on_where_segments_are_put_together_in_between(objects):
    store = load(objects)
    for n in range(FAN_IN + 3):
        write(store, "w", f"{n}")
    stored = StoredExamples(objects)
    whole = listed(stored)
    assert compact(objects, store, "e") == FAN_IN
    assert listed(stored) == whole
    assert listed(stored, ("w", 7)) == whole[7:]
    write(store, "w", "new")
    assert listed(stored)[-1] == ("w", FAN_IN + 3, "new", False)


def test_an_adaptation_that_is_large_or_forgotten_is_read_anew(objects, segments_read):
    teach(load(objects))
    for stored in (StoredExamples(objects, kept_ids=4), StoredExamples(objects)):
        listed(stored)
        stored.forget("m")
        segments_read.clear()
        assert listed(stored) == WHOLE
        assert len(segments_read) >= 2 * 4


def test_an_adaptation_that_is_not_there_is_not_found(objects):
    with pytest.raises(MissingError, match="has no adaptation"):
        StoredExamples(objects).of("m", "job")
