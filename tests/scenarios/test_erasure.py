"""Erasing a person's data: what is left of it in the bytes of the store, and what goes on afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf import duration_pb2
from numpy.typing import NDArray
from onnx import numpy_helper

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.backbones.tunings import _digest
from graft_server.domain.examples import Change, Example, Input
from graft_server.heads import decode
from graft_server.heads.single_label import SingleLabelHead
from graft_server.store.adaptations.features import decode_features
from graft_server.store.adaptations.keys import writer_folder
from graft_server.store.adaptations.segments import Record, Segment, encode_segment, segment_key
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

PRIVATE = "my neighbour Zebulon lost the key of the blue house"
NEVER = "000000000000"
"""What lies below it is of a model that nothing had been erased of."""
IMMEDIATELY = ("--erasure-grace-seconds", "0")


def upsert(text: str, label: str | None = None, **fields: Any) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(input=types_pb2.Input(text=text), label=label, **fields)
    return adaptation_pb2.ExampleChange(upsert=example)


def rows_of(few: list[tuple[str, str]]) -> list[Any]:
    """Rows of which one is a person's, with a rejected one of theirs too."""
    return [
        *(upsert(text, label, id=f"row-{n}") for n, (text, label) in enumerate(few)),
        upsert(PRIVATE, "lock", id="theirs", subject="zebulon", origin="zebulon.csv:7"),
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
        for array in decode_features(Objects.open(store).get(key)).features.values():
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


def crossed(count: int, dimension: int) -> NDArray[np.float32]:
    """Unit-norm features whose kind is which of two axes, or of two others, they point along: no line parts them."""
    rng = np.random.default_rng(3)
    corners = np.zeros((4, dimension))
    corners[[0, 1, 2, 3], [0, 0, 1, 1]] = 1, -1, 1, -1
    rows = corners[np.arange(count) % 4] + 0.15 * rng.standard_normal((count, dimension)) / dimension**0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def upsert_features(row: NDArray[np.float32], label: str, **fields: Any) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(
        input=types_pb2.Input(features={"values": row.tolist()}), label=label, **fields
    )
    return adaptation_pb2.ExampleChange(upsert=example)


def arrays_of(path: Path, data: bytes) -> Iterator[NDArray[Any]]:
    """All matrices of a head, as it is served and as a graph; none of other files."""
    sealed = data.rpartition(b"\n#sealed ")[0]
    if path.name == "head.onnx":
        for tensor in onnx.load_model_from_string(sealed).graph.initializer:
            yield numpy_helper.to_array(tensor)
    if path.name == "head.bin":
        head = decode(sealed)
        assert isinstance(head, SingleLabelHead)
        yield head.novelty.anchors
        for member in head.members:
            yield from (getattr(member.map, it) for it in ("landmarks", "weight") if hasattr(member.map, it))


def holders(store: Path, row: NDArray[np.float32]) -> set[str]:
    """The files of the store that hold a row of features: as bytes, or as a row or a column of a matrix."""
    traces = [row.astype(kind)[:64].tobytes() for kind in (np.float16, np.float32)]
    found = set()
    for path, data in files(store):
        matrices = [it.astype(np.float32) for it in arrays_of(path, data) if it.ndim == 2]
        ways = [way for it in matrices for way in (it, it.T) if way.shape[1] == len(row)]
        if any(trace in data for trace in traces) or any(
            (np.abs(way - row).max(axis=1) < 1e-3).any() for way in ways
        ):
            found.add("features" if "features" in path.parts else path.name)
    return found


def test_no_head_keeps_the_features_of_an_erased_person(serve, connect):
    server = serve(*IMMEDIATELY)
    wire = connect(server)
    dimension = wire.model.ListBackbones(model_pb2.ListBackbonesRequest()).backbones[0].feature_dimension
    rows = crossed(41, dimension)
    labels = ["odd" if n % 4 > 1 else "even" for n in range(41)]
    # Theirs alone has its label, and so an anchor of its own; and it is one of the kernel's landmarks.
    labels[-1] = "theirs"
    taught = [
        upsert_features(row, label, id=f"row-{n}")
        for n, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    taught[-1].upsert.subject = "zebulon"
    wire.publish("tests/m", taught, adaptation_id="a")
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model="tests/m")).version
    assert "kernel" in version.report.head.kind
    assert "row-40" in {it.id for it in version.report.feature_map}
    theirs = rows[-1].astype(np.float16).astype(np.float32)
    assert holders(server.store, theirs) == {"head.bin", "head.onnx", "features"}
    before = scores_of(wire, rows[:-1])
    erased = erase(wire, "tests/m", subject="zebulon")
    assert (erased.erased, list(erased.affected_versions)) == (1, [1])
    assert holders(server.store, theirs) == set()
    assert not places(server.store, [b"row-40", b"zebulon"])
    # The version goes on to answer, nearly as before, here and after a restart.
    for _ in range(2):
        assert np.abs(scores_of(wire, rows[:-1]) - before).max() < 0.1
        version = wire.model.GetVersion(model_pb2.GetVersionRequest(model="tests/m")).version
        assert (version.version, version.trained_on_erased, version.report.examples) == (1, True, 41)
        assert len(version.report.feature_map) == 40
        assert server.stop() == 0
        wire = connect(server := serve(*IMMEDIATELY))


