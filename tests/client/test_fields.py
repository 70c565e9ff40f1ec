"""The client's records have the fields of the contract's messages, and each holds what its message's holds."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

import graft
from graft._records import records
from graft._records.evaluation import report_messages, reports
from graft.v1 import adaptation_pb2, model_pb2, report_pb2

RECORDS: dict[type[Any], type[Message]] = {
    **{
        getattr(reports, name): getattr(report_pb2, name)
        for name in report_pb2.DESCRIPTOR.message_types_by_name
        if name != "Evaluation"  # three fields of the report
    },
    graft.EvaluationResult: model_pb2.EvaluateModelResponse,
    graft.EvaluationRejection: model_pb2.EvaluationRejection,
    graft.Model: model_pb2.Model,
    graft.ModelRenewal: model_pb2.ModelRenewal,
    graft.Version: model_pb2.ModelVersion,
    graft.Backbone: model_pb2.Backbone,
    graft.Rejection: adaptation_pb2.Rejection,
    graft.Progress: adaptation_pb2.Progress,
    graft.Publication: adaptation_pb2.Publication,
}
NAMES = {
    (graft.Report, "evaluation_folds"): "evaluation.folds",
    (graft.Report, "evaluated_examples"): "evaluation.examples",
    (graft.Report, "evaluation"): "evaluation.method",
    (graft.Report, "training_duration_s"): "training_duration",
    (graft.Progress, "eta_s"): "eta",
    (graft.Progress, "elapsed_s"): "elapsed",
    (graft.Publication, "error"): "status",
    (graft.EvaluationResult, "rejected_count"): "total_rejected",
    (graft.EvaluationResult, "trained_on_count"): "total_trained_on",
    (graft.EvaluationResult, "unknown_label_count"): "total_with_unknown_label",
}
"""Where a record's field has not the name of the message's."""

OWN = {
    graft.Rejection: {"row", "origin"},
    graft.EvaluationRejection: {"origin"},
    graft.Report: {"quotes", "model", "version"},
}
"""The fields that the client fills: of what it was given, and joined when it is shown."""


def path(record: type[Any], name: str) -> str:
    return NAMES.get((record, name), name)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_has_the_fields_of_its_message(record: type[Any]) -> None:
    ours = {path(record, field.name) for field in dataclasses.fields(record)} - OWN.get(record, set())
    theirs = set(RECORDS[record].DESCRIPTOR.fields_by_name)
    if record is graft.Report:
        theirs.remove("evaluation")
        theirs |= {f"evaluation.{name}" for name in report_pb2.Evaluation.DESCRIPTOR.fields_by_name}
    assert ours == theirs


def filled(kind: type[Message], numbers: Iterator[int]) -> Any:
    """A message in which every field differs from every other."""
    message: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, held = f"key {next(numbers)}", field.message_type.fields_by_name["value"]
            getattr(message, field.name)[key] = value(held, numbers)
        elif field.is_repeated:
            values = [value(field, numbers) for _ in range(2)]
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value(field, numbers))
        else:
            setattr(message, field.name, value(field, numbers))
    return message


def value(field: Any, numbers: Iterator[int]) -> Any:
    if field.message_type is not None:
        return message_value(field.message_type._concrete_class, numbers)
    number = next(numbers)
    if field.enum_type is not None:
        named = [it.number for it in field.enum_type.values if it.number]
        return named[number % len(named)]
    if field.cpp_type == Field.CPPTYPE_STRING:
        return f"text {number}"
    return True if field.cpp_type == Field.CPPTYPE_BOOL else number


def message_value(kind: type[Message], numbers: Iterator[int]) -> Message:
    if kind is Duration or kind is Timestamp:
        return kind(seconds=next(numbers))
    if kind is Status:
        return Status(code=5, message=f"error {next(numbers)}")
    filled_message: Message = filled(kind, numbers)
    return filled_message


def check(record: Any, message: Any) -> None:
    """Every field of the record holds what the message's field of the same name does."""
    for field in dataclasses.fields(record):
        if field.name in OWN.get(type(record), set()):
            continue
        of: Any = message
        for part in path(type(record), field.name).split("."):
            descriptor = of.DESCRIPTOR.fields_by_name[part]
            of = getattr(of, part)
        same(getattr(record, field.name), of, descriptor)


def same(ours: Any, theirs: Any, descriptor: Any) -> None:
    if isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other, descriptor)
    elif isinstance(ours, Mapping):
        assert dict(ours) == dict(theirs)
    elif dataclasses.is_dataclass(ours):
        check(ours, theirs)
    elif isinstance(ours, dt.datetime):
        assert ours.timestamp() == theirs.seconds
    elif isinstance(ours, graft.GraftError):
        assert ours.message == theirs.message
    elif isinstance(theirs, Duration):
        assert ours == theirs.seconds
    elif descriptor.enum_type is not None:
        assert descriptor.enum_type.values_by_number[theirs].name.lower().endswith(f"_{ours}")
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (report_pb2.Report, report_messages.report_of),
        (model_pb2.EvaluateModelResponse, report_messages.evaluation_of),
        (model_pb2.Model, records.model_of),
        (model_pb2.ModelVersion, records.version_of),
        (model_pb2.Backbone, records.backbone_of),
        (adaptation_pb2.Rejection, records.rejection_of),
        (adaptation_pb2.Progress, records.progress_of),
    ],
    ids=lambda it: it.__name__,
)
def test_each_field_holds_what_its_message_holds(kind: type[Message], read: Any) -> None:
    message = filled(kind, itertools.count(1))
    check(read(message), message)
