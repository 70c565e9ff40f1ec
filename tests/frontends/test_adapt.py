"""Adapt as a conversation: what is acknowledged, repeated, resumed, taken over, committed and closed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2, types_pb2

ABORTED = grpc.StatusCode.ABORTED
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def described(wire: Any, model: str, adaptation_id: str) -> adaptation_pb2.Adaptation:
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id=adaptation_id)
    return wire.adaptation.GetAdaptation(request).adaptation


def deletion(example_id: str) -> adaptation_pb2.ExampleChange:
    return adaptation_pb2.ExampleChange(delete_id=example_id)


def change(text: str, label: str | None, **fields: Any) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(input=types_pb2.Input(text=text), label=label, **fields)
    return adaptation_pb2.ExampleChange(upsert=example)


@pytest.fixture(scope="module")
def some(intents: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Three of the demo's intents, mixed."""
    kept = sorted({label for _, label in intents})[:3]
    return [row for row in intents if row[1] in kept]


# --------------------------------------------------------------------------------------------- starting


def test_started_tells_what_the_server_chose(wire, model):
    started = wire.adapt(model=model).next("started")
    assert (started.writer_id, started.backbone, started.next_sequence) == ("default", "minilm", 0)
    assert started.adaptation_id
    other = wire.adapt(model=model).next("started")
    assert other.adaptation_id != started.adaptation_id


def test_the_whole_job_on_one_call(wire, model, some):
    call = wire.adapt(model=model, adaptation_id="job")
    assert call.next("started").next_sequence == 0
    call.examples(0, some[:30])
    assert call.accepted(30) == []
    call.examples(30, some[30:])
    call.commit("done", close=True)
    committed = call.next("committed")
    assert (committed.commit_id, committed.next_sequence) == ("done", len(some))
    published = call.next("published")
    assert (published.commit_id, published.model, published.version) == ("done", model, 1)
    assert published.summary.examples == len(some)
    assert published.summary.classes == 3
    call.half_close()
    assert list(call.responses) == []
    answer = wire.predict(model, [text for text, _ in some])
    best = [it.single_label.scores[0].label for it in answer.results]
    assert sum(map(str.__eq__, best, [label for _, label in some])) > 0.95 * len(some)


def test_progress_never_follows_its_commits_outcome(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few)
    call.commit("c")
    kinds = []
    call.half_close()
    for response in call.responses:
        kinds.append(response.WhichOneof("message"))
        if kinds[-1] == "progress":
            assert response.progress.commit_id == ("c" if "committed" in kinds else "")
            assert 0 <= response.progress.fraction <= 1
            assert 0 <= response.progress.done <= response.progress.total or not response.progress.total
    assert kinds[0] == "started"
    assert kinds[-1] == "published"


def test_examples_without_a_label_are_kept_and_left_out_of_training(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, [*few, change("no idea", None)])
    call.commit(close=True)
    assert call.accepted(len(few) + 1) == []
    (published,) = call.outcomes()
    assert published.summary.examples == len(few)
    assert any("no label" in warning for warning in published.summary.warnings)


def test_labels_of_start_come_first_in_their_order(wire, model, few):
    labels = [types_pb2.Label(name="lock", description="A lock."), types_pb2.Label(name="bill")]
    wire.publish(model, [*few, ("a dog barks", "animal"), ("a cat meows", "animal")], labels=labels)
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model=model)).version
    assert [(it.name, it.description) for it in version.labels] == [
        ("lock", "A lock."),
        ("bill", ""),
        ("animal", ""),
    ]


def test_a_label_is_the_same_however_unicode_writes_it(wire, model, few):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    rows = [("coffee one", composed), ("coffee two", f"  {decomposed} ")]
    published = wire.publish(model, [*few, *rows])
    assert published.summary.classes == 3
    entry = next(it for it in published.summary.per_class if it.label == composed)
    assert entry.examples == 2


