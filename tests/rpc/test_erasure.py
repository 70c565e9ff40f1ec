"""Erasing a person's data: what is left of it in the bytes of the store, and what goes on afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from graft.v1 import adaptation_pb2, model_pb2, types_pb2
from graft_server.store.adaptations import AdaptationStore
from graft_server.store.features import decode_features
from graft_server.store.objects import Objects

PRIVATE = "my neighbour Zebulon lost the key of the blue house"
IMMEDIATELY = ("--erasure-grace-seconds", "0")


def upsert(text: str, label: str | None = None, **fields: Any) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(input=types_pb2.Input(text=text), label=label, **fields)
    return adaptation_pb2.ExampleChange(upsert=example)


def rows_of(few: list[tuple[str, str]]) -> list[Any]:
    """Rows of which one is a person's, with a rejected one of theirs too."""
    return [
        *(upsert(text, label, id=f"row-{n}") for n, (text, label) in enumerate(few)),
        upsert(PRIVATE, "lock", id="theirs", subject="zebulon"),
        upsert(PRIVATE, "zebulon-" + "x" * 300, id="refused", subject="zebulon"),
    ]


def erase(wire: Any, model: str, **fields: Any) -> model_pb2.DeleteExamplesResponse:
    request = model_pb2.DeleteExamplesRequest(model=model, **fields)
    response: model_pb2.DeleteExamplesResponse = wire.model.DeleteExamples(request, timeout=60)
    return response


def examples(wire: Any, model: str, **fields: Any) -> list[model_pb2.StoredExample]:
    found: list[model_pb2.StoredExample] = []
    token = ""
    while True:
        request = model_pb2.ListExamplesRequest(model=model, page_token=token, **fields)
        page = wire.model.ListExamples(request, timeout=60)
        found.extend(page.examples)
        token = page.next_page_token
        if not token:
            return found


