"""Predict and PredictStream: what an answer holds, and what callers who leave do to the others."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from graft.v1 import adaptation_pb2, prediction_pb2, prediction_pb2_grpc, types_pb2

TEXTS = [
    "the lock is stuck",
    "my bill is wrong",
    "no",
    "I was billed twice for the same ride and nobody answers, which is why I write to you for the third time",
    "ÄÖÜ ß 漢字 🚲",
    "why?",
    "and " * 60,
]
LONG = "the lock " * 400


def predict_request(model: str, texts: list[str], **fields: Any) -> prediction_pb2.PredictRequest:
    inputs = [types_pb2.Input(text=text) for text in texts]
    return prediction_pb2.PredictRequest(model=model, inputs=inputs, **fields)


def probabilities(result: prediction_pb2.Prediction) -> dict[str, float]:
    return {it.label: it.probability for it in result.single_label.scores}


@pytest.fixture(scope="module")
def three_models(shared_wire, few_model) -> list[str]:
    """Models of other labels on the same trunk."""
    animals = [
        (f"a {kind} is {doing}", kind)
        for kind in ("dog", "cat", "bird")
        for doing in ("here", "gone", "loud")
    ]
    moods = [(f"this is {word}", "good" if word in "fine great nice" else "bad") for word in
             ("fine", "great", "nice", "awful", "terrible", "poor")]  # fmt: skip
    for name, rows in [("tests/animals", animals), ("tests/moods", moods)]:
        shared_wire.publish(name, rows)
    return [few_model, "tests/animals", "tests/moods"]


def test_an_answer_holds_all_that_the_contract_promises(wire, few_model):
    answer = wire.predict(few_model, [*TEXTS, LONG], include_features=True)
    assert (answer.model, answer.version, len(answer.results)) == (few_model, 1, len(TEXTS) + 1)
    for result in answer.results:
        scores = [it.probability for it in result.single_label.scores]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert 0 <= result.novelty <= 1
        assert result.abstained == (result.novelty > 0.95)
        assert np.linalg.norm(result.features) == pytest.approx(1, abs=1e-5)
    assert [it.truncated for it in answer.results] == [False] * len(TEXTS) + [True]
    timings = answer.timings
    assert timings.encode.ToNanoseconds() > 0
    assert timings.tokenize.ToNanoseconds() > 0
    assert timings.head.ToNanoseconds() > 0
    assert timings.queue.ToNanoseconds() >= 0


def test_features_come_only_where_they_are_asked_for(wire, few_model):
    (result,) = wire.predict(few_model, ["the lock"]).results
    assert not result.features


def test_top_k_gives_the_best_of_all_and_5_where_it_is_unset(wire, model):
    labels = [f"label{n}" for n in range(8)]
    wire.publish(
        model, [(f"{word} number {n}", label) for n, label in enumerate(labels) for word in ("a", "the")]
    )
    everything = wire.predict(model, ["number 3"], top_k=1000).results[0].single_label.scores
    assert sorted(it.label for it in everything) == labels
    for top_k, count in ((0, 5), (1, 1), (3, 3), (8, 8), ((1 << 31) - 1, 8)):
        scores = wire.predict(model, ["number 3"], top_k=top_k).results[0].single_label.scores
        assert list(scores) == list(everything)[:count]


def test_a_version_and_an_alias_select_what_answers(wire, few_model):
    for selector in ({}, {"version": 1}, {"alias": "live"}):
        assert wire.predict(few_model, ["the lock"], **selector).version == 1


def test_ten_thousand_inputs_are_answered_in_their_order(wire, few_model):
    # Most of them are empty, so that the encoder is not what is tested.
    texts = ["the lock", "", "my bill", *[""] * 17] * 500
    answer = wire.predict(few_model, texts, top_k=1)
    kinds = ["".join(score.label for score in it.single_label.scores) for it in answer.results]
    assert kinds == ["lock", "", "bill", *[""] * 17] * 500


def test_every_row_gets_the_same_answer_alone_and_in_any_company(wire, three_models):
    alone = {
        (name, text): wire.predict(name, [text], include_features=True).results[0]
        for name in three_models
        for text in [*TEXTS, LONG]
    }
    generator = random.Random(7)  # noqa: S311

    def company(seed: int) -> list[tuple[str, str, Any]]:
        name = three_models[seed % 3]
        texts = generator.sample(TEXTS, generator.randint(1, len(TEXTS))) + [LONG] * (seed % 20 == 0)
        answer = wire.predict(name, texts, include_features=True)
        return [(name, text, result) for text, result in zip(texts, answer.results, strict=True)]

    with ThreadPoolExecutor(16) as pool:
        seen = [row for rows in pool.map(company, range(120)) for row in rows]
    for name, text, result in seen:
        expected = alone[name, text]
        np.testing.assert_allclose(result.features, expected.features, atol=1e-6)
        assert probabilities(result) == pytest.approx(probabilities(expected), abs=1e-5)
        assert result.truncated == expected.truncated


def test_callers_who_leave_or_run_out_of_time_do_not_disturb_the_others(wire, three_models):
    expected = {
        (name, text): probabilities(wire.predict(name, [text]).results[0])
        for name in three_models
        for text in TEXTS
    }
    generator = random.Random(11)  # noqa: S311
    outcomes: Counter[str] = Counter()

    def one(number: int) -> None:
        name, text = three_models[number % 3], TEXTS[number % len(TEXTS)]
        fate = generator.random()
        timeout = generator.uniform(0, 0.05) if fate < 0.3 else 60
        call = wire.prediction.Predict.future(predict_request(name, [text]), timeout=timeout)
        if fate > 0.7:
            call.cancel()
            outcomes["left"] += 1
            return
        error = call.exception()
        if error is not None:
            assert (error.code(), fate < 0.3) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
            outcomes["late"] += 1
            return
        answer = call.result()
        assert probabilities(answer.results[0]) == pytest.approx(expected[name, text], abs=1e-5)
        outcomes["answered"] += 1

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(2_000)))
    assert sum(outcomes.values()) == 2_000
    assert min(outcomes["left"], outcomes["answered"]) > 300
    # Nobody's place in the queue was left behind: the server is as it was.
    for (name, text), known in expected.items():
        assert probabilities(wire.predict(name, [text]).results[0]) == pytest.approx(known, abs=1e-5)


def test_a_deadline_that_has_passed_ends_the_call(wire, few_model):
    with pytest.raises(grpc.RpcError) as raised:
        wire.prediction.Predict(predict_request(few_model, ["the lock " * 200] * 200), timeout=0.02)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_full_queue_refuses_with_an_honest_delay(serve, connect, few):
    wire = connect(serve("--queued-requests", "2"))
    wire.publish("tests/m", few)
    calls = [
        wire.prediction.Predict.future(
            predict_request("tests/m", ["the lock is stuck " * 60] * 8), timeout=60
        )
        for _ in range(60)
    ]
    errors = [call.exception() for call in calls]
    refused = [error for error in errors if error is not None]
    assert 0 < len(refused) < len(calls)
    for error in refused:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        failure = wire.failure(error)
        assert failure.reason == "QUEUE_FULL"
        assert failure.retry_s is not None
        assert 0 < failure.retry_s <= 30
    for call, error in zip(calls, errors, strict=True):
        if error is None:
            assert len(call.result().results) == 8
    assert wire.predict("tests/m", ["the lock"]).version == 1
    # Nobody is refused for what is larger than the queue: it waits outside.
    many = [
        prediction_pb2.PredictStreamRequest(
            request_id=str(n), request=predict_request("tests/m", ["the lock is stuck"] * 4)
        )
        for n in range(40)
    ]
    assert {len(it.response.results) for it in stream(wire, many).values()} == {4}
    assert len(wire.predict("tests/m", ["my bill is wrong"] * 500).results) == 500


@pytest.mark.parametrize("kind", ["one request", "a stream"])
def test_a_lone_text_is_answered_before_the_hundreds_of_another_caller(wire, few_model, kind):
    texts = [f"the lock of bike {n} is stuck" for n in range(600)]
    ended = threading.Event()
    if kind == "one request":
        bulk = wire.prediction.Predict.future(predict_request(few_model, texts), timeout=120)
        bulk.add_done_callback(lambda _: ended.set())
    else:
        requests = [
            prediction_pb2.PredictStreamRequest(
                request_id=str(start), request=predict_request(few_model, texts[start : start + 100])
            )
            for start in range(0, len(texts), 100)
        ]
        bulk = wire.prediction.PredictStream(iter(requests), timeout=120)
        bulk.add_callback(ended.set)
    for _ in range(3):
        assert wire.predict(few_model, ["my bill is wrong"]).results
        assert not ended.is_set(), "the lone text has waited for all others"
    if kind == "one request":
        assert len(bulk.result().results) == len(texts)
    else:
        assert sum(len(it.response.results) for it in bulk) == len(texts)


# ------------------------------------------------------------------------------------------ PredictStream


def test_a_caller_that_often_asks_whether_the_server_is_there_keeps_its_silent_stream(wire, few_model):
    options = [("grpc.keepalive_time_ms", 1_500), ("grpc.http2.max_pings_without_data", 0)]

    def requests() -> Iterator[prediction_pb2.PredictStreamRequest]:
        time.sleep(10)  # six pings, of which the fourth would be one too many if they came too fast
        predict = predict_request(few_model, ["the lock is stuck"])
        yield prediction_pb2.PredictStreamRequest(request_id="x", request=predict)

    with grpc.insecure_channel(wire.target, options) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        (answer,) = stub.PredictStream(requests(), timeout=60)
    assert answer.response.results


def stream(wire: Any, requests: list[prediction_pb2.PredictStreamRequest]) -> dict[str, Any]:
    answers = list(wire.prediction.PredictStream(iter(requests), timeout=60))
    by_id = {it.request_id: it for it in answers}
    assert len(by_id) == len(answers) == len(requests)
    return by_id


def test_a_stream_answers_every_request_under_its_id_and_a_bad_one_alone(wire, three_models):
    requests = {
        "good": predict_request(three_models[0], ["the lock is stuck"]),
        "none": predict_request("unheard/of", ["x"]),
        "name": predict_request("a/../b", ["x"]),
        "many": predict_request(three_models[1], TEXTS),
        "zero": predict_request(three_models[1], []),
        "part": predict_request(three_models[0], ["", "my bill is wrong"]),
        "": predict_request(three_models[2], ["this is nice"]),
    }
    answers = stream(
        wire,
        [prediction_pb2.PredictStreamRequest(request_id=key, request=it) for key, it in requests.items()],
    )
    reasons = {
        key: wire.failure(it.error).reason
        for key, it in answers.items()
        if it.WhichOneof("result") == "error"
    }
    assert reasons == {"none": "MODEL_NOT_FOUND", "name": "MODEL_NAME_INVALID", "zero": "INPUTS_EMPTY"}
    assert answers["good"].response.results[0].single_label.scores[0].label == "lock"
    assert len(answers["many"].response.results) == len(TEXTS)
    assert [it.WhichOneof("result") for it in answers["part"].response.results] == ["error", "single_label"]
    assert answers[""].response.results[0].single_label.scores[0].label == "good"


def test_a_stream_without_an_answer_set_in_its_request_is_answered_with_an_error(wire):
    (answer,) = stream(wire, [prediction_pb2.PredictStreamRequest(request_id="x")]).values()
    assert wire.failure(answer.error).code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("malformed", "request_id"), [
    # A request with id "x" whose model is not UTF-8, one that is cut off within the id, and no message at all.
    (b"\x0a\x01x\x12\x04\x0a\x02\xff\xfe", "x"),
    (b"\x0a\x05x", ""),
    (b"\xff", ""),
])  # fmt: skip
def test_bytes_that_do_not_parse_are_answered_alone_and_the_stream_goes_on(
    wire, few_model, malformed, request_id
):
    good = prediction_pb2.PredictStreamRequest(
        request_id="good", request=predict_request(few_model, ["the lock"])
    )
    call = wire.channel.stream_stream("/graft.v1.PredictionService/PredictStream", None, None)
    messages = [malformed, good.SerializeToString()]
    answers = [prediction_pb2.PredictStreamResponse.FromString(it) for it in call(iter(messages), timeout=60)]
    found = {it.request_id: it for it in answers}
    assert found.keys() == {request_id, "good"}
    failure = wire.failure(found[request_id].error)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED")
    assert found["good"].response.results[0].single_label.scores[0].label == "lock"


def test_a_stream_of_many_requests_gives_what_predict_gives(wire, few_model):
    known = {text: probabilities(wire.predict(few_model, [text]).results[0]) for text in TEXTS}
    requests = [
        prediction_pb2.PredictStreamRequest(
            request_id=str(n), request=predict_request(few_model, [TEXTS[n % 7]])
        )
        for n in range(350)
    ]
    for key, answer in stream(wire, requests).items():
        result = answer.response.results[0]
        assert probabilities(result) == pytest.approx(known[TEXTS[int(key) % 7]], abs=1e-5)


def test_a_stream_is_answered_while_it_goes_on(wire, few_model):
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = wire.prediction.PredictStream(iter(requests.get, None), timeout=60)
    for number in range(5):
        requests.put(
            prediction_pb2.PredictStreamRequest(
                request_id=str(number), request=predict_request(few_model, ["the lock"])
            )
        )
        assert next(answers).request_id == str(number)
    requests.put(None)
    assert list(answers) == []


def test_a_stream_that_is_left_in_the_middle_disturbs_nobody(wire, few_model):
    requests = [
        prediction_pb2.PredictStreamRequest(
            request_id=str(n), request=predict_request(few_model, ["a lock"] * 8)
        )
        for n in range(300)
    ]
    for _ in range(5):
        answers = wire.prediction.PredictStream(iter(requests), timeout=60)
        next(answers)
        answers.cancel()
    assert wire.predict(few_model, ["the lock is stuck"]).results[0].single_label.scores[0].label == "lock"


# -------------------------------------------------------------------------------- predictions and adaptation


def test_predictions_are_answered_while_examples_stream_in(wire, model, few_model):
    stop = threading.Event()
    rows = [(f"the lock is stuck for the {n}th time, and nobody answers", "ab"[n % 2]) for n in range(1_000)]

    def adapt() -> int:
        call = wire.adapt(model=model, adaptation_id="a")
        sent = 0
        while not stop.is_set() and sent < len(rows):
            call.examples(sent, rows[sent : sent + 100])
            sent += 100
            call.accepted(sent)
        call.half_close()
        list(call.responses)
        return sent

    with ThreadPoolExecutor(1) as pool:
        adapting = pool.submit(adapt)
        for _ in range(50):
            answer = wire.predict(few_model, ["the lock is stuck", "my bill is wrong"])
            assert [it.single_label.scores[0].label for it in answer.results] == ["lock", "bill"]
        stop.set()
        sent = adapting.result()
    adaptation = wire.adaptation.GetAdaptation(
        adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id="a")
    ).adaptation
    assert [it.next_sequence for it in adaptation.writers] == [sent]


def test_a_new_version_takes_over_without_a_failed_request(wire, model, few):
    wire.publish(model, few)
    versions: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            versions.append(wire.predict(model, ["the lock is stuck"]).version)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        for _ in range(3):
            wire.publish(model, few)
        last = wire.predict(model, ["the lock is stuck"]).version
        done.set()
        asking.result()
    assert last == 4
    assert versions == sorted(versions)
