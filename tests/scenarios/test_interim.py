"""The interim head of an open adaptation: what it answers while labels come in, and how it is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, prediction_pb2, types_pb2

FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
def ask(wire, model) -> Callable[..., prediction_pb2.PredictResponse]:
    """Asks the interim head of adaptation "a" once it has learned so many changes."""

    def asked(texts: list[str], learned: int, through: Any = wire) -> prediction_pb2.PredictResponse:
        while True:
            answer = through.predict(model, texts, adaptation_id="a")
            if answer.next_sequence >= learned:
                assert answer.next_sequence == learned
                return answer

    return asked


def send(call: Any, first: int, rows: list[Any]) -> None:
    """Sends changes and waits until they are acknowledged."""
    call.examples(first, rows)
    call.accepted(first + len(rows))


def labels(answer: prediction_pb2.PredictResponse) -> list[str]:
    return [it.single_label.scores[0].label for it in answer.results]


def known(answer: prediction_pb2.PredictResponse) -> set[str]:
    return {score.label for score in answer.results[0].single_label.scores}


def deletion(example_id: str) -> adaptation_pb2.ExampleChange:
    return adaptation_pb2.ExampleChange(delete_id=example_id)


def named(example_id: str, text: str, label: str | None) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(id=example_id, input=types_pb2.Input(text=text), label=label)
    return adaptation_pb2.ExampleChange(upsert=example)


def test_it_answers_before_there_is_a_version(wire, model, few, ask):
    call = wire.adapt(model=model, adaptation_id="a")
    send(call, 0, few)
    answer = ask(["the lock is broken", "a wrong bill"], len(few))
    assert (answer.model, answer.version) == (model, 0)
    assert labels(answer) == ["lock", "bill"]
    scores = [it.probability for it in answer.results[0].single_label.scores]
    assert 0.5 < sum(scores) < 1  # the rest is for labels that it has not seen
    foreign = ask(["Ein völlig anderer Satz über Vulkane auf Island"], len(few)).results[0]
    assert foreign.single_label.scores[0].probability < min(scores[0], 0.7)


def test_closed_labels_share_all_of_the_probability(wire, model, few, ask):
    declared = [types_pb2.Label(name="lock"), types_pb2.Label(name="bill")]
    call = wire.adapt(model=model, adaptation_id="a", labels=declared, closed_labels=True)
    send(call, 0, few)
    answer = ask(["the lock is broken"], len(few))
    assert sum(it.probability for it in answer.results[0].single_label.scores) == pytest.approx(1)


def test_names_of_declared_labels_answer_before_there_are_examples(wire, model, ask):
    declared = [types_pb2.Label(name="sports"), types_pb2.Label(name="money", description="banks and taxes")]
    wire.adapt(model=model, adaptation_id="a", labels=declared).next("started")
    answer = ask(["the match ended two to one", "interest rates are rising"], 0)
    assert labels(answer) == ["sports", "money"]
    assert not any(it.abstained for it in answer.results)


def test_without_examples_and_names_there_is_nothing_to_answer_with(wire, model):
    wire.adapt(model=model, adaptation_id="a").next("started")
    request = prediction_pb2.PredictRequest(
        model=model, adaptation_id="a", inputs=[types_pb2.Input(text="hello")]
    )
    failure = wire.fails(wire.prediction.Predict, request)
    assert (failure.code, failure.reason) == (FAILED_PRECONDITION, "INTERIM_EMPTY")


def test_a_class_that_comes_late_is_answered_at_once_and_is_in_the_next_version(wire, model, few, ask):
    call = wire.adapt(model=model, adaptation_id="a")
    send(call, 0, few)
    assert known(ask(["hello"], len(few))) == {"lock", "bill"}
    late = [("my parcel is late", "parcel"), ("where is my parcel", "parcel"), ("parcel lost", "parcel")]
    send(call, len(few), late)
    assert labels(ask(["the parcel did not come"], len(few) + 3)) == ["parcel"]
    call.commit("c")
    assert call.next("published").summary.classes == 3


def test_a_correction_replaces_what_was_learned_and_the_next_version_has_it(wire, model, few, ask):
    call = wire.adapt(model=model, adaptation_id="a")
    wrong = [named(f"w{n}", f"the parcel is late {n}", "bill") for n in range(4)]
    send(call, 0, [*few, *wrong])
    assert labels(ask(["the parcel is late"], len(few) + 4)) == ["bill"]
    send(call, len(few) + 4, [named(f"w{n}", f"the parcel is late {n}", "parcel") for n in range(4)])
    answer = ask(["the parcel is late", "my bill is wrong"], len(few) + 8)
    assert labels(answer) == ["parcel", "bill"]
    call.commit("c")
    published = call.next("published")
    assert {it.label: it.examples for it in published.summary.per_class} == {
        "bill": 6,
        "lock": 6,
        "parcel": 4,
    }


def test_a_removed_class_is_not_answered_any_more_and_not_in_the_next_version(wire, model, few, ask):
    call = wire.adapt(model=model, adaptation_id="a")
    send(call, 0, [*few, named("p", "the parcel is late", "parcel")])
    assert labels(ask(["the parcel is late"], len(few) + 1)) == ["parcel"]
    send(call, len(few) + 1, [deletion("p")])
    assert known(ask(["the parcel is late"], len(few) + 2)) == {"lock", "bill"}
    call.commit("c")
    assert call.next("published").summary.classes == 2


def test_a_change_and_its_removal_in_one_batch_leave_nothing(wire, model, few, ask):
    call = wire.adapt(model=model, adaptation_id="a")
    send(call, 0, [*few, named("p", "the parcel is late", "parcel"), deletion("p")])
    assert known(ask(["the parcel is late"], len(few) + 2)) == {"lock", "bill"}


def test_after_a_restart_it_is_what_it_was(serve, connect, model, intents, ask):
    first = serve()
    wire = connect(first)
    call = wire.adapt(model=model, adaptation_id="a")
    rows = [named(str(n), *row) for n, row in enumerate(intents[:150])]
    send(call, 0, [*rows, named("3", intents[3][0], intents[4][1]), deletion("5")])
    texts = [text for text, _ in intents[150:180]]
    before = ask(texts, 152, wire)
    first.kill()
    after = ask(texts, 152, connect(serve(store=first.store)))
    assert labels(after) == labels(before)
    for one, other in zip(before.results, after.results, strict=True):
        assert one.single_label.scores[0].probability == pytest.approx(
            other.single_label.scores[0].probability, abs=0.02
        )


def test_examples_of_base_version_are_known_to_it(wire, model, few, ask):
    wire.publish(model, few, adaptation_id="first")
    call = wire.adapt(model=model, adaptation_id="a", base_version=1)
    send(call, 0, [("my parcel is late", "parcel")])
    assert labels(ask(["the lock is broken", "the parcel is late"], 1)) == ["lock", "parcel"]


def test_another_server_answers_with_what_this_one_was_sent(serve, connect, model, few, ask):
    first = serve()
    second = serve(store=first.store)
    call = connect(first).adapt(model=model, adaptation_id="a")
    send(call, 0, few)
    assert labels(ask(["the lock is broken"], len(few), connect(second))) == ["lock"]
    send(call, len(few), [("my parcel is late", "parcel")])
    assert labels(ask(["the parcel is late"], len(few) + 1, connect(second))) == ["parcel"]


def test_a_closed_adaptation_has_none(wire, model, few):
    wire.publish(model, few, adaptation_id="a")
    request = prediction_pb2.PredictRequest(
        model=model, adaptation_id="a", inputs=[types_pb2.Input(text="hello")]
    )
    failure = wire.fails(wire.prediction.Predict, request)
    assert (failure.code, failure.reason) == (FAILED_PRECONDITION, "ADAPTATION_CLOSED")


def test_an_adaptation_that_does_not_exist_has_none(wire, model):
    request = prediction_pb2.PredictRequest(
        model=model, adaptation_id="none", inputs=[types_pb2.Input(text="hello")]
    )
    assert wire.fails(wire.prediction.Predict, request).code is grpc.StatusCode.NOT_FOUND


def test_prequential_accuracy_is_told_as_the_stream_goes(wire, model, intents):
    call = wire.adapt(model=model, adaptation_id="a")
    call.next("started")
    call.examples(0, intents)
    metrics: dict[str, float] = {}
    while metrics.get("examples", 0) < len(intents):
        metrics = dict(call.next("progress").metrics)
    classes = len({label for _, label in intents})
    assert metrics["classes"] == classes
    assert 0.3 < metrics["prequential_accuracy_total"] < 1
    assert metrics["prequential_accuracy"] > metrics["prequential_accuracy_total"]
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id="a")
    assert dict(wire.adaptation.GetAdaptation(request).adaptation.metrics) == metrics


def test_inputs_like_none_of_the_examples_are_marked(wire, model, intents, ask):
    call = wire.adapt(model=model, adaptation_id="a")
    send(call, 0, intents)
    strange = ["zebras graze on the savanna at dusk", "def f(x): return x ** 2", "Goethe wrote Faust"]
    answer = ask([*strange, *(text for text, _ in intents[:20])], len(intents))
    assert all(it.novelty > 0.9 for it in answer.results[:3])
    assert sum(it.abstained for it in answer.results[3:]) <= 3
