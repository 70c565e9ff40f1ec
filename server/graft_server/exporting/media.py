"""Bundles of image and audio models: their own files, and the check that they answer like the server.

The bundle contains the server's own code that turns files into the graph's inputs: `backbones.decoding.images` or
`backbones.decoding.audio`, one file that needs nothing of Graft.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graft_server.backbones.audio.preprocessor import AudioPreprocessor
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding import audio, images
from graft_server.backbones.image.preprocessor import ImagePreprocessor
from graft_server.backbones.preprocessing import Prepared
from graft_server.domain.errors import BackboneError
from graft_server.domain.examples import Modality
from graft_server.exporting.parity import Encodes, read_by, require_same, telling
from graft_server.exporting.runner import media as media_runner
from graft_server.exporting.runner.source import runner_source
from graft_server.heads import Head
from graft_server.store.adaptations.training_rows import Rows

PROBES = 24
_SERVED, _BUNDLED = 3, 8
"""Items per batch, different on purpose: the answer may not depend on the rest of the batch."""

_LIBRARIES = {Modality.IMAGE: "pillow", Modality.AUDIO: "soundfile soxr"}
_MODULES = {Modality.IMAGE: images, Modality.AUDIO: audio}
_READS = {Modality.IMAGE: "images (JPEG, PNG, WebP or GIF)", Modality.AUDIO: "clips (WAV, FLAC, OGG or MP3)"}

Preprocessor = ImagePreprocessor | AudioPreprocessor


def preprocessor_of(backbone: Backbone) -> Preprocessor:
    """The preprocessor of a backbone that reads files. Raises BackboneError for one that reads text."""
    preprocessor = backbone.preprocessor()
    if not isinstance(preprocessor, Preprocessor):
        raise BackboneError(
            f"Backbone {backbone.name} reads {backbone.modality}: there is no bundle for it.",
            reason="BUNDLE_MODALITY",
        )
    return preprocessor


def runner(modality: Modality) -> dict[str, str]:
    """Returns the source files of a bundle, by name."""
    module = Path(str(_MODULES[modality].__file__))
    return {
        # In a bundle they are in one folder.
        "predict.py": runner_source(media_runner).replace(
            "from graft_server.backbones.decoding import", "import"
        ),
        module.name: module.read_text("utf-8"),
    }


def settings(preprocessor: Preprocessor) -> dict[str, Any]:
    """Returns the entries of `preprocessing.json` for the modality."""
    return {
        "inputs": _inputs(preprocessor),
        "recipe": json.loads(json.dumps(dataclasses.asdict(preprocessor.recipe))),
    }


def readme(
    model: str, version: int, answers: tuple[str, str], preprocessor: Preprocessor, above: float
) -> str:
    """Returns the README of the bundle.

    Args:
        model: Its name.
        version: Its version.
        answers: The kind of model, and its graph's own outputs, in words.
        preprocessor: The preprocessor of its inputs.
        above: The novelty above which an answer should not be trusted.
    """
    modality = preprocessor.modality
    module = Path(str(_MODULES[modality].__file__)).name
    inputs = ", ".join(f"`{name}`" for name in _inputs(preprocessor))
    what, outputs = answers
    return f"""# {model}, version {version}

{what}, exported by Graft. It reads {_READS[modality]}. Try it: `pip install
onnxruntime numpy {_LIBRARIES[modality]}`, then `python predict.py FILE`; or `from predict import predict` and
`predict([Path("file")])`. What the model cannot answer is refused in
its place: a `Refused` with the reason and error of a Graft server. Answers tell by `abstained` that an input is unlike
the training data, and by `truncated` that its end was cut off.

- `model.onnx`: from {inputs} to {outputs},
  `novelty` (batch; above {above}, better not trusted) and `features`.
- `head.onnx`, where the model can answer ready features: the same from `features` (batch, dimension) on.
- `labels.json`: what the columns of labels mean, if there are any. `report.json`: what it was trained on, and how good
  it is.
- `{module}`: from files to the graph's inputs, as the server does it; `preprocessing.json`: its settings.
- `predict.py`: a sample runner, to copy from.
"""


def check_parity(
    bundle: Path,
    preprocessor: Preprocessor,
    encoder: Encodes,
    head: Head,
    rows: Rows | None,
    *,
    reduced: bool,
) -> None:
    """Raises FaultError unless the bundle answers like encoder and head, on training examples if available.

    Args:
        bundle: A folder with all files of a bundle.
        preprocessor: The server's preprocessor.
        encoder: The encoder that serves.
        head: The head that serves.
        rows: The examples; None if they can no longer be read: noise is used instead.
        reduced: Whether the encoder computes in fewer bits; see `parity.check_parity`.
    """
    classifier = media_runner.Classifier(bundle)
    served, bundled = _items(classifier, preprocessor, head, rows)
    features = np.concatenate(
        [read_by(head, encoder.encode(batch)) for batch in _batches(served, 1 if reduced else _SERVED)]
    )
    batches = _batches(bundled, 1 if reduced else _BUNDLED)
    require_same(head, features, [classifier.run(batch) for batch in batches], reduced=reduced)


def _items(
    classifier: media_runner.Classifier, preprocessor: Preprocessor, head: Head, rows: Rows | None
) -> tuple[list[Any], list[Any]]:
    """Returns the same inputs, as prepared by the server and by the bundle."""
    inputs = [rows.examples[i].input for i in telling(rows, head, PROBES)] if rows and rows.examples else []
    prepared = zip(inputs, preprocessor.many(inputs), strict=True)
    pairs = [(it.item, classifier.prepare(value.data)) for value, it in prepared if isinstance(it, Prepared)]
    if pairs:
        return [one for one, _ in pairs], [other for _, other in pairs]
    generator = np.random.default_rng(0)
    noise = [preprocessor.typical(generator) for _ in range(PROBES)]
    return noise, noise


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _inputs(preprocessor: Preprocessor) -> list[str]:
    item: Any = preprocessor.shortest()
    return list(preprocessor.collate([item]))