def files(store: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(store.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def places(store: Path, traces: list[bytes]) -> set[str]:
    """The kinds of files of the store that hold one of the traces."""
    return {
        path.suffix if "features" not in path.parts else "features"
        for path, data in files(store)
        if any(trace in data for trace in traces)
    }


def traces_of(store: Path, model: str, adaptation_id: str, row: int) -> list[bytes]:
    """Text, subject and features (as 16 and 32 bits) of one row of an adaptation's only segment."""
    found = [PRIVATE.encode(), b"zebulon"]
    opened = AdaptationStore.load(Objects.open(store), model, adaptation_id)
    for key in Objects.open(store).keys(f"{opened.folder}features/"):
        for array in decode_features(Objects.open(store).get(key)).values():
            # A part is enough: heads join views, and keep rows of them.
            found += [array[row, :64].tobytes(), array[row, :64].astype(np.float32).tobytes()]
    return found


def test_nothing_of_an_erased_person_is_left_in_the_bytes_of_the_store(serve, connect, few):
    server = serve(*IMMEDIATELY)
    wire = connect(server)
    wire.publish("tests/m", rows_of(few), adaptation_id="a")
    traces = [*traces_of(server.store, "tests/m", "a", row=len(few)), b"theirs"]
    # In the segment, its features, and the report, whose map names examples.
    assert places(server.store, traces) >= {".seg", "features", ".json"}
    erased = erase(wire, "tests/m", subject="zebulon")
    assert (erased.erased, list(erased.affected_versions), list(erased.deleted_versions)) == (1, [1], [])
    assert not places(server.store / "models/tests/m/_/adaptations", traces)
    # Trained again without it, then the old version goes; live has moved on.
    again = wire.adapt(model="tests/m", base_version=1)
    again.commit(close=True)
    assert again.next("published").summary.examples == len(few)
    gone = erase(wire, "tests/m", subject="zebulon", delete_versions=True)
    assert (gone.erased, list(gone.affected_versions), list(gone.deleted_versions)) == (0, [], [1])
    assert wire.predict("tests/m", ["the lock"]).version == 2
    assert not places(server.store, traces)
    # Nor comes it back with the next server.
    assert server.stop() == 0
    wire = connect(serve(*IMMEDIATELY))
    assert {it.example.id for it in examples(wire, "tests/m")} == {f"row-{n}" for n in range(len(few))}
    assert not places(server.store, traces)


def test_a_repeat_of_an_erased_change_is_a_repeat_and_is_not_stored_again(serve, connect, few):
    server = serve(*IMMEDIATELY)
    wire = connect(server)
    call = wire.adapt(model="tests/m", adaptation_id="a")
    call.examples(0, rows_of(few))
    call.accepted(len(few) + 2)
    assert erase(wire, "tests/m", ids=["theirs"]).erased == 1
    # On the call that is open, on a new one, and after a restart; whatever is sent in its place.
    call.examples(len(few), [upsert(PRIVATE, "lock", id="theirs", subject="zebulon")])
    call.accepted(len(few) + 2)
    for _ in range(2):
        call = wire.adapt(model="tests/m", adaptation_id="a")
        assert call.next("started").next_sequence == len(few) + 2
        call.examples(len(few), [upsert("a guess", "lock", id="theirs")])
        call.accepted(len(few) + 2)
        assert "theirs" not in {it.example.id for it in examples(wire, "tests/m")}
        server.stop()
        wire = connect(server := serve(*IMMEDIATELY))
    call = wire.adapt(model="tests/m", adaptation_id="a")
    call.commit(close=True)
    assert call.next("published").summary.examples == len(few)


def test_all_states_of_an_id_are_erased_from_all_adaptations_of_the_model(serve, connect, few):
    wire = connect(serve(*IMMEDIATELY))
    wire.publish("tests/m", rows_of(few), adaptation_id="a")
    call = wire.adapt(model="tests/m", adaptation_id="b", base_version=1)
    # A correction that does not say whose it is.
    call.examples(
        0, [upsert(PRIVATE + " again", "bill", id="theirs"), upsert("the bill", "bill", id="other")]
    )
    call.accepted(2)
    assert erase(wire, "tests/m", subject="zebulon").erased == 2
    assert "theirs" not in {it.example.id for it in examples(wire, "tests/m")}
    call.commit(close=True)
    assert call.next("published").summary.examples == len(few) + 1


def test_another_server_forgets_what_was_erased(serve, connect, few):
    one, two = serve(*IMMEDIATELY), serve(*IMMEDIATELY)
    call = connect(one).adapt(model="tests/m", adaptation_id="a")
    call.examples(0, rows_of(few))
    call.accepted(len(few) + 2)
    assert erase(connect(two), "tests/m", ids=["theirs"]).erased == 1
    # The stream goes on where it is, and the version is trained without it.
    call.examples(len(few), [upsert("another", "lock", id="theirs")])
    call.examples(len(few) + 2, [upsert("one more bill", "bill")])
    call.accepted(len(few) + 3)
    call.commit(close=True)
    assert call.next("published").summary.examples == len(few) + 1


def test_erasing_lets_a_model_without_unaffected_versions_go_on_without_any(serve, connect, few):
    wire = connect(serve(*IMMEDIATELY))
    wire.publish("tests/m", rows_of(few), adaptation_id="a")
    gone = erase(wire, "tests/m", ids=["theirs"], delete_versions=True)
    assert list(gone.deleted_versions) == [1]
    with pytest.raises(grpc.RpcError) as raised:
        wire.predict("tests/m", ["the lock"])
    assert wire.failure(raised.value).reason == "ALIAS_NOT_FOUND"
    assert wire.publish("tests/m", few).version == 2
    assert wire.predict("tests/m", ["the lock"]).version == 2


def test_versions_that_were_trained_on_erased_examples_say_so(serve, connect, few):
    wire = connect(serve(*IMMEDIATELY))
    wire.publish("tests/m", few)
    wire.publish("tests/m", rows_of(few))
    assert list(erase(wire, "tests/m", ids=["theirs"]).affected_versions) == [2]
    listed = wire.model.ListVersions(model_pb2.ListVersionsRequest(model="tests/m")).versions
    assert [(it.version, it.trained_on_erased) for it in listed] == [(2, True), (1, False)]
    # Who lost the answer asks again.
    assert list(erase(wire, "tests/m", ids=["theirs"]).affected_versions) == [2]


def test_examples_are_listed_in_pages_with_what_is_known_of_them(wire, model):
    call = wire.adapt(model=model, adaptation_id="a", writer_id="w")
    rows = [upsert(f"text {n}", "even" if n % 2 == 0 else None, id=str(n), group="g") for n in range(7)]
    call.examples(0, [*rows, upsert("text 0 again", "odd", id="0", subject="s")])
    call.examples(8, [adaptation_pb2.ExampleChange(delete_id="1"), upsert("", "even")])
    call.accepted(10)
    found = examples(wire, model, page_size=3)
    assert [(it.writer_id, it.sequence, it.example.id) for it in found] == [
        ("w", n, str(n % 7)) for n in range(8)
    ]
    assert [it.sequence for it in found if it.deleted] == [0, 1]
    assert not any(it.example.HasField("input") for it in found)
    (latest,) = examples(wire, model, subject="s", include_inputs=True)
    assert (latest.example.input.text, latest.example.label) == ("text 0 again", "odd")
    assert [it.example.group for it in found[:2]] == ["g", "g"]


def test_a_page_of_large_inputs_stays_below_4_mib(wire, model):
    call = wire.adapt(model=model, adaptation_id="a")
    for n in range(6):
        call.examples(n, [upsert("x" * (1 << 20), "big", id=str(n))])
    call.accepted(6)
    request = model_pb2.ListExamplesRequest(model=model, include_inputs=True)
    page = wire.model.ListExamples(request, timeout=60)
    assert page.ByteSize() < 4 << 20
    assert 1 < len(page.examples) < 6
    assert [it.example.id for it in examples(wire, model, include_inputs=True)] == list("012345")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "EXAMPLES_UNNAMED"),
        ({"ids": ["a", ""]}, "ID_EMPTY"),
        ({"ids": ["a"] * 10_001}, "TOO_MANY_EXAMPLES"),
    ],
)
def test_a_wish_to_erase_that_says_nothing_useful_is_refused(wire, few_model, fields, reason):
    failure = wire.fails(
        wire.model.DeleteExamples, model_pb2.DeleteExamplesRequest(model=few_model, **fields)
    )
    assert (failure.code, failure.reason, failure.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        reason,
        ["ids"],
    )


def test_examples_of_an_unknown_model_are_not_found(wire):
    for call, request in (
        (wire.model.ListExamples, model_pb2.ListExamplesRequest(model="tests/none")),
        (wire.model.DeleteExamples, model_pb2.DeleteExamplesRequest(model="tests/none", ids=["a"])),
    ):
        assert wire.fails(call, request).reason == "MODEL_NOT_FOUND"
