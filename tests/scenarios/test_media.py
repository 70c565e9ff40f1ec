"""Images and clips through the real server, on small backbones of every architecture, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from PIL import Image
from tests.backbones.kinds import CLIPS, IMAGES, TYPICAL, each, rare
from tests.conftest import check_for_older_runtimes

from graft.cli import main
from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE

RATE = 16_000
ISOLATED = """
import json, sys
sys.modules.update(graft=None, graft_server=None)  # from here on, importing either fails
sys.path.append(sys.argv[1])
from pathlib import Path
from predict import predict
answers = predict([Path(it) for it in sys.argv[2:]])
wrong = [it for it in ("torch", "transformers") if it in sys.modules]
print(json.dumps([[dict(it.scores) for it in answers], [it.novelty for it in answers], wrong]))
"""


def png(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def picture(label: str, seed: int) -> bytes:
    """Noise that is brighter in one colour."""
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 120, (40, 50, 3))
    values[:, :, ["red", "green", "blue"].index(label)] += 130
    return png(Image.fromarray(values.astype(np.uint8)))


def wav(samples: Any, rate: int = RATE, **options: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **options)
    return file.getvalue()


def sound(label: str, seed: int) -> bytes:
    """A hum, a hiss or a whistle, of 0.4 to 1.2 seconds."""
    generator = np.random.default_rng(seed)
    times = np.arange(int(RATE * generator.uniform(0.4, 1.2))) / RATE
    noise = generator.normal(0, 0.2 if label == "green" else 0.005, len(times))
    pitch = {"red": 150, "green": 0, "blue": 4_000}[label] * generator.uniform(0.95, 1.05)
    return wav(0.3 * np.sin(2 * np.pi * pitch * times) + noise)


def made(backbone: str, label: str, seed: int) -> types_pb2.Input:
    if backbone in IMAGES:
        return types_pb2.Input(image=picture(label, seed))
    return types_pb2.Input(audio=sound(label, seed))


def upserts(rows: list[tuple[types_pb2.Input, str]]) -> list[adaptation_pb2.ExampleChange]:
    examples = [types_pb2.Example(input=value, label=label) for value, label in rows]
    return [adaptation_pb2.ExampleChange(upsert=it) for it in examples]


def predicted(
    wire: Any, model: str, inputs: list[types_pb2.Input], **fields: Any
) -> list[prediction_pb2.Prediction]:
    request = prediction_pb2.PredictRequest(model=model, inputs=inputs, **fields)
    return list(wire.prediction.Predict(request, timeout=60).results)


def probabilities(result: prediction_pb2.Prediction) -> dict[str, float]:
    return {it.label: it.probability for it in result.single_label.scores}


TRANSFORMERS_SAYS = """
import json, sys
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
folder, labels, files = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPImageProcessorPil.from_pretrained(folder)
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
ids = torch.tensor([tokenizer.encode(f"a photo of a {it}.").ids for it in labels])
pixels = processor([Image.open(it) for it in files], return_tensors="pt")["pixel_values"]
with torch.no_grad():
    print(json.dumps(model(input_ids=ids, pixel_values=pixels).logits_per_image.softmax(1).tolist()))
