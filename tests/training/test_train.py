"""The training job: from stored examples and features to the parts of a version."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import FaultError, StateError
from graft_server.domain.examples import Change, Example, Input, Label, Split, Task
from graft_server.domain.report import EvaluationMethod, summary_of
from graft_server.heads import decode
from graft_server.heads.graph import to_onnx
from graft_server.heads.graph_parity import check_parity
from graft_server.jobs.job import Place
from graft_server.store.adaptations.generations import original_name
from graft_server.store.adaptations.keys import features_key
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.versions import read_manifest, read_part
from graft_server.store.objects.formats import stamped
from graft_server.store.objects.objects import Objects
from graft_server.training import train as train_module
from graft_server.training.contract import Trained, Training
from graft_server.training.reporting.truncation import with_truncated_of
from graft_server.training.train import train

ENCODER = "0" * 32
DIMENSION = 24
CENTRES = np.random.default_rng(5).normal(size=(8, DIMENSION))


def example(i, label, text=None, **settings):
    return Example(f"id-{i}", Input(text or f"text {i}"), label, **settings)


def clusters(count=60, labels=("ask", "buy", "complain")):
    return [example(i, labels[i % len(labels)]) for i in range(count)]


def features(examples, seed=0):
    """Unit-norm rows around a centre of their label's own: what an encoder that suits the task would give."""
    noise = np.random.default_rng(seed).normal(size=(len(examples), DIMENSION))
    centres = np.array([CENTRES[sum(map(ord, it.label or "")) % len(CENTRES)] for it in examples])
    rows = centres + 0.7 * noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def teach(tmp_path):
    """Stores examples, one segment a writer, and returns the job's payload."""
    location = str(tmp_path / "store")
    objects = Objects.open(location)

    def teach(*writers, rows=None, without_features=False, truncated=(), **settings):
        start = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
        store = AdaptationStore.create(objects, "team/m", "job", start)
        watermarks = {}
        for ordinal, examples in enumerate(writers):
            records = [Record(content_digest(it.id.encode()), Change(it)) for it in examples]
            segment = store.writer(f"w{ordinal}").append(records)
            watermarks[f"w{ordinal}"] = segment.next_sequence
            if examples and not without_features:
                pooled = features(examples, ordinal) if rows is None else rows
                cut = np.isin([it.id for it in examples], truncated)
                store.write_features(segment, ENCODER, {"pooled": pooled}, cut)
        payload = {
            "model": "team/m",
            "adaptation_id": "job",
            "commit_id": "one",
            "backbone": "minilm",
            "encoder_id": ENCODER,
            "sources": [{"adaptation_id": "job", "watermarks": watermarks}],
            "labels": [],
            "closed_labels": False,
            "seed": 3,
            **settings,
        }
        return msgspec.convert(payload, Training)

    teach.objects = objects
    teach.place = Place(store=location)
    return teach


def skewed(graph):
    """The graph of a head with another bias."""
    model = onnx.load_model_from_string(graph)
    bias = next(it for it in model.graph.initializer if "bias" in it.name)
    values = numpy_helper.to_array(bias)
    skew = np.linspace(0, 0.05, len(values), dtype=np.float32)
    bias.CopyFrom(numpy_helper.from_array(values + skew, bias.name))
    return model.SerializeToString()


def silent(progress):
    pass


def test_a_version_reads_back_whole(teach):
    stages = []
    result = train(teach(clusters()), teach.place, stages.append)
    ref = result.manifest
    manifest = read_manifest(teach.objects, ref)
    assert (manifest.model, manifest.adaptation_id, manifest.commit_id) == ("team/m", "job", "one")
    assert (manifest.backbone, manifest.encoder_id, manifest.seed) == ("minilm", ENCODER, 3)
    assert [it.watermarks for it in manifest.sources] == [{"w0": 60}]
    assert [it.name for it in manifest.labels] == ["ask", "buy", "complain"]
    head = decode(read_part(teach.objects, ref, manifest, "head.bin"))
    assert (head.view, head.classes) == ("pooled", 3)
    probabilities = head.scores(features(clusters()).astype(np.float32)).probabilities
    assert (probabilities.argmax(axis=1) == np.arange(60) % 3).mean() > 0.95
    assert read_part(teach.objects, ref, manifest, "head.onnx") == to_onnx(head)
    assert read_part(teach.objects, ref, manifest, "report.json") == stamped(result.report)
    fractions = [it.fraction for it in stages]
    assert list(dict.fromkeys(it.stage for it in stages)) == [
        *("reading", "checking", "selecting", "fitting", "measuring", "publishing"),
    ]
    tried = [it for it in stages if it.stage == "selecting"]
    assert {it.unit for it in tried} == {"candidates"}
    assert tried[-1].done == tried[-1].total > 5
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)