def scores_of(wire: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """shape (rows, labels): probabilities, by label."""
    inputs = [types_pb2.Input(features={"values": row.tolist()}) for row in rows]
    asked = prediction_pb2.PredictRequest(model="tests/m", inputs=inputs)
    answers = [it.single_label.scores for it in wire.prediction.Predict(asked, timeout=60).results]
    return np.array([[it.probability for it in sorted(row, key=lambda it: it.label)] for row in answers])


def test_what_a_server_that_died_wrote_too_late_is_erased_with_the_rest(serve, connect, few):
    server = serve(*IMMEDIATELY)
    wire = connect(server)
    wire.publish("tests/m", [upsert(text, label) for text, label in few], adaptation_id="a")
    # As it leaves it that dies between writing a segment and looking whether another server has closed the adaptation.
    example = Example("theirs", Input(PRIVATE), "lock", subject="zebulon")
    late = Segment("late", 0, 0, (Record(1, Change(example)),))
    key = segment_key(writer_folder("tests/m", "a", "late"), late.name)
    Objects.open(server.store).create(key, encode_segment(late))
    traces = [PRIVATE.encode(), b"zebulon", b"theirs"]
    assert places(server.store, traces) == {".seg"}
    # It was never acknowledged, so there is nothing to count.
    assert erase(wire, "tests/m", subject="zebulon").erased == 0
    assert not places(server.store, traces)


@pytest.mark.slow
def test_a_tuning_keeps_nothing_of_an_erased_person(serve, connect, intents, tokenizer, encoder_cache):
    server = serve(*IMMEDIATELY)
    wire = connect(server)
    call = wire.adapt(
        model="tests/m",
        adaptation_id="a",
        method=types_pb2.METHOD_PARTIAL,
        fine_tuning=adaptation_pb2.FineTuning(unfrozen_layers=1, epochs=100),
    )
    rows = [upsert(text, label) for text, label in intents]
    theirs = upsert(PRIVATE, intents[0][1], id="theirs", subject="zebulon")
    call.examples(0, [*rows, theirs])
    call.commit(close=True)
    call.next("committed")
    prepared = tokenizer(PRIVATE)
    traces = [prepared.item.astype(np.int32).tobytes(), b'"theirs"']
    given, made = server.store / "tunings", encoder_cache / "tuning" / _digest(str(server.store))

    def left() -> list[Path]:
        # By model, the catalogue's last erasure, and commit.
        return [it for folder in (given, made) for it in folder.rglob("*") if it.is_file()]

    def holds_them() -> bool:
        return any(trace in path.read_bytes() for path in left() for trace in traces)

    while not holds_them():
        assert call.next("progress")
    while not any(it.is_relative_to(made) for it in left()):  # a checkpoint
        assert call.next("progress")
    assert all(NEVER in it.parts for it in left())
    assert erase(wire, "tests/m", subject="zebulon").erased == 1
    assert not holds_them()
    assert not any(NEVER in it.parts for it in left())
    assert not places(server.store, [PRIVATE.encode(), b"zebulon", b"theirs"])
    # The tuning goes on without them.
    while not left():
        assert call.next("progress")
    assert not holds_them()
    wire.adaptation.CancelAdaptation(
        adaptation_pb2.CancelAdaptationRequest(model="tests/m", adaptation_id="a"), timeout=60
    )
    # Nor does a cancelled one keep anything.
    assert not left()


@pytest.mark.slow
def test_a_tuning_builds_on_nothing_that_learned_from_an_erased_example(serve, connect, intents):
    wire = connect(serve(*IMMEDIATELY))
    call = wire.adapt(
        model="tests/m",
        adaptation_id="a",
        method=types_pb2.METHOD_AUTO,
        time_budget=duration_pb2.Duration(seconds=10),
    )
    theirs = upsert(PRIVATE, intents[0][1], id="theirs", subject="zebulon")
    call.examples(0, [*(upsert(text, label) for text, label in intents), theirs])
    call.commit(close=True)

    def published() -> list[Any]:
        request = model_pb2.ListVersionsRequest(model="tests/m")
        try:
            return list(wire.model.ListVersions(request, timeout=60).versions)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return []

    call.next("committed")
    while not published():  # the head of the frozen backbone, to which the tuned ones are compared
        assert call.next("progress")
    assert list(erase(wire, "tests/m", subject="zebulon").affected_versions) == [1]
    last = call.next("published")
    assert (last.version > 2, last.summary.examples) == (True, len(intents))
    # Nor does the version on the way know them.
    assert {it.version: it.report.examples for it in published()}[2] == len(intents)


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
