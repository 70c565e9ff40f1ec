"""What a report names, joined when it is shown: in pages, bounded, and without what cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

import graft
from graft._client import quoting
from graft._client.operations import Selector
from graft.cli.showing.plain import plain
from graft.v1 import model_pb2, report_pb2, types_pb2


def version_response(ids: list[str]) -> model_pb2.GetVersionResponse:
    report = report_pb2.Report(examples=9)
    for id_ in ids:
        example = report_pb2.ExampleRef(id=id_, writer_id="w", label="a")
        report.data.label_errors.add(example=example, suggested="b")
    report.data.duplicate_groups.add(
        examples=[report_pb2.ExampleRef(id="copy"), report_pb2.ExampleRef(id=ids[0])]
    )
    return model_pb2.GetVersionResponse(version=model_pb2.ModelVersion(model="m", version=3, report=report))


def page(
    request: Any, ids: list[str], *, more: str = "", image: bytes = b""
) -> model_pb2.ListExamplesResponse:
    response = model_pb2.ListExamplesResponse(next_page_token=more)
    for id_ in ids:
        example = types_pb2.Example(id=id_, origin=f"f.csv:{id_}", confirmed=id_ == "b")
        if request.include_inputs:
            example.input.CopyFrom(
                types_pb2.Input(image=image) if image else types_pb2.Input(text=f"text {id_}")
            )
        response.examples.add(example=example)
    return response


def asked(operation: Any) -> tuple[Any, Any]:
    """The operation after the version was answered, and its next request."""
    next(operation)
    call = operation.send(version_response(["a", "b", "c"]))
    return operation, call.request


def result(operation: Any, response: Any) -> graft.Quotes:
    with pytest.raises(StopIteration) as stopped:
        operation.send(response)
    quotes = stopped.value.value.report.quotes
    assert isinstance(quotes, graft.Quotes)
    return quotes


def test_examples_are_asked_for_by_id_and_version_in_as_many_pages_as_it_takes() -> None:
    operation, request = asked(quoting.get_quoted("m", Selector()))
    assert (list(request.ids), request.version, request.include_inputs) == (["a", "b", "c", "copy"], 3, True)
    following = operation.send(page(request, ["a", "b"], more="more")).request
    assert list(following.ids) == ["c", "copy"]
    quotes = result(operation, page(following, ["copy"]))
    assert quotes.of("b") == graft.Quote("text b", "f.csv:b", confirmed=True)
    assert (quotes.of("copy").name, quotes.of("c").name, quotes.missing) == ("text copy", "", 1)
    assert quotes.said == "1 example that is named was erased since: only the id is shown."


def test_of_examples_beyond_the_bound_only_where_they_came_from_is_asked() -> None:
    operation, request = asked(quoting.get_quoted("m", Selector()))
    large = b"\xff\xd8\xff" + bytes(25 << 20)
    following = operation.send(page(request, ["a"], more="more", image=large)).request
    assert (list(following.ids), following.include_inputs) == (["b", "c", "copy"], False)
    quotes = result(operation, page(following, ["b", "c", "copy"]))
    assert (len(quotes.of("a").content), quotes.of("b").content, quotes.of("b").name) == (
        len(large),
        b"",
        "f.csv:b",
    )
    assert quotes.said == ""


def test_what_may_not_be_read_leaves_the_report_as_it_is_and_says_why() -> None:
    operation, _ = asked(quoting.get_quoted("m", Selector()))
    with pytest.raises(StopIteration) as stopped:
        operation.throw(graft.PermissionDeniedError("examples are not for you"))
    report = stopped.value.value.report
    assert "only their ids are shown: examples are not for you" in report.quotes.said
    assert report.data.label_errors[0].example.id == "a"


def test_a_report_that_names_nothing_asks_for_nothing() -> None:
    operation = quoting.get_quoted("m", Selector())
    next(operation)
    empty = model_pb2.GetVersionResponse(version=model_pb2.ModelVersion(model="m", version=3))
    assert result(operation, empty) == graft.Quotes()


def test_inputs_that_are_no_matter_of_json_are_left_out_of_it() -> None:
    facts: dict[str, Any] = {
        "adaptation_id": "a",
        "writer_id": "w",
        "sequence": 0,
        "deleted": False,
        "text": None,
    }
    facts |= {"id": "i", "label": "a", "split": "", "group": "", "subject": ""}
    features = types_pb2.Input(features=types_pb2.FeatureVector(values=[0.5]))
    for value, shown in (
        ("x", "x"),
        (b"png", None),
        (features, None),
        (graft.TextPair("a", "b"), {"first": "a", "second": "b"}),
    ):
        assert plain(graft.StoredExample(**facts, input=value))["input"] == shown
