"""Text backbones of every architecture through the real server: adapted, asked, exported, and run without it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.backbones.kinds import TEXTS, TYPICAL, each, rare

import graft
from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.backbones.source import DEFAULT_NAME

QUESTIONS = ["the lock is stuck again", "is my bill wrong", "zzz 123", "lock " * 90, "a"]
ISOLATED = """
import json, sys
sys.modules.update(graft=None, graft_server=None)  # from here on, importing either fails
sys.path.append(sys.argv[1])
from predict import predict
answers = predict(sys.argv[2:])
wrong = [it for it in ("torch", "transformers") if it in sys.modules]
print(json.dumps([[dict(it.scores) for it in answers], [it.novelty for it in answers], wrong]))
"""


@pytest.fixture(scope="module")
def wires(serving_many, text_checkpoints, tmp_path_factory) -> Iterator[Any]:
    """One server with all of them, the default backbone, and one that cannot be loaded."""
    sources = {name: text_checkpoints / name for name in (*TEXTS, "strange")}
    broken = {"broken": tmp_path_factory.mktemp("empty")}
    with serving_many({**broken, **sources}, on_use=rare(TEXTS)) as wire:
        yield wire


def described(wire: Any) -> dict[str, model_pb2.Backbone]:
    return {it.name: it for it in wire.model.ListBackbones(model_pb2.ListBackbonesRequest()).backbones}


def change(value: types_pb2.Input, label: str) -> adaptation_pb2.ExampleChange:
    return adaptation_pb2.ExampleChange(upsert=types_pb2.Example(input=value, label=label))


def pair(first: str, second: str) -> types_pb2.Input:
    return types_pb2.Input(text_pair=types_pb2.TextPair(first=first, second=second))


def vector(values: Any) -> types_pb2.Input:
    return types_pb2.Input(features=types_pb2.FeatureVector(values=values))


def answers(wire: Any, model: str, inputs: list[types_pb2.Input], **fields: Any) -> list[Any]:
    request = prediction_pb2.PredictRequest(model=model, inputs=inputs, **fields)
    return list(wire.prediction.Predict(request, timeout=60).results)


def probabilities(result: prediction_pb2.Prediction) -> dict[str, float]:
    assert result.WhichOneof("result") == "single_label", result
    return {it.label: it.probability for it in result.single_label.scores}


def exported(wire: Any, model: str, folder: Path) -> None:
    for piece in wire.model.ExportModel(model_pb2.ExportModelRequest(model=model), timeout=120):
        with (folder / piece.path).open("ab") as file:
            file.write(piece.chunk)


@pytest.mark.parametrize("backbone", each(TEXTS))
def test_every_architecture_is_adapted_asked_and_exported(wires, few, model, tmp_path, backbone):
    summary = wires.publish(model, few, backbone=backbone).summary
    assert (summary.backbone, summary.examples) == (backbone, len(few))
    served = wires.predict(model, QUESTIONS).results
    exported(wires, model, tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", ISOLATED, str(tmp_path), *QUESTIONS],
        check=True, capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    scores, novelty, wrong = json.loads(ran.stdout)
    assert wrong == []
    for mine, result in zip(scores, served, strict=True):
        assert mine == pytest.approx(probabilities(result), abs=1e-4)
    # Of twelve examples it is a steep function: rounding alone moves it.
    assert novelty == pytest.approx([it.novelty for it in served], abs=1e-2)
    found = described(wires)[backbone]
    assert found.state == model_pb2.BACKBONE_STATE_READY
    assert 0 < found.export_parity < 1e-4


def test_backbones_are_described_with_their_measured_parity(wires):
    found = described(wires)
    assert found[DEFAULT_NAME].is_default
    for name in TEXTS:
        if name in TYPICAL:
            assert found[name].state == model_pb2.BACKBONE_STATE_READY, found[name].error
            assert 0 < found[name].export_parity < 1e-4
        assert found[name].modality == model_pb2.MODALITY_TEXT
        assert found[name].layers == found[name].unfreezable_layers == 2
        assert found[name].feature_dimension == (24 if name == "clip-text" else 32)
        assert {"text", "features"} <= set(found[name].input_kinds)
    assert found["roberta"].max_tokens == 64, "66 places, of which text begins at the third"


def test_a_backbone_that_cannot_be_loaded_says_why_and_stops_no_other(wires, few, model):
    broken = described(wires)["broken"]
    assert broken.state == model_pb2.BACKBONE_STATE_FAILED
    assert "there is no model.safetensors in its folder" in broken.error
    call = wires.adapt(model=model, backbone="broken")
    assert call.failure().reason == "BACKBONE_WEIGHTS_MISSING"


STRANGE = ["the lock is stuck", "the [CUSTOMER] lock", "\u200b", "my bill"]
"""Two that the backbone "strange" reads, and between them two that it cannot read."""
REFUSED = [None, "TOKEN_NOT_EMBEDDED", "INPUT_EMPTY", None]
ISOLATED_REFUSALS = """
import json, sys
sys.path.append(sys.argv[1])
from predict import predict
print(json.dumps([getattr(it, "reason", None) for it in predict(json.loads(sys.argv[2]))]))
"""


def test_texts_that_the_tokenizer_and_the_weights_cannot_read_are_refused_alone(wires, few, model, tmp_path):
    (warning,) = described(wires)["strange"].warnings
    assert "[CUSTOMER]" in warning
    call = wires.adapt(model=model, backbone="strange")
    # The names of labels need not be readable.
    call.examples(0, [*few, *((text, "lock") for text in STRANGE), *[("a key", "[CUSTOMER]")] * 2])
    rejected = call.accepted(len(few) + len(STRANGE) + 2)
    assert [(it.sequence - len(few), it.reason) for it in rejected] == [
        (place, reason) for place, reason in enumerate(REFUSED) if reason
    ]
    call.commit("publish", close=True)
    assert call.next("published").summary.examples == len(few) + 4

    found = wires.predict(model, STRANGE).results
    assert [wires.failure(it.error).reason if it.HasField("error") else None for it in found] == REFUSED
    error = wires.failure(found[1].error)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "[CUSTOMER]" in error.metadata.values()
    alone = wires.predict(model, STRANGE[1:2]).results
    assert [wires.failure(it.error).reason for it in alone] == REFUSED[1:2]

    inputs = [types_pb2.Example(input=types_pb2.Input(text=text), label="lock") for text in STRANGE]
    evaluated = wires.model.EvaluateModel(
        iter([model_pb2.EvaluateModelRequest(model=model, examples=inputs)]), timeout=60
    )
    assert [(it.index, it.reason) for it in evaluated.rejected] == [(1, REFUSED[1]), (2, REFUSED[2])]

    exported(wires, model, tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", ISOLATED_REFUSALS, str(tmp_path), json.dumps(STRANGE)],
        check=True, capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(ran.stdout) == REFUSED


PAIRS = [("the lock", "is stuck"), ("is stuck", "the lock"), ("my bill " * 40, "is wrong"), ("the", "the")]
ISOLATED_PAIRS = """
import json, sys
sys.modules.update(graft=None, graft_server=None)  # from here on, importing either fails
sys.path.append(sys.argv[1])
from predict import predict
print(json.dumps([dict(it.scores) for it in predict([tuple(it) for it in json.loads(sys.argv[2])])]))
"""
TRANSFORMERS_SAY = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer
folder, pairs = sys.argv[1], json.loads(sys.argv[2])
model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
said = []
for first, second in pairs:
    read = tokenizer(first, second, return_tensors="pt", truncation=True, max_length=66, return_token_type_ids=True)
    with torch.no_grad():
        hidden = model(**read).last_hidden_state[0].mean(0)
    said.append([int(read["token_type_ids"].sum()), (hidden / hidden.norm()).tolist()])
print(json.dumps(said))
"""


