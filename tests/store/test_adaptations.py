"""One adaptation's objects: segments, features, commits, outcomes, events, and reading them all back."""

import dataclasses
import subprocess
import sys
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from graft_server.domain.adaptation import (
    AdaptationSettings,
    AdaptationState,
    Committed,
    Failure,
    Finished,
    Rejected,
    Start,
    StateChanged,
)
from graft_server.domain.errors import ConflictError, CorruptError, MissingError, StateError, StoreError
from graft_server.domain.examples import Change, Example, Input, Label, Rejection, Split
from graft_server.domain.model import Source
from graft_server.store.adaptations.erasure import sweep
from graft_server.store.adaptations.features import decode_features, encode_features
from graft_server.store.adaptations.keys import stored_name, writer_folder
from graft_server.store.adaptations.listing import (
    deleted_adaptations,
    list_adaptations,
    list_all_adaptations,
    remove_adaptation,
)
from graft_server.store.adaptations.segments import (
    Record,
    Segment,
    content_digest,
    encode_segment,
    segment_key,
)
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_rows
from graft_server.store.objects.objects import ObjectMissingError, Objects

START = Start(
    AdaptationSettings("minilm", (Label("a"), Label("b", "second")), seed=3), datetime(2026, 1, 2, tzinfo=UTC)
)


@pytest.fixture(params=["folder", "memory"])
def objects(request, tmp_path):
    return Objects.open(tmp_path if request.param == "folder" else "memory:///")


@pytest.fixture
def memory():
    return Objects.open("memory:///")


def create(objects, adaptation_id="job", start=START):
    return AdaptationStore.create(objects, "team/m", adaptation_id, start)


def load(objects, adaptation_id="job"):
    return AdaptationStore.load(objects, "team/m", adaptation_id)


def upsert(id_, text=None, label="a"):
    return Record(
        content_digest(f"{id_}{text}{label}".encode()),
        Change(Example(id_, Input(text or id_), label, 0.5, Split.TRAIN, "g")),
    )


def delete(id_):
    return Record(content_digest(id_.encode()), Change(delete_id=id_))


def reject(sequence):
    rejection = Rejection(sequence, "INPUT_EMPTY", "upsert.input.text", "is blank", "w")
    return Record(2**64 - 1 - sequence, rejection=rejection)


def add(store, writer_id, records, value=0.0, encoder_id="e"):
    """Appends a segment with features that say which row they are: value, value + 1, ..."""
    segment = store.writer(writer_id).append(records)
    store.record_rejections(segment)
    rows = np.arange(len(segment.upserts), dtype=np.float16)[:, None] + np.float16(value)
    if len(rows):
        store.write_features(segment, encoder_id, {"pooled": rows, "cls": np.repeat(-rows, 3, axis=1)})
    return segment


def test_everything_reads_back(objects):
    store = create(objects)
    add(store, "w", [upsert("1"), reject(1), delete("1")])
    add(store, "w", [upsert("2")])
    add(store, "v", [upsert("3")])
    store.commit("one", {"w": 4, "v": 1})
    store.finish("one", version=1)
    store.commit("two", {"w": 4, "v": 1}, close=True)
    failure = Failure.of(StateError("One class.", reason="TOO_FEW_CLASSES", metadata={"classes": "1"}))
    store.finish("two", failure=failure)
    again = load(objects)
    assert again.start == START
    assert again.writer_ids() == ["v", "w"]
    assert (again.writer("w").next_sequence, again.writer("v").next_sequence) == (4, 1)
    assert again.commits == store.commits
    assert list(again.commits) == ["one", "two"]
    assert again.outcomes == store.outcomes
    assert (again.outcomes["one"].version, again.outcomes["two"].failure) == (1, failure)
    assert again.state is AdaptationState.CLOSED
    assert again.events.read() == store.events.read()
    assert again.segment("w", 0).upserts == [Example("1", Input("1"), "a", 0.5, Split.TRAIN, "g")]


