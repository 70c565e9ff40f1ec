"""What a model answers with: targets of every kind in, answers of the same kind out."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2, report_pb2, types_pb2

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
        wire,
        model,
        [example(f"{few[0][0]}0", label="lock"), example(f"{few[1][0]}0", distribution=shares(bill=1))],
    )
    assert (result.examples, result.accuracy, result.total_rejected) == (2, 1.0, 0)
    unsure = evaluated(wire, model, [example(f"{few[0][0]}0", distribution=shares(lock=0.6, bill=0.4))])
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


# ------------------------------------------------------------------------------------------- several labels

BOTH, NEITHER = "the lock is stuck and my bill is wrong", "what a lovely day it is"
SETS = {TEXTS[0]: ["lock"], TEXTS[1]: ["bill"], BOTH: ["bill", "lock"], NEITHER: []}


def labelled_sets(count: int) -> list[adaptation_pb2.ExampleChange]:
    return [
        change(f"{text} {n}", label_set=types_pb2.LabelSet(labels=labels))
        for n in range(count)
        for text, labels in SETS.items()
    ]


def selected(prediction: Any) -> list[str]:
    return sorted(score.label for score in prediction.multi_label.scores if score.selected)


@pytest.fixture(scope="module")
def sets_model(shared_wire: Any) -> str:
    """A model that gives each text any of "bill" and "lock"."""
    shared_wire.publish("tests/sets", labelled_sets(15), task=types_pb2.TASK_MULTI_LABEL)
    return "tests/sets"


def test_each_text_gets_the_labels_that_apply_also_none(wire, sets_model):
    results = wire.predict(sets_model, SETS).results
    assert [selected(it) for it in results] == list(SETS.values())
    for result in results:
        probabilities = [score.probability for score in result.multi_label.scores]
        assert probabilities == sorted(probabilities, reverse=True)
        assert result.WhichOneof("result") == "multi_label"


def test_what_is_selected_is_given_beyond_top_k(wire, sets_model):
    results = wire.predict(sets_model, [BOTH, NEITHER], top_k=1).results
    assert [len(it.multi_label.scores) for it in results] == [2, 1]
    assert not results[1].multi_label.scores[0].selected


def test_the_report_has_figures_of_labels_and_each_labels_threshold(wire, sets_model):
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model=sets_model)).version
    report = version.report
    assert (version.task, report.task) == (types_pb2.TASK_MULTI_LABEL, types_pb2.TASK_MULTI_LABEL)
    assert [it.name for it in version.labels] == ["bill", "lock"]
    assert (report.examples, report.classes, report.multi_label.labels_per_example) == (60, 2, 1.0)
    assert report.multi_label.micro_f1 > 0.9
    assert report.accuracy > 0.85
    assert "label_names" in report.head.settings  # the default backbone reads them, so they were tried
    for entry in report.per_class:
        assert (entry.examples, entry.support) == (30, 30)
        assert 0 < entry.threshold < 1
    (listed,) = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=sets_model)).versions
    assert listed.report.multi_label == report.multi_label
    assert listed.task == types_pb2.TASK_MULTI_LABEL


def test_sets_are_evaluated_and_a_label_that_is_not_known_is_missed(wire, sets_model):
    rows = [example(text, label_set=types_pb2.LabelSet(labels=labels)) for text, labels in SETS.items()]
    result = evaluated(wire, sets_model, rows)
    assert (result.task, result.examples, result.accuracy) == (types_pb2.TASK_MULTI_LABEL, 4, 1.0)
    assert (result.multi_label.micro_f1, result.multi_label.hamming_loss) == (1.0, 0.0)
    rows.append(example(NEITHER, label_set=types_pb2.LabelSet(labels=["weather"])))
    result = evaluated(wire, sets_model, [*rows, example(NEITHER, label="bill")])
    assert (result.examples, result.accuracy, result.total_rejected) == (5, 0.8, 1)
    assert result.rejected[0].reason == "TARGET_MISMATCH"
    assert {it.label: it.recall for it in result.per_class} == {"bill": 1.0, "lock": 1.0, "weather": 0.0}


def test_where_every_example_carries_a_label_one_is_always_selected(wire, model):
    rows = [
        change(f"{text} {n}", label_set=types_pb2.LabelSet(labels=labels))
        for n in range(12)
        for text, labels in SETS.items()
        if labels
    ]
    wire.publish(model, rows, task=types_pb2.TASK_MULTI_LABEL)
    assert all(selected(it) for it in wire.predict(model, [NEITHER, "the moon", "3.14159"]).results)


def test_labels_that_all_examples_carry_tell_nothing_and_say_what_is_missing(wire, model):
    call = wire.adapt(model=model, task=types_pb2.TASK_MULTI_LABEL)
    call.next("started")
    call.examples(0, [change(f"text {n}", label_set=types_pb2.LabelSet(labels=["a", "b"])) for n in range(6)])
    call.commit("one")
    failure = wire.failure(call.next("publication_failed").status)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_FEW_CLASSES")
    assert "None of the 2 labels" in failure.message


# ------------------------------------------------------------------------------------------- a number

PRICES = {TEXTS[0]: 40.0, TEXTS[1]: 10.0, NEITHER: -5.0}


@pytest.fixture(scope="module")
def prices_model(shared_wire: Any) -> str:
    """A model that answers with a number, a little different for texts that are nearly the same."""
    rows = [change(f"{text} {n}", value=value + n % 5) for n in range(20) for text, value in PRICES.items()]
    shared_wire.publish("tests/prices", rows, task=types_pb2.TASK_REGRESSION)
    return "tests/prices"


def test_a_number_is_answered_with_its_interval(wire, prices_model):
    for result, value in zip(wire.predict(prices_model, PRICES).results, PRICES.values(), strict=True):
        answer = result.regression
        assert answer.value == pytest.approx(value + 2, abs=3)
        assert answer.low < answer.value < answer.high
        assert answer.high - answer.low < 15


def test_the_report_of_a_number_says_how_far_off_it_is(wire, prices_model):
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model=prices_model)).version
    report, figures = version.report, version.report.regression
    assert (version.task, list(version.labels), report.classes) == (types_pb2.TASK_REGRESSION, [], 0)
    assert (report.examples, figures.confidence) == (60, pytest.approx(0.9))
    assert figures.mean == pytest.approx(17.0)
    assert figures.r2 == pytest.approx(1 - (figures.rmse / figures.deviation) ** 2)
    assert figures.r2 > 0.95
    assert 0.8 <= figures.coverage <= 1
    assert len(report.predicted_values) == 60
    inside = [it.low <= it.value <= it.high for it in report.predicted_values]
    assert sum(inside) / len(inside) == pytest.approx(figures.coverage)
    (listed,) = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=prices_model)).versions
    assert listed.report.regression == figures


def test_numbers_are_evaluated(wire, prices_model):
    told = {f"{text} {n}": value + n % 5 for n in range(20, 26) for text, value in PRICES.items()}
    result = evaluated(wire, prices_model, [example(text, value=value) for text, value in told.items()])
    assert (result.task, result.examples, result.accuracy) == (types_pb2.TASK_REGRESSION, 18, 0.0)
    answers = [it.regression for it in wire.predict(prices_model, told).results]
    off = [it.value - value for it, value in zip(answers, told.values(), strict=True)]
    inside = [it.low <= value <= it.high for it, value in zip(answers, told.values(), strict=True)]
    assert result.regression.mae == pytest.approx(sum(map(abs, off)) / 18, rel=1e-4)
    assert result.regression.rmse == pytest.approx((sum(it**2 for it in off) / 18) ** 0.5, rel=1e-4)
    assert result.regression.coverage == pytest.approx(sum(inside) / 18)


def test_one_number_is_too_few(wire, model):
    call = wire.adapt(model=model, task=types_pb2.TASK_REGRESSION)
    call.next("started")
    call.examples(0, [change("a text", value=1.0)])
    call.commit("one")
    failure = wire.failure(call.next("publication_failed").status)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_FEW_EXAMPLES")


def test_numbers_have_no_labels(wire, model):
    failure = wire.adapt(
        model=model, task=types_pb2.TASK_REGRESSION, labels=[types_pb2.Label(name="a")]
    ).failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "LABELS_WITHOUT_CLASSES")
    assert failure.fields == ["start.labels"]


# ------------------------------------------------------------------------------------------- one task each


def test_an_adaptation_is_resumed_with_its_own_task_only(wire, model):
    wire.adapt(model=model, adaptation_id="job", task=types_pb2.TASK_MULTI_LABEL).next("started")
    failure = wire.adapt(model=model, adaptation_id="job", task=types_pb2.TASK_REGRESSION).failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "START_MISMATCH")
    assert "another task" in failure.message
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id="job")
    assert wire.adaptation.GetAdaptation(request).adaptation.task == types_pb2.TASK_MULTI_LABEL


def test_examples_of_a_version_of_another_task_are_not_gone_on_from(wire, sets_model):
    failure = wire.adapt(model=sets_model, base_version=1, task=types_pb2.TASK_SINGLE_LABEL).failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TASK_MISMATCH")
    assert "start with TASK_MULTI_LABEL" in failure.message
    assert failure.fields == ["start.base_version"]


def test_examples_of_a_version_of_the_same_task_are(wire, model):
    wire.publish(model, labelled_sets(6), task=types_pb2.TASK_MULTI_LABEL)
    more = wire.publish(model, labelled_sets(1), task=types_pb2.TASK_MULTI_LABEL, base_version=1)
    assert (more.version, more.summary.examples) == (2, 28)


# ------------------------------------------------------------------------------------------- weights, splits, groups

LOCKS, BILLS = types_pb2.LabelSet(labels=["lock"]), types_pb2.LabelSet(labels=["bill"])
TARGETS: dict[int, list[dict[str, Any]]] = {
    types_pb2.TASK_SINGLE_LABEL: [{"label": "lock"}, {"label": "bill"}],
    types_pb2.TASK_MULTI_LABEL: [{"label_set": LOCKS}, {"label_set": BILLS}],
    types_pb2.TASK_REGRESSION: [{"value": 40.0}, {"value": 10.0}],
}
"""Of each task, what the two texts are taught as."""
TASKS = list(TARGETS)


def taught(task: int, count: int = 12, **fields: Any) -> list[adaptation_pb2.ExampleChange]:
    return [
        change(f"{text} {n}", **target, **fields)
        for n in range(count)
        for text, target in zip(TEXTS, TARGETS[task], strict=True)
    ]


def doubtful(task: int, count: int, **fields: Any) -> list[adaptation_pb2.ExampleChange]:
    """Some of the first texts once more, taught as the second: only their weights tell what is answered."""
    return [change(f"{TEXTS[0]} {n}", **TARGETS[task][1], **fields) for n in range(count)]


def answered(wire: Any, model: str) -> float:
    """How far the first text is from what the second is taught as: a probability, or a share of the distance."""
    (result,) = wire.predict(model, TEXTS[:1]).results
    if result.WhichOneof("result") == "regression":
        return float((result.regression.value - 10) / 30)
    scores = {it.label: it.probability for it in getattr(result, result.WhichOneof("result")).scores}
    return float(scores["lock"])


@pytest.mark.parametrize("task", TASKS)
def test_an_example_of_weight_0_is_as_good_as_absent(wire, model, task):
    absent = wire.publish(f"{model}/absent", taught(task), task=task).summary
    rows = [*taught(task), *doubtful(task, 8, weight=0.0)]
    weightless = wire.publish(f"{model}/weightless", rows, task=task).summary
    assert weightless.examples == absent.examples == 24
    assert answered(wire, f"{model}/weightless") == pytest.approx(answered(wire, f"{model}/absent"), abs=0.02)
    assert any("8 examples were left out: their weight is 0" in it for it in weightless.warnings)


@pytest.mark.parametrize("task", TASKS)
def test_an_example_of_weight_2_counts_as_two(wire, model, task):
    found = {}
    for name, extra in (
        ("once", doubtful(task, 6)),
        ("weighted", doubtful(task, 6, weight=2.0)),
        ("twice", [*doubtful(task, 6), *doubtful(task, 6)]),
    ):
        wire.publish(f"{model}/{name}", [*taught(task), *extra], task=task)
        found[name] = answered(wire, f"{model}/{name}")
    assert found["twice"] < found["once"] - 0.05
    # Repeats are bound together in folds, which are dealt otherwise: the choice of strength differs a little.
    assert found["weighted"] == pytest.approx(found["twice"], abs=(found["once"] - found["twice"]) / 2)


def test_a_distribution_of_one_label_is_that_label(wire, model):
    soft = [
        change(f"{text} {n}", distribution=shares(lock=float(i == 0), bill=float(i == 1)))
        for n in range(12)
        for i, text in enumerate(TEXTS)
    ]
    one = wire.publish(f"{model}/soft", soft).summary
    other = wire.publish(f"{model}/hard", taught(types_pb2.TASK_SINGLE_LABEL)).summary
    assert (one.examples, one.accuracy) == (other.examples, other.accuracy)
    assert one.log_loss == pytest.approx(other.log_loss, abs=1e-4)
    assert answered(wire, f"{model}/soft") == pytest.approx(answered(wire, f"{model}/hard"), abs=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_validation_examples_are_measured_on_and_not_trained_on(wire, model, task):
    held_out = [
        change(f"{TEXTS[0]} of {place}", **TARGETS[task][1], split=types_pb2.SPLIT_VALIDATION)
        for place in (
            "a house",
            "the school",
            "Rome",
            "my car",
            "her shop",
            "a tower",
            "the barn",
            "a ship",
            "it",
            "oak",
        )
    ]
    rows = [*taught(task), *held_out]
    report = wire.publish(model, rows, task=task).summary
    assert (report.examples, report.validation_examples, report.evaluation.examples) == (24, 10, 10)
    assert report.evaluation.method == report_pb2.EVALUATION_METHOD_HELD_OUT
    # All of them are taught wrongly: were they learnt from, they would not be all errors.
    if task == types_pb2.TASK_REGRESSION:
        assert report.regression.mae == pytest.approx(30, abs=8)
    else:
        assert report.accuracy == 0
    assert answered(wire, model) > 0.75


@pytest.mark.parametrize("task", TASKS)
def test_a_group_is_not_torn_apart_by_cross_validation(wire, model, task):
    # Each text of a kind has its copies in one group: told apart by memory alone, which a group takes away.
    words = ["sun", "dog", "car", "sea", "ink", "oak", "egg", "hat", "jam", "key"]
    rows = [
        change(f"{word} {word} {n}", **TARGETS[task][i % 2], group=word)
        for i, word in enumerate(words)
        for n in range(4)
    ]
    whole = wire.publish(f"{model}/whole", rows, task=task).summary
    for row in rows:
        row.upsert.ClearField("group")
    torn = wire.publish(f"{model}/torn", rows, task=task).summary
    if task == types_pb2.TASK_REGRESSION:
        assert torn.regression.r2 > whole.regression.r2 + 0.3
    else:
        assert torn.accuracy > whole.accuracy + 0.2


@pytest.mark.parametrize("task", TASKS)
def test_the_same_examples_and_seed_give_the_same_head_byte_for_byte(wire, model, task):
    reports, heads = [], []
    for name in ("one", "two"):
        rows = [*taught(task), *doubtful(task, 4)]
        wire.publish(f"{model}/{name}", rows, adaptation_id="a", task=task, seed=7)
        report = wire.model.GetVersion(model_pb2.GetVersionRequest(model=f"{model}/{name}")).version.report
        assert report.seed == 7
        report.ClearField("trained_time")
        report.ClearField("training_duration")
        reports.append(report)
        pieces = wire.model.ExportModel(model_pb2.ExportModelRequest(model=f"{model}/{name}"), timeout=60)
        heads.append(b"".join(it.chunk for it in pieces if it.path == "model.onnx"))
    assert heads[0]
    assert heads[0] == heads[1]
    assert reports[0] == reports[1]
