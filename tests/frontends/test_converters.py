"""Messages to nouns and nouns to messages, without a server."""

from __future__ import annotations

import asyncio
import dataclasses
import typing
from typing import Any

import msgspec
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

import graft
from graft._records.evaluation.report_messages import report_of
from graft.v1 import adaptation_pb2, model_pb2, report_pb2, types_pb2
from graft_server.domain.errors import InvalidError
from graft_server.domain.evaluated import EvaluatedVersion
from graft_server.domain.examples import Change, Example, Input, Kind
from graft_server.domain.method import Method
from graft_server.domain.prediction import Prediction, Predictions, Timings
from graft_server.domain.report import (
    Advice,
    AdviceKind,
    Evaluation,
    EvaluationMethod,
    Figures,
    HeadChoice,
    Measured,
    Report,
    TuningObjective,
    TuningReport,
    UnlabelledReport,
)
from graft_server.domain.stream import CommitMessage, EmptyMessage, ExamplesMessage
from graft_server.domain.tasks.single_label import SingleLabelAnswer
from graft_server.frontends.grpc.converters.lazy import Converted
from graft_server.frontends.grpc.converters.predictions import MAX_RESPONSE_BYTES, predict_response
from graft_server.frontends.grpc.converters.reports import report_message
from graft_server.frontends.grpc.converters.requests import evaluated_examples, writer_message

# ------------------------------------------------------------------------------------ a report's three copies

SERVERS = {"trained_time_s": "trained_time", "training_duration_s": "training_duration"}
"""Fields of the server's report that the message has under another name, and in another form."""
CLIENTS = {
    "training_duration_s": "training_duration",
    "evaluation": "evaluation",
    "evaluation_folds": "evaluation",
    "evaluated_examples": "evaluation",
}
"""Fields of the client's report that the message has under another name, or together in one message."""


def copies(kind: Any, message: Descriptor, renamed: dict[str, str]) -> list[tuple[str, set[str], set[str]]]:
    """The fields of a dataclass and of its message, and the same of all that they are made of."""
    hints = typing.get_type_hints(kind)
    # The client joins the quotes when a report is shown, and the model and the version when it comes with one.
    own = {"quotes", "model", "version"} if kind is graft.Report else set()
    named = [it.name for it in dataclasses.fields(kind) if it.name not in own]
    fields = {it: renamed.get(it, it) for it in named}
    found = [(message.name, set(fields.values()), set(message.fields_by_name))]
    for name, field in fields.items():
        described = message.fields_by_name.get(field)
        for part in parts(hints[name]):
            if dataclasses.is_dataclass(part):
                assert described is not None, f"{message.name} has no {field}"
                assert described.type == FieldDescriptor.TYPE_MESSAGE, f"{message.name}.{field}"
                found += copies(part, described.message_type, {})
    return found


def parts(hint: Any) -> list[Any]:
    """What a type is made of: itself, and what it has of others."""
    return [hint, *(part for argument in typing.get_args(hint) for part in parts(argument))]


@pytest.mark.parametrize(("kind", "renamed"), [(Report, SERVERS), (graft.Report, CLIENTS)])
def test_a_report_has_the_fields_of_its_message_at_every_depth(kind, renamed):
    found = copies(kind, report_pb2.Report.DESCRIPTOR, renamed)
    assert len({name for name, _, _ in found}) > 15
    assert [name for name, fields, described in found if fields != described] == []


def reported(**fields: Any) -> Report:
    """A report on 40 examples of two classes."""
    evaluation = Evaluation(EvaluationMethod.CROSS_VALIDATION, 5, 40)
    head = HeadChoice("logistic", "pooled", {"C": 10.0}, 1.0)
    return Report(40, 0, 2, 0.75, 0.7, 0.5, 0.1, evaluation, head, (), **fields)