def ran(*arguments: str) -> Any:
    """What a script prints, as JSON."""
    command = [sys.executable, "-W", "ignore", "-c", *arguments]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd="/")
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("backbone", each(["bert", "electra", "roberta", "mpnet"]))
def test_pairs_are_taught_and_asked_through_the_client_and_the_bundle(wires, model, tmp_path, backbone):
    texts = ["the lock", "is stuck", "my bill", "is wrong"]
    rows = [
        (graft.TextPair(f"{one} {n}", other), "same" if one == other else "other")
        for n in range(3)
        for one in texts
        for other in texts
    ]
    asked = [graft.TextPair(*it) for it in PAIRS]
    with graft.Client(wires.target) as client:
        assert client.adapt(model, rows, backbone=backbone).report.examples == len(rows)
        served = client.predict(model, asked, include_features=True)
        (joined,) = client.predict(model, "the lockis stuck", include_features=True)
    exported(wires, model, tmp_path)
    bundled = ran(ISOLATED_PAIRS, str(tmp_path), json.dumps(PAIRS))
    for mine, result in zip(bundled, served, strict=True):
        assert mine == pytest.approx({it.label: it.probability for it in result.scores}, abs=1e-4)
    one, other = (np.array(served[n].features) for n in (0, 1))
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - np.array(joined.features)).max() > 1e-3
    assert [it.truncated for it in served] == [False, False, True, False]


