"""Small segments that are put together: what is read back is the same, whoever reads, writes or crashes meanwhile."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Rejected, Start
from graft_server.domain.errors import ConflictError, CorruptError
from graft_server.domain.examples import Change, Example, Input, Rejection
from graft_server.domain.model import Source
from graft_server.store.adaptations import generations
from graft_server.store.adaptations.compaction import FAN_IN, LARGEST_BYTES, compact
from graft_server.store.adaptations.erasure import ORPHAN_AGE, Wanted, erase, give_up, sweep
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.stored_examples import ExampleIndex
from graft_server.store.adaptations.training_rows import read_rows
from graft_server.store.objects.objects import Objects

START = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(params=["folder", "memory"])
def objects(request, tmp_path):
    return Objects.open(tmp_path if request.param == "folder" else "memory:///")


def load(objects):
    return AdaptationStore.create(objects, "m", "job", START)


def upsert(id_, text=""):
    return Record(content_digest(id_.encode()), Change(Example(id_, Input(text or f"text of {id_}."), "a")))


def write(store, *records, writer="w", value=0.0):
    """Appends a segment whose features say `value` and which row they are."""
    segment = store.writer(writer).append(records)
    rows = np.arange(len(segment.upserts), dtype=np.float16)[:, None] / 8
    store.write_features(segment, "e", {"pooled": rows + np.float16(value)} if len(rows) else {})
    return segment


def trickle(store, segments, first=0, writer="w"):
    for n in range(first, first + segments):
        write(store, upsert(f"{writer}{n}"), writer=writer, value=n)


def rows(objects, **watermarks):
    found = read_rows(objects, "m", [Source("job", watermarks)], "e")
    return [it.id for it in found.examples], found.features["pooled"][:, 0].tolist()


def segments(objects, kind="writers"):
    return len(objects.keys(f"{load(objects).folder}{kind}/"))


def test_what_is_put_together_reads_back_the_same(objects):
    store = load(objects)
    trickle(store, 2 * FAN_IN + 10)
    before = rows(objects, w=2 * FAN_IN + 10)
    assert compact(objects, store, "e") == 2 * FAN_IN
    assert (segments(objects), segments(objects, "features")) == (12, 12)
    assert rows(objects, w=2 * FAN_IN + 10) == before
    assert rows(objects, w=FAN_IN + 3) == (before[0][: FAN_IN + 3], before[1][: FAN_IN + 3])
    again = load(objects)
    assert again.writer("w").next_sequence == 2 * FAN_IN + 10
    assert again.missing_features("e") == []
    assert compact(objects, again, "e") == 0


def test_which_inputs_were_truncated_is_kept_when_segments_are_put_together(objects):
    store = load(objects)
    trickle(store, 3)
    segment = store.writer("w").append([upsert("long"), upsert("short")])
    pooled = np.ones((2, 1), np.float16)
    store.write_features(segment, "e", {"pooled": pooled}, np.array([True, False]))
    trickle(store, FAN_IN, first=3)

    def truncated():
        found = read_rows(objects, "m", [Source("job", {"w": FAN_IN + 5})], "e")
        return [it.id for it, cut in zip(found.examples, found.truncated, strict=True) if cut]

    assert truncated() == ["long"]
    assert compact(objects, store, "e") == FAN_IN
    assert truncated() == ["long"]


def test_what_was_put_together_is_put_together_again():
    objects = Objects.open("memory:///")
    store = load(objects)
    for n in range(FAN_IN):
        trickle(store, FAN_IN, first=n * FAN_IN)
        compact(objects, store, "e")
    trickle(store, FAN_IN + 1, first=FAN_IN * FAN_IN)
    before = rows(objects, w=FAN_IN * FAN_IN + FAN_IN + 1)
    compact(objects, store, "e")
    assert segments(objects) == 3
    assert rows(objects, w=FAN_IN * FAN_IN + FAN_IN + 1) == before


def test_large_segments_stay_as_they_are_and_few_small_ones_between_them_too(objects):
    store = load(objects)
    text = "x" * (LARGEST_BYTES // 2)
    for n in range(4):
        write(store, upsert(f"large{n}", text))
        trickle(store, 3, first=3 * n)
    assert compact(objects, store, "e") == 0


def test_a_writer_goes_on_after_what_was_put_together_and_repeats_are_recognised(objects):
    store = load(objects)
    trickle(store, FAN_IN + 1)
    compact(objects, store, "e")
    for log in (store.writer("w"), load(objects).writer("w")):
        digests = [content_digest(f"w{n}".encode()) for n in range(FAN_IN + 1)]
        assert log.repeated(0, digests) == FAN_IN + 1
        with pytest.raises(ConflictError) as caught:
            log.repeated(5, [content_digest(b"other")])
        assert caught.value.reason == "SEQUENCE_CONFLICT"
    write(store, upsert("more"))
    assert load(objects).writer("w").next_sequence == FAN_IN + 2


def test_a_server_that_does_not_know_of_it_collides_as_before(objects):
    store, behind = load(objects), load(objects)
    stale = behind.writer("w")
    trickle(store, FAN_IN + 1)
    compact(objects, store, "e")
    with pytest.raises(ConflictError) as caught:
        stale.append([upsert("late")])
    assert caught.value.reason == "WRITER_SUPERSEDED"
    behind.follow_all()
    assert stale.next_sequence == FAN_IN + 1
    assert "late" not in rows(objects, w=FAN_IN + 1)[0]


def test_a_log_that_was_read_in_part_goes_on_within_what_was_put_together(objects):
    store, behind = load(objects), load(objects)
    trickle(store, 5)
    assert behind.writer("w").next_sequence == 5
    trickle(store, FAN_IN, first=5)
    compact(objects, store, "e")
    behind.follow_all()
    assert behind.writer("w").next_sequence == FAN_IN + 5


def test_examples_are_listed_once_where_segments_are_put_together_meanwhile(objects):
    store = load(objects)
    trickle(store, FAN_IN + 3)
    index = ExampleIndex(load(objects))
    index.refresh()
    listed = index.examples()
    first = [next(listed) for _ in range(5)]
    compact(objects, store, "e")
    assert [it.sequence for it in (*first, *listed)] == list(range(FAN_IN + 3))


def test_rejections_are_told_as_before(objects):
    store = load(objects)
    rejection = Rejection(1, "LABEL_TOO_LONG", "upsert.label", "it is", "w")
    write(store, upsert("0"), Record(9, rejection=rejection))
    trickle(store, FAN_IN)
    compact(objects, store, "e")
    (fact,) = [it.fact for it in load(objects).events.read() if isinstance(it.fact, Rejected)]
    assert load(objects).rejections(fact) == [rejection]


def test_segments_whose_features_are_still_to_come_are_left(objects):
    store = load(objects)
    trickle(store, FAN_IN - 1)
    store.writer("w").append([upsert("unencoded")])
    trickle(store, 1)
    assert compact(objects, store, "e") == 0
    assert store.missing_features("e") == [("w", FAN_IN - 1)]


def test_an_adaptation_that_was_closed_is_left_as_it_is(objects):
    store = load(objects)
    trickle(store, FAN_IN + 1)
    store.commit("c", {"w": FAN_IN + 1}, close=True, writer_id="w")
    assert compact(objects, store, "e") == 0


def test_what_closes_an_adaptation_right_after_includes_what_is_put_together(objects, monkeypatch):
    store, other = load(objects), load(objects)
    trickle(store, FAN_IN + 1, writer="a")
    refresh = store.refresh

    def closing():
        refresh()
        monkeypatch.undo()
        other.commit("c", {"b": 0}, close=True, writer_id="b")

    monkeypatch.setattr(store, "refresh", closing)
    assert compact(objects, store, "e") == FAN_IN
    again = load(objects)
    assert again.commits["c"].watermarks == {"a": FAN_IN + 1, "b": 0}
    assert again.writer("a").next_sequence == FAN_IN + 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_loses_nothing_and_what_it_leaves_is_swept(objects, monkeypatch, when):
    store = load(objects)
    trickle(store, FAN_IN + 1)
    before = rows(objects, w=FAN_IN + 1)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if when == "before":
            patched.setattr(store.generations, "append", crash)
        else:
            patched.setattr(objects, "delete", crash)
        with pytest.raises(KeyboardInterrupt):
            compact(objects, store, "e")
    again = load(objects)
    assert rows(objects, w=FAN_IN + 1) == before
    assert again.writer("w").next_sequence == FAN_IN + 1
    late = objects.now() + ORPHAN_AGE + timedelta(minutes=1)
    monkeypatch.setattr(objects, "now", lambda: late)
    give_up(objects, again)
    garbage = sweep(objects, again)
    assert len(garbage) == (3 if when == "before" else 2 * FAN_IN)
    objects.delete(garbage)
    assert rows(objects, w=FAN_IN + 1) == before


def test_what_is_erased_while_segments_are_put_together_is_not_in_them(objects, monkeypatch):
    store, eraser = load(objects), load(objects)
    trickle(store, FAN_IN + 1)
    append = store.generations.append

    def erasing(generation, number):
        monkeypatch.undo()
        assert erase(objects, eraser, Wanted(frozenset({"w3"}))) == 1
        # What was about to count is known as garbage, however young.
        objects.delete(sweep(objects, eraser))
        assert not any(b"text of w3." in objects.get(key) for key in objects.keys("models/"))
        append(generation, number)

    monkeypatch.setattr(store.generations, "append", erasing)
    assert compact(objects, store, "e") == 0
    assert compact(objects, store, "e") == FAN_IN
    ids, features = rows(objects, w=FAN_IN + 1)
    assert ids == [f"w{n}" for n in range(FAN_IN + 1) if n != 3]
    assert features == [n for n in range(FAN_IN + 1) if n != 3]
    assert not any(b"text of w3." in objects.get(key) for key in objects.keys("models/"))


def test_an_example_is_erased_from_what_was_put_together(objects):
    store = load(objects)
    trickle(store, FAN_IN + 1)
    compact(objects, store, "e")
    assert erase(objects, store, Wanted(frozenset({"w3"}))) == 1
    objects.delete(sweep(objects, store))
    ids, features = rows(objects, w=FAN_IN + 1)
    assert ids == [f"w{n}" for n in range(FAN_IN + 1) if n != 3]
    assert features == [n for n in range(FAN_IN + 1) if n != 3]
    assert not any(b"text of w3." in objects.get(key) for key in objects.keys("models/"))


@pytest.fixture
def read(monkeypatch):
    """The keys that are read from now on."""
    keys = []
    get = Objects.get
    monkeypatch.setattr(Objects, "get", lambda self, key: (keys.append(key), get(self, key))[1])
    return keys


def test_opening_reads_the_indexes_of_what_was_put_together_and_no_examples(objects, read):
    store = load(objects)
    write(store, upsert("deleted"), value=0)
    trickle(store, 2 * FAN_IN, first=1)
    write(store, upsert("last"))
    assert compact(objects, store, "e") == 2 * FAN_IN
    digests = [
        content_digest(it.encode())
        for it in ("deleted", *(f"w{n}" for n in range(1, 2 * FAN_IN + 1)), "last")
    ]
    for without in (False, True):
        if without:
            objects.delete(objects.keys(f"{store.folder}indexes/"))
        read.clear()
        log = load(objects).writer("w")
        assert sum(it.endswith(".seg") for it in read) == (5 if without else 3)  # the last two, and the end
        assert (log.next_sequence, log.labels) == (2 * FAN_IN + 2, {"a"})
        assert log.repeated(0, digests) == len(digests)
        with pytest.raises(ConflictError, match=f"Sequence {FAN_IN} "):
            log.repeated(0, [*digests[:FAN_IN], 7])


def test_opening_reads_the_state_of_generations_and_those_after_it(objects, read, monkeypatch):
    monkeypatch.setattr(generations, "STORED_EVERY", 2)
    store = load(objects)
    for n in range(5):
        trickle(store, FAN_IN, first=n * FAN_IN)
        write(store, upsert(f"theirs{n}"))
        compact(objects, store, "e")
        erase(objects, store, Wanted(frozenset({f"theirs{n}"})))
    assert store.generations.number == 10
    states = objects.keys(f"{store.folder}generation-states/")
    assert [it[-7:-5] for it in states] == ["08", "10"]
    for key in [None, *reversed(states)]:
        if key:
            objects.delete([key])
        read.clear()
        again = load(objects)
        known = {None: 10, states[1]: 8, states[0]: 0}[key]
        entries = {int(it[-10:-5]) for it in read if "/generations/" in it}
        assert entries - {11} == set(range(known + 1, 11))  # 11: there is none
        assert again.generations.pieces("w") == store.generations.pieces("w")
        assert again.generations.erased_since(3) == store.generations.erased_since(3)
        assert again.generations.last_erasure == 10
        assert again.generations.erasures("w") == 5
        assert again.writer("w").next_sequence == 5 * FAN_IN + 5


def test_indexes_of_what_is_erased_go_with_it(objects):
    store = load(objects)
    trickle(store, FAN_IN + 1)
    compact(objects, store, "e")
    (index,) = objects.keys(f"{store.folder}indexes/")
    digest = content_digest(b"w7").to_bytes(8, "little")
    assert digest in objects.get(index)
    erase(objects, store, Wanted(frozenset({"w7"})))
    objects.delete(sweep(objects, store))
    assert not any(digest in objects.get(it) for it in objects.keys(store.folder))
    assert len(objects.keys(f"{store.folder}indexes/")) == 1
    assert load(objects).writer("w").repeated(7, [1]) == 1  # any change counts as the erased one


def test_a_missing_generation_is_named(objects):
    store = load(objects)
    trickle(store, 2 * FAN_IN + 1)
    compact(objects, store, "e")
    first, last = objects.keys(f"{store.folder}generations/")
    objects.delete([first])
    with pytest.raises(CorruptError, match=first):
        load(objects)
    assert objects.keys(f"{store.folder}generations/") == [last]


def test_folders_that_are_emptied_go(tmp_path):
    objects = Objects.open(tmp_path)
    trickle(load(objects), 2)
    assert (tmp_path / "models/m").is_dir()
    objects.delete(objects.keys("models/"))
    assert [it.name for it in tmp_path.iterdir()] == [".writing"]
    objects.create("models/m/x", b"")
    assert objects.get("models/m/x") == b""
