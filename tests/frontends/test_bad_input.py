"""What callers do wrong: each mistake has its code, its reason and, where there is one, its field."""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ABORTED = grpc.StatusCode.ABORTED
NOT_UTF8 = b"\x0a\x02\xff\xfe"
"""Field 1, a string of two bytes that are not UTF-8."""
TRUNCATED = b"\x0a\x7f"


def change(text: str, label: str = "a", **fields: Any) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(input=types_pb2.Input(text=text), label=label, **fields)
    return adaptation_pb2.ExampleChange(upsert=example)


def described(failure: Any) -> tuple[grpc.StatusCode, str, str, list[str]]:
    return failure.code, failure.domain, failure.reason, failure.fields


# ------------------------------------------------------------------------------- the order of Adapt's messages


def test_no_message_at_all_is_a_missing_start(wire):
    call = wire.adapt()
    call.half_close()
    assert described(call.failure()) == (INVALID, "graft", "START_MISSING", ["start"])


def test_examples_before_start_are_a_missing_start(wire, few):
    call = wire.adapt()
    call.examples(0, few)
    assert described(call.failure()) == (INVALID, "graft", "START_MISSING", ["start"])


def test_a_second_start_is_refused(wire, model):
    call = wire.adapt(model=model)
    call.next("started")
    call.send(start=adaptation_pb2.AdaptStart(model=model))
    assert described(call.failure()) == (INVALID, "graft", "START_REPEATED", ["start"])


def test_an_empty_message_is_refused(wire, model):
    call = wire.adapt(model=model)
    call.send()
    assert described(call.failure()) == (INVALID, "graft", "MESSAGE_EMPTY", ["message"])


def test_examples_after_the_server_ended_a_failed_stream_change_nothing(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.accepted(len(few))
    call.examples(len(few) + 7, few)
    assert call.failure().reason == "SEQUENCE_GAP"
    call.examples(len(few), few)
    call.commit("late", close=True)
    call.half_close()
    known = wire.adaptation.GetAdaptation(
        adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id="a")
    ).adaptation
    assert [it.next_sequence for it in known.writers] == [len(few)]
    assert not known.publications
    assert known.state == adaptation_pb2.ADAPTATION_STATE_OPEN


# -------------------------------------------------------------------- bad examples, each refused alone

LONG_LABEL = "x" * 10_240
BAD_EXAMPLES = {
    "empty text": (change(""), "INPUT_EMPTY", "upsert.input.text"),
    "blank text": (change(" \t\n\u2003"), "INPUT_EMPTY", "upsert.input.text"),
    "no input": (
        adaptation_pb2.ExampleChange(upsert=types_pb2.Example(label="a")),
        "INPUT_MISSING",
        "upsert.input",
    ),
    "text beyond 1 MiB": (change("x" * ((1 << 20) + 1)), "INPUT_TOO_LONG", "upsert.input.text"),
    "text beyond 1 MiB in UTF-8 only": (change("é" * (1 << 19) + "x"), "INPUT_TOO_LONG", "upsert.input.text"),
    "empty label": (change("good", label=""), "LABEL_EMPTY", "upsert.label"),
    "blank label": (change("good", label=" \n"), "LABEL_EMPTY", "upsert.label"),
    "label of 10 kB": (change("good", label=LONG_LABEL), "LABEL_TOO_LONG", "upsert.label"),
    "weight not a number": (change("good", weight=math.nan), "WEIGHT_INVALID", "upsert.weight"),
    "infinite weight": (change("good", weight=math.inf), "WEIGHT_INVALID", "upsert.weight"),
    "negative weight": (change("good", weight=-1.0), "WEIGHT_INVALID", "upsert.weight"),
    "unknown split": (change("good", split=7), "ENUM_UNKNOWN", "upsert.split"),
    "long id": (change("good", id="x" * 257), "ID_TOO_LONG", "upsert.id"),
    "long group": (change("good", group="x" * 257), "ID_TOO_LONG", "upsert.group"),
    "deletes no id": (adaptation_pb2.ExampleChange(delete_id=""), "ID_EMPTY", "delete_id"),
    "deletes a long id": (adaptation_pb2.ExampleChange(delete_id="x" * 257), "ID_TOO_LONG", "delete_id"),
    "empty change": (adaptation_pb2.ExampleChange(), "CHANGE_MISSING", "change"),
}


