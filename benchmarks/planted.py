"""Copies of real texts, pictures and clips, made as people make them, with the features of each; cached like others."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import resample_poly

from benchmarks.datasets import DATA, Texts
from benchmarks.harness import CACHE as ENCODERS
from benchmarks.heads.features import CACHE, Views, cached
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import open_backbone
from graft_server.domain.examples import Input, Kind
from graft_server.encoding.encoder import Encoder

WEIGHTS = Path("~/.cache/graft-weights").expanduser()
ORIGINALS = 80
"""Pictures and clips of which copies are made."""
TEXTS = 600
"""Texts of which copies are made."""
VIEWS = ("pooled", "layer3")
"""The views that a server computes of texts."""

Change = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Planted:
    """Inputs, and a copy of each in every way: features by view, the rows of the copies those of the originals."""

    name: str
    originals: Views
    copies: Mapping[str, Views]
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The copies of each kind, and under "" the originals, if they are texts."""


def texts(data: Texts) -> Planted:
    """Texts with copies that differ by spacing, case, punctuation and invisible characters."""
    rows = np.random.default_rng(5).choice(len(data.train), TEXTS, replace=False)
    train = cached(f"{data.name}-train", data.train)
    copies, written = {}, {"": [data.train[row] for row in rows]}
    for kind, change in TEXT.items():
        rng = np.random.default_rng(1)
        written[kind] = [change(text, rng) for text in written[""]]
        views = cached(f"copies-{data.name}-{kind}", written[kind])
        copies[kind] = {view: views[view] for view in VIEWS}
    originals = {view: train[view][rows] for view in VIEWS}
    return Planted(data.name, originals, copies, written)


def _punctuated(text: str, rng: np.random.Generator) -> str:
    bare = re.sub(r"[^\w\s]+$", "", text)
    ways = (bare if bare != text else text + ".", bare + "!", re.sub(r"[^\w\s]", "", text), text + "?")
    return ways[rng.integers(4)]


TEXT: Mapping[str, Callable[[str, np.random.Generator], str]] = {
    "space": lambda text, _: text + " ",
    "nbsp": lambda text, _: text.replace(" ", "\u00a0"),
    "zero": lambda text, _: text[: len(text) // 2] + "\u200b" + text[len(text) // 2 :],
    "case": lambda text, _: text.swapcase(),
    "marks": _punctuated,
}


def media(data: str, model: str) -> Planted:
    """Pictures or clips with copies that are stored again, resized, shifted, or at another volume."""
    files = _files(data)
    kind = Kind.AUDIO if data == "fsdd" else Kind.IMAGE
    made: dict[str, Views] = {}
    for name, change in ({"orig": bytes} | (CLIP if kind is Kind.AUDIO else PICTURE)).items():
        path = CACHE / "media" / f"copies-{data}-{model}-{name}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = [Input(kind=kind, data=change(file.read_bytes())) for file in files]
            np.savez(path, **_encoded(model, changed))
        with np.load(path) as views:
            made[name] = {view: views[view] for view in views.files if views[view].ndim > 1}
    return Planted(f"{data}, {model}", made.pop("orig"), made)


def _files(data: str) -> list[Path]:
    if data == "groceries":
        root = DATA / "grocery_store_subset" / "dataset"
        lists = (root / f"{split}_subset.txt" for split in ("train", "test"))
        lines = [line for one in lists for line in one.read_text().splitlines() if line.strip()]
        files = [root / line.split(",")[0].strip() for line in lines]
    else:
        files = sorted((DATA / data).rglob("*.wav"))
    return [files[i] for i in np.random.default_rng(5).choice(len(files), ORIGINALS, replace=False)]


def _encoded(model: str, inputs: Sequence[Input]) -> dict[str, NDArray[np.float16]]:
    """Features as a server computes them; the encoder must be in its cache (`graft-server prepare`)."""
    backbone = open_backbone(model, str(WEIGHTS / model))
    preprocessor = backbone.preprocessor()
    graph = EncoderCache(ENCODERS).graph(backbone.encoder_id)
    encoder = Encoder(graph, device="cpu", threads=1, collate=preprocessor.collate)
    views: dict[str, list[NDArray[np.float16]]] = {}
    for start in range(0, len(inputs), 4):
        items = [preprocessor.prepare(one).item for one in inputs[start : start + 4]]
        for view, features in encoder.encode(items).items():
            views.setdefault(view, []).append(features.astype(np.float16))
    return {view: np.concatenate(parts) for view, parts in views.items()}


def _stored(picture: Image.Image, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _picture(data: bytes, scale: float = 1) -> Image.Image:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    size = round(picture.width * scale), round(picture.height * scale)
    return picture if scale == 1 else picture.resize(size, Image.Resampling.LANCZOS)


PICTURE: Mapping[str, Change] = {
    "jpeg85": lambda data: _stored(_picture(data), "JPEG", quality=85),
    "jpeg50": lambda data: _stored(_picture(data), "JPEG", quality=50),
    "webp": lambda data: _stored(_picture(data), "WEBP", quality=75),
    "half": lambda data: _stored(_picture(data, 0.5), "JPEG", quality=90),
    "larger": lambda data: _stored(_picture(data, 1.5), "PNG"),
}


def _clip(
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]], form: str = "WAV", times: int = 1
) -> Change:
    def changed(data: bytes) -> bytes:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        file = io.BytesIO()
        subtype = "VORBIS" if form == "OGG" else "PCM_16"
        soundfile.write(file, change(samples), rate * times, subtype=subtype, format=form)
        return file.getvalue()

    return changed


def _resampled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(resample_poly(samples, 2, 1), np.float32)


CLIP: Mapping[str, Change] = {
    "shift10": _clip(lambda samples: np.concatenate([np.zeros(80, np.float32), samples])),
    "cut20": _clip(lambda samples: samples[160:]),
    "half": _clip(lambda samples: samples / 2),
    "ogg": _clip(lambda samples: samples, "OGG"),
    "resampled": _clip(_resampled, times=2),
}
"""FSDD's clips have 8,000 samples a second: 80 are 10 ms."""
