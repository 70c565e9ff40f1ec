"""A composed bundle against what is served, run as its user runs it."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from graft_server.domain.errors import BackboneError, CorruptError, FaultError
from graft_server.exporting.bundle import compose, with_nulls
from graft_server.exporting.bundle_graph import oldest_ir
from graft_server.exporting.parity import PROBES, probes
from graft_server.exporting.runner.text import Classifier
from graft_server.heads import decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.store.catalogue.versions import read_manifest, read_part, write_version
from graft_server.store.handover import Handover
from graft_server.store.objects.objects import Objects

QUESTIONS = ["where is my money", "I lost something", "?", "hello " * 700, "größer als 10 € 🙂"]
ISOLATED = (
    "import importlib.util, json, sys\n"
    "spec = importlib.util.spec_from_file_location('predict', sys.argv[1])\n"
    "bundle = importlib.util.module_from_spec(spec)\n"
    "spec.loader.exec_module(bundle)\n"
    "answers = bundle.predict(json.loads(sys.argv[2]))\n"
    "found = sorted({name.partition('.')[0] for name in sys.modules})\n"
    "print(json.dumps([[it._asdict() for it in answers], found]))"
)


def composed(payload, place, name="another"):
    """Where a bundle is, and its files."""
    folder = f"handed-over/{name}/"
    files = compose(replace(payload, folder=folder), place, silent).files
    return Path(place.cache) / folder, files


@pytest.fixture(scope="session")
def bundle(payload, place):
    return composed(payload, place, "new")


@pytest.fixture(scope="session")
def served(payload, place, encoder, tokenizer):
    """Answers of what is served, one text at a time."""
    _, _, manifest, head = opened(payload, place)

    def served(texts):
        features = [encoder.encode([tokenizer(text).item])[head.view] for text in texts]
        return head.scores(np.concatenate(features)), [it.name for it in manifest.labels]

    return served


def silent(progress):
    pass


def opened(payload, place):
    objects, ref = Objects.open(place.store), payload.manifest
    manifest = read_manifest(objects, ref)
    return objects, ref, manifest, decode(read_part(objects, ref, manifest, "head.bin"))


def skewed(graph):
    """The graph of a head with another bias."""
    model = onnx.load_model_from_string(graph)
    bias = next(it for it in model.graph.initializer if "bias" in it.name)
    values = numpy_helper.to_array(bias)
    skew = np.linspace(0, 0.05, len(values), dtype=np.float32)
    bias.CopyFrom(numpy_helper.from_array(values + skew, bias.name))
    return model.SerializeToString()


def republished(payload, place, head=None, graph=None, **changes):
    """The payload of a version with another head or another graph, whose digests are in order."""
    objects, ref, manifest, old = opened(payload, place)
    parts = {
        "head.bin": encode(head or old),
        "head.onnx": graph or to_onnx(head or old),
        "report.json": read_part(objects, ref, manifest, "report.json"),
    }
    written = write_version(objects, replace(manifest, **changes), parts)
    return replace(payload, manifest=written)


def test_the_files_are_named_with_their_digests(bundle, payload, place):
    target, files = bundle
    assert {it.path for it in files} == {
        "model.onnx",
        *(["head.onnx"] if opened(payload, place)[3].view == "pooled" else []),
        "labels.json",
        "tokenizer.json",
        "preprocessing.json",
        "report.json",
        "predict.py",
        "README.md",
    }
    assert {it.name for it in target.iterdir()} == {it.path for it in files}
    for it in files:
        data = (target / it.path).read_bytes()
        assert (it.size, it.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_one_graph_goes_from_token_ids_to_probabilities(bundle):
    model = onnx.load(bundle[0] / "model.onnx")
    shapes = {
        it.name: [dim.dim_param or dim.dim_value for dim in it.type.tensor_type.shape.dim]
        for it in (*model.graph.input, *model.graph.output)
    }
    classes = len(json.loads((bundle[0] / "labels.json").read_text()))
    assert shapes == {
        "input_ids": ["batch", "length"],
        "attention_mask": ["batch", "length"],
        "probabilities": ["batch", classes],
        "novelty": ["batch"],
        "features": ["batch", 384],
    }
    assert not any(it.data_location == onnx.TensorProto.EXTERNAL for it in model.graph.initializer)
    # The exporter notes source lines, with paths of its machine.
    assert b"stack_trace" not in (bundle[0] / "model.onnx").read_bytes()


def test_the_settings_are_what_is_served(bundle, backbone):
    settings = json.loads((bundle[0] / "preprocessing.json").read_text())
    assert settings["inputs"] == ["input_ids", "attention_mask"]
    assert (settings["max_tokens"], settings["pooling"]) == (256, "mean")
    assert (settings["model"], settings["version"]) == ("shop/intents", 4)
    assert settings["encoder_id"] == backbone.encoder_id
    tokenizer = json.loads((bundle[0] / "tokenizer.json").read_text())
    assert tokenizer["padding"] is None
    assert tokenizer["truncation"]["max_length"] == 256
    assert json.loads((bundle[0] / "report.json").read_text())["examples"] == 122


def test_mixed_lengths_in_one_padded_batch_get_the_served_answers(bundle, served, texts):
    some = [text for text, _ in texts[:20]] + QUESTIONS
    classifier = Classifier(bundle[0])
    outputs = classifier.run(classifier.tokenize(some))
    probabilities, novelty, features = (outputs[it] for it in ("probabilities", "novelty", "features"))
    output, labels = served(some)
    assert classifier.labels == labels
    assert np.abs(probabilities - output.probabilities).max() < 1e-4
    assert np.abs(novelty - output.novelty).max() < 1e-3
    assert np.abs(np.linalg.norm(features, axis=1) - 1).max() < 1e-4


def test_every_graph_is_for_runtimes_from_1_17_on_also_where_the_stored_head_is_newer(bundle, payload, place):
    objects, ref, manifest, _ = opened(payload, place)
    newer = onnx.load_model_from_string(read_part(objects, ref, manifest, "head.onnx"))
    newer.ir_version = 10
    again = republished(payload, place, graph=newer.SerializeToString())
    for folder in (bundle[0], composed(again, place)[0]):
        for path in folder.glob("*.onnx"):
            model = onnx.load(str(path), load_external_data=False)
            assert (model.ir_version, [(it.domain, it.version) for it in model.opset_import]) == (
                8,
                [("", 18)],
            ), path


@pytest.mark.parametrize(
    ("kind", "least"), [("FLOAT", 8), ("FLOAT16", 8), ("FLOAT8E4M3FN", 9), ("INT4", 10), ("INT2", 13)]
)
def test_the_types_of_elements_decide_how_old_a_runtime_may_be(kind, least):
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.DataType.Value(kind), dims=[1])
    graph = onnx.GraphProto(name="g", initializer=[weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    assert oldest_ir(model) >= least
    assert oldest_ir(model) == least or kind == "INT2"


def test_padding_beyond_the_longest_text_changes_nothing(bundle):
    session = onnxruntime.InferenceSession(bundle[0] / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([[101, 2073, 2003, 102], [101, 7592, 102, 0]])
    mask = (ids > 0).astype(np.int64)
    tight = session.run(None, {"input_ids": ids, "attention_mask": mask})
    wide = [np.pad(it, ((0, 0), (0, 9)), constant_values=fill) for it, fill in ((ids, 77), (mask, 0))]
    padded = session.run(None, {"input_ids": wide[0], "attention_mask": wide[1]})
    for one, other in zip(tight, padded, strict=True):
        assert np.abs(one - other).max() < 1e-5


def test_the_bundle_cuts_and_tokenizes_as_the_server_does(bundle, tokenizer, texts):
    classifier = Classifier(bundle[0])
    for text in [*QUESTIONS, *(text for text, _ in texts[-2:]), " " * 20_000 + "far away"]:
        assert classifier.tokenize([text])[0] == tokenizer(text).item.tolist()


def test_the_sample_runner_needs_neither_torch_nor_this_server(bundle, served, tmp_path):
    moved = shutil.copytree(bundle[0], tmp_path / "elsewhere")
    command = [sys.executable, "-I", "-c", ISOLATED, str(moved / "predict.py"), json.dumps(QUESTIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    answers, modules = json.loads(done.stdout)
    assert not {"torch", "transformers", "onnx", "graft_server", "graft"} & set(modules)
    output, labels = served(QUESTIONS)
    for answer, probabilities, novelty in zip(answers, output.probabilities, output.novelty, strict=True):
        assert answer["label"] == labels[probabilities.argmax()]
        assert answer["probability"] == pytest.approx(probabilities.max(), abs=1e-4)
        assert sum(score for _, score in answer["scores"]) == pytest.approx(1, abs=1e-4)
        assert answer["abstained"] == (novelty > 0.95)


def test_the_sample_runner_prints_a_label_and_a_probability_a_text(bundle, served):
    command = [sys.executable, "-I", str(bundle[0] / "predict.py"), *QUESTIONS[:2]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd="/")
    output, labels = served(QUESTIONS[:2])
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [labels[i] for i in output.probabilities.argmax(axis=1)]
    assert [float(line[1]) for line in lines] == pytest.approx(output.probabilities.max(axis=1), abs=2e-4)
    assert [line[2] for line in lines] == QUESTIONS[:2]


def test_composing_again_gives_the_same_files(bundle, payload, place):
    assert composed(payload, place)[1] == bundle[1]


def test_the_probes_are_the_shortest_the_longest_and_the_closest(payload, place, texts, backbone):
    objects, _, manifest, head = opened(payload, place)
    chosen = [it.text for it in probes(objects, manifest, head, backbone.preprocessor())]
    assert len(set(chosen)) == PROBES
    by_length = sorted((text for text, _ in texts), key=len)
    assert {by_length[0], by_length[1], by_length[-2], by_length[-1]} <= set(chosen)


def test_a_graph_that_answers_otherwise_is_refused(payload, place):
    wrong = republished(payload, place, graph=skewed(to_onnx(opened(payload, place)[3])))
    with pytest.raises(FaultError, match="does not answer") as raised:
        composed(wrong, place)
    assert raised.value.reason == "BUNDLE_PARITY"


@pytest.mark.slow
@pytest.mark.slow
def test_a_version_whose_examples_are_gone_is_checked_on_random_tokens(payload, place):
    orphan = republished(payload, place, sources=())
    deleted = replace(opened(payload, place)[2].sources[0], adaptation_id="deleted")
    gone = republished(payload, place, sources=(deleted,))
    for case in (orphan, gone):
        assert composed(case, place)[1]
    wrong = republished(payload, place, graph=skewed(to_onnx(opened(payload, place)[3])), sources=())
    with pytest.raises(FaultError) as raised:
        composed(wrong, place)
    assert raised.value.reason == "BUNDLE_PARITY"


def test_a_flipped_head_part_is_refused(payload, place):
    published = republished(payload, place)
    objects, ref, manifest, _ = opened(published, place)
    key = ref.key.replace("manifest.json", "head.bin")
    data = bytearray(read_part(objects, ref, manifest, "head.bin"))
    data[len(data) // 2] ^= 1
    objects.delete([key])
    objects.create(key, bytes(data))
    with pytest.raises(CorruptError, match=r"head\.bin"):
        composed(published, place)


def test_a_head_whose_view_the_encoder_lacks_is_refused(payload, place):
    head = replace(opened(payload, place)[3], view="layer99")
    with pytest.raises(BackboneError, match="layer99") as raised:
        composed(republished(payload, place, head=head), place)
    assert raised.value.reason == "VIEW_MISSING"


def test_another_encoder_than_the_versions_is_refused(payload, place, tmp_path):
    with pytest.raises(BackboneError) as raised:
        composed(republished(payload, place, encoder_id="f" * 32), place)
    assert raised.value.reason == "ENCODER_MISMATCH"
    with pytest.raises(BackboneError) as raised:
        composed(payload, replace(place, cache=str(tmp_path / "empty")))
    assert raised.value.reason == "ENCODER_NOT_CACHED"


def test_the_job_imports_neither_torch_nor_grpc(payload, place):
    code = (
        "import msgspec, sys\n"
        "from graft_server.exporting.bundle import compose\n"
        "from graft_server.exporting.contract import Composing\n"
        "from graft_server.jobs.job import Place\n"
        "payload = msgspec.json.decode(sys.argv[1], type=Composing)\n"
        "compose(payload, msgspec.json.decode(sys.argv[2], type=Place), lambda progress: None)\n"
        "print(sorted({'torch', 'transformers', 'grpc'} & set(sys.modules)))"
    )
    given = [msgspec.json.encode(it).decode() for it in (replace(payload, folder="handed-over/x/"), place)]
    command = [sys.executable, "-c", code, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.slow
def test_a_bundle_that_is_wanted_in_another_cache_comes_by_way_of_the_store(bundle, payload, place, tmp_path):
    objects = Objects.open(place.store)
    mine = Handover(objects, tmp_path / "cache")
    folder = mine.new_folder()
    files = compose(replace(payload, folder=folder, cache=mine.identity()), place, silent).files
    assert files == bundle[1]
    assert not (Path(place.cache) / folder).exists()
    mine.take(folder, [it.path for it in files])
    for it in files:
        assert (mine.local(folder) / it.path).read_bytes() == (bundle[0] / it.path).read_bytes()
    assert not objects.keys(folder)
    mine.drop(folder)
    assert not mine.local(folder).exists()


def test_a_report_has_null_for_what_was_not_measured():
    stored = {
        "evaluation": {"method": "none"},
        **dict.fromkeys(("accuracy", "macro_f1", "log_loss", "calibration_error", "accuracy_low"), 0.0),
        "per_class": [{"label": "a", "support": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}],
    }
    shown = with_nulls(stored)
    assert {
        shown[it] for it in ("accuracy", "macro_f1", "log_loss", "calibration_error", "accuracy_low")
    } == {None}
    assert shown["per_class"] == [{"label": "a", "support": 0, "precision": None, "recall": None, "f1": None}]
    measured = {**stored, "evaluation": {"method": "held_out"}}
    measured["per_class"] = [{**stored["per_class"][0], "support": 2}]
    assert with_nulls(measured) == measured
