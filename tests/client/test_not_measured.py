"""A figure that was not measured is None in records and null in JSON, and never 0.0%."""

from __future__ import annotations

import json

import pytest

from graft._records.evaluation.report_messages import evaluation_of, report_of
from graft.cli.showing import phrases
from graft.cli.showing.terminal import plain
from graft.v1 import model_pb2, report_pb2, types_pb2


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_a_figure_that_was_not_measured_is_none_in_every_record(task: str) -> None:
    message = report_pb2.Report(examples=4, classes=2, task=types_pb2.Task.Value(f"TASK_{task.upper()}"))
    message.head.candidates.add(kind="logistic", view="pooled", log_loss=0.1)
    message.per_class.add(label="a", examples=4)
    message.reliability.add()
    evaluated = model_pb2.EvaluateModelResponse(model="m", version=1, task=message.task)
    for it in (message, evaluated):
        if task == "regression":
            it.regression.SetInParent()
        if task == "multi_label":
            it.multi_label.SetInParent()
    named = ("accuracy", "macro_f1", "calibration_error", "accuracy_low", "accuracy_high")
    result = evaluation_of(evaluated)
    for value in (report_of(message), result):
        assert {getattr(value, name) for name in (*named, "log_loss")} == {None}
        assert "0.0%" not in repr(value)
        if value.multi_label is not None:  # of the report
            assert (value.multi_label.micro_f1, value.multi_label.hamming_loss) == (None, None)
        if value.regression is not None:
            assert (value.regression.r2, value.regression.rmse, value.regression.coverage) == (None,) * 3
    (entry,) = report_of(message).per_class
    assert (entry.precision, entry.recall, entry.f1) == (None, None, None)
    assert report_of(message).reliability[0].accuracy is None
    assert json.loads(json.dumps(plain(result)))["accuracy"] is None
    assert str(phrases.evaluation_facts(result, ())) == "{'evaluated': 'no example'}"


def test_a_measured_figure_of_zero_stays_zero() -> None:
    message = report_pb2.Report(examples=40, classes=2)
    message.evaluation.method = report_pb2.EVALUATION_METHOD_HELD_OUT
    message.evaluation.examples = 10
    message.per_class.add(label="a", examples=4, support=3)
    value = report_of(message)
    assert (value.accuracy, value.macro_f1, value.per_class[0].f1) == (0.0, 0.0, 0.0)
    assert phrases.report_facts(value)["accuracy"] == "0.0%"
