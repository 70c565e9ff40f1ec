"""Examples without an id are those of the base that have the same input, between adaptations and nowhere else."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from graft_server.adapting.intake import matching
from graft_server.adapting.intake.bases import Bases
from graft_server.adapting.intake.incoming import Incoming
from graft_server.adapting.intake.matching import KnownExamples, StoredMatching
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import OverloadError
from graft_server.domain.examples import Change, Example, Input, Kind, Rejection, Share, Split
from graft_server.domain.extension import Extension
from graft_server.domain.model import Source
from graft_server.store.adaptations.compaction import compact
from graft_server.store.adaptations.erasure import Wanted, erase
from graft_server.store.adaptations.lineage import Lineage, derived_id
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.stored_examples import earlier_ids
from graft_server.store.adaptations.training_rows import read_lineage
from graft_server.store.objects.objects import Objects

BASE = Extension(1, match_content=True)


def sent(text: str, label: str | None = None, id_: str = "", *, place: str = "", **more: Any) -> Incoming:
    """A change as it comes from intake: without an id of its own it has a derived one."""
    weighted = "weight" in more
    example = Example(id_ or place, Input(text), label, **more)
    digest = content_digest(f"{text}{label}{id_}{more}".encode())
    return Incoming(digest, Change(upsert=example), own_id=bool(id_), weighted=weighted)


def delete(id_: str) -> Incoming:
    return Incoming(content_digest(id_.encode()), Change(delete_id=id_))


@dataclass
class Bench:
    """Two adaptations of one model: the base, and one that goes on from it."""

    objects: Objects = field(default_factory=lambda: Objects.open("memory:///"))
    sources: tuple[Source, ...] = ()
    names: tuple[str, ...] = ()
    bases: Bases = field(default_factory=Bases)

    def extended(self, *rows: Incoming, name: str = "") -> Extension:
        """One more adaptation on what there is, by one writer."""
        stream = self.begin(name)
        stream.send("w", *rows)
        extension = stream.extension
        self.sources = stream.sources
        return extension

    def begin(self, name: str = "") -> Stream:
        name = name or f"a{len(self.sources)}"
        settings = AdaptationSettings("minilm", base_version=len(self.sources), match_content=True)
        start = Start(settings, datetime.now(UTC), self.sources)
        return Stream(self, AdaptationStore.create(self.objects, "m", name, start))

    @property
    def rows(self) -> list[tuple[str, str | None]]:
        """The ids and labels of all examples, in the order of training."""
        lineage = read_lineage(self.objects, "m", self.sources)
        return [(it.example.id, it.example.label) for it in lineage.rows.values()]


@dataclass
class Stream:
    """An adaptation, as one server serves it."""

    bench: Bench
    store: AdaptationStore
    attended: bool = True
    """Whether a call of it is open."""
    matching: StoredMatching = field(init=False)

    def __post_init__(self) -> None:
        self.matching = StoredMatching(
            self.bench.objects, self.store, self.bench.bases, lambda: self.attended
        )

    def elsewhere(self) -> Stream:
        """The same adaptation on another server, or after a restart."""
        return Stream(self.bench, AdaptationStore.load(self.bench.objects, "m", self.store.name))

    def send(self, writer_id: str, *rows: Incoming) -> list[Record]:
        log = self.store.writer(writer_id)
        self.store.follow(log)
        placed = [self._placed(it, writer_id, n) for n, it in enumerate(rows, log.next_sequence)]
        records = self.matching.records(placed)
        log.append(records)
        return records

    def _placed(self, row: Incoming, writer_id: str, sequence: int) -> Incoming:
        if row.own_id or not isinstance(row.result, Change) or row.result.upsert is None:
            return row
        id_ = derived_id(self.store.adaptation_id, writer_id, sequence)
        return replace(row, result=Change(upsert=replace(row.result.upsert, id=id_)))

    @property
    def sources(self) -> tuple[Source, ...]:
        return *self.bench.sources, Source(self.store.name, self.store.read_positions())

    @property
    def lineage(self) -> Lineage:
        return read_lineage(self.bench.objects, "m", self.sources)

    @property
    def extension(self) -> Extension:
        return self.lineage.extension(BASE)

    @property
    def labels(self) -> Counter[tuple[bytes, str | None]]:
        """How often each input has each label."""
        return Counter((it.example.input.data, it.example.label) for it in self.lineage.rows.values())


def came(**counts: int) -> Extension:
    return replace(BASE, **counts)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.extended(sent("one", "a"), sent("two", "b"), sent("three", "a", "id3"))
    return bench


def test_what_is_there_already_is_counted_and_changes_nothing(bench):
    before = bench.rows
    stream = bench.begin()
    records = stream.send("w", sent("one", "a"), sent("two", "b"), sent("three", "a"))
    assert [(it.change, it.unchanged) for it in records] == [
        (None, "a0/w/0"),
        (None, "a0/w/1"),
        (None, "id3"),
    ]
    assert not any(it.erased for it in records)
    assert stream.extension == came(base_examples=3, unchanged=3)
    assert stream.extension.nothing_new
    bench.sources = stream.sources
    assert bench.rows == before


def test_another_target_corrects_and_another_input_is_new(bench):
    assert bench.extended(sent("one", "b"), sent("four", "a"), sent("One", "a")) == came(
        base_examples=3, replaced_by_content=1, added=2
    )
    assert dict(bench.rows) == {"a0/w/0": "b", "a0/w/1": "b", "id3": "a", "a1/w/1": "a", "a1/w/2": "a"}
    # The correction is in what comes next: sent again, it is there already.
    assert bench.extended(sent("one", "b"), sent("four", "a")) == came(base_examples=5, unchanged=2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"label_set": ("a", "b")}, {"label_set": ("a",)}),
        ({"label_set": ()}, {"label_set": ("a",)}),
        ({"value": 1.5}, {"value": 2.5}),
        ({"distribution": (Share("a", 0.5), Share("b", 0.5))}, {"distribution": (Share("a", 1.0),)}),
        ({"label": "a"}, {"distribution": (Share("a", 1.0),)}),
        ({"label": "a"}, {"label": "a", "weight": 2.0}),
        ({"label": "a", "weight": 2.0}, {"label": "a", "weight": 1.0}),
        ({"label": "a"}, {"label": "a", "split": Split.VALIDATION}),
        ({"label": "a", "group": "g"}, {"label": "a", "group": "h"}),
        ({"label": "a", "subject": "s"}, {"label": "a", "subject": "t"}),
        ({"label": "a"}, {"label": "a", "confirmed": True}),
        ({}, {"label": "a"}),
    ],
)
def test_targets_and_attributes_of_any_kind_are_compared(before, after):
    bench = Bench()
    bench.extended(sent("one", **before), sent("two", "a"))
    stream = bench.begin()
    same, differing = stream.send("w", sent("two", "a"), sent("one", **after))
    assert same.unchanged
    assert differing.by_content
    assert differing.change is not None
    assert differing.change.id == "a0/w/0"
    counts = {"unchanged": 2} if after.get("confirmed") else {"unchanged": 1, "replaced_by_content": 1}
    assert stream.extension == came(base_examples=2, **counts)
    bench.sources = stream.sources
    assert bench.extended(sent("one", **after)) == came(base_examples=2, unchanged=1)


def test_what_a_row_leaves_out_stays_as_the_base_has_it():
    bench = Bench()
    full = {"weight": 2.0, "split": Split.TRAIN, "group": "g", "subject": "s"}
    bench.extended(sent("one", "a", **full), sent("two", "a", "id2", **full))
    stream = bench.begin()
    same, also = stream.send("w", sent("one", "a"), sent("two", "a", "id2"))
    assert (same.unchanged, also.unchanged) == ("a0/w/0", "id2")
    corrections = bench.begin("b").send("w", sent("one", "b"), sent("two", "b", "id2"))
    for record, id_ in zip(corrections, ("a0/w/0", "id2"), strict=True):
        assert record.change is not None
        assert record.change.upsert == Example(id_, record.change.upsert.input, "b", **full)


def test_a_row_without_a_target_takes_none_away_unless_it_names_the_example(bench):
    assert bench.extended(sent("one"), sent("three")) == came(base_examples=3, unchanged=2)
    assert bench.extended(sent("three", None, "id3")) == came(base_examples=3, replaced_by_id=1)
    assert dict(bench.rows)["id3"] is None


def test_the_origin_of_a_row_is_no_difference(bench):
    assert bench.extended(sent("one", "a", origin="week2.csv:1")) == came(base_examples=3, unchanged=1)


@pytest.mark.parametrize(
    "value",
    [
        Input("q", Kind.TEXT_PAIR, "a"),
        Input(kind=Kind.IMAGE, data=b"png"),
        Input(kind=Kind.AUDIO, data=b"png"),
        Input(kind=Kind.FEATURES, data=b"\0\0\0\0"),
    ],
    ids=lambda it: str(it.kind),
)
def test_inputs_of_any_kind_are_compared_by_their_content(value):
    def row(label: str, of: Input) -> Incoming:
        return Incoming(1, Change(upsert=Example("", of, label)), own_id=False, weighted=False)

    bench = Bench()
    bench.extended(row("a", value), row("a", Input("qa")))
    others = [Input("q"), Input("png"), Input("q", Kind.TEXT_PAIR, "b"), Input(kind=value.kind, data=b"jpg")]
    assert bench.extended(row("a", value), *(row("a", it) for it in others)) == came(
        base_examples=2, unchanged=1, added=4
    )
    assert bench.extended(row("b", value)) == came(base_examples=6, replaced_by_content=1)


# ------------------------------------------------------------------------------------------------------- copies


def test_copies_within_one_adaptation_are_rows_of_their_own():
    bench = Bench()
    assert bench.extended(sent("one", "a"), sent("one", "a"), sent("one", "b")) == came(added=3)
    # The same again: each finds its own.
    assert bench.extended(sent("one", "a"), sent("one", "b"), sent("one", "a")) == came(
        base_examples=3, unchanged=3
    )
    # One more copy than there were is a row more.
    assert bench.extended(*[sent("one", "a")] * 3) == came(
        base_examples=3, unchanged=2, replaced_by_content=1
    )
    assert bench.extended(*[sent("one", "a")] * 4) == came(base_examples=3, unchanged=3, added=1)


def test_equal_targets_are_matched_first():
    bench = Bench()
    bench.extended(sent("one", "a"), sent("one", "b"), sent("one", "c"))
    stream = bench.begin()
    records = stream.send("w", sent("one", "c"), sent("one", "x"), sent("one", "b"))
    assert [it.unchanged for it in records] == ["a0/w/2", "", "a0/w/1"]
    assert records[1].change is not None
    assert records[1].change.id == "a0/w/0"


def test_very_many_copies_are_matched_one_by_one(monkeypatch):
    monkeypatch.setattr(matching, "MOST_COPIES", 8)
    bench = Bench()
    bench.extended(*(sent("ok", "ab"[n % 2]) for n in range(200)))
    assert bench.extended(*(sent("ok", "ab"[n % 2]) for n in range(201))) == came(
        base_examples=200, unchanged=200, added=1
    )
    assert bench.extended(*(sent("ok", "c" if n else "b") for n in range(201))) == came(
        base_examples=201, unchanged=1, replaced_by_content=200
    )


def test_what_was_matched_removed_or_replaced_is_not_matched_again(bench):
    stream = bench.begin()
    stream.send("w", sent("one", "b"), sent("one", "c"), delete("a0/w/1"), sent("two", "b"))
    stream.send("w", sent("three", "b", "id3"), sent("three", "a"))
    assert stream.extension == came(
        base_examples=3, replaced_by_content=1, replaced_by_id=1, deleted=1, added=3
    )


# ---------------------------------------------------------------------------------------------------------- ids


def test_rows_with_ids_are_matched_by_them(bench):
    assert bench.extended(sent("three", "a", "id3"), sent("three", "a", "id4")) == came(
        base_examples=3, unchanged=1, added=1
    )
    assert bench.extended(sent("changed", "a", "id3")) == came(base_examples=4, replaced_by_id=1)
    assert bench.extended(sent("changed", "b", "id3"), sent("changed", "a", "id3")) == came(
        base_examples=4, unchanged=1
    )


def test_ids_that_the_base_does_not_have_yet_become_those_of_its_examples():
    bench = Bench()
    bench.extended(sent("one", "a"), sent("two", "b"), sent("two", "b"))
    rows = (sent("one", "a", "x"), sent("two", "c", "y"), sent("two", "b", "z"))
    assert bench.extended(*rows) == came(base_examples=3, unchanged=2, replaced_by_content=1)
    assert dict(bench.rows) == {"x": "a", "y": "c", "z": "b"}
    # From now on they count, whatever the text.
    assert bench.extended(sent("changed", "a", "x"), delete("y")) == came(
        base_examples=3, replaced_by_id=1, deleted=1
    )
    assert dict(bench.rows) == {"x": "a", "z": "b"}


def test_an_id_that_was_given_away_and_removed_is_removed(bench):
    assert bench.extended(sent("one", "a", "x"), delete("x")) == came(base_examples=3, deleted=1)
    assert "one" not in {id_ for id_, _ in bench.rows}


# ----------------------------------------------------------------------------------------- resuming and writers


def test_after_a_restart_the_stream_goes_on_as_if_there_had_been_none(bench):
    rows = [sent("one", "b"), sent("two", "b"), sent("one", "c"), sent("new", "a"), sent("three", "b")]
    at_once, cut = bench.begin("x"), bench.begin("y")
    at_once.send("w", *rows)
    for row in rows:
        cut = cut.elsewhere()
        cut.send("w", row)
    assert cut.extension == at_once.extension
    assert cut.labels == at_once.labels


def test_what_could_not_be_stored_is_matched_again(bench):
    stream = bench.begin()
    stream.matching.records([sent("one", "b", place="lost")])
    stream.matching.forget()
    assert stream.send("w", sent("one", "c"))[0].by_content


def test_writers_of_one_server_do_not_match_the_same_example(bench):
    stream = bench.begin()
    stream.send("v", sent("one", "b"))
    stream.send("w", sent("one", "a"), sent("two", "b"))
    assert stream.extension == came(base_examples=3, replaced_by_content=1, unchanged=1, added=1)


@pytest.mark.parametrize("first", ["v", "w"])
@pytest.mark.parametrize(("one", "other"), [("b", "c"), ("a", "c"), ("c", "a")])
def test_writers_of_two_servers_lose_no_row_to_each_other(bench, first, one, other):
    here = bench.begin()
    there = here.elsewhere()
    for stream in (here, there):
        stream.matching.follow()
    sends = [(here, "v", one), (there, "w", other)]
    for stream, writer_id, label in sends if first == "v" else reversed(sends):
        stream.send(writer_id, sent("one", label))
    found = here.elsewhere()
    digest = Input("one").digest()
    assert {label for (data, label) in found.labels if data == digest} == {one, other}
    assert found.extension.base_examples + found.extension.added == len(found.lineage.rows) == 4


def test_segments_that_are_put_together_keep_what_was_matched(bench):
    stream = bench.begin()
    for n in range(80):
        stream.send("w", sent("one", "a") if n == 70 else sent(f"new {n}", "a"))
    for ordinal in range(80):
        segment = stream.store.segment("w", ordinal)
        if segment.upserts:
            stream.store.write_features(segment, "e", {})
    before = stream.extension
    assert compact(bench.objects, stream.store, "e") > 0
    after = stream.elsewhere()
    assert after.extension == before == came(base_examples=3, unchanged=1, added=79)
    assert after.send("w", sent("one", "a"))[0].change is not None


def test_random_streams_end_with_the_rows_that_were_sent_and_what_was_not_sent_again():
    chance = random.Random(7)  # noqa: S311
    for _ in range(60):
        texts, labels = "xyz", "abc"
        bench = Bench()
        base = [(chance.choice(texts), chance.choice(labels)) for _ in range(chance.randint(0, 6))]
        bench.extended(*(sent(*it) for it in base))
        stream = bench.begin()
        rows = [(chance.choice(texts), chance.choice(labels)) for _ in range(chance.randint(0, 8))]
        for row in rows:
            if chance.random() < 0.2:
                stream = stream.elsewhere()
            stream.send(chance.choice("vw"), sent(*row))
        found = Counter(
            {(text, label): 0 for text in texts for label in labels}
            | {
                (text, label): count
                for text in texts
                for label in labels
                if (count := stream.labels[Input(text).digest(), label])
            }
        )
        assert not Counter(rows) - found, (base, rows)  # every row is there
        assert not found - (Counter(rows) + Counter(base))  # and nothing else
        for text in texts:
            before, after = (sum(it[0] == text for it in them) for them in (base, rows))
            assert sum(found[text, label] for label in labels) == max(before, after), (base, rows)
        extension = stream.extension
        assert extension.base_examples + extension.added - extension.deleted == len(stream.lineage.rows)


# ------------------------------------------------------------------------------------------------------ erasing


def test_an_erased_example_is_no_longer_matched_and_nothing_tells_of_it(bench):
    stream = bench.begin()
    stream.send("w", sent("one", "a"), sent("two", "a"))
    base = AdaptationStore.load(bench.objects, "m", "a0")
    for store in (base, stream.store):
        erase(bench.objects, store, Wanted(frozenset({"a0/w/0", "a0/w/1"})))
    stream = stream.elsewhere()
    assert all(it.erased for it in stream.store.segment("w", 0).records)
    assert stream.extension == came(base_examples=1)
    assert stream.send("w", sent("one", "a"))[0].change is not None
    assert stream.extension == came(base_examples=1, added=1)


def test_who_erases_an_id_erases_what_the_base_had_before_it_got_that_id(bench):
    bench.extended(sent("one", "a", "x"))
    store = AdaptationStore.load(bench.objects, "m", "a1")
    assert earlier_ids(store, {"x"}) == {"a0/w/0"}
    assert earlier_ids(store, {"y"}) == set()


def test_refused_rows_pass_through(bench):
    stream = bench.begin()
    refused = Incoming(5, Rejection(0, "INPUT_EMPTY", "upsert.input.text", "it is blank", "w"), "s")
    assert stream.send("w", refused)[0] == Record(5, rejection=refused.result, subject="s")
    assert stream.extension == came(base_examples=3)
    assert stream.lineage.refused == {"INPUT_EMPTY": 1}


def test_an_example_of_the_base_takes_less_than_300_bytes():
    examples = [
        Example(f"adaptation/w/{n}", Input(kind=Kind.TEXT, data=Input(f"text {n}").digest()), "label")
        for n in range(2_000)
    ]
    tracemalloc.start()
    known = KnownExamples(examples, ["adaptation"])
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 300 * len(known)


def test_bases_that_no_call_needs_make_way_and_are_read_anew() -> None:
    bench = Bench(bases=Bases(most_examples=5))
    bench.extended(sent("one", "a"), sent("two", "b"), sent("three", "a"))
    first, second = bench.begin("first"), bench.begin("second")
    first.send("w", sent("one", "a"))
    with pytest.raises(OverloadError) as refused:
        second.send("w", sent("one", "b"))
    assert refused.value.reason == "BASES_TOO_LARGE"
    first.attended = False
    second.send("w", sent("one", "b"))
    assert bench.bases.held == 3
    second.attended = False
    # What it has matched already is known from what is stored.
    (copy,) = first.send("w", sent("one", "a"))
    assert not copy.unchanged
    assert bench.bases.held == 3
    first.matching.forget()
    assert bench.bases.held == 0


def test_a_base_that_is_larger_than_all_room_is_held_alone() -> None:
    bench = Bench(bases=Bases(most_examples=1))
    bench.extended(sent("one", "a"), sent("two", "b"))
    (there,) = bench.begin().send("w", sent("one", "a"))
    assert there.unchanged