def test_starting_twice_keeps_the_first_start(objects):
    create(objects)
    assert create(objects, start=Start(AdaptationSettings("other"), datetime.now(UTC))).start == START


def test_an_unknown_adaptation_is_missing(objects):
    with pytest.raises(MissingError, match="job") as caught:
        load(objects)
    assert caught.value.reason == "ADAPTATION_NOT_FOUND"


def test_adaptations_are_listed_and_removed(objects):
    for adaptation_id in ("j2", "j1"):
        store = create(objects, adaptation_id)
        add(store, "w", [upsert("1")])
    AdaptationStore.create(objects, "team", "j3", START)
    AdaptationStore.create(objects, "team/m/n", "j4", START)
    assert list_adaptations(objects, "team/m") == ["j1", "j2"]
    assert sorted(list_all_adaptations(objects)) == [
        ("team", "j3"),
        ("team/m", "j1"),
        ("team/m", "j2"),
        ("team/m/n", "j4"),
    ]
    for adaptation_id in list_adaptations(objects, "team/m"):
        remove_adaptation(objects, "team/m", adaptation_id)
    assert list_adaptations(objects, "team/m") == []
    assert sorted(list_all_adaptations(objects)) == [("team", "j3"), ("team/m/n", "j4")]


def test_a_server_that_still_removes_a_deleted_adaptation_leaves_its_successor_alone(objects):
    old = create(objects)
    add(old, "w", [upsert("1")])
    # As a slow server does it: it looks, another server begins one of the same id and takes examples, it goes on.
    left = deleted_adaptations(objects, "team/m", deletion=7)
    successor = create(objects, stored_name("job", 7), dataclasses.replace(START, born=7))
    add(successor, "w", [upsert("2")])
    assert left == ["job"]
    remove_adaptation(objects, "team/m", "job")
    assert list_adaptations(objects, "team/m") == [successor.name]
    again = load(objects, successor.name)
    assert (again.adaptation_id, again.writer("w").next_sequence) == ("job", 1)
    assert again.segment("w", 0).upserts[0].id == "2"
    assert deleted_adaptations(objects, "team/m", deletion=7) == []
    # The next deletion means it, and one that a server begins who has not heard of that yet.
    create(objects, stored_name("late", 7), dataclasses.replace(START, born=8))
    assert deleted_adaptations(objects, "team/m", deletion=9) == ["job@7", "late@7"]


def test_repeats_conflicts_and_gaps_are_told_apart_after_a_restart(memory):
    records = [upsert(str(n)) for n in range(200)]
    digests = [it.digest for it in records]
    writer = create(memory).writer("w")
    for n in range(0, 200, 50):
        writer.append(records[n : n + 50])
    for log in (writer, load(memory).writer("w")):
        assert log.next_sequence == 200
        assert log.repeated(0, digests) == 200
        assert log.repeated(150, [*digests[150:], 1, 2]) == 50
        assert log.repeated(200, [1, 2]) == 0
        with pytest.raises(ConflictError, match="Sequence 120 ") as conflict:
            log.repeated(100, [*digests[100:120], 1])
        assert conflict.value.reason == "SEQUENCE_CONFLICT"
        with pytest.raises(ConflictError) as gap:
            log.repeated(201, [1])
        assert gap.value.reason == "SEQUENCE_GAP"
        assert gap.value.metadata == {"next_sequence": "200"}


def test_two_servers_with_one_writer_collide_instead_of_interleaving(objects):
    one, two = create(objects).writer("w"), create(objects).writer("w")
    one.append([upsert("1"), upsert("2")])
    with pytest.raises(ConflictError) as caught:
        two.append([upsert("3")])
    assert caught.value.reason == "WRITER_SUPERSEDED"
    assert [it.ordinal for it in two.load()] == [0]
    two.append([upsert("3")])
    assert load(objects).writer("w").next_sequence == 3