"""


@pytest.fixture(scope="module")
def media(serving_many, media_checkpoints) -> Iterator[Any]:
    """One server with all of them, and the default text backbone."""
    names = (*IMAGES, *CLIPS)
    with serving_many({name: media_checkpoints / name for name in names}, on_use=rare(names)) as wire:
        yield wire


@pytest.fixture(scope="module")
def adapted(media) -> Callable[[str], str]:
    """Gives a model of three labels on a backbone, published once."""
    published: dict[str, str] = {}

    def adapt(backbone: str) -> str:
        if backbone not in published:
            labels = ("red", "green", "blue")
            rows = [(made(backbone, label, 10 * seed), label) for seed in range(10) for label in labels]
            published[backbone] = f"tests/{backbone}"
            result = media.publish(published[backbone], upserts(rows), backbone=backbone)
            assert result.summary.backbone == backbone
            assert result.summary.examples == len(rows)
        return published[backbone]

    return adapt


def test_backbones_are_described(media):
    listed = media.model.ListBackbones(model_pb2.ListBackbonesRequest()).backbones
    by_name = {it.name: it for it in listed}
    assert set(by_name) == {DEFAULT_NAME, *IMAGES, *CLIPS}
    for name, it in by_name.items():
        assert it.layers == it.unfreezable_layers > 1
        if name in (DEFAULT_NAME, *TYPICAL):
            assert it.state == model_pb2.BACKBONE_STATE_READY, name
            assert 0 < it.export_parity < 1e-4, name
    for name in IMAGES:
        assert by_name[name].modality == model_pb2.MODALITY_IMAGE
        assert "image" in by_name[name].input_kinds
    for name in CLIPS:
        assert by_name[name].modality == model_pb2.MODALITY_AUDIO
    dimensions = {name: it.feature_dimension for name, it in by_name.items()}
    assert dimensions["resnet"] == dimensions["dinov2"] == dimensions["whisper"] == 32
    assert dimensions["clip"] == dimensions["clip-vision"] == 16


@pytest.mark.parametrize("backbone", each([*IMAGES, *CLIPS]))
def test_a_backbone_is_adapted_and_served(media, adapted, backbone):
    labels = ("red", "green", "blue")
    inputs = [(made(backbone, label, 1_000 + seed), label) for seed in range(4) for label in labels]
    answers = predicted(media, adapted(backbone), [value for value, _ in inputs], include_features=True)
    right = [
        answer.single_label.scores[0].label == label
        for answer, (_, label) in zip(answers, inputs, strict=True)
    ]
    assert np.mean(right) >= 0.75, "random weights, but not random features"
    listed = media.model.ListBackbones(model_pb2.ListBackbonesRequest()).backbones
    (described,) = (it for it in listed if it.name == backbone)
    assert described.state == model_pb2.BACKBONE_STATE_READY
    assert 0 < described.export_parity < 1e-4
    for answer in answers:
        assert np.linalg.norm(answer.features) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("backbone", each([*IMAGES, *CLIPS]))
def test_an_input_is_answered_the_same_alone_and_in_company(media, adapted, backbone):
    inputs = [made(backbone, label, 50 + n) for n, label in enumerate(("red", "blue", "green", "blue"))]
    together = predicted(media, adapted(backbone), inputs, include_features=True)
    for value, company in zip(inputs, together, strict=True):
        (alone,) = predicted(media, adapted(backbone), [value], include_features=True)
        np.testing.assert_allclose(alone.features, company.features, atol=1e-5)


@pytest.mark.parametrize("backbone", each([*IMAGES, *CLIPS]))
def test_an_exported_bundle_runs_without_graft_and_answers_the_same(media, adapted, backbone, tmp_path):
    request = model_pb2.ExportModelRequest(model=adapted(backbone))
    for piece in media.model.ExportModel(request, timeout=60):
        with (tmp_path / piece.path).open("ab") as file:
            file.write(piece.chunk)
    inputs = [made(backbone, label, 70 + n) for n, label in enumerate(("red", "blue", "green"))]
    files = []
    for n, value in enumerate(inputs):
        files.append(tmp_path / f"input-{n}")
        files[-1].write_bytes(value.image or value.audio)
    command = [sys.executable, "-P", "-c", ISOLATED, str(tmp_path), *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd="/")
    scores, novelty, wrong = json.loads(ended.stdout)
    assert wrong == []
    for answer, bundled, strange in zip(
        predicted(media, adapted(backbone), inputs), scores, novelty, strict=True
    ):
        assert probabilities(answer) == pytest.approx(bundled, abs=1e-4)
        assert answer.novelty == pytest.approx(strange, abs=1e-3)


OUTPUTS = """
import json, sys
sys.modules.update(graft=None, graft_server=None)  # from here on, importing either fails
sys.path.append(sys.argv[1])
from pathlib import Path
import numpy, onnxruntime
folder, files = Path(sys.argv[1]), [Path(it) for it in sys.argv[2:]]
settings = json.loads((folder / "preprocessing.json").read_text())
if settings["modality"] == "image":
    import images as reading
