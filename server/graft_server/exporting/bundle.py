"""The job that composes a bundle: a folder with one ONNX model and all that it takes to run it without Graft.

Before anything is handed out, the bundle is run as its user would run it, and compared with what is served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.adapted import merged
from graft_server.backbones.graphs.adapters import Adapter
from graft_server.backbones.graphs.cache import HIDDEN, NOT_CACHED, EncoderCache
from graft_server.backbones.graphs.cutting import joined
from graft_server.backbones.preprocessing import Arrays, features_unread
from graft_server.backbones.source import backbone_at
from graft_server.backbones.text.preprocessor import (
    CHARACTERS_PER_TOKEN,
    TextPreprocessor,
    TextTokenizer,
    is_packed,
)
from graft_server.domain.errors import BackboneError, CorruptError, InvalidError
from graft_server.domain.model import Manifest, ManifestRef
from graft_server.domain.report import EvaluationMethod
from graft_server.domain.views import POOLED, names_of
from graft_server.encoding.encoder import Encoder, Features
from graft_server.encoding.tuned_layers import GraphPart
from graft_server.exporting import media
from graft_server.exporting.bundle_graph import INPUTS, for_older_runtimes, write_graph
from graft_server.exporting.contract import COMPOSE, Composed, ComposedFile, Composing
from graft_server.exporting.parity import check_parity, probes, readable_rows
from graft_server.exporting.runner import text as text_runner
from graft_server.exporting.runner.source import runner_source
from graft_server.heads import Head, decode
from graft_server.heads.novelty import ABSTAIN_ABOVE
from graft_server.jobs.job import OnProgress, Place, Progress
from graft_server.store.catalogue.versions import (
    ADAPTER,
    HEAD,
    HEAD_ONNX,
    REPORT,
    TOP,
    has_tuned_layers,
    read_manifest,
    read_part,
    version_folder,
)
from graft_server.store.handover import Handover
from graft_server.store.objects.objects import Objects

MODEL, HEAD_ALONE, LABELS = "model.onnx", "head.onnx", "labels.json"
TOKENIZER, PREPROCESSING = "tokenizer.json", "preprocessing.json"
RUNNER, README = "predict.py", "README.md"


@dataclass(frozen=True, slots=True)
class _Task:
    """What is composed, where the job runs."""

    model: str
    version: int
    manifest: ManifestRef
    backbone: Backbone
    """The backbone that the version was trained with."""
    encoders: EncoderCache


@COMPOSE.done_by
def compose(payload: Composing, place: Place, progress: OnProgress) -> Composed:
    """Writes a version's bundle and checks that it answers as the server does.

    Args:
        payload: The version.
        place: Where this runs.
        progress: Told the stages "composing" and "checking".

    Raises:
        BackboneError: The backbone is not the one that the version was trained with, its encoder is not
            cached, or lacks the view that the head reads.
        FaultError: The bundle does not answer as the server does (BUNDLE_PARITY), or the store failed.
    """
    progress(Progress("composing"))
    objects = Objects.open(place.store)
    backbone = backbone_at(place, payload.backbone, payload.encoder_id)
    encoders = EncoderCache(Path(place.cache), objects)
    task = _Task(payload.model, payload.version, payload.manifest, backbone, encoders)
    handover = Handover(objects, Path(place.cache))
    files = _write(task, objects, handover.local(payload.folder), progress)
    handover.give(payload.folder, [it.path for it in files], cache=payload.cache)
    return Composed(files)


def _write(task: _Task, objects: Objects, target: Path, progress: OnProgress) -> tuple[ComposedFile, ...]:
    """Writes the bundle to a folder, and checks it; files that are there already are replaced."""
    manifest = read_manifest(objects, task.manifest)
    head = decode(read_part(objects, task.manifest, manifest, HEAD))
    preprocessor = task.backbone.preprocessor()
    reads_text = isinstance(preprocessor, TextPreprocessor)
    files_reader = None if reads_text else media.preprocessor_of(task.backbone)
    encoder, graph = _encoder(task, manifest, objects, (files_reader or preprocessor).collate)
    _require_fit(head, manifest, encoder)
    target.mkdir(parents=True, exist_ok=True)
    head_graph = read_part(objects, task.manifest, manifest, HEAD_ONNX)
    files = write_graph(graph, head_graph, head.view, target / MODEL, packed=is_packed(preprocessor))
    if _features_unread(manifest, head) is None:
        files.append(target / HEAD_ALONE)
        files[-1].write_bytes(for_older_runtimes(head_graph))
    report = read_part(objects, task.manifest, manifest, REPORT)
    texts = _texts(manifest, report)
    texts |= _of_text(task, manifest, head) if reads_text else _of_media(task, manifest, head)
    for name, content in texts.items():
        (target / name).write_text(content, "utf-8")
    progress(Progress("checking", 0.6))
    reduced = task.backbone.precision != "fp32"
    if isinstance(preprocessor, TextPreprocessor):
        check_parity(target, encoder, head, probes(objects, manifest, head, preprocessor), reduced=reduced)
    elif files_reader is not None:
        rows = readable_rows(objects, manifest)
        media.check_parity(target, files_reader, encoder, head, rows, reduced=reduced)
    progress(Progress("checking", 1.0))
    return tuple(_file(path) for path in (*files, *(target / name for name in texts)))


def _encoder(
    task: _Task, manifest: Manifest, objects: Objects, collate: Callable[[Sequence[Any]], Arrays]
) -> tuple[Encoder | TunedEncoder, Path | onnx.ModelProto]:
    """The encoder as it serves the version, and a graph that is to do the same."""
    graph = _encoder_graph(task, manifest)
    if not has_tuned_layers(manifest):
        return Encoder(graph, device="cpu", threads=0, collate=collate), graph
    top = _top(task, manifest, objects)
    if not manifest.below:
        return TunedEncoder(None, top, collate), onnx.load_model_from_string(top)
    below = task.encoders.require(task.encoders.below(task.backbone.encoder_id, manifest.below))
    return TunedEncoder(below, top, collate), joined(onnx.load(str(below)), onnx.load_model_from_string(top))


def _top(task: _Task, manifest: Manifest, objects: Objects) -> bytes:
    """The graph of the tuned layers; what an adapter adds to the backbone's is merged into their weights."""
    if TOP in manifest.parts:
        return read_part(objects, task.manifest, manifest, TOP)
    data = read_part(objects, task.manifest, manifest, ADAPTER)
    adapter = Adapter.decode(version_folder(task.manifest) + ADAPTER, data)
    cache, encoder_id = task.encoders, task.backbone.encoder_id
    graph = cache.above(encoder_id, manifest.below) if manifest.below else cache.graph(encoder_id)
    return merged(onnx.load(str(cache.require(graph))), adapter).SerializeToString()


