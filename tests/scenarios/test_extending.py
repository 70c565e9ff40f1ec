"""More examples for a model that exists: what an adaptation goes on from, and what comes of its rows."""

from __future__ import annotations

import pytest
from grpc import StatusCode
from tests.conftest import upsert

from graft.v1 import adaptation_pb2, model_pb2, types_pb2


def extension(message):
    """The counts of an extension that are not 0, without how it came about."""
    found = {it.name: value for it, value in message.extension.ListFields()}
    found.pop("match_content", None)
    return found


def get(wire, model, adaptation_id):
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id=adaptation_id)
    return wire.adaptation.GetAdaptation(request).adaptation


def move(wire, model, version, alias="live"):
    wire.model.SetAlias(model_pb2.SetAliasRequest(model=model, alias=alias, version=version))


@pytest.fixture
def taught(wire, model, few):
    """A model with one version."""
    wire.publish(model, few, adaptation_id="first")
    return model


def test_an_alias_is_what_it_points_at_when_the_adaptation_starts(wire, taught, few):
    wire.publish(taught, few[:6], adaptation_id="second")
    move(wire, taught, 1, "good")
    start = {"model": taught, "adaptation_id": "third", "base_alias": "good"}
    call = wire.adapt(**start)
    started = call.next("started")
    assert extension(started) == {"base_version": 1, "base_examples": len(few)}
    assert (started.live.version, started.live.examples) == (2, 6)
    call.examples(0, [("a new lock", "lock")])
    call.accepted(1)
    call.close()
    move(wire, taught, 2, "good")
    again = wire.adapt(**start)
    assert again.next("started").extension == started.extension
    by_number = wire.adapt(model=taught, adaptation_id="third", base_version=1)
    by_number.next("started")
    by_number.commit("c")
    assert by_number.next("published").summary.examples == len(few) + 1
    for other in (
        {"base_version": 2},
        {"base_alias": "live"},
        {},
        {"base_version": 1, "match_content": True},
    ):
        failure = wire.adapt(model=taught, adaptation_id="third", **other).failure()
        assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "START_MISMATCH")


def test_an_alias_that_there_is_not_is_not_found(wire, few_model, model):
    failure = wire.adapt(model=few_model, base_alias="champion").failure()
    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "ALIAS_NOT_FOUND")
    assert "'champion'" in failure.message
    failure = wire.adapt(model=f"{model}-none", base_alias="live", validate_only=True).failure()
    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


def test_an_adaptation_goes_on_from_one_version(wire, few_model):
    failure = wire.adapt(model=few_model, base_alias="live", base_version=1).failure()
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "BASE_AMBIGUOUS")
    assert "start.base_version is 1" in failure.message
    failure = wire.adapt(model=few_model, base_alias="live", task=types_pb2.TASK_REGRESSION).failure()
    assert (failure.reason, failure.fields) == ("TASK_MISMATCH", ["start.base_alias"])
    assert "version 1" in failure.message


def test_every_answer_says_what_came_of_the_rows(wire, taught, few):
    corrected, removed = few[0], few[1]
    rows = [
        (corrected[0], "key"),
        few[2],
        ("a key that is lost", "key"),
        adaptation_pb2.ExampleChange(delete_id="first/default/1"),
        upsert("my bill is too high", "bill", id="first/default/3"),
    ]
    counts = {
        "base_version": 1,
        "base_examples": len(few),
        "added": 1,
        "replaced_by_id": 1,
        "replaced_by_content": 1,
        "unchanged": 1,
        "deleted": 1,
    }
    start = {"model": taught, "base_alias": "live", "match_content": True}
    check = wire.adapt(**start, validate_only=True)
    check.examples(0, rows)
    check.commit()
    assert extension(check.next("committed")) == counts
    published = wire.publish(rows=rows, adaptation_id="second", **start)
    assert extension(published) == counts
    assert published.version == 2
    assert {it.label: it.examples for it in published.summary.per_class} == {"bill": 5, "lock": 5, "key": 2}
    assert extension(get(wire, taught, "second")) == counts
    assert not get(wire, taught, "first").HasField("extension")
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model=taught, version=2)).version
    assert extension(version) == counts
    assert version.extension.match_content
    again = wire.adapt(adaptation_id="second", **start)
    again.next("started")
    again.commit("publish")
    assert extension(again.next("published")) == counts
    assert removed[1] == "bill"


@pytest.mark.slow
def test_labels_that_were_declared_stay_declared(wire, model, few):
    labels = [types_pb2.Label(name=it, description=f"a {it}") for it in ("lock", "key", "bill")]
    wire.publish(model, few, labels=labels)
    start = {"model": model, "base_alias": "live", "match_content": True}
    wire.publish(rows=[("a key that is lost", "key")], **start)
    wire.publish(rows=[("the dog bites", "dog")], **start)
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model=model)).version
    assert [(it.name, it.description) for it in version.labels] == [
        ("lock", "a lock"),
        ("key", "a key"),
        ("bill", "a bill"),
        ("dog", ""),
    ]