def test_what_is_known_of_tunings_unlabelled_examples_and_advice_arrives():
    tuning = TuningReport(
        *(Method.FULL, True, "done", 6, 6),
        measured=40,
        objective=TuningObjective.CONTRASTIVE,
        label_names=True,
        folds=5,
        tuned_share=0.5,
        rank=8,
        full_bytes=1 << 33,
        accuracy_gain_error=0.04,
    )
    unlabelled = UnlabelledReport(2000, 1500, True, 0.25, 0.9, 0.8, 0.03, 0.2, -0.1)
    advice = (
        Advice(AdviceKind.TIME, "Tune.", 0.05, -0.01, 0.12, cost_seconds=60.0),
        Advice(AdviceKind.LABELS, "Label.", 0.02, 0.0, 0.04, cost_examples=40),
        Advice(AdviceKind.BACKBONE, "Choose."),
    )
    message = report_message(reported(tuning=tuning, unlabelled=unlabelled, advice=advice))
    found = report_of(report_pb2.Report.FromString(message.SerializeToString()))
    assert found.tuning is not None
    named = ("objective", "label_names", "folds", "tuned_share", "rank", "full_bytes", "accuracy_gain_error")
    assert [getattr(found.tuning, it) for it in named] == ["contrastive", True, 5, 0.5, 8, 1 << 33, 0.04]
    assert found.unlabelled == graft.UnlabelledReport(2000, 1500, True, 0.25, 0.9, 0.8, 0.03, 0.2, -0.1)
    assert found.advice == (
        graft.Advice("time", "Tune.", 0.05, -0.01, 0.12, 60.0, 0),
        graft.Advice("labels", "Label.", 0.02, 0.0, 0.04, 0.0, 40),
        graft.Advice("backbone", "Choose.", None, None, None, 0.0, 0),
    )


def test_a_report_from_before_these_is_read_as_one_without_them():
    stored = msgspec.to_builtins(reported(tuning=TuningReport(Method.FULL, True, "done", 6, 6, measured=40)))
    for it in ("unlabelled", "advice"):
        del stored[it]
    for it in (
        "objective",
        "label_names",
        "folds",
        "tuned_share",
        "rank",
        "full_bytes",
        "accuracy_gain_error",
    ):
        del stored["tuning"][it]
    report = msgspec.json.decode(msgspec.json.encode(stored), type=Report)
    found = report_of(report_message(report))
    assert (found.unlabelled, found.advice) == (None, ())
    assert found.tuning is not None
    assert (found.tuning.objective, found.tuning.folds, found.tuning.tuned_share) == (
        "cross_entropy",
        0,
        None,
    )
    old = report_message(report)
    old.tuning.ClearField("objective")  # as an old server sends it
    assert report_of(old).tuning == found.tuning


def test_an_evaluation_has_the_fields_of_its_message():
    figures = {it.name for it in dataclasses.fields(Figures)}
    measured = {it.name for it in dataclasses.fields(Measured)} - {"figures"}
    described = set(model_pb2.EvaluateModelResponse.DESCRIPTOR.fields_by_name)
    evaluated = {it.name for it in dataclasses.fields(EvaluatedVersion)} - {"measured"}
    assert figures | measured | evaluated == described


# -------------------------------------------------------------------------------------------------- requests


def test_messages_become_nouns_only_when_they_are_read():
    read: list[tuple[str, int]] = []

    def convert(message: str, place: int) -> str:
        read.append((message, place))
        return message.upper()

    converted = Converted("abcdef", convert)
    assert len(converted) == 6
    middle = converted[2:5]
    assert len(middle) == 3
    assert read == []
    assert middle[1] == "D"
    assert list(middle[1:]) == ["D", "E"]
    assert converted[-1] == "F"
    assert read == [("d", 3), ("d", 3), ("e", 4), ("f", 5)]


