"""Whether a version on a reduced encoder may be published, with the real encoder in both precisions."""

import csv
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.reducing import to_int8
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import BackboneError, StateError
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import Source
from graft_server.encoding.encoder import Encoder
from graft_server.jobs.job import Place
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects
from graft_server.training import reduced_precision
from graft_server.training.contract import Training
from graft_server.training.reduced_precision import Reference, admit, reference_at
from graft_server.training.train import train

EXAMPLES = Path(__file__).parents[2] / "examples" / "intents" / "train.csv"


@pytest.fixture(scope="module")
def reference(encoder_cache, backbone):
    graph = EncoderCache(encoder_cache).graph(backbone.encoder_id)
    return Reference(graph, backbone, "int8")


@pytest.fixture(scope="module")
def pairs():
    with EXAMPLES.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["intent"]) for row in csv.DictReader(file)][:160]


@pytest.fixture(scope="module")
def features(reference, pairs, tokenizer, tmp_path_factory):
    """The texts' features in int8, in batches as a server would make them."""
    path = tmp_path_factory.mktemp("int8") / "encoder.onnx"
    to_int8(Path(reference.graph), path)
    encoder = Encoder(path, device="cpu", threads=1)
    tokens = [it.item for it in tokenizer.many([text for text, _ in pairs])]
    batches = [encoder.encode(tokens[start : start + 10]) for start in range(0, len(tokens), 10)]
    return {
        view: np.concatenate([batch[view] for batch in batches]).astype(np.float16) for view in encoder.views
    }


