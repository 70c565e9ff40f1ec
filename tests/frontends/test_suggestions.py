"""SuggestExamples: what to label next, of candidates that are sent and of those that are stored."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from tests.conftest import upsert

from graft.v1 import model_pb2, types_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
BIRDS = [
    f"a {bird} sings in the tree" for bird in ("robin", "blackbird", "finch", "thrush", "wren", "sparrow")
]
BILLS = [f"the bill of {month} is wrong" for month in ("may", "june", "july")]


def candidates(texts: list[str], **fields: Any) -> model_pb2.SuggestExamplesRequest:
    examples = [types_pb2.Example(id=f"c{at}", input={"text": it}) for at, it in enumerate(texts)]
    return model_pb2.SuggestExamplesRequest(examples=examples, **fields)


def suggest(wire: Any, *messages: model_pb2.SuggestExamplesRequest) -> model_pb2.SuggestExamplesResponse:
    return wire.model.SuggestExamples(iter(messages), timeout=60)


def fails(wire: Any, *messages: model_pb2.SuggestExamplesRequest) -> Any:
    return wire.fails(wire.model.SuggestExamples, iter(messages))


def test_what_the_version_does_not_know_comes_before_what_it_knows(wire, few_model):
    found = suggest(wire, candidates(BILLS, model=few_model, count=3), candidates(BIRDS))
    assert (found.model, found.version, found.candidates) == (few_model, 1, 9)
    assert found.task == types_pb2.TASK_SINGLE_LABEL
    first = found.suggestions[0]
    assert first.index >= len(BILLS)
    assert first.id == f"c{first.index - len(BILLS)}"
    assert first.score == 1
    assert first.similar > 1
    assert model_pb2.SUGGESTION_REASON_TYPICAL in first.reasons
    assert {it.label for it in first.prediction.single_label.scores} == {"lock", "bill"}
    scores = [it.score for it in found.suggestions]
    assert scores == sorted(scores, reverse=True)


def test_what_is_labelled_and_what_is_the_same_is_left_out(wire, few_model, few):
    known = few[0][0].upper() + "!"
    found = suggest(wire, candidates([known, BIRDS[0], BIRDS[0] + ".", BIRDS[1]], model=few_model))
    assert (found.labelled, found.copies, found.candidates) == (1, 1, 2)
    assert {it.index for it in found.suggestions} <= {1, 3}


def test_a_model_without_a_version_is_told_the_first_to_label(wire, model):
    found = suggest(wire, candidates([*BILLS, *BIRDS], model=model, count=2))
    assert (found.version, found.task) == (0, types_pb2.TASK_UNSPECIFIED)
    assert [it.index >= len(BILLS) for it in found.suggestions] == [True, False]
    assert not any(it.HasField("prediction") for it in found.suggestions)


def test_stored_unlabelled_examples_are_candidates_without_being_sent(wire, model, few):
    rows = [*few, *(upsert(text, id=f"u{at}") for at, text in enumerate(BIRDS))]
    wire.publish(model, rows)
    found = suggest(wire, model_pb2.SuggestExamplesRequest(model=model, stored=True, count=2))
    assert found.candidates == len(BIRDS)
    assert {it.index for it in found.suggestions} == {-1}
    assert {it.id for it in found.suggestions} < {f"u{at}" for at in range(len(BIRDS))}
    both = suggest(wire, candidates([*BIRDS, *BILLS], model=model, stored=True, count=1))
    assert (both.candidates, both.copies) == (len(BIRDS) + len(BILLS), len(BIRDS))


def test_the_first_to_label_are_found_among_what_an_adaptation_has_stored(wire, model):
    call = wire.adapt(model=model, adaptation_id="a")
    call.next("started")
    rows = [upsert(text, id=f"u{at}") for at, text in enumerate([*BIRDS, *BILLS])]
    call.examples(0, [*rows, upsert("a dog barks", "dog"), upsert("another text", id="u0")])
    call.accepted(len(rows) + 2)
    found = suggest(wire, model_pb2.SuggestExamplesRequest(model=model, stored=True, count=2))
    assert (found.version, found.candidates) == (0, len(rows))
    assert {it.id in {f"u{at}" for at in range(1, 6)} for it in found.suggestions} == {True, False}


def test_a_bad_candidate_is_refused_alone(wire, few_model):
    message = candidates(["", BIRDS[0]], model=few_model)
    message.examples.add().input.image = b"no picture"
    message.examples.add().input.features.values.extend([float("nan")] * 384)
    message.examples.add()
    found = suggest(wire, message)
    assert [it.index for it in found.suggestions] == [1]
    assert (found.total_rejected, [it.index for it in found.rejected]) == (4, [0, 2, 3, 4])
    assert [it.reason for it in found.rejected][::3] == ["INPUT_EMPTY", "INPUT_MISSING"]


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"count": -1}, "COUNT_INVALID", "count"),
        ({"count": 1_001}, "COUNT_INVALID", "count"),
        ({}, "CANDIDATES_MISSING", "examples"),
        ({"stored": True}, "CANDIDATES_MISSING", "examples"),
        ({"version": -3}, "VERSION_INVALID", "version"),
        ({"examples": [types_pb2.Example()] * 10_001}, "TOO_MANY_EXAMPLES", "examples"),
    ],
)
def test_what_cannot_be_suggested_is_refused(wire, few_model, fields, reason, field):
    failure = fails(wire, model_pb2.SuggestExamplesRequest(model=few_model, **fields))
    assert (failure.code, failure.reason, failure.fields) == (INVALID, reason, [field])


def test_what_is_not_there_is_not_found(wire, few_model, model):
    assert fails(wire, candidates(BIRDS, model=model, version=1)).reason == "MODEL_NOT_FOUND"
    assert fails(wire, candidates(BIRDS, model=few_model, version=9)).reason == "VERSION_NOT_FOUND"
    failure = fails(wire, candidates(BIRDS, model=model, stored=True))
    assert (failure.code, failure.reason) == (NOT_FOUND, "MODEL_NOT_FOUND")
    assert fails(wire, candidates(BIRDS, model=model, backbone="none-such")).code is NOT_FOUND


def test_a_call_without_a_message_is_refused(wire):
    assert fails(wire).reason == "MESSAGE_EMPTY"


def test_several_labels_and_numbers_are_ranked_by_their_own_uncertainty(wire, model):
    topics = [("a dog barks at a cat", ["dog", "cat"]), ("the dog sleeps", ["dog"]), ("one cat", ["cat"])]
    sets = [
        upsert(f"{text} {at}", label_set=types_pb2.LabelSet(labels=labels))
        for at in range(5)
        for text, labels in topics
    ]
    wire.publish(f"{model}/sets", sets, task=types_pb2.TASK_MULTI_LABEL)
    values = [upsert(f"wait {hours} hours", value=hours) for hours in range(1, 16)]
    wire.publish(f"{model}/values", values, task=types_pb2.TASK_REGRESSION)
    for name in ("sets", "values"):
        found = suggest(wire, candidates([*BIRDS, *BILLS], model=f"{model}/{name}", count=4))
        assert len(found.suggestions) == 4
        assert all(0 <= it.uncertainty <= 1 for it in found.suggestions)
        assert all(it.prediction.WhichOneof("result") for it in found.suggestions)
