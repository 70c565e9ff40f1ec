"""Listing what is stored a page at a time, by an index that follows what is written, put together and erased."""

from datetime import UTC, datetime

import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import MissingError
from graft_server.domain.examples import Change, Example, ExamplesWanted, Input, Label, Split
from graft_server.domain.model import Manifest, Source
from graft_server.store.adaptations.compaction import FAN_IN, compact
from graft_server.store.adaptations.erasure import Wanted, erase
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.stored_examples import StoredExamples
from graft_server.store.adaptations.training_rows import read_rows
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


def version(*sources, labels=("a",)):
    return Manifest(
        *("m", "job", "c", "minilm", "e"),
        labels=tuple(map(Label, labels)),
        sources=sources,
        seed=0,
        created=datetime(2026, 1, 2, tzinfo=UTC),
    )


def made_of(stored, manifest, wanted=ExamplesWanted(), first=None):  # noqa: B008 - it is frozen
    found = stored.of_version(1, manifest, wanted, first)
    return [(it.adaptation_id, it.writer_id, it.sequence, it.example.id, it.superseded) for it in found]


def test_a_version_is_listed_by_its_lineage_with_each_example_once_as_it_was_then(objects):
    base = AdaptationStore.create(objects, "m", "zbase", START)
    write(base, "w", "a", "b", "gone", "kept")
    job = load(objects)
    teach(job)  # replaces a, b and c among others
    manifest = version(Source("zbase", {"w": 3}), Source("job", {"v": 4, "w": 2}))
    stored = StoredExamples(objects)
    whole = [
        ("zbase", "w", 2, "gone", False),
        ("job", "v", 2, "c", True),  # replaced since
        ("job", "v", 3, "d", False),
        ("job", "w", 0, "a", False),
    ]
    assert made_of(stored, manifest) == whole
    write(job, "w", "d")
    assert [it[:4] for it in made_of(stored, manifest)] == [it[:4] for it in whole]
    for n, place in enumerate(whole):
        assert [it[:4] for it in made_of(stored, manifest, first=place[:3])] == [it[:4] for it in whole[n:]]
    assert [it[3] for it in made_of(stored, manifest, ExamplesWanted(ids=frozenset({"a", "b", "c"})))] == [
        "c",
        "a",
    ]
    assert [it[3] for it in made_of(stored, manifest, ExamplesWanted(adaptation_id="zbase"))] == ["gone"]
    erase(objects, job, Wanted(frozenset({"c"})))
    stored.forget("m")
    assert [it[3] for it in made_of(stored, manifest)] == ["gone", "d", "a"]


def test_what_a_version_left_out_is_not_among_its_examples(objects):
    text = Input("a text")
    examples = [
        Example("unlabelled", text),
        Example("weightless", text, "a", weight=0.0),
        Example("other", text, "b"),
        Example("held out", text, "a", split=Split.VALIDATION),
        Example("good", text, "a"),
    ]
    store = load(objects)
    store.writer("w").append([Record(n + 1, Change(it)) for n, it in enumerate(examples)])
    found = made_of(StoredExamples(objects), version(Source("job", {"w": 5})))
    assert [it[3] for it in found] == ["held out", "good"]
    held_out = ExamplesWanted(split=Split.VALIDATION)
    assert [it[3] for it in made_of(StoredExamples(objects), version(Source("job", {"w": 5})), held_out)] == [
        "held out"
    ]


def test_a_page_of_some_ids_of_a_version_reads_their_segments_alone(objects, segments_read):
    store = load(objects)
    for n in range(20):
        write(store, "w", f"{n}")
    stored, manifest = StoredExamples(objects), version(Source("job", {"w": 20}))
    made_of(stored, manifest)
    segments_read.clear()
    assert [it[3] for it in made_of(stored, manifest, ExamplesWanted(ids=frozenset({"3", "17"})))] == [
        "3",
        "17",
    ]
    # One more to see where the writer is.
    assert len(segments_read) == 3


def test_the_list_of_all_that_is_stored_keeps_to_what_is_wanted(objects):
    teach(load(objects))
    wanted = ExamplesWanted(ids=frozenset({"c", "e"}))
    found = StoredExamples(objects).listed("m", ["job"], wanted, None)
    assert [(it.writer_id, it.sequence) for it in found] == [("v", 2), ("v", 4), ("w", 2)]
    for label, count in (("a", len(WHOLE)), ("b", 0)):
        found = StoredExamples(objects).listed("m", ["job"], ExamplesWanted(label=label), None)
        assert len(list(found)) == count


def test_a_confirmation_holds_where_the_same_input_and_target_come_again(objects):
    def sent(id_, text, label, *, confirmed=False):
        return Change(Example(id_, Input(text), label, confirmed=confirmed))

    changes = [
        *(sent("same", "x", "a", confirmed=True), sent("relabelled", "y", "a", confirmed=True)),
        *(sent("reworded", "z", "a", confirmed=True), sent("gone", "u", "a", confirmed=True)),
        *(sent("same", "x", "a"), sent("relabelled", "y", "b"), sent("reworded", "zz", "a")),
        *(Change(delete_id="gone"), sent("gone", "u", "a"), sent("late", "v", "a")),
        *(sent("late", "v", "a", confirmed=True), sent("same", "x", "a")),
    ]
    store = load(objects)
    segment = store.writer("w").append([Record(n + 1, it) for n, it in enumerate(changes)])
    store.write_features(segment, "e", {"pooled": np.zeros((len(segment.upserts), 1), np.float16)})
    source = Source("job", {"w": len(changes)})
    rows = read_rows(objects, "m", [source], "e")
    confirmed = {it.id for it in rows.examples if it.confirmed}
    assert confirmed == {"same", "late"}
    listed_of_version = StoredExamples(objects).of_version(
        1, version(source, labels=("a", "b")), ExamplesWanted(), None
    )
    assert {it.example.id for it in listed_of_version if it.example.confirmed} == confirmed


def test_confirmed_targets_that_a_later_adaptation_replaces_unconfirmed_are_noted(objects):
    def sent(id_, label, *, confirmed=False):
        return Change(Example(id_, Input(id_), label, confirmed=confirmed))

    def stored_in(name, changes):
        store = AdaptationStore.create(objects, "m", name, START)
        segment = store.writer("w").append([Record(n + 1, it) for n, it in enumerate(changes)])
        store.write_features(segment, "e", {"pooled": np.zeros((len(segment.upserts), 1), np.float16)})
        return Source(name, {"w": len(changes)})

    base = stored_in(
        "base", [sent(it, "a", confirmed=it != "plain") for it in ("old", "mended", "same", "plain")]
    )
    later = [
        sent("old", "b"),
        sent("same", "a"),
        sent("plain", "b"),
        sent("mended", "b"),
        sent("mended", "c"),
    ]
    later[4] = sent("mended", "c", confirmed=True)
    lineage = read_rows(objects, "m", [base, stored_in("job", later)], "e").lineage
    assert lineage.overruled == {"old"}
    assert read_rows(objects, "m", [base], "e").lineage.overruled == set()


def test_an_adaptation_that_is_not_there_is_not_found(objects):
    with pytest.raises(MissingError, match="has no adaptation"):
        StoredExamples(objects).of("m", "job")
