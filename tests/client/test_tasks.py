"""Tasks from a caller's side: targets in, answers out, and bundles that answer without a server."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

import graft
from graft import cli
from graft.v1 import adaptation_pb2, types_pb2

LOCK, BILL, BOTH = "the lock is stuck", "my bill is wrong", "the lock is stuck and my bill is wrong"
TEXTS = [LOCK, BILL, BOTH, "what a lovely day it is"]
SETS = [["lock"], ["bill"], ["bill", "lock"], []]
VALUES = [40.0, 10.0, 25.0, -5.0]


@pytest.fixture
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


def changes(**targets: list[Any]) -> list[adaptation_pb2.ExampleChange]:
    ((kind, values),) = targets.items()
    return [
        adaptation_pb2.ExampleChange(
            upsert=types_pb2.Example(input=types_pb2.Input(text=f"{text} {n}"), **{kind: value})
        )
        for n in range(12)
        for text, value in zip(TEXTS, values, strict=True)
    ]


@pytest.fixture(scope="module")
def sets_model(shared_wire: Any) -> str:
    sets = [types_pb2.LabelSet(labels=labels) for labels in SETS]
    shared_wire.publish("tests/client-sets", changes(label_set=sets), task=types_pb2.TASK_MULTI_LABEL)
    return "tests/client-sets"


@pytest.fixture(scope="module")
def values_model(shared_wire: Any) -> str:
    shared_wire.publish("tests/client-values", changes(value=VALUES), task=types_pb2.TASK_REGRESSION)
    return "tests/client-values"


def run(folder: Path, texts: list[str]) -> dict[str, np.ndarray]:
    """What the graph of a bundle says, by nothing but ONNX Runtime and tokenizers."""
    encodings = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(texts)
    longest = max(len(it.ids) for it in encodings)
    ids = np.array([it.ids + [0] * (longest - len(it.ids)) for it in encodings], np.int64)
    mask = np.array([[1] * len(it.ids) + [0] * (longest - len(it.ids)) for it in encodings], np.int64)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [it.name for it in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input_ids": ids, "attention_mask": mask}), strict=True))


def runner_lines(folder: Path, texts: list[str]) -> list[list[str]]:
    command = [sys.executable, "-I", str(folder / "predict.py"), *texts]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd="/")
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_bundle_of_several_labels_selects_what_the_server_does(client, wire, sets_model, tmp_path):
    client.export(sets_model, tmp_path)
    outputs = run(tmp_path, TEXTS)
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert set(outputs) == {"probabilities", "selected", "thresholds", "novelty", "features"}
    served = [it.multi_label.scores for it in wire.predict(sets_model, TEXTS).results]
    for row, scores in enumerate(served):
        for score in scores:
            column = labels.index(score.label)
            assert outputs["probabilities"][row, column] == pytest.approx(score.probability, abs=1e-4)
            assert outputs["selected"][row, column] == score.selected
    settings = json.loads((tmp_path / "preprocessing.json").read_text())
    assert (settings["task"], settings["at_least_one"]) == ("multi_label", False)
    assert settings["thresholds"] == pytest.approx(outputs["thresholds"].tolist(), abs=1e-5)
    shown = [line[0] for line in runner_lines(tmp_path, TEXTS)]
    assert [[] if it == "[]" else sorted(it.split(",")) for it in shown] == SETS


def test_a_bundle_of_numbers_answers_what_the_server_does(client, wire, values_model, tmp_path):
    client.export(values_model, tmp_path)
    outputs = run(tmp_path, TEXTS)
    assert set(outputs) == {"value", "low", "high", "novelty", "features"}
    served = [it.regression for it in wire.predict(values_model, TEXTS).results]
    for name in ("value", "low", "high"):
        assert outputs[name].tolist() == pytest.approx([getattr(it, name) for it in served], abs=1e-2)
    assert json.loads((tmp_path / "labels.json").read_text()) == []
    printed = [float(line[0]) for line in runner_lines(tmp_path, TEXTS)]
    assert printed == pytest.approx(VALUES, abs=3)


# ------------------------------------------------------------------------------------------- the client


def pairs(targets: list[Any]) -> list[tuple[str, Any]]:
    return [(f"{text} {n}", target) for n in range(10) for text, target in zip(TEXTS, targets, strict=True)]


def test_sets_in_pairs_make_a_model_of_several_labels(client, model):
    result = client.adapt(model, pairs([set(labels) for labels in SETS]))
    report = result.report
    assert (report.task, report.classes, result.rejected_count) == ("multi_label", 2, 0)
    assert report.multi_label is not None
    assert report.multi_label.micro_f1 > 0.9
    assert all(0 < entry.threshold < 1 for entry in client.version(model).report.per_class)
    predictions = client.predict(model, TEXTS)
    assert [sorted(it.labels) for it in predictions] == SETS
    assert client.version(model).task == "multi_label"
    evaluated = client.evaluate(
        model,
        [graft.Example(f"{text} again", labels=labels) for text, labels in zip(TEXTS, SETS, strict=True)],
    )
    assert (evaluated.task, evaluated.accuracy) == ("multi_label", 1.0)


def test_floats_in_pairs_make_a_model_that_answers_with_a_number(client, model):
    result = client.adapt(model, iter(pairs(VALUES)))
    assert result.report.task == "regression"
    assert result.report.regression is not None
    assert result.report.regression.r2 > 0.9
    for prediction, value in zip(client.predict(model, TEXTS), VALUES, strict=True):
        assert prediction.value == pytest.approx(value, abs=3)
        assert prediction.low < prediction.value < prediction.high
        assert (prediction.label, prediction.labels, prediction.scores) == (None, (), ())


def test_distributions_in_pairs_make_a_model_of_one_label(client, model):
    targets = [{"lock": 0.9, "bill": 0.1}, {"bill": 1.0}, {"lock": 0.5, "bill": 0.5}, None]
    result = client.adapt(model, pairs(targets))
    assert (result.report.task, result.report.examples) == ("single_label", 30)
    assert client.predict(model, [BILL])[0].labels == ("bill",)


def test_a_target_that_is_none_is_named(client, model):
    with pytest.raises(TypeError, match="str\\(\\) makes a label, float\\(\\) a value"):
        client.adapt(model, [("a text", object())])


def test_a_missing_target_decides_nothing_and_is_counted(client, model):
    rows = [("no answer", math.nan), *pairs(["lock", "bill", "lock", None])]
    result = client.adapt(model, rows)
    report = result.report
    assert (report.task, report.examples, report.classes, result.rejected_count) == ("single_label", 30, 2, 0)
    assert client.version(model).report.data.unlabelled_examples == 11
    assert any("11 examples were left out: they have no label" in it for it in report.warnings)


def test_codes_that_a_missing_one_made_floats_of_are_labels_unless_the_task_says_otherwise(client, model):
    rows = pairs([0.0, 1.0, 2.0, math.nan])
    result = client.adapt(model, iter(rows))
    assert (result.report.task, result.report.examples) == ("single_label", 30)
    assert [it.label for it in result.report.per_class] == ["0", "1", "2"]
    (notice,) = result.notices
    assert notice.startswith(
        "task: single-label, guessed because targets are the whole numbers 0, 1, 2 and 10 are"
    )
    held_out = [(LOCK, 0.0), (BILL, 1), (BOTH, "2"), (BOTH, math.inf)]
    evaluated = client.evaluate(model, held_out)
    assert (evaluated.examples, evaluated.rejected_count) == (3, 1)
    overruled = client.check(model, rows, task="regression")
    assert (overruled.task, overruled.unlabelled, overruled.rejected_count) == ("regression", 10, 0)


def test_a_check_says_what_an_adaptation_would_make_of_its_examples(client, model):
    labels = ["lock", "Lock", "bill", None]
    rows = [
        graft.Example(text, label, id=f"customer {n % 20}") for n, (text, label) in enumerate(pairs(labels))
    ]
    result = client.check(model, rows)
    assert (result.task, result.examples, result.unlabelled, result.replaced) == ("single_label", 40, 10, 20)
    (group,) = result.similar_labels
    assert [(it.label, it.examples) for it in group.labels] == [("Lock", 10), ("lock", 10)]
    assert any("20 ids for 40 examples, 20 of them with different inputs" in it for it in result.notices)
    assert any("10 of 40 examples carry no target" in it for it in result.notices)
    with pytest.raises(ValueError, match="same id and different inputs"):
        client.adapt(model, rows)
    assert client.models(model) == []


def test_an_example_has_one_target(client, model):
    with pytest.raises(ValueError, match="label and value"):
        client.adapt(model, [graft.Example("a text", "a", value=1.0)])


def test_a_file_of_labels_in_cells_is_taught_asked_and_reported_by_commands(server, model, tmp_path):
    data = tmp_path / "train.csv"
    rows = [f"{text},{';'.join(labels)}" for text, labels in pairs(SETS)]
    data.write_text("\n".join(["text,topics", *rows]))

    def command(*words: str) -> str:
        line = [sys.executable, "-m", "graft.cli", words[0], "--server", server.target, *words[1:]]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout

    told = command("adapt", model, str(data), "--label", "topics", "--label-separator", ";")
    assert "micro-F1" in told
    assert command("predict", model, BOTH).split("\t")[0] in {"bill,lock", "lock,bill"}
    page = tmp_path / "report.html"
    command("report", model, "--html", str(page))
    assert "Micro-F1" in page.read_text()


def test_a_file_of_values_is_taught_asked_and_reported_by_commands(server, model, tmp_path):
    data = tmp_path / "train.csv"
    data.write_text("\n".join(["text,hours", *(f"{text},{value}" for text, value in pairs(VALUES))]))

    def command(*words: str) -> str:
        line = [sys.executable, "-m", "graft.cli", words[0], "--server", server.target, *words[1:]]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout

    told = command("adapt", model, str(data), "--value", "hours")
    assert "of the variance" in told
    assert float(command("predict", model, LOCK).split("\t")[0]) == pytest.approx(40, abs=3)
    page = tmp_path / "report.html"
    command("report", model, "--html", str(page))
    assert "Intervals hold" in page.read_text()


@pytest.mark.parametrize(
    ("task", "sent", "listed", "shown"),
    [
        (
            types_pb2.TASK_MULTI_LABEL,
            {"label_set": types_pb2.LabelSet(labels=["lock", "bill"])},
            {"labels": ("bill", "lock")},
            "bill,lock",
        ),
        (types_pb2.TASK_MULTI_LABEL, {"label_set": types_pb2.LabelSet()}, {"labels": ()}, "[]"),
        (types_pb2.TASK_REGRESSION, {"value": 2.5}, {"value": 2.5}, "2.5"),
        (
            types_pb2.TASK_SINGLE_LABEL,
            {
                "distribution": types_pb2.Distribution(
                    labels=[
                        types_pb2.LabelProbability(label="bill", probability=0.75),
                        types_pb2.LabelProbability(label="lock", probability=0.25),
                    ]
                )
            },
            {"distribution": {"bill": 0.75, "lock": 0.25}},
            "bill 0.75, lock 0.25",
        ),
        (types_pb2.TASK_SINGLE_LABEL, {"label": "bill"}, {"label": "bill"}, "bill"),
    ],
    ids=["labels", "no label", "value", "distribution", "label"],
)
def test_stored_examples_are_listed_with_targets_of_every_kind(  # noqa: PLR0917 - fixtures and parameters
    server, wire, model, capsys, task, sent, listed, shown
):
    call = wire.adapt(model=model, task=task)
    call.next("started")
    example = types_pb2.Example(input=types_pb2.Input(text=LOCK), weight=0.5, **sent)
    call.examples(0, [adaptation_pb2.ExampleChange(upsert=example)])
    assert call.accepted(1) == []
    with graft.Client(server.target) as client:
        (found,) = client.examples(model)
    kinds = ("label", "labels", "value", "distribution")
    assert {kind: getattr(found, kind) for kind in kinds} == dict.fromkeys(kinds) | listed
    assert found.weight == 0.5
    assert cli.main(["examples", model, "--server", server.target]) == 0
    assert shown in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- files of people


def graft_command(server: Any, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "graft.cli", words[0], "--server", server.target, *words[1:]]
    return subprocess.run(line, input=stdin, capture_output=True, text=True, check=False, timeout=120)


def rows_of_customers() -> list[dict[str, Any]]:
    targets = pairs(["lock", "bill", "lock", "day"])
    return [{"text": text, "label": label, "id": f"c{n % 20}"} for n, (text, label) in enumerate(targets)]


def test_an_id_column_that_is_not_unique_loses_no_row_unasked(server, client, model, tmp_path):
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of_customers()))
    told = "is not unique: 20 ids for 40 rows, 20 of them with different texts"

    checked = graft_command(server, "adapt", model, str(data), "--id", "id", "--check")
    assert (checked.returncode, told in checked.stderr) == (0, True)
    refused = graft_command(server, "adapt", model, str(data), "--id", "id")
    assert (refused.returncode, told in refused.stderr, "--id-repeats keep" in refused.stderr) == (
        1,
        True,
        True,
    )
    streamed = graft_command(server, "adapt", model, "-", "--id", "id", stdin=data.read_text())
    assert (streamed.returncode, "line 21: the id 'c0' is not unique" in streamed.stderr) == (1, True)
    assert client.models(model) == []

    kept = graft_command(server, "adapt", model, str(data), "--id", "id", "--id-repeats", "keep", "--json")
    result = json.loads(kept.stdout)
    assert result["report"]["examples"] == 20
    assert "20 rows were left out: an earlier row has their id" in result["notes"]
    replaced = graft_command(
        server,
        "adapt",
        model,
        "-",
        "--id",
        "id",
        "--id-repeats",
        "replace",
        "--replace",
        stdin=data.read_text(),
    )
    assert "20 examples were replaced by later ones with the same id and another input" in replaced.stdout


def test_a_person_is_asked_about_an_id_column_that_is_not_unique(server, client, model, tmp_path):
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of_customers()))
    person, terminal = pty.openpty()
    line = [
        sys.executable,
        "-m",
        "graft.cli",
        "adapt",
        model,
        str(data),
        "--server",
        server.target,
        "--id",
        "id",
    ]
    os.write(person, b"n\n")  # no id
    with subprocess.Popen(
        [*line, "--json"], stdin=terminal, stderr=terminal, stdout=subprocess.PIPE
    ) as command:
        os.close(terminal)
        seen = threading.Thread(target=drained, args=(person,))
        seen.start()
        assert command.stdout is not None
        result = json.loads(command.stdout.read())
        seen.join()
    os.close(person)
    assert (command.returncode, result["report"]["examples"]) == (0, 40)


def drained(terminal: int) -> None:
    """Reads what is shown until the command ends: a terminal that nobody reads from holds it up."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_missing_and_odd_labels_of_a_file_are_counted_said_and_refused_alone(server, model, tmp_path):
    rows: list[dict[str, Any]] = [{"text": "no key"}, {"text": "null", "label": None}]
    rows += [{"text": text, "label": label} for text, label in pairs(["lock", "LOCK", "bill", "nan"])]
    rows += [{"text": "nothing to see", "label": "\u200b"}, {"text": "nested", "label": [["lock"]]}]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    checked = graft_command(server, "adapt", model, str(data), "--check")
    assert "note: 2 of 44 rows have no 'label': they count as unlabelled" in checked.stderr
    assert "labels differ only by case" in checked.stderr
    assert "'LOCK' (10) and 'lock' (10)" in checked.stderr
    adapted = graft_command(server, "adapt", model, str(data), "--merge-labels")
    assert "2 unlabelled examples" in adapted.stdout
    assert "merged labels: 'lock' (10) into 'LOCK'" in adapted.stderr
    assert "line 43: the label is '\\u200b', which has invisible characters alone" in adapted.stderr
    assert "line 44: column 'label': a label must be a text" in adapted.stderr


def test_several_labels_with_commas_go_through_lines_and_back(server, client, model, tmp_path):
    sets = [["Locks, keys"], ["Bills, invoices"], ["Bills, invoices", "Locks, keys"], []]
    client.adapt(model, pairs([set(labels) for labels in sets]))
    lines = graft_command(server, "predict", model, *TEXTS).stdout.splitlines()
    assert [sorted(json.loads(line.split("\t")[0])) for line in lines] == sets
    data = tmp_path / "answers.tsv"
    data.write_text("\n".join(["labels\tsure\ttext", *lines * 5]) + "\n")
    told = graft_command(
        server, "adapt", f"{model}-again", str(data), "--label", "labels", "--label-separator", ",", "--json"
    )
    assert json.loads(told.stdout)["report"]["classes"] == 2