def test_held_out_examples_measure_and_are_not_trained_on(wire, model, some):
    splits = (types_pb2.SPLIT_VALIDATION, types_pb2.SPLIT_TRAIN, types_pb2.SPLIT_UNSPECIFIED)
    rows = [change(*row, split=splits[n % 3]) for n, row in enumerate(some)]
    report = wire.publish(model, rows).summary
    assert (report.examples, report.validation_examples) == (48, 24)
    assert report.evaluation.examples == 24


def test_texts_that_are_longer_than_the_backbone_reads_are_counted_by_label_and_warned_of(wire, model, few):
    notice = "this is the notice that is put before each message " * 60
    rows = [
        (notice + text if label == "lock" and i % 4 == 0 else text, label)
        for i, (text, label) in enumerate(few)
    ]
    cut = sum(text.startswith(notice) for text, _ in rows)
    assert 0 < cut < len(rows)
    wire.publish(model, rows)
    report = wire.model.GetVersion(model_pb2.GetVersionRequest(model=model, version=1)).version.report
    assert report.truncated_examples == cut
    assert {it.label: it.truncated for it in report.per_class} == {"bill": 0, "lock": cut}
    (said,) = [it for it in report.warnings if "longer than" in it]
    assert f"{cut} of {len(rows)} training examples are longer than the 256 tokens" in said


# ------------------------------------------------------------------------- sequences: repeats, conflicts, gaps


def test_a_repeat_is_recognised_and_acknowledged_again(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few)
    call.accepted(len(few))
    call.examples(0, few)
    assert call.next("accepted").next_sequence == len(few)
    call.examples(4, [*few[4:], ("one more", "lock")])
    call.accepted(len(few) + 1)
    call.commit(close=True)
    (published,) = call.outcomes()
    assert published.summary.examples == len(few) + 1


def test_a_rejected_example_is_recognised_when_it_is_repeated(wire, model, few):
    rows = [*few, ("", "lock")]
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, rows)
    call.accepted(len(rows))
    call.close()
    call = wire.adapt(model=model, adaptation_id="a")
    assert call.next("started").next_sequence == len(rows)
    call.examples(0, rows)
    call.accepted(len(rows))


def test_a_repeat_with_other_content_is_a_conflict(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few)
    call.accepted(len(few))
    call.examples(3, [("something else", "lock")])
    failure = call.failure()
    assert (failure.code, failure.reason) == (ABORTED, "SEQUENCE_CONFLICT")
    assert failure.trailing["next_sequence"] == str(len(few))


def test_a_gap_says_where_to_go_on(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few)
    call.accepted(len(few))
    call.examples(len(few) + 1, few)
    failure = call.failure()
    assert (failure.code, failure.reason) == (ABORTED, "SEQUENCE_GAP")
    assert failure.metadata["next_sequence"] == failure.trailing["next_sequence"] == str(len(few))


def test_a_sequence_at_the_end_of_its_range_is_a_gap(wire, model, few):
    call = wire.adapt(model=model)
    call.examples((1 << 63) - 1, few)
    assert call.failure().reason == "SEQUENCE_GAP"


# ------------------------------------------------------------------------------------- resuming and taking over


def test_half_closing_without_close_leaves_the_adaptation_open_and_resumable(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few[:4])
    assert call.outcomes() == []
    assert described(wire, model, "a").state == adaptation_pb2.ADAPTATION_STATE_OPEN
    call = wire.adapt(model=model, adaptation_id="a")
    assert call.next("started").next_sequence == 4
    call.examples(4, few[4:])
    call.commit(close=True)
    (published,) = call.outcomes()
    assert published.summary.examples == len(few)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"labels": [types_pb2.Label(name="lock")]},
        {"closed_labels": True, "labels": [types_pb2.Label(name="lock")]},
        {"method": types_pb2.METHOD_FROZEN},
    ],
)
def test_resuming_with_other_settings_is_a_mismatch(wire, model, other):
    wire.adapt(model=model, adaptation_id="a", seed=1).next("started")
    failure = wire.adapt(**{"model": model, "adaptation_id": "a", "seed": 1, **other}).failure()
    assert (failure.code, failure.reason) == (FAILED_PRECONDITION, "START_MISMATCH")