class TunedEncoder:
    """A backbone with tuned layers, as it serves. See `encoding.tuned_layers`."""

    views = (POOLED,)

    def __init__(self, below: Path | None, top: bytes, collate: Callable[[Sequence[Any]], Arrays]) -> None:
        """Loads the part of the backbone below the tuned layers, if there is one, and these."""
        self._collate = collate
        self._below = None if below is None else GraphPart(below, device="cpu", threads=0)
        self._top = GraphPart(top, device="cpu", threads=0)

    def encode(self, items: Sequence[Any]) -> Features:
        """See `Encoder.encode`."""
        arrays: dict[str, NDArray[Any]] = dict(self._collate(items))
        if self._below is not None:
            arrays[HIDDEN] = self._below.run(arrays)[HIDDEN]
        return self._top.run(arrays)


def _encoder_graph(task: _Task, manifest: Manifest) -> Path:
    encoder_id = task.backbone.encoder_id
    if manifest.encoder_id != encoder_id:
        raise BackboneError(
            f"Backbone {task.backbone.name} is not the one that version {task.version} was trained with "
            f"(encoder {manifest.encoder_id}, here {encoder_id}): configure the server with that one.",
            reason="ENCODER_MISMATCH",
        )
    try:
        return task.encoders.require(task.encoders.graph(encoder_id))
    except BackboneError as error:
        if error.reason != NOT_CACHED:
            raise
        raise BackboneError(
            f"The encoder of backbone {task.backbone.name} is not in the server's cache: restart the server, "
            "which exports it anew.",
            reason=NOT_CACHED,
            metadata=error.metadata,
        ) from None


def _require_fit(head: Head, manifest: Manifest, encoder: Encoder | TunedEncoder) -> None:
    if not set(names_of(head.view)) <= set(encoder.views):
        raise BackboneError(
            f"The version's head reads the view {head.view}, but the encoder gives {', '.join(encoder.views)}.",
            reason="VIEW_MISSING",
        )
    if head.classes != len(manifest.labels):
        raise CorruptError(
            f"The version's head has {head.classes} classes, but its manifest {len(manifest.labels)} labels.",
            reason="HEAD_CORRUPT",
        )


def _texts(manifest: Manifest, report: bytes) -> dict[str, str]:
    """The small files that every bundle has, by name."""
    return {
        LABELS: _json([label.name for label in manifest.labels]),
        REPORT: _json(with_nulls(json.loads(report))),
    }


_FIGURES = ("accuracy", "macro_f1", "log_loss", "calibration_error", "accuracy_low", "accuracy_high")