def test_what_a_writer_sends_is_told_apart():
    commit = adaptation_pb2.Commit(commit_id="c", close=True)
    assert writer_message(adaptation_pb2.AdaptRequest(commit=commit)) == CommitMessage("c", None, True)
    commit.next_sequence = 0
    assert writer_message(adaptation_pb2.AdaptRequest(commit=commit)) == CommitMessage("c", 0, True)
    assert writer_message(adaptation_pb2.AdaptRequest()) == EmptyMessage()
    image = types_pb2.Example(input=types_pb2.Input(image=b"png"), label="a", subject="s")
    strange = types_pb2.Example(input=types_pb2.Input(image=b"png"), subject="s", split=typing.cast("Any", 9))
    changes = [
        adaptation_pb2.ExampleChange(upsert=image),
        adaptation_pb2.ExampleChange(delete_id="x"),
        adaptation_pb2.ExampleChange(upsert=strange),
        adaptation_pb2.ExampleChange(),
    ]
    batch = adaptation_pb2.ExampleBatch(first_sequence=7, changes=changes)
    sent = writer_message(adaptation_pb2.AdaptRequest(examples=batch))
    assert isinstance(sent, ExamplesMessage)
    assert sent.first_sequence == 7
    upsert, delete, unknown, empty = sent.changes
    assert upsert.change == Change(Example("", Input(kind=Kind.IMAGE, data=b"png"), "a", subject="s"))
    assert delete.change == Change(delete_id="x")
    assert isinstance(unknown.change, InvalidError)
    assert (unknown.change.field, unknown.subject, unknown.kind) == ("upsert.split", "s", Kind.IMAGE)
    assert isinstance(empty.change, InvalidError)
    assert (empty.change.field, empty.subject, empty.kind) == ("change", "", None)
    assert len({it.content for it in sent.changes}) == 4


def test_where_an_example_came_from_does_not_tell_a_repeat_from_another_change():
    def sent(**fields: Any) -> Any:
        example = types_pb2.Example(input=types_pb2.Input(text="x"), label="a", **fields)
        batch = adaptation_pb2.ExampleBatch(changes=[adaptation_pb2.ExampleChange(upsert=example)])
        changes = writer_message(adaptation_pb2.AdaptRequest(examples=batch))
        assert isinstance(changes, ExamplesMessage)
        (first,), (again,) = changes.changes, changes.changes  # each is converted when it is read
        assert first == again
        return first

    plain, named, moved = sent(), sent(origin="a.csv:2"), sent(origin="b.csv:9")
    assert plain.content == named.content == moved.content
    assert [it.change.upsert.origin for it in (plain, named, moved)] == ["", "a.csv:2", "b.csv:9"]
    confirmed = sent(confirmed=True)
    assert confirmed.change.upsert.confirmed
    assert confirmed.content != plain.content


def test_it_is_known_whether_an_example_came_with_a_weight():
    weights = [types_pb2.Example(weight=1.0), types_pb2.Example(weight=0.0), types_pb2.Example()]
    for it in weights:
        it.input.text = "x"
    changes = [adaptation_pb2.ExampleChange(upsert=it) for it in weights]
    changes.append(adaptation_pb2.ExampleChange(delete_id="x"))
    sent = writer_message(adaptation_pb2.AdaptRequest(examples=adaptation_pb2.ExampleBatch(changes=changes)))
    assert isinstance(sent, ExamplesMessage)
    assert [it.weighted for it in sent.changes] == [True, True, False, False]


def test_an_evaluations_fields_are_those_of_its_request():
    examples = [
        types_pb2.Example(label="a"),
        types_pb2.Example(input=types_pb2.Input(text="x"), split=typing.cast("Any", 9)),
    ]
    missing, unknown = evaluated_examples(model_pb2.EvaluateModelRequest(examples=examples))
    assert isinstance(missing, InvalidError)
    assert isinstance(unknown, InvalidError)
    assert (missing.field, unknown.field) == ("examples[0].input", "examples[1].split")
    assert "examples[0].input.text" in missing.message
    assert "examples[1].split is 9" in unknown.message


# --------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(("inputs", "fits"), [(2_000, True), (3_000, False)])
def test_an_answer_that_turns_out_too_large_is_refused(inputs, fits):
    features = np.full(384, 0.5, np.float32)
    one = Prediction(SingleLabelAnswer([("a", 0.5)]), 0.0, False, False, features)
    found = Predictions("m", 1, "", 0, [one] * inputs, Timings())
    if fits:
        assert asyncio.run(predict_response(found)).ByteSize() <= MAX_RESPONSE_BYTES
        return
    with pytest.raises(InvalidError) as refused:
        asyncio.run(predict_response(found))
    assert (refused.value.reason, refused.value.field) == ("RESPONSE_TOO_LARGE", "inputs")
    assert "and clients accept 4,194,304" in refused.value.message