@pytest.mark.slow
def test_layers_are_tuned_on_pairs_and_answer_in_the_bundle_as_they_are_served(wires, model, tmp_path):
    # Every fifth label is wrong, so that a head on frozen features is not perfect already.
    texts = ["the lock", "is stuck", "my bill", "is wrong"]
    rows = [
        (graft.TextPair(f"{one} {n}", other), "same" if (one == other) != (n % 5 == 0) else "other")
        for n in range(20)
        for one in texts
        for other in texts
    ]
    asked = [graft.TextPair(*it) for it in PAIRS]
    with graft.Client(wires.target) as client:
        tuning = graft.FineTuning(epochs=4, learning_rate=1e-3)
        report = client.adapt(model, rows, backbone="bert", method="partial", fine_tuning=tuning).report
        assert (report.method, report.tuning.kept) == ("partial", True), report.warnings
        client.adapt(f"{model}-frozen", rows, backbone="bert", method="frozen")
        served = client.predict(model, asked, include_features=True)
        frozen = client.predict(f"{model}-frozen", asked, include_features=True)
    one, other, before = (np.array(it.features) for it in (served[0], served[1], frozen[0]))
    assert np.abs(one - before).max() > 1e-3, "the layers are others"
    assert np.abs(one - other).max() > 1e-3, "which text is the first tells"
    exported(wires, model, tmp_path)
    bundled = ran(ISOLATED_PAIRS, str(tmp_path), json.dumps(PAIRS))
    for mine, result in zip(bundled, served, strict=True):
        assert mine == pytest.approx({it.label: it.probability for it in result.scores}, abs=1e-3)


@pytest.mark.parametrize("backbone", each(["bert", "electra"]))
def test_bert_is_told_the_texts_of_a_pair_apart_as_transformers_does(
    wires, text_checkpoints, model, few, backbone
):
    wires.publish(model, few, backbone=backbone)
    said = ran(TRANSFORMERS_SAY, str(text_checkpoints / backbone), json.dumps(PAIRS))
    assert all(second for second, _ in said), "the tokenizer says which tokens are of the second text"
    results = answers(wires, model, [pair(*it) for it in PAIRS], include_features=True)
    np.testing.assert_allclose([it.features for it in results], [it for _, it in said], atol=1e-5)


def test_the_asynchronous_client_asks_pairs_and_features_too(wires, few_gpt2, model, few):
    async def scenario() -> None:
        async with graft.AsyncClient(wires.target) as client:
            rows = [(graft.TextPair(text, "is it?"), label) for text, label in few]
            await client.adapt(model, rows, backbone="roberta")
            (answer,) = await client.predict(model, graft.TextPair(few[0][0], "is it?"))
            assert answer.label == few[0][1]
            (text,) = await client.predict(few_gpt2, few[0][0], include_features=True)
            (features,) = await client.predict(few_gpt2, np.array(text.features))
            assert features.probability == pytest.approx(text.probability, abs=1e-4)

    asyncio.run(scenario())


def test_features_are_taught_as_numpy_arrays(wires, few_gpt2, model, few):
    texts, labels = zip(*few, strict=True)
    with graft.Client(wires.target) as client:
        found = client.predict(few_gpt2, texts, include_features=True)
        array = np.array([it.features for it in found], np.float32)
        client.adapt(model, zip(array, labels, strict=True), backbone="gpt2")
        assert [it.label for it in client.predict(model, array)] == list(labels)