else:
    import audio as reading
recipe = reading.recipe_of_settings(settings["recipe"])
inputs = recipe.collate([recipe.item(it.read_bytes()) for it in files])
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
outputs = dict(zip(settings["outputs"], session.run(settings["outputs"], inputs), strict=True))
from predict import predict
answers = [it._asdict() for it in predict(files)]
wrong = [it for it in ("torch", "transformers") if it in sys.modules]
print(json.dumps([{name: values.tolist() for name, values in outputs.items()}, answers, wrong]))
"""
COLOURS = {"red": ["bright"], "green": ["bright", "loud"], "blue": []}
NUMBERS = {"red": 10.0, "green": 20.0, "blue": 30.0}


def targets_of(task: int, label: str) -> dict[str, Any]:
    if task == types_pb2.TASK_MULTI_LABEL:
        return {"label_set": types_pb2.LabelSet(labels=COLOURS[label])}
    return {"value": NUMBERS[label]}


def exported(wire: Any, model: str, folder: Path, inputs: list[types_pb2.Input]) -> tuple[Any, Any]:
    """What a bundle's graph gives in plain ONNX Runtime, and its runner's answers, for inputs as files."""
    for piece in wire.model.ExportModel(model_pb2.ExportModelRequest(model=model), timeout=60):
        with (folder / piece.path).open("ab") as file:
            file.write(piece.chunk)
    check_for_older_runtimes(folder)
    files = [folder / f"input-{n}" for n in range(len(inputs))]
    for file, value in zip(files, inputs, strict=True):
        file.write_bytes(value.image or value.audio)
    command = [sys.executable, "-P", "-c", OUTPUTS, str(folder), *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd="/")
    outputs, answers, wrong = json.loads(ended.stdout)
    assert wrong == []
    return outputs, answers


@pytest.mark.parametrize("backbone", ["resnet", "wav2vec2"])
@pytest.mark.parametrize("task", [types_pb2.TASK_MULTI_LABEL, types_pb2.TASK_REGRESSION])
def test_bundles_of_every_task_answer_files_as_the_server_does(media, model, backbone, task, tmp_path):
    rows = [(made(backbone, label, 10 * seed), label) for seed in range(10) for label in COLOURS]
    examples = [types_pb2.Example(input=value, **targets_of(task, label)) for value, label in rows]
    changes = [adaptation_pb2.ExampleChange(upsert=it) for it in examples]
    media.publish(model, changes, backbone=backbone, task=task)
    inputs = [made(backbone, label, 70 + n) for n, label in enumerate(("red", "blue", "green", "green"))]
    outputs, answers = exported(media, model, tmp_path, inputs)
    served = predicted(media, model, inputs)
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert outputs["novelty"] == pytest.approx([it.novelty for it in served], abs=1e-3)
    for row, (result, answer) in enumerate(zip(served, answers, strict=True)):
        assert answer["abstained"] == result.abstained
        if task == types_pb2.TASK_REGRESSION:
            found = result.regression
            for name in ("value", "low", "high"):
                assert outputs[name][row] == pytest.approx(getattr(found, name), abs=2e-2)
                assert answer[name] == pytest.approx(outputs[name][row], abs=1e-2)
            continue
        for score in result.multi_label.scores:
            column = labels.index(score.label)
            assert outputs["probabilities"][row][column] == pytest.approx(score.probability, abs=1e-4)
            assert outputs["selected"][row][column] == score.selected
        assert answer["labels"] == [it.label for it in result.multi_label.scores if it.selected]
    readme = (tmp_path / "README.md").read_text()
    assert ("any of 2 labels" if labels else "with a number") in readme


def failures(wire: Any, results: list[prediction_pb2.Prediction]) -> list[str]:
    """Why each input was refused; each refusal is the caller's to mend, and says how."""
    reasons = []
    for it in results:
        if it.WhichOneof("result") != "error":
            reasons.append("answered")
            continue
        failure = wire.failure(it.error)
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert any(word in failure.message.lower() for word in ("send", "give", "look")), failure.message
        reasons.append(failure.reason)
    return reasons


