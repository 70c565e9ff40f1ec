"""What a model answers with: targets of every kind in, answers of the same kind out."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2, types_pb2

TEXTS = ("the lock is stuck", "my bill is wrong")


def example(text: str, **target: Any) -> types_pb2.Example:
    return types_pb2.Example(input=types_pb2.Input(text=text), **target)


def change(text: str, **target: Any) -> adaptation_pb2.ExampleChange:
    return adaptation_pb2.ExampleChange(upsert=example(text, **target))


def shares(**probabilities: float) -> types_pb2.Distribution:
    return types_pb2.Distribution(
        labels=[types_pb2.LabelProbability(label=it, probability=p) for it, p in probabilities.items()]
    )


def evaluated(wire: Any, model: str, examples: list[types_pb2.Example]) -> model_pb2.EvaluateModelResponse:
    requests = [model_pb2.EvaluateModelRequest(model=model, examples=examples)]
    return wire.model.EvaluateModel(iter(requests), timeout=60)


# ------------------------------------------------------------------------------------------- distributions


def test_probabilities_follow_the_distributions_that_were_taught(wire, model):
    taught = (shares(lock=0.7, bill=0.3), shares(bill=0.9, lock=0.1))
    rows = [
        change(f"{text} {n}", distribution=one)
        for n in range(20)
        for text, one in zip(TEXTS, taught, strict=True)
    ]
    report = wire.publish(model, rows).summary
    assert (report.accuracy, report.classes, report.task) == (1.0, 2, types_pb2.TASK_SINGLE_LABEL)
    # No head can be surer than the targets are: this is their mean entropy.
    assert report.log_loss == pytest.approx((0.611 + 0.325) / 2, abs=0.02)
    for prediction, one in zip(wire.predict(model, TEXTS).results, taught, strict=True):
        probability = {score.label: score.probability for score in prediction.single_label.scores}
        for share in one.labels:
            assert probability[share.label] == pytest.approx(share.probability, abs=0.05)


def test_labels_and_distributions_may_be_mixed_and_evaluated(wire, model, few):
    rows = [change(text, label=label) for text, label in few]
    wire.publish(model, [*rows, change("the bill or the lock", distribution=shares(lock=0.5, bill=0.5))])
    result = evaluated(
        wire, model, [example(few[0][0], label="lock"), example(few[1][0], distribution=shares(bill=1))]
    )
    assert (result.examples, result.accuracy, result.rejected_count) == (2, 1.0, 0)
    unsure = evaluated(wire, model, [example(few[0][0], distribution=shares(lock=0.6, bill=0.4))])
    assert unsure.accuracy == 1.0
    assert unsure.log_loss > result.log_loss + 0.3


def test_a_target_that_is_none_is_refused_with_the_field_at_fault(wire, model):
    call = wire.adapt(model=model)
    call.next("started")
    call.examples(0, [change("a", distribution=shares(lock=0.5, bill=0.3)), change("b", value=3.0)])
    rejected = call.accepted(2)
    assert [(it.reason, it.field) for it in rejected] == [
        ("DISTRIBUTION_SUM", "upsert.distribution.labels"),
        ("TARGET_MISMATCH", "upsert.value"),
    ]
    assert "TASK_REGRESSION" in rejected[1].detail


def test_an_unknown_task_is_refused(wire, model):
    failure = wire.adapt(model=model, task=99).failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ENUM_UNKNOWN")
    assert failure.fields == ["start.task"]
