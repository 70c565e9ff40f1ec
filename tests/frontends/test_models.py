"""ModelService: what there is, what answers, what is taken away, what is handed out."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from graft.v1 import adaptation_pb2, model_pb2, report_pb2, types_pb2
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.objects.objects import Objects

FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def get_model(wire: Any, name: str) -> model_pb2.Model:
    return wire.model.GetModel(model_pb2.GetModelRequest(model=name)).model


def set_alias(model: str, version: int, alias: str = "live", **fields: Any) -> model_pb2.SetAliasRequest:
    return model_pb2.SetAliasRequest(model=model, alias=alias, version=version, **fields)


@pytest.fixture
def two_versions(wire, model, few) -> str:
    """A model whose version 2 knows one label more."""
    wire.publish(model, few)
    wire.publish(model, [*few, ("a dog barks", "dog"), ("the dog bites", "dog")])
    return model


def test_models_are_listed_by_name_in_pages_under_a_prefix(wire, model, few):
    names = [f"{model}/{letter}" for letter in "cab"]
    for name in names:
        wire.publish(name, few)
    seen, token = [], ""
    while True:
        page = wire.model.ListModels(model_pb2.ListModelsRequest(prefix=model, page_size=2, page_token=token))
        assert len(page.models) <= 2
        seen += [it.name for it in page.models]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(names)
    assert not wire.model.ListModels(model_pb2.ListModelsRequest(prefix=f"{model}/x")).models


def test_a_model_says_what_it_has(wire, two_versions):
    known = get_model(wire, two_versions)
    assert (known.name, known.latest_version, known.versions) == (two_versions, 2, 2)
    assert dict(known.aliases) == {"live": 2}
    assert known.HasField("create_time")


def test_versions_are_listed_newest_first_without_their_reports_lists(wire, two_versions):
    page = wire.model.ListVersions(model_pb2.ListVersionsRequest(model=two_versions, page_size=1))
    assert [it.version for it in page.versions] == [2]
    rest = wire.model.ListVersions(
        model_pb2.ListVersionsRequest(model=two_versions, page_size=1, page_token=page.next_page_token)
    )
    assert ([it.version for it in rest.versions], rest.next_page_token) == ([1], "")
    listed = page.versions[0]
    assert (listed.report.examples, listed.report.classes) == (14, 3)
    whole = wire.model.GetVersion(model_pb2.GetVersionRequest(model=two_versions, version=2)).version.report
    for figure in ("accuracy", "accuracy_low", "accuracy_high", "evaluation"):
        assert getattr(listed.report, figure) == getattr(whole, figure), figure
    assert listed.report.accuracy_low < listed.report.accuracy_high
    assert list(listed.aliases) == ["live"]
    assert not [*listed.report.per_class, *listed.report.confusions, *listed.labels]


def test_get_version_has_the_full_report_that_published_had(wire, model, few):
    published = wire.publish(model, few, adaptation_id="a", seed=5)
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model=model, version=1)).version
    assert version.report == published.summary
    assert (version.adaptation_id, version.commit_id) == ("a", "publish")
    assert [it.name for it in version.labels] == ["bill", "lock"]
    report = version.report
    assert (report.examples, report.classes, report.seed, report.backbone) == (12, 2, 5, "minilm")
    assert [(it.label, it.examples) for it in report.per_class] == [("bill", 6), ("lock", 6)]
    assert report.evaluation.method == report_pb2.EVALUATION_METHOD_CROSS_VALIDATION
    assert report.head.kind
    assert report.head.view
    assert report.head.candidates
    assert len(report.encoder_id) == 32
    assert report.HasField("trained_time")
    assert report.HasField("training_duration")


def test_rolling_back_changes_what_predict_answers(wire, two_versions):
    assert wire.predict(two_versions, ["a dog barks"]).results[0].single_label.scores[0].label == "dog"
    moved = wire.model.SetAlias(set_alias(two_versions, 1, expected_version=2)).model
    assert moved.aliases["live"] == 1
    answer = wire.predict(two_versions, ["a dog barks"], top_k=9)
    assert answer.version == 1
    assert {it.label for it in answer.results[0].single_label.scores} == {"lock", "bill"}


def test_an_alias_of_ones_own_is_set_used_and_removed(wire, two_versions):
    wire.model.SetAlias(set_alias(two_versions, 1, "canary", expected_version=0))
    assert wire.predict(two_versions, ["x"], alias="canary").version == 1
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model=two_versions, alias="canary")).version
    assert (version.version, list(version.aliases)) == (1, ["canary"])
    assert dict(wire.model.SetAlias(set_alias(two_versions, 0, "canary")).model.aliases) == {"live": 2}
    failure = wire.fails(wire.model.SetAlias, set_alias(two_versions, 0, "canary"))
    assert failure.reason == "ALIAS_NOT_FOUND"


def test_an_alias_that_moved_meanwhile_is_not_moved(wire, two_versions):
    failure = wire.fails(wire.model.SetAlias, set_alias(two_versions, 1, expected_version=1))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ALIAS_MOVED")
    assert failure.metadata["version"] == "2"
    assert get_model(wire, two_versions).aliases["live"] == 2


def test_of_many_who_move_an_alias_at_once_one_wins(wire, two_versions):
    def move(_: int) -> str:
        try:
            wire.model.SetAlias(set_alias(two_versions, 1, expected_version=2))
        except grpc.RpcError as error:
            return str(wire.failure(error).reason)
        return "moved"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(move, range(8)))
    assert sorted(outcomes) == ["ALIAS_MOVED"] * 7 + ["moved"]


def test_live_cannot_be_removed_nor_point_at_nothing(wire, two_versions):
    failure = wire.fails(wire.model.SetAlias, set_alias(two_versions, 0))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ALIAS_REQUIRED")
    for version in (3, -1):
        failure = wire.fails(wire.model.SetAlias, set_alias(two_versions, version))
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")


def test_a_version_that_an_alias_points_at_is_not_deleted(wire, two_versions):
    failure = wire.fails(
        wire.model.DeleteVersion, model_pb2.DeleteVersionRequest(model=two_versions, version=2)
    )
    assert (failure.code, failure.reason) == (FAILED_PRECONDITION, "VERSION_IN_USE")
    assert wire.predict(two_versions, ["x"]).version == 2


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(wire, two_versions, few):
    assert wire.predict(two_versions, ["x"], version=1).version == 1
    wire.model.SetAlias(set_alias(two_versions, 1))
    wire.model.DeleteVersion(model_pb2.DeleteVersionRequest(model=two_versions, version=2))
    for call, message in [
        (wire.model.GetVersion, model_pb2.GetVersionRequest(model=two_versions, version=2)),
        (wire.model.DeleteVersion, model_pb2.DeleteVersionRequest(model=two_versions, version=2)),
    ]:
        assert wire.fails(call, message).reason == "VERSION_NOT_FOUND"
    with pytest.raises(grpc.RpcError):
        wire.predict(two_versions, ["x"], version=2)
    known = get_model(wire, two_versions)
    assert (known.latest_version, known.versions) == (1, 1)
    assert wire.publish(two_versions, few).version == 3


def test_a_version_may_go_on_from_the_examples_of_one_deleted_since(wire, two_versions, few):
    call = wire.adapt(model=two_versions, adaptation_id="later", base_version=1)
    call.next("started")
    wire.model.DeleteVersion(model_pb2.DeleteVersionRequest(model=two_versions, version=1))
    call.examples(0, [("one more bill", "bill")])
    call.commit(close=True)
    (published,) = call.outcomes()
    assert published.summary.examples == len(few) + 1


def test_a_deleted_model_is_gone_with_its_adaptations_and_goes_on_counting_when_it_returns(
    wire, two_versions, few
):
    open_call = wire.adapt(model=two_versions, adaptation_id="open")
    open_call.examples(0, few)
    open_call.accepted(len(few))
    wire.model.DeleteModel(model_pb2.DeleteModelRequest(model=two_versions))
    failure = open_call.failure()
    assert (failure.code, failure.reason) == (FAILED_PRECONDITION, "MODEL_DELETED")
    assert (
        wire.fails(wire.model.GetModel, model_pb2.GetModelRequest(model=two_versions)).reason
        == "MODEL_NOT_FOUND"
    )
    listed = wire.adaptation.ListAdaptations(adaptation_pb2.ListAdaptationsRequest(model=two_versions))
    assert not listed.adaptations
    # The same adaptation_id is free again.
    published = wire.publish(two_versions, few, adaptation_id="open")
    assert (published.version, published.summary.examples) == (3, len(few))


def test_backbones_are_described(wire):
    (backbone,) = wire.model.ListBackbones(model_pb2.ListBackbonesRequest()).backbones
    assert (backbone.name, backbone.is_default) == ("minilm", True)
    assert (backbone.architecture, backbone.layers, backbone.feature_dimension) == ("bert", 6, 384)
    assert backbone.max_tokens == 256
    assert backbone.state == model_pb2.BACKBONE_STATE_READY
    assert backbone.modality == model_pb2.MODALITY_TEXT
    assert len(backbone.encoder_id) == 32


# ------------------------------------------------------------------------------------------------- export


@pytest.fixture(scope="module")
def bundle(shared_wire, few_model, tmp_path_factory) -> Path:
    """The bundle of the shared model, as it came over the wire."""
    folder = tmp_path_factory.mktemp("bundle")
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}
    order: list[str] = []
    for piece in shared_wire.model.ExportModel(model_pb2.ExportModelRequest(model=few_model), timeout=120):
        assert len(piece.chunk) <= 1 << 20
        assert piece.ByteSize() < 4 << 20
        assert sizes.setdefault(piece.path, piece.size) == piece.size
        assert digests.setdefault(piece.path, piece.sha256) == piece.sha256
        if not order or order[-1] != piece.path:
            order.append(piece.path)
        place = folder / piece.path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab") as file:
            file.write(piece.chunk)
    assert len(order) == len(set(order)), "files come one after the other"
    for path in order:
        data = (folder / path).read_bytes()
        assert len(data) == sizes[path]
        assert hashlib.sha256(data).hexdigest() == digests[path]
    return folder


def test_a_bundle_has_all_that_it_takes(bundle):
    names = {path.name for path in bundle.iterdir()}
    assert {"model.onnx", "labels.json", "tokenizer.json"} <= names
    assert [
        it if isinstance(it, str) else it["name"] for it in json.loads((bundle / "labels.json").read_text())
    ] == [
        "bill",
        "lock",
    ]


def test_a_bundles_probabilities_are_the_served_ones(wire, few_model, bundle, few):
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    texts = [*(text for text, _ in few), "completely different", "the lock " * 400]
    served = wire.predict(few_model, texts, top_k=9)
    for text, result in zip(texts, served.results, strict=True):
        encoding = tokenizer.encode(text)
        feeds = {
            "input_ids": np.array([encoding.ids]),
            "attention_mask": np.array([encoding.attention_mask]),
        }
        names = {it.name for it in session.get_inputs()}
        (probabilities, *_) = session.run(["probabilities"], {name: feeds[name] for name in names})
        expected = {it.label: it.probability for it in result.single_label.scores}
        assert dict(zip(["bill", "lock"], probabilities[0].tolist(), strict=True)) == pytest.approx(
            expected, abs=1e-4
        )


def test_many_exports_at_once_are_each_whole(wire, few_model, bundle):
    def export(_: int) -> str:
        digest = hashlib.sha256()
        for piece in wire.model.ExportModel(model_pb2.ExportModelRequest(model=few_model), timeout=120):
            if piece.path == "model.onnx":
                digest.update(piece.chunk)
        return digest.hexdigest()

    with ThreadPoolExecutor(2) as pool:
        digests = set(pool.map(export, range(2)))
    assert digests == {hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()}


def test_an_export_that_is_left_in_the_middle_leaves_the_server_well(wire, few_model):
    pieces = wire.model.ExportModel(model_pb2.ExportModelRequest(model=few_model), timeout=120)
    next(pieces)
    pieces.cancel()
    assert wire.predict(few_model, ["the lock"]).version == 1


# ----------------------------------------------------------------------------------------------- evaluate


def upsert(text: str, label: str | None, **fields: Any) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(input=types_pb2.Input(text=text), label=label, **fields)
    return adaptation_pb2.ExampleChange(upsert=example)


def evaluation(model: str, rows: list[tuple[str, str]], **fields: Any) -> model_pb2.EvaluateModelRequest:
    examples = [types_pb2.Example(input=types_pb2.Input(text=text), label=label) for text, label in rows]
    return model_pb2.EvaluateModelRequest(model=model, examples=examples, **fields)


@pytest.fixture(scope="session")
def others(few: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows like the few, which no version was trained on."""
    return [(f"{text}0", label) for text, label in few]