def test_the_report_says_what_was_trained_and_the_summary_leaves_its_lists_out(teach):
    result = train(teach(clusters()), teach.place, silent)
    report = result.report
    assert (report.examples, report.classes, report.method) == (60, 3, "frozen")
    assert (report.backbone, report.encoder_id, report.seed) == ("minilm", ENCODER, 3)
    assert report.accuracy > 0.9
    assert report.trained_time_s > 1.7e9
    assert report.training_duration_s > 0
    summary = summary_of(report)
    assert (summary.per_class, summary.confusions, summary.head.candidates) == ((), (), ())
    assert (summary.examples, summary.accuracy) == (report.examples, report.accuracy)
    sent = msgspec.msgpack.encode(result)  # by a worker
    assert msgspec.msgpack.decode(sent, type=Trained) == result


def test_examples_that_are_longer_than_the_backbone_reads_are_counted_by_class_with_what_helps(teach):
    examples = clusters()
    held_out = [example(100, "ask", split=Split.VALIDATION), example(101, "buy", split=Split.VALIDATION)]
    cut = [f"id-{i}" for i in (0, 3, 6, 9, 1, 100)]
    payload = teach([*examples, *held_out], truncated=cut, longest_input="256 tokens")
    report = train(payload, teach.place, silent).report
    assert report.truncated_examples == 5  # what is held out was not trained on
    assert {it.label: it.truncated for it in report.per_class} == {"ask": 4, "buy": 1, "complain": 0}
    (said,) = [it for it in report.warnings if "longer than" in it]
    assert "5 of 60 training examples are longer than the 256 tokens" in said
    assert "(ask 4 of 20, buy 1 of 20)" in said
    assert "shorten or split" in said
    assert summary_of(report).truncated_examples == 5


def test_examples_that_are_all_too_long_are_said_to_be(teach):
    payload = teach(clusters(), truncated=[f"id-{i}" for i in range(60)], longest_input="30 s")
    report = train(payload, teach.place, silent).report
    (said,) = [it for it in report.warnings if "longer than" in it]
    assert said.startswith(
        "All 60 training examples are longer than the 30 s that the backbone reads, so their"
    )
    assert "of 20" not in said


def test_a_tuned_versions_report_counts_the_same_examples_as_too_long(teach):
    frozen = train(teach(clusters(), truncated=["id-0", "id-1"]), teach.place, silent).report
    tuned = replace(
        frozen, truncated_examples=0, per_class=tuple(replace(it, truncated=0) for it in frozen.per_class)
    )
    assert with_truncated_of(tuned, frozen) == frozen


def test_each_label_of_an_example_that_is_too_long_counts_it(teach):
    several = [
        Example(f"id-{i}", Input(f"text {i}"), label_set=(("a", "b"), ("b",), ("c",))[i % 3])
        for i in range(60)
    ]
    payload = teach(several, truncated=["id-0", "id-1", "id-2", "id-3"], task=Task.MULTI_LABEL)
    report = train(payload, teach.place, silent).report
    assert report.truncated_examples == 4
    assert {it.label: it.truncated for it in report.per_class} == {"a": 2, "b": 3, "c": 1}


def test_values_of_inputs_that_are_too_long_are_counted(teach):
    values = [Example(f"id-{i}", Input(f"text {i}"), value=float(i)) for i in range(60)]
    report = train(teach(values, truncated=["id-7"], task=Task.REGRESSION), teach.place, silent).report
    assert report.truncated_examples == 1
    assert any("1 of 60 training examples are longer" in it for it in report.warnings)


def test_the_same_commit_trained_twice_gives_the_same_head_under_another_name(teach):
    payload = teach(clusters())
    first, second = (train(payload, teach.place, silent).manifest for _ in range(2))
    assert first.key != second.key
    parts = [read_manifest(teach.objects, ref).parts for ref in (first, second)]
    assert parts[0]["head.bin"] == parts[1]["head.bin"]
    assert parts[0]["head.onnx"] == parts[1]["head.onnx"]