def test_bad_examples_among_good_ones_are_rejected_alone_by_their_sequence(wire, model, few):
    rows: list[Any] = []
    for row, (bad, _, _) in zip(few * 2, BAD_EXAMPLES.values(), strict=False):
        rows += [row, bad]
    call = wire.adapt(model=model)
    call.examples(0, rows)
    call.commit(close=True)
    rejected = call.accepted(len(rows))
    assert [(it.sequence, it.reason, it.field, it.writer_id) for it in rejected] == [
        (2 * place + 1, reason, field, "default")
        for place, (_, reason, field) in enumerate(BAD_EXAMPLES.values())
    ]
    assert all(it.detail and len(it.detail) < 400 for it in rejected)
    (published,) = call.outcomes()
    assert published.summary.examples == len(BAD_EXAMPLES)


def test_a_text_of_1_mib_is_accepted_and_cut(wire, model, few):
    whole = "the lock is stuck again " * 50_000
    call = wire.adapt(model=model)
    call.examples(0, [*few, (whole[: 1 << 20], "lock")])
    call.commit(close=True)
    assert call.accepted(len(few) + 1) == []
    (published,) = call.outcomes()
    assert published.summary.examples == len(few) + 1
    long, short = wire.predict(model, [whole[: 1 << 20], few[0][0]]).results
    assert (long.truncated, short.truncated) == (True, False)
    assert long.single_label.scores[0].label == "lock"


def test_a_label_outside_of_closed_labels_is_rejected(wire, model, few):
    labels = [types_pb2.Label(name=name) for name in ("lock", "bill")]
    call = wire.adapt(model=model, labels=labels, closed_labels=True)
    call.examples(0, [*few, ("a dog barks", "dog")])
    (rejection,) = call.accepted(len(few) + 1)
    assert (rejection.sequence, rejection.reason, rejection.field) == (
        len(few),
        "LABEL_UNKNOWN",
        "upsert.label",
    )


# ------------------------------------------------------------------------------- what start may not say


@pytest.mark.parametrize(
    ("start", "reason", "field"),
    [
        ({"model": ""}, "MODEL_NAME_INVALID", "start.model"),
        ({"model": "a/../b"}, "MODEL_NAME_INVALID", "start.model"),
        ({"model": "../../etc/passwd"}, "MODEL_NAME_INVALID", "start.model"),
        ({"model": "a\x00b"}, "MODEL_NAME_INVALID", "start.model"),
        ({"model": "a" * 100_000}, "MODEL_NAME_INVALID", "start.model"),
        ({"adaptation_id": "a/b"}, "ID_INVALID", "start.adaptation_id"),
        ({"adaptation_id": ".."}, "ID_INVALID", "start.adaptation_id"),
        ({"writer_id": "w" * 129}, "ID_INVALID", "start.writer_id"),
        ({"method": 99}, "ENUM_UNKNOWN", "start.method"),
        ({"base_version": -1}, "VERSION_INVALID", "start.base_version"),
        ({"closed_labels": True}, "LABELS_EMPTY", "start.labels"),
        ({"labels": [{"name": "a"}, {"name": " a "}]}, "LABEL_REPEATED", "start.labels[1].name"),
        ({"labels": [{"name": LONG_LABEL}]}, "LABEL_TOO_LONG", "start.labels[0].name"),
        ({"labels": [{"name": "a", "description": "x" * 1025}]}, "DESCRIPTION_TOO_LONG", "start.labels[0].description"),
        ({"labels": [{"name": str(n)} for n in range(10_001)]}, "TOO_MANY_LABELS", "start.labels"),
    ],
)  # fmt: skip
def test_a_bad_start_names_its_field(wire, model, start, reason, field):
    failure = wire.adapt(**{"model": model, **start}).failure()
    assert described(failure) == (INVALID, "graft", reason, [field])