def test_where_nothing_is_new_the_version_stays(wire, taught, few):
    start = {"model": taught, "base_alias": "live", "match_content": True}
    call = wire.adapt(adaptation_id="again", **start)
    call.examples(0, few)
    call.commit("same")
    same = call.next("published")
    assert (same.version, same.summary.examples) == (1, len(few))
    assert extension(same) == {"base_version": 1, "base_examples": len(few), "unchanged": len(few)}
    # The stream goes on, and is trained once something is new; and then not again for what is there already.
    call.examples(len(few), [("a lock is new", "lock")])
    call.commit("more")
    more = call.next("published")
    assert (more.version, more.summary.examples) == (2, len(few) + 1)
    call.examples(len(few) + 1, [("my bill is wrong 0", "bill")])
    call.commit("copy", close=True)
    assert call.next("published").version == 3  # a copy within the adaptation is a row
    other = wire.publish(taught, few, seed=7, adaptation_id="other", base_version=1, match_content=True)
    assert (other.version, other.summary.seed) == (4, 7)
    plain = wire.publish(taught, [], adaptation_id="plain", base_version=1)
    assert (plain.version, plain.summary.examples) == (5, len(few))


@pytest.mark.slow
def test_a_server_that_publishes_by_itself_makes_no_version_of_what_is_there_already(wire, taught, few):
    policy = adaptation_pb2.PublishPolicy(every_examples=len(few))
    call = wire.adapt(model=taught, adaptation_id="a", base_version=1, match_content=True, publish=policy)
    call.examples(0, few)
    assert call.next("published").version == 1
    (version,) = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=taught)).versions
    assert version.version == 1


@pytest.mark.slow
def test_after_an_erasure_the_same_examples_are_trained_again(wire, taught, few):
    wire.model.DeleteExamples(model_pb2.DeleteExamplesRequest(model=taught, ids=["first/default/0"]))
    published = wire.publish(taught, few[1:], base_version=1, match_content=True)
    assert (published.version, published.summary.examples) == (2, len(few) - 1)
    assert extension(published) == {
        "base_version": 1,
        "base_examples": len(few) - 1,
        "unchanged": len(few) - 1,
    }


@pytest.mark.slow
def test_a_failed_publication_says_what_came_of_the_rows_too(wire, taught, few):
    call = wire.adapt(
        model=taught,
        adaptation_id="a",
        base_version=1,
        closed_labels=True,
        labels=[types_pb2.Label(name="none")],
    )
    call.examples(0, [upsert("nothing", None)])
    call.commit("c")
    failed = call.next("publication_failed")
    assert extension(failed) == {"base_version": 1, "base_examples": len(few), "added": 1}
    assert extension(get(wire, taught, "a")) == extension(failed)


@pytest.mark.slow
def test_several_writers_extend_a_version_together(wire, taught, few):
    start = {"model": taught, "adaptation_id": "a", "base_version": 1, "match_content": True}
    rows = [*few, (few[0][0], "key"), (few[1][0], "key")]
    calls = [wire.adapt(writer_id=f"w{n}", **start) for n in range(3)]
    for n, call in enumerate(calls):
        call.next("started")
        call.examples(0, rows[n::3])
        call.accepted(len(rows[n::3]))
    calls[0].commit("c")
    published = calls[0].next("published")
    assert published.summary.examples == len(rows)
    found = extension(published)
    assert found["base_examples"] + found["added"] == len(rows)
    assert found["unchanged"] + found.get("replaced_by_content", 0) == len(few)


@pytest.mark.slow
def test_a_server_that_is_killed_matches_on_as_if_nothing_had_been(serve, connect, few):
    server = serve()
    wire = connect(server)
    wire.publish("tests/killed", [*few, *few], adaptation_id="first")
    start = {"model": "tests/killed", "adaptation_id": "a", "base_alias": "live", "match_content": True}
    rows = [(few[0][0], "key"), *few, *few, ("one more", "key")]
    for sent in (5, 11, 20, len(rows)):
        call = wire.adapt(**start)
        first = call.next("started").next_sequence
        call.examples(first, rows[first:sent])
        call.accepted(sent)
        server.kill()
        server = serve()
        wire = connect(server)
    call = wire.adapt(**start)
    call.commit("c")
    published = call.next("published")
    assert published.summary.examples == 2 * len(few) + 2
    assert extension(published) == {
        "base_version": 1,
        "base_examples": 2 * len(few),
        "added": 2,
        "replaced_by_content": 1,
        "unchanged": 2 * len(few) - 1,
    }