def test_evaluating_measures_what_predict_answers(wire, few_model, others):
    few = others
    wrong = [("the lock is stuck", "bill")]
    requests = [evaluation(few_model, few[:5]), evaluation("", few[5:]), evaluation("", wrong)]
    measured = wire.model.EvaluateModel(iter(requests))
    assert (measured.model, measured.version, measured.examples) == (few_model, 1, len(few) + 1)
    assert measured.accuracy == pytest.approx(len(few) / (len(few) + 1), abs=1e-6)
    assert [(it.label, it.support) for it in measured.per_class] == [("bill", 7), ("lock", 6)]
    assert [(it.label, it.predicted, it.count) for it in measured.confusions] == [("bill", "lock", 1)]
    scores = wire.predict(few_model, [text for text, _ in [*few, *wrong]], top_k=9).results
    given = [
        {it.label: it.probability for it in result.single_label.scores}[label]
        for result, (_, label) in zip(scores, [*few, *wrong], strict=True)
    ]
    assert measured.log_loss == pytest.approx(-np.log(np.maximum(given, 1e-7)).mean(), abs=1e-4)


def test_evaluating_counts_unknown_labels_as_wrong_and_names_bad_examples_by_their_place(
    wire, few_model, others
):
    few = others
    requests = [
        evaluation(few_model, few),
        evaluation("", [("a dog barks", "dog"), ("", "lock"), ("good", "")]),
    ]
    measured = wire.model.EvaluateModel(iter(requests))
    assert measured.examples == len(few) + 1
    assert measured.accuracy == pytest.approx(len(few) / (len(few) + 1), abs=1e-6)
    assert measured.total_rejected == 2
    assert [(it.label, it.examples, list(it.indices)) for it in measured.unknown_labels] == [
        ("dog", 1, [len(few)])
    ]
    assert measured.total_with_unknown_label == 1
    assert [(it.index, it.reason) for it in measured.rejected] == [
        (len(few) + 1, "INPUT_EMPTY"),
        (len(few) + 2, "LABEL_EMPTY"),
    ]
    # In its text, a field is named by its path in the request that the example came with.
    assert "examples[1].input.text is empty" in measured.rejected[0].detail
    assert "examples[2].label is empty" in measured.rejected[1].detail