def test_an_unknown_backbone_is_not_found(wire, model):
    failure = wire.adapt(model=model, backbone="bert").failure()
    assert described(failure) == (NOT_FOUND, "graft", "BACKBONE_NOT_FOUND", [])
    assert "'bert'" in failure.message
    assert "'minilm'" in failure.message


def test_an_unknown_base_version_is_not_found(wire, model, few_model):
    assert described(wire.adapt(model=model, base_version=1).failure())[::2] == (
        NOT_FOUND,
        "MODEL_NOT_FOUND",
    )
    failure = wire.adapt(model=few_model, base_version=99).failure()
    assert (failure.code, failure.reason) == (NOT_FOUND, "VERSION_NOT_FOUND")


# ------------------------------------------------------------------- what examples and commits may not say


def test_a_negative_sequence_is_refused(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(-1, few)
    assert described(call.failure()) == (INVALID, "graft", "SEQUENCE_INVALID", ["examples.first_sequence"])


def test_a_negative_next_sequence_of_a_commit_is_refused(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few)
    call.commit(next_sequence=-1)
    assert described(call.failure()) == (INVALID, "graft", "SEQUENCE_INVALID", ["commit.next_sequence"])


def test_a_bad_commit_id_is_refused(wire, model):
    call = wire.adapt(model=model)
    call.commit("../x")
    assert described(call.failure()) == (INVALID, "graft", "ID_INVALID", ["commit.commit_id"])


def test_a_commit_beyond_what_was_sent_says_how_far_it_is(wire, model, few):
    call = wire.adapt(model=model)
    call.examples(0, few)
    call.commit(next_sequence=len(few) + 1)
    failure = call.failure()
    assert described(failure) == (ABORTED, "graft", "SEQUENCE_GAP", [])
    assert failure.trailing["next_sequence"] == str(len(few))


def test_more_than_10000_changes_a_message_are_refused(wire, model):
    call = wire.adapt(model=model)
    call.examples(0, [("x", "a")] * 10_001)
    assert described(call.failure()) == (INVALID, "graft", "TOO_MANY_EXAMPLES", ["examples.changes"])


def test_one_class_only_fails_the_publication_but_not_the_stream(wire, model, few):
    locks = [row for row in few if row[1] == "lock"]
    call = wire.adapt(model=model)
    call.examples(0, locks)
    call.commit("early")
    call.next("committed")
    failed = call.next("publication_failed")
    assert failed.commit_id == "early"
    failure = wire.failure(failed.status)
    assert described(failure) == (FAILED_PRECONDITION, "graft", "TOO_FEW_CLASSES", [])
    came_in = {"examples": str(len(locks)), "unlabelled": "0", "refused": "0"}
    assert failure.metadata == {"classes": "1", "needed": "2", **came_in}
    call.examples(len(locks), [row for row in few if row[1] != "lock"])
    call.commit("enough", close=True)
    (published,) = call.outcomes()
    assert (published.commit_id, published.version) == ("enough", 1)


def test_no_examples_at_all_fail_the_publication(wire, model):
    call = wire.adapt(model=model)
    call.commit("empty")
    assert call.next("committed").next_sequence == 0
    failure = wire.failure(call.next("publication_failed").status)
    assert described(failure) == (FAILED_PRECONDITION, "graft", "TOO_FEW_CLASSES", [])


def test_a_class_with_one_example_trains_with_a_warning(wire, model, few):
    published = wire.publish(model, [*few, ("the bell is too quiet", "bell")])
    assert published.summary.classes == 3
    assert any("bell" in warning for warning in published.summary.warnings), published.summary.warnings


@pytest.mark.parametrize("seed", [-1, -(1 << 63), (1 << 63) - 1])
def test_every_seed_of_its_type_will_do(wire, model, few, seed):
    assert wire.publish(model, few, seed=seed).version == 1


# ------------------------------------------------------------------------------------------------- Predict


def predict_request(model: str, **fields: Any) -> prediction_pb2.PredictRequest:
    inputs = fields.pop("inputs", [types_pb2.Input(text="the lock")])
    return prediction_pb2.PredictRequest(model=model, inputs=inputs, **fields)


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"inputs": []}, "INPUTS_EMPTY", "inputs"),
        ({"inputs": [types_pb2.Input(text="x")] * 10_001}, "TOO_MANY_INPUTS", "inputs"),
        ({"top_k": -1}, "TOP_K_INVALID", "top_k"),
        ({"version": 0}, "VERSION_INVALID", "version"),
        ({"version": -3}, "VERSION_INVALID", "version"),
        ({"alias": ""}, "ALIAS_INVALID", "alias"),
        ({"alias": "../live"}, "ALIAS_INVALID", "alias"),
        ({"alias": "12"}, "ALIAS_INVALID", "alias"),
    ],
)
def test_a_bad_predict_request_names_its_field(wire, few_model, fields, reason, field):
    failure = wire.fails(wire.prediction.Predict, predict_request(few_model, **fields))
    assert described(failure) == (INVALID, "graft", reason, [field])