def test_declared_labels_come_first_and_seen_ones_follow_sorted(teach):
    labels = [{"name": "never", "description": "not seen"}, {"name": "buy", "description": "wants to buy"}]
    result = train(teach(clusters(), labels=labels), teach.place, silent)
    manifest = read_manifest(teach.objects, result.manifest)
    assert manifest.labels == (
        Label("never", "not seen"),
        Label("buy", "wants to buy"),
        Label("ask"),
        Label("complain"),
    )


def test_of_a_closed_set_other_labels_are_left_out_with_a_warning(teach):
    labels = [{"name": "ask"}, {"name": "buy"}]
    result = train(teach(clusters(), labels=labels, closed_labels=True), teach.place, silent)
    report = result.report
    assert (report.classes, report.examples) == (2, 40)
    assert "20 examples were left out: their labels are not among the closed ones." in report.warnings


def test_unlabelled_examples_are_left_out_with_a_warning(teach):
    result = train(teach([*clusters(), example(60, None), example(61, None)]), teach.place, silent)
    report = result.report
    assert (report.classes, report.examples) == (3, 60)
    assert "2 examples were left out: they have no label." in report.warnings
    assert report.data.unlabelled_examples == report.unlabelled.examples == 2
    assert (report.unlabelled.used, report.unlabelled.kept) == (0, False)


def test_unlabelled_examples_are_tried_without_copies_and_the_report_says_what_came_of_it(teach):
    labelled = clusters(12)
    unlabelled = [example(i, None) for i in range(100, 250)]
    # A copy of a labelled input, two copies of one text, and one that does not count.
    unlabelled += [
        example(300, None, "Text 3!"),
        example(301, None, "text 249"),
        example(302, None, weight=0.0),
    ]
    rows = features([*labelled, *clusters(153)])
    report = train(teach([*labelled, *unlabelled], rows=rows), teach.place, silent).report
    assert (report.unlabelled.examples, report.unlabelled.used) == (153, 150)
    assert report.examples == 12
    said = [it for it in report.warnings if "they have no label" in it]
    if report.unlabelled.kept:
        assert report.head.kind.endswith("+self-trained")
        assert said == []
    else:
        assert said == ["153 examples were left out: they have no label, and did not make the head better."]


def test_an_examples_label_is_all_that_several_labels_and_values_learn_from(teach):
    unlabelled = [example(i, None) for i in range(100, 250)]
    values = [Example(f"id-{i}", Input(f"text {i}"), value=float(i)) for i in range(60)]
    report = train(teach([*values, *unlabelled], task=Task.REGRESSION), teach.place, silent).report
    assert (report.unlabelled.examples, report.unlabelled.used, report.unlabelled.kept) == (150, 0, False)
    assert "150 examples were left out: they have no value." in report.warnings


def test_labels_that_a_person_reads_as_one_are_asked_about_and_stay_apart(teach):
    rows = [example(i, ("ask", "Ask", "buy")[i % 3]) for i in range(60)]
    report = train(teach(rows, labels=[{"name": "BUY"}]), teach.place, silent).report
    assert [[(it.label, it.examples) for it in group.labels] for group in report.data.similar_labels] == [
        [("Ask", 20), ("ask", 20)],
        [("buy", 20), ("BUY", 0)],
    ]
    (warning,) = [it for it in report.warnings if it.startswith("Labels differ only by case")]
    assert "'Ask' (20) and 'ask' (20); 'buy' (20) and 'BUY' (0)" in warning
    assert {it.label for it in report.per_class} == {"ask", "Ask", "buy", "BUY"}


def test_labels_that_look_like_lists_are_warned_of(teach):
    report = train(
        teach(clusters(labels=("['ask', 'buy']", "['buy']", "(other)"))), teach.place, silent
    ).report
    (warning,) = [it for it in report.warnings if "look like lists" in it]
    assert warning.startswith(
        "2 labels look like lists of labels, such as ['ask', 'buy']: each counts as one label"
    )


def test_labels_that_differ_are_not_asked_about(teach):
    report = train(teach(clusters(labels=("C", "C++", "C#"))), teach.place, silent).report
    assert report.data.similar_labels == ()
    assert not any("differ only" in it for it in report.warnings)


def test_examples_that_lost_their_id_to_another_input_are_counted(teach):
    again = [example(i, "buy", f"another text {i}") for i in range(7)]
    same = [example(i, "ask") for i in range(10, 15)]
    report = train(teach([*clusters(), *again, *same]), teach.place, silent).report
    (warning,) = [it for it in report.warnings if "same id" in it]
    assert warning.startswith("7 examples were replaced by later ones with the same id and another input")