def test_evaluating_leaves_out_what_the_version_was_trained_on_whatever_its_label(
    wire, few_model, few, others
):
    text, label = few[0]
    copies = [
        (text, label),
        (text, "bill"),
        (text, "none of them"),
        (f"  {text.upper()}!\n", label),
        (text.replace(" ", "\N{NO-BREAK SPACE}"), label),
        (text[:3] + "\N{ZERO WIDTH SPACE}" + text[3:], label),
    ]
    measured = wire.model.EvaluateModel(
        iter([evaluation(few_model, others), evaluation("", [*copies, *others[:1]])])
    )
    assert (measured.examples, measured.accuracy) == (len(others) + 1, 1.0)
    first = len(others)
    assert (measured.total_trained_on, list(measured.trained_on)) == (6, [*range(first, first + 6)])
    assert [(it.label, list(it.indices)) for it in measured.unknown_labels] == [("none of them", [first + 2])]
    assert not measured.training_examples_missing


def test_evaluating_only_what_the_version_was_trained_on_gives_no_figures(wire, few_model, few):
    measured = wire.model.EvaluateModel(iter([evaluation(few_model, few * 20)]))
    assert (measured.examples, measured.accuracy, measured.accuracy_high) == (0, 0, 0)
    assert measured.total_trained_on == 20 * len(few)
    assert list(measured.trained_on) == [*range(100)]