@pytest.fixture
def training_set(make_set, pairs, features):
    classes = sorted({label for _, label in pairs})
    labels = np.array([classes.index(label) for _, label in pairs], np.int32)
    made = make_set([1] * len(pairs))
    return replace(
        made, classes=tuple(classes), descriptions=("",) * len(classes), labels=labels, features=features
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def noisy(training_set):
    """Features that a bad precision would leave."""
    noise = np.random.default_rng(0).standard_normal(training_set.features["pooled"].shape) * 0.05
    worse = {view: unit(array + noise).astype(np.float16) for view, array in training_set.features.items()}
    return replace(training_set, features=worse)


def test_int8_is_admitted_where_it_costs_little_and_the_sentence_says_what(training_set, pairs, reference):
    inputs = [Input(text) for text, _ in pairs]
    sentence = admit(training_set, inputs, "pooled", reference, seed=1)
    assert sentence.startswith("The encoder computes in int8: out of fold, on 160 examples, ")
    assert "mean cosine is 0.99" in sentence
    assert sentence == admit(training_set, inputs, "pooled", reference, seed=1)


@pytest.mark.parametrize("view", ["pooled", "pooled+layer3"])
def test_a_version_is_refused_with_the_figures_and_the_remedy(training_set, pairs, reference, view):
    with pytest.raises(StateError) as raised:
        admit(noisy(training_set), [Input(text) for text, _ in pairs], view, reference, seed=1)
    error = raised.value
    assert error.reason == "PRECISION_LOSS"
    assert "--precision fp32" in error.message
    found = {name: float(value) for name, value in error.metadata.items() if name != "precision"}
    assert found["examples"] == 160
    assert found["fp32_accuracy"] - found["accuracy"] > reduced_precision.MAX_LOSS
    assert found["cosine"] < 0.9
    assert 0 < found["agreement"] < 1


def test_the_same_features_lose_nothing(training_set, pairs, reference):
    texts = [Input(text) for text, _ in pairs]
    exact = {
        view: array.astype(np.float16)
        for view, array in reduced_precision._features(texts, reference).items()
    }
    examples = reduced_precision.examples_of(training_set, np.arange(len(texts)), 0)
    same = reduced_precision.examples_of(replace(training_set, features=exact), np.arange(len(texts)), 0)
    drift = reduced_precision.compare([same], exact, "pooled")
    assert drift.loss == 0
    assert drift.agreement == 1
    assert drift.cosine == pytest.approx(1, abs=1e-3)
    assert reduced_precision.compare([examples], exact, "pooled").cosine < drift.cosine


@pytest.mark.parametrize(
    ("only_reference", "only_reduced", "admissible"),
    [(0, 0, True), (3, 0, True), (6, 0, False), (9, 5, True), (14, 2, False), (2, 5, True)],
)
def test_a_loss_on_few_examples_counts_where_it_is_no_chance(only_reference, only_reduced, admissible):
    lost = np.repeat([1.0, -1.0, 0.0], [only_reference, only_reduced, 160 - only_reference - only_reduced])
    least = reduced_precision._least_loss(lost, np.ones(160))
    drift = reduced_precision.Drift(160, 0.9 - float(lost.mean()), 0.9, 0.95, 0.99, least)
    assert drift.admissible is admissible
    assert least < drift.loss


def test_predicting_examples_several_times_makes_no_loss_more_certain():
    lost = np.repeat([1.0, 0.0], [5, 155])
    once = reduced_precision._least_loss(lost, np.ones(160))
    assert reduced_precision._least_loss(5 * lost, np.full(160, 5.0)) == pytest.approx(once)


@pytest.mark.parametrize(
    ("accuracy", "end"), [(0.898, "0.990."), (0.89, "cannot tell the difference from chance.")]
)
def test_a_loss_that_may_be_chance_is_said_to_be(accuracy, end):
    assert reduced_precision.Drift(160, accuracy, 0.9, 0.95, 0.99, -0.01).sentence("int8").endswith(end)


def test_a_large_set_is_sampled_with_each_class_in_its_share(make_set):
    train_set = make_set([4000, 2000, 30])
    validation = np.arange(len(train_set)) % 4 == 0
    sample = reduced_precision._sample(
        replace(train_set, validation=validation), np.ones(len(train_set), bool), seed=1
    )
    assert len(sample) == len(set(sample)) == reduced_precision.EXAMPLES
    assert not validation[sample].any()
    counts = np.bincount(train_set.labels[sample])
    np.testing.assert_allclose(counts, np.array([4000, 2000, 30]) / 6030 * 2000, atol=1)


@pytest.fixture(scope="module")
def int8():
    """The default backbone, as a server that computes in int8 has it."""
    return open_backbone(DEFAULT_NAME, DEFAULT_SOURCE, precision="int8")


@pytest.fixture
def place(encoder_cache, tmp_path):
    """Where the server's workers run."""
    return Place(str(tmp_path / "store"), str(encoder_cache), {DEFAULT_NAME: DEFAULT_SOURCE}, "int8")


def test_a_fp32_graph_that_is_gone_is_said(place, int8, tmp_path):
    with pytest.raises(BackboneError, match="in float32, which a reduced precision is compared") as raised:
        reference_at(replace(place, cache=str(tmp_path / "empty")), int8.name, int8.encoder_id)
    assert raised.value.reason == "ENCODER_NOT_CACHED"
    assert raised.value.metadata == {"encoder_id": int8.reference_id}


def test_a_backbone_that_is_another_one_where_the_job_runs_is_refused(place, int8):
    with pytest.raises(BackboneError, match="is another one where the job runs") as raised:
        reference_at(replace(place, precision="fp32"), int8.name, int8.encoder_id)
    assert raised.value.reason == "ENCODER_MISMATCH"
    with pytest.raises(BackboneError, match="there are: none") as raised:
        reference_at(replace(place, backbones={}), int8.name, int8.encoder_id)
    assert raised.value.reason == "BACKBONE_NOT_CONFIGURED"


@pytest.fixture
def payload(place, pairs, int8):
    """Stores examples with features, and returns the training job's payload."""

    def make(features):
        start = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
        store = AdaptationStore.create(Objects.open(place.store), "team/m", "job", start)
        examples = [Example(f"id-{i}", Input(text), label) for i, (text, label) in enumerate(pairs)]
        records = [Record(content_digest(it.id.encode()), Change(it)) for it in examples]
        segment = store.writer("w").append(records)
        store.write_features(segment, int8.encoder_id, features)
        return Training(
            model="team/m",
            adaptation_id="job",
            commit_id="one",
            backbone=int8.name,
            encoder_id=int8.encoder_id,
            reduced=True,
            sources=(Source("job", {"w": segment.next_sequence}),),
        )

    return make


def test_the_training_job_compares_and_reports(payload, place, features):
    stages = []
    result = train(payload(features), place, lambda report: stages.append(report.stage))
    assert "comparing" in stages
    assert any(it.startswith("The encoder computes in int8") for it in result.report.warnings)


def test_the_training_job_publishes_nothing_that_lost_too_much(payload, place, training_set):
    with pytest.raises(StateError) as raised:
        train(payload(noisy(training_set).features), place, lambda _: None)
    assert raised.value.reason == "PRECISION_LOSS"
