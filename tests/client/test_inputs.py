"""What callers may hand in, and what they are told about the rest."""

from __future__ import annotations

import numpy as np
import pytest

import graft
from graft._client.operations import Batcher, PredictSettings, Selector, batched, predict
from graft._records.inputs.examples import example_messages, input_message, label_messages
from graft._streams.limits import Limits
from graft._streams.options import AdaptOptions
from graft._streams.start import new_exchange
from graft._transport.targets import target_of
from graft.v1 import prediction_pb2, types_pb2


def test_pairs_and_examples_become_protobuf() -> None:
    full = graft.Example("b", "y", id="7", weight=0.5, split="validation", group="g")
    first, second, third = example_messages([("a", "x"), full, ("c", None)])
    assert (first.input.text, first.label, first.HasField("weight")) == ("a", "x", False)
    assert (second.id, second.weight, second.group) == ("7", 0.5, "g")
    assert second.split == types_pb2.SPLIT_VALIDATION
    assert third.WhichOneof("target") is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (7, "not int"),
        (None, "not NoneType"),
        (("a", "b"), "not tuple; two texts that belong together are a graft.TextPair"),
        (np.float32(1), "not float32"),
    ],
)
def test_other_inputs_are_told_what_is_accepted(value: object, says: str) -> None:
    with pytest.raises(TypeError, match="must be a text") as raised:
        input_message(value)
    assert says in str(raised.value)


def test_a_pair_of_texts_and_an_array_become_protobuf() -> None:
    pair, features = example_messages([(graft.TextPair("a", "b"), "x"), (np.array([0.5, -2.0]), "y")])
    assert (pair.input.text_pair.first, pair.input.text_pair.second, pair.label) == ("a", "b", "x")
    assert (list(features.input.features.values), features.label) == ([0.5, -2.0], "y")