def test_the_command_line_reads_pairs_of_columns_and_of_arguments(wires, model, tmp_path):
    lines = ["question,answer,fits"]
    lines += [f"the lock {n},is stuck {n},yes\nthe lock {n},bill {n},no" for n in range(6)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "graft.cli", *arguments, "--server", wires.target, "--json"]
        return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=100)

    columns = ("--input", "question", "--second", "answer", "--label", "fits")
    data = str(tmp_path / "pairs.csv")
    assert command("adapt", model, data, *columns, "--backbone", "roberta").returncode == 0
    evaluated = json.loads(command("evaluate", model, data, *columns).stdout)
    assert (evaluated["examples"], evaluated["trained_on_count"]) == (0, 12)
    (answer,) = command("predict", model, "the lock 1", "is stuck 1", "--pairs").stdout.splitlines()
    assert json.loads(answer)["label"] in ("yes", "no")
    odd = command("predict", model, "the lock", "--pairs")
    assert odd.returncode != 0
    assert "two by two, but 1 were given" in odd.stderr


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (types_pb2.Input(image=b"not looked at"), "image"),
        (types_pb2.Input(audio=b"not looked at"), "audio"),
        (pair("a", "b"), "text_pair"),
    ],
)
def test_an_input_of_another_kind_fails_alone_and_is_told_what_the_model_reads(wires, few_gpt2, value, kind):
    wrong, right = answers(wires, few_gpt2, [value, types_pb2.Input(text="the lock is stuck")])
    failure = wires.failure(wrong.error)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.reason == "INPUT_WRONG_MODALITY"
    assert f"of kind {kind}, but the model's backbone reads text: give text, or features" in failure.message
    assert probabilities(right)


def test_an_example_of_another_kind_is_rejected_by_its_sequence_and_erased_with_its_subject(
    wires, few, model
):
    call = wires.adapt(model=model, backbone="gpt2", adaptation_id="a")
    call.next("started")
    kinds = {
        "image": types_pb2.Input(image=b"a picture"),
        "audio": types_pb2.Input(audio=b"a sound"),
        "text_pair": pair("one", "another"),
        "features": vector([1.0]),
    }
    wrong = [change(it, "lock") for it in kinds.values()]
    for it in wrong:
        it.upsert.subject = "zebulon"
    call.examples(0, [*few, *wrong])
    rejected = call.accepted(len(few) + len(wrong))
    assert [it.sequence for it in rejected] == list(range(len(few), len(few) + len(wrong)))
    assert [it.reason for it in rejected[:3]] == ["INPUT_WRONG_MODALITY"] * 3
    assert [it.field for it in rejected] == [f"upsert.input.{it}" for it in kinds]
    call.commit("last", close=True)
    call.outcomes()
    assert len(wires.rejected(model, "a")) == len(wrong)
    wires.model.DeleteExamples(model_pb2.DeleteExamplesRequest(model=model, subject="zebulon"), timeout=60)
    assert wires.rejected(model, "a") == []


@pytest.fixture(scope="module")
def few_gpt2(wires, few) -> str:
    wires.publish("tests/few-gpt2", few, backbone="gpt2")
    return "tests/few-gpt2"


def test_features_that_a_caller_has_are_taught_and_asked_like_the_texts_that_they_are_of(
    wires, few, few_gpt2, model
):
    found = wires.predict(few_gpt2, [text for text, _ in few], include_features=True).results
    rows = [change(vector(it.features), label) for it, (_, label) in zip(found, few, strict=True)]
    mixed = [*rows[:6], *(change(types_pb2.Input(text=text), label) for text, label in few[6:])]
    wires.publish(model, mixed, backbone="gpt2")
    # Ten times as long: what counts is the direction.
    inputs = [types_pb2.Input(text=few[0][0]), vector([10 * it for it in found[0].features])]
    one, other = answers(wires, model, inputs)
    assert probabilities(one) == pytest.approx(probabilities(other), abs=1e-4)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0] * 31, "FEATURES_DIMENSION"),
        ([float("nan")] * 32, "FEATURES_INVALID"),
        ([0.0] * 32, "FEATURES_INVALID"),
    ],
)
def test_features_that_cannot_be_the_backbones_are_refused(wires, model, few, values, reason):
    call = wires.adapt(model=model, backbone="gpt2")
    call.next("started")
    call.examples(0, [change(vector(values), "lock")])
    (rejected,) = call.accepted(1)
    assert rejected.reason == reason