def test_a_model_name_with_dots_between_slashes_is_refused_everywhere(wire):
    name = "a/../b"
    for call, message in [
        (wire.prediction.Predict, predict_request(name)),
        (wire.model.GetModel, model_pb2.GetModelRequest(model=name)),
        (wire.model.ListVersions, model_pb2.ListVersionsRequest(model=name)),
        (wire.model.GetVersion, model_pb2.GetVersionRequest(model=name)),
        (wire.model.SetAlias, model_pb2.SetAliasRequest(model=name, alias="live", version=1)),
        (wire.model.DeleteVersion, model_pb2.DeleteVersionRequest(model=name, version=1)),
        (wire.model.DeleteModel, model_pb2.DeleteModelRequest(model=name)),
        (wire.model.ExportModel, model_pb2.ExportModelRequest(model=name)),
        (wire.model.EvaluateModel, iter([model_pb2.EvaluateModelRequest(model=name)])),
        (wire.model.SuggestExamples, iter([model_pb2.SuggestExamplesRequest(model=name)])),
        (wire.adaptation.ListAdaptations, adaptation_pb2.ListAdaptationsRequest(model=name)),
        (wire.adaptation.GetAdaptation, adaptation_pb2.GetAdaptationRequest(model=name, adaptation_id="a")),
        (wire.adaptation.WatchAdaptation, adaptation_pb2.WatchAdaptationRequest(model=name, adaptation_id="a")),
        (wire.adaptation.CancelAdaptation, adaptation_pb2.CancelAdaptationRequest(model=name, adaptation_id="a")),
    ]:  # fmt: skip
        assert described(wire.fails(call, message)) == (INVALID, "graft", "MODEL_NAME_INVALID", ["model"])


def test_an_unknown_model_is_not_found_everywhere(wire, model):
    for call, message in [
        (wire.prediction.Predict, predict_request(model)),
        (wire.model.GetModel, model_pb2.GetModelRequest(model=model)),
        (wire.model.ListVersions, model_pb2.ListVersionsRequest(model=model)),
        (wire.model.GetVersion, model_pb2.GetVersionRequest(model=model)),
        (wire.model.SetAlias, model_pb2.SetAliasRequest(model=model, alias="live", version=1)),
        (wire.model.DeleteVersion, model_pb2.DeleteVersionRequest(model=model, version=1)),
        (wire.model.DeleteModel, model_pb2.DeleteModelRequest(model=model)),
        (wire.model.ExportModel, model_pb2.ExportModelRequest(model=model)),
        (wire.model.EvaluateModel, iter([model_pb2.EvaluateModelRequest(model=model)])),
    ]:
        assert described(wire.fails(call, message)) == (NOT_FOUND, "graft", "MODEL_NOT_FOUND", [])