def test_what_was_held_out_replaced_or_removed_counts_and_what_a_lineage_brought_does_not(wire, model):
    rows = [
        upsert(f"{word} number {n}", word, id=f"{word}{n}", split=types_pb2.SPLIT_VALIDATION if n == 9 else 0)
        for n in range(10)
        for word in ("lock", "bill")
    ]
    wire.publish(model, rows)
    later = [
        upsert("lock of another kind", "lock", id="lock0"),
        adaptation_pb2.ExampleChange(delete_id="lock1"),
        upsert("nobody said what this is", None, id="none"),
    ]
    wire.publish(model, later, base_version=1, adaptation_id="later")
    asked = {
        "lock number 9": True,  # held out
        "lock number 0": True,  # replaced
        "lock number 1": True,  # removed
        "nobody said what this is": True,  # without a label
        "lock number 2": False,  # of the lineage
        "lock of another kind": False,
    }
    requests = [evaluation(model, [(text, "lock") for text in asked], version=2)]
    measured = wire.model.EvaluateModel(iter(requests))
    assert list(measured.trained_on) == [place for place, counts in enumerate(asked.values()) if not counts]
    measured = wire.model.EvaluateModel(iter([evaluation(model, [("lock number 0", "lock")], version=1)]))
    assert list(measured.trained_on) == [0]