def test_a_label_that_is_corrected_is_no_replacement_to_warn_of(teach):
    report = train(teach([*clusters(), example(0, "buy")]), teach.place, silent).report
    assert not any("same id" in it for it in report.warnings)


def test_validation_examples_are_what_the_figures_are_measured_on(teach):
    held_out = [example(100 + i, ("ask", "buy")[i % 2], split=Split.VALIDATION) for i in range(10)]
    report = train(teach(clusters(), held_out), teach.place, silent).report
    assert (report.examples, report.validation_examples) == (60, 10)
    assert report.evaluation.method is EvaluationMethod.HELD_OUT


def test_examples_of_one_group_are_bound_together_and_those_without_are_not(teach):
    grouped = [example(i, ("ask", "buy")[i % 2], group="one") for i in range(10)]
    with pytest.raises(StateError, match="one group") as raised:
        train(teach(grouped), teach.place, silent)
    assert raised.value.reason == "TOO_FEW_EXAMPLES"


def test_a_label_in_another_writers_stream_replaces_the_first(teach):
    result = train(teach(clusters(), [example(0, "buy")]), teach.place, silent)
    report = result.report
    assert [(it.label, it.examples) for it in report.per_class] == [
        ("ask", 19),
        ("buy", 21),
        ("complain", 20),
    ]


def test_identical_features_still_agree_with_their_graph(teach):
    rows = np.full((60, DIMENSION), DIMENSION**-0.5, np.float16)
    report = train(teach(clusters(), rows=rows), teach.place, silent).report
    assert any("same features" in it for it in report.warnings)


@pytest.mark.parametrize(
    ("examples", "settings", "message"),
    [
        ([], {}, "no example came in"),
        ([example(0, None)], {}, "none of the 1 examples carries a label"),
        ([example(0, "a")], {"labels": [{"name": "b"}], "closed_labels": True}, "a label of the closed set"),
        ([example(i, "only") for i in range(5)], {}, "at least 2 are needed"),
    ],
)
def test_too_few_classes_are_refused_and_the_message_says_what_was_found(teach, examples, settings, message):
    with pytest.raises(StateError, match=message) as raised:
        train(teach(examples, **settings), teach.place, silent)
    assert raised.value.reason == "TOO_FEW_CLASSES"
    assert int(raised.value.metadata["classes"]) < 2
    assert not any("/versions/" in key for key in teach.objects.keys("models/team/m/_/"))


def test_missing_features_are_named(teach):
    with pytest.raises(FaultError) as raised:
        train(teach(clusters(), without_features=True), teach.place, silent)
    assert raised.value.reason == "FEATURES_MISSING"
    assert raised.value.metadata["object"] == features_key("team/m", "job", ENCODER, "w0", original_name(0))


def test_a_graph_that_does_not_agree_with_its_head_is_refused_and_nothing_is_written(teach, monkeypatch):
    monkeypatch.setattr(train_module, "to_onnx", lambda head: skewed(to_onnx(head)))
    with pytest.raises(FaultError, match="does not agree") as raised:
        train(teach(clusters()), teach.place, silent)
    assert raised.value.reason == "HEAD_PARITY"
    assert not any("/versions/" in key for key in teach.objects.keys("models/team/m/_/"))


def test_rows_that_are_not_finite_do_not_make_parity_fail(teach):
    result = train(teach(clusters()), teach.place, silent)
    ref = result.manifest
    head = decode(read_part(teach.objects, ref, read_manifest(teach.objects, ref), "head.bin"))
    rows = features(clusters())
    rows[3] = np.nan
    check_parity(head, to_onnx(head), rows)


def test_the_job_imports_neither_torch_nor_grpc(teach):
    code = (
        "import msgspec, sys\n"
        "from graft_server.jobs.job import Place\n"
        "from graft_server.training.contract import Training\n"
        "from graft_server.training.train import train\n"
        "payload = msgspec.json.decode(sys.argv[1], type=Training)\n"
        "train(payload, Place(store=sys.argv[2]), lambda progress: None)\n"
        "print(sorted({'torch', 'transformers', 'grpc'} & set(sys.modules)))"
    )
    payload = msgspec.json.encode(teach(clusters())).decode()
    done = subprocess.run(
        [sys.executable, "-c", code, payload, teach.place.store],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