def test_an_unknown_version_or_alias_is_not_found(wire, few_model):
    for selector, reason in [
        ({"version": 99}, "VERSION_NOT_FOUND"),
        ({"alias": "canary"}, "ALIAS_NOT_FOUND"),
    ]:
        for call, message in [
            (wire.prediction.Predict, predict_request(few_model, **selector)),
            (wire.model.GetVersion, model_pb2.GetVersionRequest(model=few_model, **selector)),
            (wire.model.ExportModel, model_pb2.ExportModelRequest(model=few_model, **selector)),
            (wire.model.EvaluateModel, iter([model_pb2.EvaluateModelRequest(model=few_model, **selector)])),
            (
                wire.model.SuggestExamples,
                iter([model_pb2.SuggestExamplesRequest(model=few_model, **selector)]),
            ),
        ]:
            failure = wire.fails(call, message)
            assert (failure.code, failure.reason) == (NOT_FOUND, reason)


def test_an_unknown_adaptation_is_not_found(wire, few_model):
    for call, message in [
        (wire.adaptation.GetAdaptation, adaptation_pb2.GetAdaptationRequest),
        (wire.adaptation.WatchAdaptation, adaptation_pb2.WatchAdaptationRequest),
        (wire.adaptation.CancelAdaptation, adaptation_pb2.CancelAdaptationRequest),
    ]:
        failure = wire.fails(call, message(model=few_model, adaptation_id="unheard-of"))
        assert (failure.code, failure.reason) == (NOT_FOUND, "ADAPTATION_NOT_FOUND")


def test_of_two_selectors_the_last_one_counts_as_protobuf_has_it(wire, few_model):
    # Two members of a oneof cannot be told apart from one: the later on the wire wins.
    message = predict_request(few_model, alias="nonsense").SerializeToString() + b"\x10\x01"
    answer = wire.prediction.Predict(prediction_pb2.PredictRequest.FromString(message))
    assert answer.version == 1


def test_bad_inputs_among_good_ones_fail_alone(wire, few_model):
    texts = ["the lock is stuck", "", "my bill is wrong", "x" * ((1 << 20) + 1)]
    inputs = [*(types_pb2.Input(text=text) for text in texts), types_pb2.Input()]
    results = wire.prediction.Predict(predict_request(few_model, inputs=inputs)).results
    assert [it.WhichOneof("result") for it in results] == [
        "single_label",
        "error",
        "single_label",
        "error",
        "error",
    ]
    assert [results[place].single_label.scores[0].label for place in (0, 2)] == ["lock", "bill"]
    assert [described(wire.failure(results[place].error)) for place in (1, 3, 4)] == [
        (INVALID, "graft", "INPUT_EMPTY", ["inputs[1].text"]),
        (INVALID, "graft", "INPUT_TOO_LONG", ["inputs[3].text"]),
        (INVALID, "graft", "INPUT_MISSING", ["inputs[4]"]),
    ]


def test_only_bad_inputs_are_answered_each_with_its_error(wire, few_model):
    answer = wire.predict(few_model, ["", " "])
    assert (answer.version, [it.WhichOneof("result") for it in answer.results]) == (1, ["error", "error"])


# ------------------------------------------------------------------------------------ bytes on the wire


def raw(wire: Any, kind: str, method: str) -> Any:
    return getattr(wire.channel, kind)(f"/graft.v1.{method}", None, None)