def test_an_array_is_one_input_or_one_a_row() -> None:
    def sent(inputs: object) -> list[list[float]]:
        call = next(predict(PredictSettings("m", Selector(), 0, False), inputs))  # type: ignore[arg-type]
        assert isinstance(call.request, prediction_pb2.PredictRequest)
        return [list(it.features.values) for it in call.request.inputs]

    assert sent(np.array([1, 2], np.float32)) == [[1, 2]]
    assert sent(np.array([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    assert sent([np.array([1.0]), np.array([2.0])]) == [[1], [2]]


@pytest.mark.parametrize(
    ("array", "error", "says"),
    [
        (
            np.zeros((1, 2, 3)),
            ValueError,
            r"input 0: features must have shape \(d,\), but the array has 2 axes",
        ),
        (np.array([["a", "b"]]), TypeError, r"inputs is an array of shape \(1, 2\) that holds no numbers"),
        ([np.array(["a", "b"])], TypeError, "input 0: features must be numbers, not <U1"),
        (np.array([True, False]), TypeError, "input 0: features must be numbers, not bool"),
    ],
)
def test_arrays_that_are_no_features_are_refused(array: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        list(predict(PredictSettings("m", Selector(), 0, False), array))  # type: ignore[arg-type]


def test_an_error_names_the_example_at_fault() -> None:
    with pytest.raises(TypeError, match=r"example 1: a target must be a label .*, not 3j"):
        list(example_messages([("a", "x"), ("b", 3j)]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"example 0: an example must be a pair"):
        list(example_messages(["abc"]))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="example 0: split is 'test'"):
        list(example_messages([graft.Example("a", "x", split="test")]))
    with pytest.raises(ValueError, match="example 0: the text is not valid Unicode"):
        list(example_messages([("\ud800", "x")]))


def test_an_example_that_no_message_holds_is_refused_here() -> None:
    with pytest.raises(ValueError, match="example 0: the example takes"):
        list(example_messages([("a" * (33 * 1024 * 1024), "x")]))


def test_examples_are_taken_one_by_one() -> None:
    taken = []

    def source() -> object:
        for number in range(3):
            taken.append(number)
            yield (str(number), "x")

    messages = example_messages(source())  # type: ignore[arg-type]
    assert next(messages).input.text == "0"
    assert taken == [0]


def test_labels_are_names_pairs_labels_or_a_mapping() -> None:
    expected = [types_pb2.Label(name="a", description="first"), types_pb2.Label(name="b")]
    assert label_messages([("a", "first"), "b"]) == expected
    assert label_messages([graft.Label("a", "first"), graft.Label("b")]) == expected
    assert label_messages({"a": "first", "b": ""}) == expected
    assert label_messages([0, 1.0, True]) == [types_pb2.Label(name=name) for name in ("0", "1", "True")]  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a name or a pair"):
        label_messages([("a", "b", "c")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="not one text"):
        label_messages("ab")


def test_a_method_of_a_later_release_is_named() -> None:
    with pytest.raises(ValueError, match="method is 'distilled'; this release knows 'auto', 'frozen'"):
        new_exchange("m", AdaptOptions(method="distilled", task="single-label"), Limits())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:50051", "dns:///127.0.0.1:50051"),
        ("graft.internal", "dns:///graft.internal:50051"),
        ("::1", "dns:///[::1]:50051"),
        ("[::1]:9000", "dns:///[::1]:9000"),
        ("dns:///graft:1", "dns:///graft:1"),
        ("unix:/run/graft.sock", "unix:/run/graft.sock"),
    ],
)
def test_targets_resolve_through_dns_unless_they_say_otherwise(target: str, expected: str) -> None:
    assert target_of(target).address == expected


def test_an_empty_target_is_refused() -> None:
    with pytest.raises(ValueError, match="the target is empty"):
        target_of(" ")


def test_batches_keep_to_their_count_and_size() -> None:
    def sizes(items: list[int], count: int, size: int) -> list[list[int]]:
        return list(batched(items, Batcher(lambda item: item, count, size)))

    assert sizes([1, 1, 1, 1, 1], 2, 100) == [[1, 1], [1, 1], [1]]
    assert sizes([4, 4, 4], 10, 8) == [[4, 4], [4]]
    assert sizes([2, 90, 2], 10, 8) == [[2], [90], [2]]
    assert sizes([], 10, 8) == []


def answer(request: prediction_pb2.PredictRequest, version: int) -> prediction_pb2.PredictResponse:
    results = [
        prediction_pb2.Prediction(
            single_label=prediction_pb2.SingleLabel(
                scores=[prediction_pb2.Score(label=i.text, probability=1.0)]
            )
        )
        for i in request.inputs
    ]
    return prediction_pb2.PredictResponse(model=request.model, version=version, results=results)


def test_a_large_prediction_is_split_and_answered_by_one_version() -> None:
    operation = predict(PredictSettings("m", Selector(), 0, False), [str(number) for number in range(25_000)])
    requests = []
    call = next(operation)
    while True:
        assert isinstance(call.request, prediction_pb2.PredictRequest)
        requests.append(call.request)
        try:
            call = operation.send(answer(call.request, version=7))
        except StopIteration as finished:
            predictions = finished.value
            break
    assert [len(request.inputs) for request in requests] == [10_000, 10_000, 5_000]
    assert requests[0].WhichOneof("selector") is None
    assert [request.version for request in requests[1:]] == [7, 7]
    assert [prediction.label for prediction in predictions] == [str(number) for number in range(25_000)]
    assert (predictions.version, predictions[0].version) == (7, 7)


def test_one_text_is_one_input() -> None:
    call = next(predict(PredictSettings("m", Selector(), 0, False), "hello"))
    assert isinstance(call.request, prediction_pb2.PredictRequest)
    assert [given.text for given in call.request.inputs] == ["hello"]


def test_a_version_and_an_alias_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Selector(version=1, alias="live")


def test_wide_answers_are_asked_for_in_smaller_requests() -> None:
    assert PredictSettings("m", Selector(), 0, False).max_inputs == 10_000
    assert PredictSettings("m", Selector(), 500, False).max_inputs == 100
    assert PredictSettings("m", Selector(), 0, True).max_inputs == 256