def one_colour_png(width: int, height: int) -> bytes:
    """As it can be written without having its pixels: some of its rows are missing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(100 * (1 + width)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bad_images() -> dict[str, tuple[bytes, str]]:
    photo = png(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)), "JPEG"
    )
    return {
        "truncated JPEG": (photo[: len(photo) // 2], "IMAGE_CORRUPT"),
        "50,000 × 50,000": (one_colour_png(50_000, 50_000), "IMAGE_TOO_LARGE"),
        "text": (b"this is a text, whatever its name says\n" * 10, "IMAGE_UNREADABLE"),
        "empty": (b"", "INPUT_EMPTY"),
    }


def bad_clips() -> dict[str, tuple[bytes, str]]:
    lying = bytearray(sound("red", 0))
    struct.pack_into("<I", lying, 40, 1 << 29)
    broken, loud = np.zeros((2, RATE), np.float32)
    broken[7], loud[7] = np.nan, 1e38
    return {
        "lying header": (bytes(lying), "AUDIO_TRUNCATED"),
        "0 samples": (wav(np.empty(0)), "AUDIO_EMPTY"),
        "NaN": (wav(broken, subtype="FLOAT"), "AUDIO_NOT_FINITE"),
        "1e38": (wav(loud, subtype="FLOAT"), "AUDIO_TOO_LOUD"),
        "text": (b"this is a text, whatever its name says\n" * 10, "AUDIO_UNREADABLE"),
        "empty": (b"", "INPUT_EMPTY"),
    }


@pytest.mark.parametrize("backbone", ["resnet", "whisper"])
def test_bad_inputs_are_refused_with_a_reason_and_others_are_answered(media, adapted, backbone):
    bad = bad_images() if backbone in IMAGES else bad_clips()
    kind = "image" if backbone in IMAGES else "audio"
    inputs = [types_pb2.Input(**{kind: data}) for data, _ in bad.values()]
    good = made(backbone, "red", 3)
    results = predicted(media, adapted(backbone), [good, *inputs, good])
    assert failures(media, results) == ["answered", *[reason for _, reason in bad.values()], "answered"]


@pytest.mark.parametrize("backbone", ["resnet", "whisper"])
def test_bad_examples_are_rejected_one_by_one(media, model, backbone):
    bad = bad_images() if backbone in IMAGES else bad_clips()
    kind = "image" if backbone in IMAGES else "audio"
    rows = [(made(backbone, label, n), label) for n, label in enumerate(["red", "blue"] * 4)]
    rows += [(types_pb2.Input(**{kind: data}), "red") for data, _ in bad.values()]
    call = media.adapt(model=model, backbone=backbone, adaptation_id="a")
    call.next("started")
    changes = upserts(rows)
    for it in changes[8:]:
        it.upsert.subject = "zebulon"
    call.examples(0, changes)
    rejected = call.accepted(len(rows))
    assert [it.reason for it in rejected] == [reason for _, reason in bad.values()]
    assert {it.field for it in rejected} == {f"upsert.input.{kind}"}
    call.commit("all", close=True)
    assert call.outcomes()[0].summary.examples == 8
    # Whose they are is known of rejected ones too.
    assert len(media.rejected(model, "a")) == len(bad)
    media.model.DeleteExamples(model_pb2.DeleteExamplesRequest(model=model, subject="zebulon"), timeout=60)
    assert media.rejected(model, "a") == []


@pytest.mark.parametrize(
    ("backbone", "value"),
    [
        ("resnet", types_pb2.Input(text="a red one")),
        ("resnet", types_pb2.Input(audio=sound("red", 1))),
        ("whisper", types_pb2.Input(image=picture("red", 1))),
        ("whisper", types_pb2.Input(text="a red one")),
    ],
)
def test_an_input_of_another_modality_is_refused(media, adapted, backbone, value):
    (result,) = predicted(media, adapted(backbone), [value])
    failure = media.failure(result.error)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INPUT_WRONG_MODALITY")


def test_an_animation_a_cmyk_jpeg_and_a_webp_are_read(media, adapted):
    red = Image.new("RGB", (50, 40), (230, 60, 60))
    blue = Image.new("RGB", (50, 40), (60, 60, 230))
    animation = io.BytesIO()
    red.save(animation, "GIF", save_all=True, append_images=[blue, blue])
    files = [png(red), animation.getvalue(), png(red.convert("CMYK"), "JPEG"), png(red, "WEBP")]
    plain, *others = predicted(
        media, adapted("resnet"), [types_pb2.Input(image=it) for it in files], include_features=True
    )
    for it in others:
        assert np.dot(plain.features, it.features) > 0.99


def test_of_ten_minutes_the_beginning_is_read_and_said_to_be_cut(media, adapted):
    data = wav(np.zeros(600 * 8_000, np.int16), 8_000)
    (result,) = predicted(media, adapted("whisper"), [types_pb2.Input(audio=data)])
    assert result.truncated
    assert result.single_label.scores


def test_formats_and_rates_of_sound_do_not_matter(media, adapted):
    times = np.arange(RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 900 * times).astype(np.float32)
    flac, stereo = io.BytesIO(), np.stack([tone, tone], axis=1)
    soundfile.write(flac, tone, RATE, format="FLAC")
    plain, *others = predicted(
        media,
        adapted("whisper"),
        [types_pb2.Input(audio=it) for it in (wav(tone), flac.getvalue(), wav(stereo))],
        include_features=True,
    )
    for it in others:
        np.testing.assert_allclose(it.features, plain.features, atol=1e-3)


WHISPER_SAYS = """
import json, sys, soundfile, torch
from transformers import WhisperFeatureExtractor, WhisperModel
folder, *files = sys.argv[1:]
encoder = WhisperModel.from_pretrained(folder).eval().get_encoder()
extractor = WhisperFeatureExtractor.from_pretrained(folder)
said = []
for file in files:
    samples, rate = soundfile.read(file, dtype="float32")
    values = extractor(samples, sampling_rate=rate, return_tensors="pt")["input_features"]
    heard = -(-len(samples) // (2 * extractor.hop_length))
    with torch.no_grad():
        mean = encoder(values).last_hidden_state[0, :heard].mean(0)
    said.append((mean / mean.norm()).tolist())
print(json.dumps(said))
"""


def test_whole_windows_are_read_as_transformers_reads_them(media, adapted, media_checkpoints, tmp_path):
    clips = [sound(label, 5) for label in ("red", "green", "blue")]
    files = [tmp_path / f"{n}.wav" for n in range(len(clips))]
    for file, data in zip(files, clips, strict=True):
        file.write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-c", WHISPER_SAYS, str(media_checkpoints / "whisper-whole")]
    ended = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=True)
    inputs = [types_pb2.Input(audio=it) for it in clips]
    answers = predicted(media, adapted("whisper-whole"), inputs, include_features=True)
    expected = json.loads(ended.stdout.splitlines()[-1])
    np.testing.assert_allclose([it.features for it in answers], expected, atol=1e-3)


def white(width: int, height: int) -> bytes:
    return png(Image.new("RGB", (width, height), (255, 255, 255)))


def hiss(seconds: float, rate: int) -> bytes:
    return wav(np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)), rate)


def silence(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(round(seconds * RATE)), RATE, format="FLAC")
    return file.getvalue()


def test_every_bound_of_decoding_is_a_setting(serve, connect, media_checkpoints):
    wire = connect(serve(
        *(f"--backbone={name}={media_checkpoints / name}" for name in ("resnet", "whisper")),
        "--max-image-mb=0.1", "--max-image-pixels=2000000", "--max-image-ratio=300",
        "--max-audio-mb=0.1", "--max-audio-seconds=2", "--max-audio-ratio=4",
    ))  # fmt: skip
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8))
    refused = {
        "resnet": [
            (png(noise), "IMAGE_TOO_LARGE", "bytes; at most 104,857 are read"),
            (white(1_500, 1_400), "IMAGE_TOO_LARGE", "1,500 × 1,400 pixels; at most 2,000,000 are decoded"),
            (white(1_200, 1_000), "IMAGE_TOO_COMPRESSED", "at most 300 times is decoded"),
        ],
        "whisper": [
            (hiss(1.5, 48_000), "AUDIO_TOO_LARGE", "144,044 bytes; at most 104,857 are read"),
            (hiss(3, 8_000), "AUDIO_TOO_LONG", "3.0 s long; at most 2 s are accepted"),
            (silence(1), "AUDIO_TOO_COMPRESSED", "at most 4 times is decoded"),
        ],
    }
    accepted = {"resnet": white(900, 1_000), "whisper": hiss(1.5, 16_000)}
    for backbone, kind in (("resnet", "image"), ("whisper", "audio")):
        files = [accepted[backbone], *(data for data, _, _ in refused[backbone])]
        call = wire.adapt(model=f"tests/{backbone}", backbone=backbone)
        call.next("started")
        call.examples(0, upserts([(types_pb2.Input(**{kind: data}), "red") for data in files]))
        rejected = call.accepted(len(files))
        assert [(it.sequence, it.reason) for it in rejected] == [
            (place, reason) for place, (_, reason, _) in enumerate(refused[backbone], 1)
        ]
        for it, (_, _, said) in zip(rejected, refused[backbone], strict=True):
            assert said in it.detail


def test_names_of_labels_answer_before_the_first_example_as_clip_itself_would(
    media, model, media_checkpoints, tmp_path
):
    labels = ["red", "green", "blue"]
    call = media.adapt(model=model, backbone="clip", labels=[types_pb2.Label(name=it) for it in labels])
    call.next("started")
    call.commit("names", close=True)
    (published,) = call.outcomes()
    assert published.summary.examples == 0
    assert published.summary.head.kind == "zero-shot"
    inputs = [made("clip", label, n) for n, label in enumerate(labels)]
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for file, value in zip(files, inputs, strict=True):
        file.write_bytes(value.image)
    command = [sys.executable, "-W", "ignore", "-c", TRANSFORMERS_SAYS, str(media_checkpoints / "clip")]
    ended = subprocess.run(
        [*command, json.dumps(labels), *map(str, files)], capture_output=True, text=True, check=True
    )
    expected = json.loads(ended.stdout.splitlines()[-1])
    for answer, row in zip(predicted(media, model, inputs), expected, strict=True):
        assert probabilities(answer) == pytest.approx(dict(zip(labels, row, strict=True)), abs=2e-3)
        assert not answer.abstained


def test_examples_are_blended_with_names_and_both_are_tried(media, adapted):
    request = model_pb2.GetVersionRequest(model=adapted("clip"), version=1)
    tried = {it.kind for it in media.model.GetVersion(request).version.report.head.candidates}
    assert {"zero-shot", "zero-shot+logistic", "logistic", "kernel"} <= tried
    request = model_pb2.GetVersionRequest(model=adapted("resnet"), version=1)
    assert "zero-shot" not in {
        it.kind for it in media.model.GetVersion(request).version.report.head.candidates
    }


def test_one_labelled_example_is_not_enough_to_learn_from_but_names_answer(media, model):
    labels = [types_pb2.Label(name=it) for it in ("red", "green")]
    published = media.publish(
        model, upserts([(made("clip", "red", 1), "red")]), backbone="clip", labels=labels
    )
    assert published.summary.head.kind == "zero-shot"
    request = model_pb2.GetVersionRequest(model=model, version=1)
    (warning, *_) = media.model.GetVersion(request).version.report.warnings
    assert warning.startswith("Answers come from the labels' names alone")
    assert len(predicted(media, model, [made("clip", "red", 2)])[0].single_label.scores) == 2


@pytest.mark.parametrize("backbone", ["resnet", "minilm", *each(["clip-vision"])])
def test_names_say_nothing_to_a_backbone_whose_features_share_no_space_with_them(media, model, backbone):
    labels = [types_pb2.Label(name=it) for it in ("red", "green")]
    failed = media.publish(model, [], backbone=backbone, labels=labels)
    assert media.failure(failed.status).reason == "TOO_FEW_CLASSES"


@pytest.mark.parametrize(("backbone", "ending"), [("resnet", "png"), ("whisper", "wav")])
def test_the_command_line_adapts_to_a_folder_tree_and_to_a_column_of_paths(
    media, model, tmp_path, backbone, ending
):
    lines = ["file,kind"]
    for label in ("red", "blue"):
        (tmp_path / "tree" / label).mkdir(parents=True)
        for n in range(6):
            data = made(backbone, label, n)
            (tmp_path / "tree" / label / f"{n}.{ending}").write_bytes(data.image or data.audio)
            lines.append(f"tree/{label}/{n}.{ending},{label}")
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")

    def graft(*arguments: str) -> str:
        command = [sys.executable, "-m", "graft.cli", *arguments, "--server", media.target, "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout

    graft("adapt", model, str(tmp_path / "tree"), "--backbone", backbone)
    columns = ("--path", "file", "--label", "kind")
    again = json.loads(graft("adapt", model, str(tmp_path / "data.csv"), *columns))
    assert (again["version"], again["extension"]["unchanged"]) == (1, 12)  # the same files: nothing is new
    graft("adapt", model, str(tmp_path / "data.csv"), *columns, "--backbone", backbone, "--replace")
    versions = media.model.ListVersions(model_pb2.ListVersionsRequest(model=model)).versions
    assert [it.report.examples for it in versions] == [12, 12]
    for label in ("red", "blue"):
        data = made(backbone, label, 6)
        (tmp_path / "tree" / label / f"0.{ending}").write_bytes(data.image or data.audio)
    if backbone == "resnet":  # other bytes, the same pixels
        saved = tmp_path / "tree" / "red" / "1.png"
        Image.open(io.BytesIO(saved.read_bytes())).save(saved, compress_level=1)
    measured = json.loads(graft("evaluate", model, str(tmp_path / "data.csv"), *columns))
    assert (measured["examples"], measured["trained_on_count"]) == (2, 10)
    files = [str(tmp_path / "tree" / label / f"0.{ending}") for label in ("red", "blue")]
    answers = [json.loads(it)["label"] for it in graft("predict", model, *files, "--files").splitlines()]
    assert answers == ["red", "blue"]


@pytest.fixture
def without_torch(tmp_path) -> str:
    """What PYTHONPATH has to be, so that neither torch nor transformers can be imported."""
    for name in ("torch", "transformers"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text(f"raise ImportError('{name} is not here')\n")
    return os.pathsep.join([str(tmp_path / "blocked"), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_encoders_that_were_exported_are_served_without_torch(
    media, serve, connect, media_checkpoints, without_torch
):
    blocked = subprocess.run(
        [sys.executable, "-c", "import torch"], env={**os.environ, "PYTHONPATH": without_torch}, check=False,
        capture_output=True,
    )  # fmt: skip
    assert b"torch is not here" in blocked.stderr
    names = ("resnet", "vit", "clip", "whisper", "wav2vec2")
    flags = [f"--backbone={name}={media_checkpoints / name}" for name in names]
    default = f"--backbone={DEFAULT_NAME}={DEFAULT_SOURCE}"
    wire = connect(serve(default, *flags, PYTHONPATH=without_torch))
    for name in names:
        rows = [(made(name, label, seed), label) for seed in range(3) for label in ("red", "blue")]
        assert wire.publish(f"tests/{name}", upserts(rows), backbone=name).version == 1
        (answer,) = predicted(wire, f"tests/{name}", [made(name, "red", 50)])
        assert set(probabilities(answer)) == {"red", "blue"}
    texts = [(f"{word} {n}", label) for n in range(3) for word, label in (("lock", "red"), ("bill", "blue"))]
    assert wire.publish("tests/text", texts).version == 1


def test_more_files_than_are_decoded_at_once_keep_their_order(media, model):
    pictures = {label: picture(label, 1) for label in ("red", "blue")}
    labels = ["red", "red", "blue"] * 120
    rows = [(types_pb2.Input(image=pictures[label]), label) for label in labels]
    assert media.publish(model, upserts(rows), backbone="resnet").summary.examples == len(rows)
    inputs = [
        types_pb2.Input(image=pictures[it]) if it else types_pb2.Input(image=b"x") for it in [*labels, ""]
    ]
    *answers, bad = predicted(media, model, inputs)
    assert [it.single_label.scores[0].label for it in answers] == labels
    assert media.failure(bad.error).reason == "IMAGE_UNREADABLE"


def test_without_a_name_the_backbone_is_the_first_that_reads_the_first_example(media, few, model):
    def started(adaptation_id: str) -> Any:
        call = media.adapt(model=model, adaptation_id=adaptation_id)
        assert call.next("started").next_sequence == 0
        return call

    def backbone(adaptation_id: str) -> str:
        request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id=adaptation_id)
        return media.adaptation.GetAdaptation(request, timeout=60).adaptation.backbone

    for adaptation_id, value in (
        ("pictures", types_pb2.Input(image=picture("red", 1))),
        ("sounds", types_pb2.Input(audio=sound("red", 1))),
        ("texts", types_pb2.Input(text="the lock is stuck")),
    ):
        call = started(adaptation_id)
        call.examples(0, upserts([(value, "red")]))
        assert call.accepted(1) == []
        call.close()
    assert [backbone(it) for it in ("pictures", "sounds", "texts")] == [IMAGES[0], CLIPS[0], DEFAULT_NAME]
    again = media.adapt(model=model, adaptation_id="pictures")
    assert again.next("started").next_sequence == 1


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet", "whisper"])
def test_files_that_name_pictures_or_clips_and_folders_of_them_are_answered(
    media, adapted, tmp_path, backbone
):
    labels = ("red", "green", "blue")
    (tmp_path / "sub").mkdir()
    ending = "png" if backbone in IMAGES else "wav"
    names = [f"sub/{label} {seed}.{ending}" for seed in range(4) for label in labels]
    for at, name in enumerate(names):
        value = made(backbone, labels[at % 3], 1_000 + at // 3)
        (tmp_path / name).write_bytes(value.image or value.audio)
    (tmp_path / "sub" / f"broken.{ending}").write_text("none")
    (tmp_path / "notes.md").write_text("none")
    values = [made(backbone, labels[at % 3], 1_000 + at // 3) for at in range(len(names))]
    answers = [it.single_label.scores[0] for it in predicted(media, adapted(backbone), values)]
    expected = dict(zip(names, answers, strict=True))
    rows = [["n", "file"], *([str(at), it] for at, it in enumerate([*names, "none.png", ""]))]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    def run(given, *options):
        out = tmp_path.parent / f"{backbone}-out.csv"
        command = ["predict", adapted(backbone), str(given), "--output", str(out), "--overwrite", *options]
        assert main([*command, "--server", media.target]) == 1
        with out.open(newline="") as file:
            return list(csv.DictReader(file))

    found = run(tmp_path / "in.csv", "--path", "file")
    assert [(it["n"], it["file"]) for it in found] == [tuple(row) for row in rows[1:]]
    for it in found[: len(names)]:
        assert it["label"] == expected[it["file"]].label
        assert float(it["probability"]) == pytest.approx(expected[it["file"]].probability, abs=1e-4)
    assert all(it["error"] and not it["label"] for it in found[len(names) :])
    found = run(tmp_path / "sub")
    broken = f"broken.{ending}"
    assert [it["path"] for it in found] == sorted([broken, *(it[4:] for it in names)])
    assert [it["path"] for it in found if it["error"]] == [broken]
    assert all(it["label"] == expected[f"sub/{it['path']}"].label for it in found if it["path"] != broken)