def test_an_append_that_had_succeeded_unnoticed_is_recognised(objects):
    one, two = create(objects).writer("w"), create(objects).writer("w")
    assert one.append([upsert("1")]) == two.append([upsert("1")])
    assert two.next_sequence == 1


def test_damaged_or_missing_segments_are_named_and_concern_their_adaptation_alone(tmp_path):
    objects = Objects.open(tmp_path)
    for adaptation_id in ("good", "flipped", "gap"):
        store = create(objects, adaptation_id)
        for n in range(3):
            add(store, "w", [upsert(str(n))])
    key = "models/team/m/_/adaptations/{}/writers/w/{:020d}.seg"
    path = tmp_path / key.format("flipped", 2)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    objects.delete([key.format("gap", 1)])
    with pytest.raises(CorruptError, match=key.format("flipped", 2)):
        load(objects, "flipped").writer("w")
    with pytest.raises(ObjectMissingError, match=key.format("gap", 1)):
        load(objects, "gap").writer("w")
    assert load(objects, "good").writer("w").next_sequence == 3


def test_missing_features_are_found_and_written_once(objects):
    store = create(objects)
    first = add(store, "w", [upsert("1")])
    second = store.writer("v").append([upsert("2")])
    assert store.missing_features("e") == [("v", 0)]
    assert store.missing_features("other") == [("v", 0), ("w", 0)]
    store.write_features(second, "e", {"pooled": np.ones((1, 2), np.float16)})
    store.write_features(first, "e", {"pooled": np.full((1, 2), 9, np.float16)})
    assert load(objects).missing_features("e") == []


def test_a_repeated_commit_is_the_first_one(objects):
    store = create(objects)
    first = store.commit("one", {"w": 1}, close=True)
    assert store.commit("one", {"w": 2}) == first
    assert load(objects).commit("one", {}) == first
    with pytest.raises(StateError) as caught:
        load(objects).commit("two", {})
    assert caught.value.reason == "ADAPTATION_CLOSED"


def test_commits_of_two_servers_have_one_order(objects):
    stores = [create(objects), create(objects)]
    for n in range(6):
        stores[n % 2].commit(str(n), {})
    stores[0].commit("5", {})
    for store in stores:
        store.refresh()
        assert list(store.commits) == list("012345")


def test_a_commit_has_one_outcome(objects):
    one = create(objects)
    one.commit("one", {})
    two = load(objects)
    first = one.finish("one", version=1)
    assert two.finish("one", failure=Failure("WorkerError", "WORKER_DIED", "It died.")) == first
    assert load(objects).outcomes == {"one": first}


def test_cancelling_refuses_new_commits_only(objects):
    store, other = create(objects), create(objects)
    first = store.commit("one", {})
    store.cancel()
    store.cancel()
    other.refresh()
    for it in (store, other, load(objects)):
        assert it.state is AdaptationState.CANCELLED
        assert it.commit("one", {}) == first
        with pytest.raises(StateError, match="cancelled"):
            it.commit("two", {})


def test_events_are_numbered_without_gaps_and_each_fact_comes_once(objects):
    stores = [create(objects), create(objects)]
    segment = add(stores[0], "w", [reject(0), upsert("1")])
    for store in stores:
        store.record_rejections(segment)
        store.commit("one", {"w": 2}, close=True)
        store.refresh()
        store.finish("one", version=1)
    events = load(objects).events.read()
    assert [it.number for it in events] == [1, 2, 3, 4]
    assert [it.fact for it in events] == [
        Rejected("w", 0, 0, 2),
        Committed("one", {"w": 2}),
        StateChanged(AdaptationState.CLOSED),
        Finished("one"),
    ]
    assert stores[1].rejections(events[0].fact) == list(segment.rejections)
    assert stores[1].events.read(3) == events[2:]
    assert stores[1].events.read(5) == []