def test_what_was_erased_is_known_no_more_and_that_is_said(wire, model, few):
    wire.publish(model, [upsert(text, label, id=text) for text, label in few])
    wire.model.DeleteExamples(model_pb2.DeleteExamplesRequest(model=model, ids=[few[0][0]]))
    measured = wire.model.EvaluateModel(iter([evaluation(model, few)]))
    assert (measured.total_trained_on, measured.examples) == (len(few) - 1, 1)
    assert measured.training_examples_missing


def test_labels_that_the_version_does_not_know_are_counted_beside_what_was_probably_meant(
    wire, few_model, others
):
    rows = [(others[0][0], label) for label in ("Lock", "lock ", "billl", "weather", "weather", "B\u200bill")]
    measured = wire.model.EvaluateModel(iter([evaluation(few_model, rows)]))
    found = [(it.label, it.examples, list(it.indices), it.similar) for it in measured.unknown_labels]
    assert found == [
        ("weather", 2, [3, 4], ""),
        ("B\u200bill", 1, [5], "bill"),
        ("Lock", 1, [0], "lock"),
        ("billl", 1, [2], "bill"),
    ]
    assert (measured.total_with_unknown_label, measured.examples) == (
        5,
        6,
    )  # space around a label is no part of it


def test_evaluating_nothing_gives_no_figures(wire, few_model):
    measured = wire.model.EvaluateModel(iter([evaluation(few_model, [])]))
    assert (measured.examples, measured.accuracy) == (0, 0)