@pytest.mark.parametrize("data", [NOT_UTF8, TRUNCATED])
@pytest.mark.parametrize(
    "method",
    ["PredictionService/Predict", "ModelService/GetModel", "AdaptationService/GetAdaptation"],
)
def test_bytes_that_do_not_parse_are_an_invalid_argument_with_details(wire, method, data):
    failure = wire.fails(raw(wire, "unary_unary", method), data)
    assert described(failure) == (INVALID, "graft", "REQUEST_MALFORMED", [])


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("unary_stream", "ModelService/ExportModel"),
        ("unary_stream", "AdaptationService/WatchAdaptation"),
        ("stream_unary", "ModelService/EvaluateModel"),
        ("stream_stream", "AdaptationService/Adapt"),
    ],
)
def test_bytes_that_do_not_parse_end_a_stream_with_details(wire, kind, method):
    message = iter([NOT_UTF8]) if kind.startswith("stream") else NOT_UTF8
    failure = wire.fails(raw(wire, kind, method), message)
    assert described(failure) == (INVALID, "graft", "REQUEST_MALFORMED", [])


def test_bytes_that_do_not_parse_amid_a_stream_leave_what_was_acknowledged(wire, model, few):
    start = adaptation_pb2.AdaptRequest(start={"model": model, "adaptation_id": "a"})
    batch = adaptation_pb2.AdaptRequest(examples={"changes": [change(*row) for row in few]})
    messages = iter([start.SerializeToString(), batch.SerializeToString(), NOT_UTF8])
    failure = wire.fails(raw(wire, "stream_stream", "AdaptationService/Adapt"), messages)
    assert failure.reason == "REQUEST_MALFORMED"
    again = wire.adapt(model=model, adaptation_id="a").next("started").next_sequence
    assert again in (0, len(few))


def test_a_message_over_32_mib_gets_the_transports_own_status(wire, few_model):
    inputs = [types_pb2.Input(text="x" * (1 << 20))] * 33
    failure = wire.fails(wire.prediction.Predict, predict_request(few_model, inputs=inputs))
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "")


def test_unknown_fields_are_ignored(wire, few_model):
    # Field 1000, a varint: what a newer client may send.
    message = predict_request(few_model).SerializeToString() + b"\xc0\x3e\x01"
    answer = raw(wire, "unary_unary", "PredictionService/Predict")(message)
    assert prediction_pb2.PredictResponse.FromString(answer).version == 1


@pytest.mark.parametrize(("size", "token"), [(-1, ""), (1001, ""), (0, "x"), (0, "-1"), (0, "²"), (0, "1")])
def test_a_bad_page_is_refused(wire, few_model, size, token):
    expected = "page_token" if token else "page_size"
    for call, message in [
        (wire.model.ListModels, model_pb2.ListModelsRequest(page_size=size, page_token=token)),
        (
            wire.model.ListVersions,
            model_pb2.ListVersionsRequest(model=few_model, page_size=size, page_token=token),
        ),
        (
            wire.adaptation.ListAdaptations,
            adaptation_pb2.ListAdaptationsRequest(model=few_model, page_size=size, page_token=token),
        ),
    ]:
        failure = wire.fails(call, message)
        assert (failure.code, failure.fields) == (INVALID, [expected])


def test_a_negative_event_number_is_refused(wire, few_model):
    message = adaptation_pb2.WatchAdaptationRequest(model=few_model, adaptation_id="a", from_event=-1)
    failure = wire.fails(wire.adaptation.WatchAdaptation, message)
    assert described(failure) == (INVALID, "graft", "EVENT_INVALID", ["from_event"])


def test_errors_name_no_path_of_the_servers_machine(wire, server, model):
    for start in (
        {"model": "a/../b"},
        {"model": model, "backbone": "x"},
        {"model": model, "base_version": 5},
    ):
        message = wire.adapt(**start).failure().message
        assert str(server.store) not in message
        assert ".py" not in message