def test_resuming_with_the_default_spelled_out_is_no_mismatch(wire, model):
    wire.adapt(model=model, adaptation_id="a").next("started")
    call = wire.adapt(
        model=model, adaptation_id="a", backbone="minilm", writer_id="default", method=types_pb2.METHOD_AUTO
    )
    assert call.next("started").adaptation_id == "a"


def test_a_newer_call_of_the_same_writer_takes_over(wire, model, few):
    older = wire.adapt(model=model, adaptation_id="a")
    older.examples(0, few[:4])
    older.accepted(4)
    newer = wire.adapt(model=model, adaptation_id="a")
    assert newer.next("started").next_sequence == 4
    failure = older.failure()
    assert (failure.code, failure.reason) == (ABORTED, "WRITER_SUPERSEDED")
    newer.examples(4, few[4:])
    newer.commit(close=True)
    (published,) = newer.outcomes()
    assert published.summary.examples == len(few)


def test_one_take_over_after_the_other_each_ends_the_call_before(wire, model, few):
    calls = [wire.adapt(model=model, adaptation_id="a")]
    calls[0].next("started")
    for number in range(5):
        calls.append(wire.adapt(model=model, adaptation_id="a"))
        assert calls[-1].next("started").next_sequence == number
        assert calls[-2].failure().reason == "WRITER_SUPERSEDED"
        calls[-1].examples(number, few[number : number + 1])
        calls[-1].accepted(number + 1)


def test_calls_of_different_writers_leave_each_other_alone(wire, model, few):
    one = wire.adapt(model=model, adaptation_id="a", writer_id="one")
    two = wire.adapt(model=model, adaptation_id="a", writer_id="two")
    one.examples(0, few[:6])
    two.examples(0, few[6:])
    one.accepted(6)
    two.accepted(6)
    two.commit("both")
    assert two.next("committed").next_sequence == 6
    assert two.next("published").summary.examples == len(few)
    assert [(it.writer_id, it.next_sequence) for it in described(wire, model, "a").writers] == [
        ("one", 6),
        ("two", 6),
    ]