def test_evaluating_without_a_message_is_refused(wire):
    failure = wire.fails(wire.model.EvaluateModel, iter([]))
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["model"])


# ------------------------------------------------------------------------------------------ deleting, in part


def test_a_model_that_was_never_published_can_be_deleted(wire, model, few):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.accepted(len(few))
    wire.model.DeleteModel(model_pb2.DeleteModelRequest(model=model))
    assert call.failure().reason == "MODEL_DELETED"
    request = adaptation_pb2.ListAdaptationsRequest(model=model)
    assert not wire.adaptation.ListAdaptations(request).adaptations
    # Its id is free, and nothing is left of it.
    again = wire.adapt(model=model, adaptation_id="a")
    assert again.next("started").next_sequence == 0


def test_a_deletion_that_a_killed_server_left_unfinished_is_finished_by_the_next(serve, connect, few):
    first = serve()
    wire = connect(first)
    wire.publish("tests/m", few, adaptation_id="a")
    first.kill()
    # As a server leaves it that is killed after the catalogue says so.
    Catalogue(Objects.open(first.store)).delete_model("tests/m")
    second = serve()
    wire = connect(second)
    assert wire.adapt(model="tests/m", adaptation_id="a").next("started").next_sequence == 0
    left = first.store / "models/tests/m/_/adaptations/a"
    while any(it.is_file() for it in left.rglob("*")):
        wire.adaptation.ListAdaptations(adaptation_pb2.ListAdaptationsRequest(model="tests/m"))


def test_an_adaptation_that_is_damaged_or_lacks_its_backbone_keeps_no_other_from_being_listed_and_deleted(
    serve, connect, few
):
    server = serve()
    wire = connect(server)
    wire.publish("tests/m", few, adaptation_id="good")
    wire.adapt(model="tests/m", adaptation_id="bad").next("started")
    objects = Objects.open(server.store)
    start = Start(AdaptationSettings("of-another-server"), datetime(2026, 1, 2, tzinfo=UTC), born=1)
    AdaptationStore.create(objects, "tests/m", "foreign", start)
    server.kill()
    path = server.store / "models/tests/m/_/adaptations/bad/start.json"
    path.write_bytes(path.read_bytes()[:-5])
    wire = connect(serve())
    request = adaptation_pb2.ListAdaptationsRequest(model="tests/m")
    listed = {it.adaptation_id: it for it in wire.adaptation.ListAdaptations(request).adaptations}
    assert set(listed) == {"good", "bad", "foreign"}
    assert listed["good"].publications[0].version == 1
    assert listed["foreign"].backbone == "of-another-server"
    failure = wire.failure(listed["bad"].error)
    assert (failure.code, failure.reason) == (grpc.StatusCode.DATA_LOSS, "OBJECT_CORRUPT")
    assert failure.metadata["object"].endswith("/bad/start.json")
    wire.model.DeleteModel(model_pb2.DeleteModelRequest(model="tests/m"))
    assert not objects.keys("models/tests/m/_/adaptations/")


def test_a_commit_that_another_server_cancels_is_not_published(serve, connect, few):
    one, two = serve(), serve()
    wire = connect(one)
    call = wire.adapt(model="tests/m", adaptation_id="a")
    call.examples(0, few)
    call.commit("c")
    call.next("committed")
    cancelled = (
        connect(two)
        .adaptation.CancelAdaptation(
            adaptation_pb2.CancelAdaptationRequest(model="tests/m", adaptation_id="a"), timeout=60
        )
        .adaptation
    )
    published = [it.version for it in cancelled.publications if it.version]
    catalogue = Catalogue(Objects.open(one.store))
    # Either it was published before, or it is given up, and stays so.
    assert [*catalogue.snapshot.models] == (["tests/m"] if published else [])
    assert call.failure().reason == "ADAPTATION_CANCELLED"
    assert one.stop() == 0
    assert [*catalogue.refresh().models] == (["tests/m"] if published else [])