def test_events_that_a_crash_left_out_are_recorded_when_they_are_asked_for(objects):
    store = create(objects)
    store.writer("w").append([reject(0)])
    store.commit("one", {"w": 1}, close=True)
    store.finish("one", version=1)
    store.cancel()
    objects.delete(objects.keys("models/team/m/_/adaptations/job/events/"))
    again = load(objects)
    again.writer("w")
    again.record_events()
    facts = [it.fact for it in again.events.read()]
    assert {type(it) for it in facts} == {Rejected, Committed, Finished, StateChanged}
    assert len(facts) == 5


def test_racing_servers_record_each_fact_once(tmp_path):
    stores = [create(Objects.open(tmp_path)) for _ in range(4)]

    def work(store, order):
        for n in order:
            store.events.record(Committed(str(n), {}))

    orders = [range(8), range(7, -1, -1), range(0, 8, 2), range(1, 8, 2)]
    threads = [threading.Thread(target=work, args=it) for it in zip(stores, orders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(it.fact.commit_id for it in stores[0].events.read()) == list("01234567")


def test_the_latest_change_of_an_id_wins_in_the_order_of_the_lineage(memory):
    base, job = create(memory, "base"), create(memory, "job")
    add(base, "w", [upsert("old"), upsert("moved"), upsert("gone")], 10)
    add(job, "b", [upsert("moved", "from b"), upsert("x", "from b")], 20)
    add(
        job,
        "a",
        [upsert("moved", "from a"), delete("gone"), reject(2), upsert("y"), upsert("y", "again")],
        30,
    )
    add(job, "a", [upsert("late")], 40)
    sources = [Source("base", {"w": 3}), Source("job", {"b": 2, "a": 5})]
    rows = read_rows(memory, "team/m", sources, "e")
    assert [(it.id, it.input.text) for it in rows.examples] == [
        ("old", "old"),
        ("y", "again"),
        ("moved", "from b"),
        ("x", "from b"),
    ]
    assert rows.origins == (("w", 0), ("a", 4), ("b", 0), ("b", 1))
    assert rows.features["pooled"].tolist() == [[10], [32], [20], [21]]
    assert rows.features["cls"].tolist() == [[-10] * 3, [-32] * 3, [-20] * 3, [-21] * 3]
    assert rows.features["pooled"].dtype == np.float16
    assert rows.replaced == 2  # "y" in one stream and "moved" in two; what a base had is corrected


def test_features_without_a_note_of_truncated_inputs_read_as_such_of_whole_ones():
    pooled = np.arange(6, dtype=np.float16).reshape(3, 2)
    noted = encode_features({"pooled": pooled}, np.array([False, True, False]))
    assert decode_features(noted).truncated.tolist() == [False, True, False]
    without = noted[: noted.index(b"\x82\xa6format")]  # as a store of an earlier release has them
    read = decode_features(without)
    assert read.truncated.tolist() == [False] * 3
    assert read.features["pooled"].tolist() == decode_features(noted).features["pooled"].tolist()
    assert decode_features(encode_features({})).truncated.tolist() == []


def test_rows_end_at_the_watermark_also_within_a_segment(memory):
    store = create(memory)
    add(store, "w", [upsert("1"), upsert("2"), upsert("1", "later")])
    rows = read_rows(memory, "team/m", [Source("job", {"w": 2})], "e")
    assert [(it.id, it.input.text) for it in rows.examples] == [("1", "1"), ("2", "2")]
    assert read_rows(memory, "team/m", [Source("job", {"w": 0})], "e").features == {}


def test_rows_do_not_depend_on_how_writers_interleave(memory):
    def rows(adaptation_id, turns):
        store = create(memory, adaptation_id)
        queues = {it: [upsert(f"{n % 3}", f"{it}{n}") for n in range(6)] for it in "ab"}
        for writer_id in turns:
            add(store, writer_id, [queues[writer_id].pop(0)])
        return read_rows(memory, "team/m", [Source(adaptation_id, {"a": 6, "b": 6})], "e")

    one, two = rows("one", "ababababab" + "ab"), rows("two", "bbbbbbaaaaaa")
    assert (one.examples, one.origins) == (two.examples, two.origins)


def test_rows_whose_features_or_segments_are_missing_say_which(memory):
    store = create(memory)
    store.writer("w").append([upsert("1")])
    for source, encoder_id in ((Source("job", {"w": 1}), "e"), (Source("job", {"w": 2}), "e")):
        with pytest.raises(StoreError) as caught:
            read_rows(memory, "team/m", [source], encoder_id)
        assert caught.value.metadata["object"].startswith("models/team/m/_/adaptations/job/")


APPEND_FOR_EVER = """
import sys
from graft_server.domain.examples import Change, Example, Input
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects
from graft_server.store.adaptations.segments import Record
store = AdaptationStore.load(Objects.open(sys.argv[1]), "team/m", "job")
log = store.writer("w")
while True:
    first = log.next_sequence
    changes = [Change(Example(str(n), Input("text " * 500), "a")) for n in range(first, first + 50)]
    log.append([Record(first + n, change) for n, change in enumerate(changes)])
    print(log.next_sequence, flush=True)
"""


def test_a_killed_server_loses_no_acknowledged_example_and_repeats_none(tmp_path):
    objects = Objects.open(tmp_path)
    create(objects)
    for attempt in range(5):
        command = [sys.executable, "-c", APPEND_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(attempt + 1):
                acknowledged = int(process.stdout.readline())
            process.kill()
            acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
        log = load(objects).writer("w")
        assert acknowledged <= log.next_sequence <= acknowledged + 50
        assert log.repeated(0, range(log.next_sequence)) == log.next_sequence
    store = load(objects)
    ids = [it.id for _, n in store.missing_features("e") for it in store.segment("w", n).upserts]
    assert ids == [str(n) for n in range(store.writer("w").next_sequence)]


def test_what_other_writers_had_acknowledged_is_part_of_the_commit_that_closes(objects):
    one, two = create(objects), create(objects)
    seen = one.read_positions()
    two.writer("b").append([upsert("1")])  # after the one that closes has looked
    commit = one.commit("last", {**seen, "a": 0}, close=True, writer_id="a")
    assert commit.watermarks == {"a": 0, "b": 1}
    assert load(objects).commits["last"] == commit


def test_what_comes_after_the_commit_that_closes_is_refused_and_not_stored(objects):
    one, two = create(objects), create(objects)
    log = two.writer("b")
    log.append([upsert("1")])
    one.commit("last", {}, close=True, writer_id="a")
    with pytest.raises(StateError) as caught:
        log.append([upsert("2")])
    assert caught.value.reason == "ADAPTATION_CLOSED"
    assert (log.next_sequence, two.read_positions()) == (1, {"b": 1})
    assert load(objects).writer("b").next_sequence == 1


def test_a_segment_that_a_killed_server_left_after_the_closing_commit_does_not_count_and_is_swept(objects):
    store = create(objects)
    counts = store.writer("a").append([upsert("0")])
    store.commit("last", {"a": 1}, close=True, writer_id="a")
    # As a server leaves it that is killed before it looks whether the adaptation was closed.
    segment = Segment("b", 0, 0, (upsert("1"),))
    folder = writer_folder("team/m", "job", "b")
    left = segment_key(folder, segment.name)
    objects.create(left, encode_segment(segment))
    again = load(objects)
    assert (again.writer("b").next_sequence, again.read_positions()) == (0, {"a": 1, "b": 0})
    assert sweep(objects, again) == [left]
    assert objects.exists(segment_key(writer_folder("team/m", "job", "a"), counts.name))


def test_a_closing_commit_that_a_killed_server_did_not_settle_is_settled_by_the_next(objects):
    store = create(objects)
    store.writer("b").append([upsert("1")])
    store.commit("last", {"a": 0}, close=True, writer_id="a")
    objects.delete([f"{store.folder}closing.json"])
    again = load(objects)
    assert again.commits["last"].watermarks == {"a": 0, "b": 1}
    assert objects.exists(f"{store.folder}closing.json")