def with_nulls(report: dict[str, Any]) -> dict[str, Any]:
    """A report as stored, with null for figures that were not measured, in place of 0."""
    classes = [
        {**it, "precision": None, "recall": None, "f1": None} if not it["support"] else it
        for it in report.get("per_class", ())
    ]
    unmeasured = report["evaluation"]["method"] == EvaluationMethod.NONE
    return {**report, "per_class": classes, **(dict.fromkeys(_FIGURES) if unmeasured else {})}


def _of_text(task: _Task, manifest: Manifest, head: Head) -> dict[str, str]:
    """Those of a bundle that reads text."""
    return {
        TOKENIZER: _tokenizer(task).to_json(),
        PREPROCESSING: _json(
            {**_preprocessing(task, manifest, head), **_tokenization(task.backbone, _tokenizer(task))}
        ),
        RUNNER: runner_source(text_runner),
        README: _readme(task, head),
    }


def _of_media(task: _Task, manifest: Manifest, head: Head) -> dict[str, str]:
    """Those of a bundle that reads files."""
    preprocessor = media.preprocessor_of(task.backbone)
    return {
        PREPROCESSING: _json({**_preprocessing(task, manifest, head), **media.settings(preprocessor)}),
        README: media.readme(
            task.model,
            task.version,
            head.described(str(preprocessor.modality)),
            preprocessor,
            ABSTAIN_ABOVE,
        ),
        **media.runner(preprocessor.modality),
    }


def _tokenizer(task: _Task) -> TextTokenizer:
    preprocessor = task.backbone.preprocessor()
    assert isinstance(preprocessor, TextPreprocessor)  # noqa: S101 - nothing else is asked for it
    return preprocessor.tokenizer


def _features_unread(manifest: Manifest, head: Head) -> InvalidError | None:
    """Returns why the version cannot answer features from a caller; None if it can."""
    return features_unread(head.view, tuned=has_tuned_layers(manifest))


def _preprocessing(task: _Task, manifest: Manifest, head: Head) -> dict[str, Any]:
    backbone = task.backbone
    preprocessor, unread = backbone.preprocessor(), _features_unread(manifest, head)
    return {
        "model": task.model,
        "version": task.version,
        "backbone": backbone.name,
        "encoder_id": backbone.encoder_id,
        "precision": backbone.precision,
        "task": manifest.task,
        "modality": str(preprocessor.modality),
        "kinds": sorted(map(str, preprocessor.kinds)),
        "features": {"dimension": backbone.dimension, "refused": unread.message if unread else ""},
        "outputs": [*(it.name for it in head.outputs), "novelty", "features"],
        "pooling": backbone.pooling,
        "normalisation": "l2",
        "abstain_above": ABSTAIN_ABOVE,
        **head.settings(),
    }


def _tokenization(backbone: Backbone, tokenizer: TextTokenizer) -> dict[str, Any]:
    return {
        "pairs": tokenizer.pairs,
        "token_type_ids": tokenizer.token_type_ids,
        "inputs": list(INPUTS),
        "max_characters": CHARACTERS_PER_TOKEN * backbone.max_tokens,
        "max_tokens": backbone.max_tokens,
        "truncation": "right",
        "padding": "right",
        "pad_id": _pad_id(Path(backbone.folder)),
        "embedded_tokens": tokenizer.embedded,
    }


def _pad_id(folder: Path) -> int:
    """The backbone's own. Any id would do: the graph drops what the mask says is padding."""
    config = json.loads((folder / "config.json").read_bytes())
    return int(config.get("pad_token_id") or 0)


def _readme(task: _Task, head: Head) -> str:
    what, outputs = head.described("text")
    return f"""# {task.model}, version {task.version}

{what}, exported by Graft. Try it: `pip install onnxruntime tokenizers
numpy`, then `python {RUNNER} "some text"`; or `from predict import predict` and `predict(["some text"])`. A pair of
texts, where `pairs` is true in `{PREPROCESSING}`, is a tuple of two. What the model cannot answer is refused in
its place: a `Refused` with the reason and error of a Graft server. Answers tell by `abstained` that an input is unlike
the training data, and by `truncated` that its end was cut off.

- `{MODEL}`: from `input_ids` and `attention_mask` (batch, length; int64; padded on the right; where
  `token_type_ids` is true, -1 - id is a token of a pair's second text) to {outputs},
  `novelty` (batch; above {ABSTAIN_ABOVE}, better not trusted) and `features`.
- `{HEAD_ALONE}`, where the model can answer ready features: the same from `features` (batch, dimension) on.
- `{LABELS}`: what the columns of labels mean, if there are any. `{TOKENIZER}`: for the library tokenizers.
- `{PREPROCESSING}`: how texts are cut and padded. `{REPORT}`: what it was trained on, and how good it is.
- `{RUNNER}`: a sample runner, to copy from.
"""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _file(path: Path) -> ComposedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ComposedFile(path.name, path.stat().st_size, digest)