def test_a_later_example_with_a_known_id_replaces_it_whichever_writer_sent_it(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", writer_id="one")
    call.examples(0, [change(text, label, id=text) for text, label in few])
    call.accepted(len(few))
    other = wire.adapt(model=model, adaptation_id="a", writer_id="two")
    other.examples(0, [change(few[0][0], "third", id=few[0][0]), change("new", "third", id="new")])
    other.commit(close=True)
    (published,) = other.outcomes()
    assert published.summary.examples == len(few) + 1
    examples = {it.label: it.examples for it in published.summary.per_class}
    assert examples == {"bill": 6, "lock": 5, "third": 2}


# ------------------------------------------------------------------------------------------------ commits


def test_a_repeated_commit_gives_its_first_outcome_and_no_second_version(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.commit("c")
    first = call.next("published")
    call.examples(len(few), [("another lock is stuck", "lock")])
    call.commit("c")
    assert call.next("committed").next_sequence == len(few)
    again = call.next("published")
    assert again == first
    call.half_close()
    call = wire.adapt(model=model, adaptation_id="a")
    call.commit("c")
    assert call.next("published") == first
    assert wire.model.GetModel(model_pb2.GetModelRequest(model=model)).model.versions == 1


def test_a_repeated_commit_that_failed_fails_again(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few[:1])
    call.commit("c")
    first = call.next("publication_failed")
    call.examples(1, few[1:])
    call.commit("c")
    call.next("committed")
    assert call.next("publication_failed") == first


def test_a_commit_trains_on_what_is_below_its_next_sequence(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, [*few, ("a dog barks", "dog"), ("the dog bites", "dog")])
    call.commit(next_sequence=len(few))
    assert call.next("committed").next_sequence == len(few)
    assert call.next("published").summary.classes == 2


def test_after_close_nothing_more_is_taken_from_any_writer(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    other = wire.adapt(model=model, adaptation_id="a", writer_id="other")
    other.next("started")
    call.examples(0, few)
    call.commit("c", close=True)
    call.next("published")
    call.examples(0, few)  # a repeat changes nothing, so it is harmless
    call.accepted(len(few))
    call.examples(len(few), few)
    other.examples(0, few)
    for failure in (call.failure(), other.failure()):
        assert (failure.code, failure.reason) == (FAILED_PRECONDITION, "ADAPTATION_CLOSED")
    late = wire.adapt(model=model, adaptation_id="a")
    late.commit("new")
    assert late.failure().reason == "ADAPTATION_CLOSED"
    assert described(wire, model, "a").state == adaptation_pb2.ADAPTATION_STATE_CLOSED


def test_commits_behind_a_running_one_coalesce_into_the_newest(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few)
    ids = [f"c{number}" for number in range(12)]
    for commit_id in ids:
        call.commit(commit_id)
    outcomes = call.outcomes()
    assert [it.commit_id for it in outcomes] == ids
    versions = [it.version for it in outcomes]
    assert versions == sorted(versions)
    assert len(set(versions)) < len(ids)
    listed = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=model)).versions
    assert {it.version for it in listed} == set(versions)


def test_a_commit_on_fewer_examples_does_not_overtake_an_earlier_one_on_more(wire, model, few):
    rows = [*few, ("a dog barks", "dog"), ("the dog bites", "dog")]
    call = wire.adapt(model=model)
    call.examples(0, rows)
    call.commit("runs")
    call.commit("more", next_sequence=len(rows))
    call.commit("fewer", next_sequence=len(few))
    outcomes = {it.commit_id: it for it in call.outcomes()}
    assert outcomes["more"].summary.classes == 3
    assert outcomes["fewer"].summary.classes == 2
    assert outcomes["runs"].version <= outcomes["more"].version < outcomes["fewer"].version
    assert wire.predict(model, ["the lock"]).version == outcomes["fewer"].version


def test_two_calls_may_wait_for_the_same_commit(wire, model, few):
    one = wire.adapt(model=model, adaptation_id="a", writer_id="one")
    one.examples(0, few)
    one.commit("c")
    one.next("committed")
    two = wire.adapt(model=model, adaptation_id="a", writer_id="two")
    two.commit("c")
    assert one.next("published") == two.next("published")


def test_the_job_goes_on_when_the_caller_leaves_after_committed(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.commit("c", close=True)
    call.next("committed")
    call.close()
    events = wire.adaptation.WatchAdaptation(
        adaptation_pb2.WatchAdaptationRequest(model=model, adaptation_id="a"), timeout=60
    )
    assert [it.published.version for it in events if it.HasField("published")] == [1]
    assert wire.predict(model, ["the lock"]).version == 1


# ------------------------------------------------------------------------------------------- base_version


def test_an_adaptation_goes_on_though_its_base_version_was_deleted(wire, model, few):
    wire.publish(model, few, adaptation_id="first")
    call = wire.adapt(model=model, adaptation_id="second", base_version=1)
    call.examples(0, few[:2])
    call.commit("c")
    call.next("published")
    wire.model.DeleteVersion(model_pb2.DeleteVersionRequest(model=model, version=1))
    again = wire.adapt(model=model, adaptation_id="second", base_version=1)
    assert again.next("started").next_sequence == 2


def test_base_version_goes_on_from_earlier_examples(wire, model, few):
    wire.publish(model, [change(text, label, id=text) for text, label in few], adaptation_id="first")
    replaced, removed = few[0], few[1]
    published = wire.publish(
        model,
        [
            change(replaced[0], "dog", id=replaced[0]),
            change("the dog bites", "dog"),
            deletion(removed[0]),
            deletion("unheard-of"),
        ],
        adaptation_id="second",
        base_version=1,
    )
    assert published.version == 2
    assert {it.label: it.examples for it in published.summary.per_class} == {"bill": 5, "dog": 2, "lock": 5}
    third = wire.publish(model, [("one more bill", "bill")], adaptation_id="third", base_version=2)
    assert {it.label: it.examples for it in third.summary.per_class} == {"bill": 6, "dog": 2, "lock": 5}


def test_an_example_that_was_removed_may_come_back(wire, model, few):
    rows = [change(text, label, id=text) for text, label in few]
    call = wire.adapt(model=model)
    call.examples(0, [*rows, deletion(few[0][0])])
    call.commit("without")
    assert call.next("published").summary.examples == len(few) - 1
    call.examples(len(rows) + 1, rows[:1])
    call.commit("with")
    assert call.next("published").summary.examples == len(few)


# ------------------------------------------------------------------------------------------ validate_only


def test_validate_only_checks_and_stores_nothing(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a", validate_only=True)
    assert call.next("started").next_sequence == 0
    call.examples(0, [*few, ("", "lock")])
    (rejection,) = call.accepted(len(few) + 1)
    assert (rejection.sequence, rejection.reason) == (len(few), "INPUT_EMPTY")
    call.commit("c", close=True)
    assert call.next("committed").next_sequence == len(few) + 1
    assert call.outcomes() == []
    with pytest.raises(grpc.RpcError) as raised:
        described(wire, model, "a")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    listed = wire.adaptation.ListAdaptations(adaptation_pb2.ListAdaptationsRequest(model=model))
    assert list(listed.adaptations) == []


def test_validate_only_finds_what_the_real_call_would(wire, model, few):
    gap = wire.adapt(model=model, validate_only=True)
    gap.examples(0, few)
    gap.examples(len(few) + 1, few)
    failure = gap.failure()
    assert (failure.reason, failure.trailing["next_sequence"]) == ("SEQUENCE_GAP", str(len(few)))
    beyond = wire.adapt(model=model, validate_only=True)
    beyond.commit(next_sequence=1)
    assert beyond.failure().reason == "SEQUENCE_GAP"
    bad_id = wire.adapt(model=model, validate_only=True)
    bad_id.commit("../x")
    assert bad_id.failure().reason == "ID_INVALID"
    base = wire.adapt(model=model, validate_only=True, base_version=1)
    assert base.failure().reason == "MODEL_NOT_FOUND"


# ------------------------------------------------------------------------------------------- flow and order


def test_many_examples_with_nobody_reading_the_answers_do_not_deadlock(wire, model, few):
    call = wire.adapt(model=model)
    long = "the lock is stuck again and again " * 60
    count, size = 60, 250
    for number in range(count):
        # Rejections too, more than are kept in memory until they are read; few texts are encoded.
        call.examples(number * size, [("", "lock")] * (size - 1) + [(f"{number} {long}", "lock")])
    call.examples(count * size, few)
    call.commit(close=True)
    call.half_close()
    rejected: list[int] = []
    outcome = None
    for response in call.responses:
        rejected += [it.sequence for it in response.accepted.rejected]
        if response.HasField("published"):
            outcome = response.published
    assert rejected == [n for n in range(count * size) if n % size < size - 1]
    assert outcome is not None
    assert outcome.summary.examples == count + len(few)


def test_acknowledgements_only_grow_and_end_at_the_last_example(wire, model, few):
    call = wire.adapt(model=model)
    for number in range(200):
        call.examples(number, few[number % 2 : number % 2 + 1])
    call.half_close()
    seen = [it.accepted.next_sequence for it in call.responses if it.HasField("accepted")]
    assert seen == sorted(seen)
    assert seen[-1] == 200


def test_many_adaptations_at_once_each_get_their_own_version(wire, model, few):
    def publish(number: int) -> int:
        return wire.publish(f"{model}/{number % 3}", few, seed=number).version

    with ThreadPoolExecutor(9) as pool:
        versions = list(pool.map(publish, range(9)))
    assert sorted(versions) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
