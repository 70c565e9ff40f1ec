"""Whether series of look-alikes are found, and whether the figure with them held out is the one on new series.

python -m benchmarks.lookalikes FOLDER [--draws 10]

FOLDER has the checkpoints dinov2-small, resnet50-thin and whisper-tiny.en. Features are computed as the server does,
and cached as those of `benchmarks.heads.features` are.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks.datasets import DATA, banking77, clinc150, few_shot, sms_spam
from benchmarks.harness import CACHE as GRAPHS
from benchmarks.harness import hardware, save
from benchmarks.heads.features import CACHE, featured
from benchmarks.pretraining.images import fashion, groceries
from graft_server.backbones.audio.preprocessor import AudioPreprocessor
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import open_backbone
from graft_server.domain.examples import Input, Kind
from graft_server.domain.views import stacked
from graft_server.encoding.encoder import Encoder
from graft_server.training.examples.series import RISE, rise_among
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.single_label.selection import select_single_label

PICTURES, FRAMES = 8, 5
"""Pictures of each class of Fashion-MNIST of which frames are made, and how many of each."""
PLAIN = 640
"""Pictures of Fashion-MNIST that are drawn from."""
RECORDINGS = 20
"""Of each digit by each speaker."""

Views = Mapping[str, NDArray[np.float16]]


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Features of a set, with what they are of."""

    views: Views
    labels: NDArray[np.int32]
    series: NDArray[np.int64]
    """Which belong together, where that is known; -1 for those that are tested on."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What came of one draw."""

    stated: float
    found: bool
    apart: float
    """With whole groups held out; 0 where none were found."""
    low: float
    high: float
    new: float
    """The accuracy on inputs of other series; 0 where there are none to test on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    found: dict[str, list[Draw]] = {}
    for name, draws in _sets(options.folder, options.draws):
        found[name] = [_drawn(data, rows, test) for data, rows, test in draws]
        _write(found, {})
    _write(found, dict(_texts(options.draws)))


Cells = Iterator[tuple[Data, NDArray[np.int64], NDArray[np.int64]]]


def _sets(folder: Path, draws: int) -> Iterator[tuple[str, Cells]]:
    """Sets with the rows that each draw trains on and tests on; the names of those without series begin with "no"."""
    for backbone in ("dinov2-small", "resnet50-thin"):
        data = _groceries(folder / backbone)
        for each in (12, 8, 6):
            name = f"series: groceries, {each} photographs of 81 products, {backbone}"
            yield name, _of_classes(data, 81, each, 1 if each == 12 else draws)
        for products in (40, 15):
            name = f"series: groceries, 12 photographs of {products} products, {backbone}"
            yield name, _of_classes(data, products, 12, draws)
    frames = _frames(folder / "resnet50-thin")
    for pictures, each in ((3, 5), (8, 3), (8, 5)):
        name = f"series: Fashion-MNIST, {each} frames of {pictures} pictures a class, resnet50-thin"
        yield name, _of_series(frames, pictures, each, draws)
    yield "none: Fashion-MNIST, 1 frame of 8 pictures a class, resnet50-thin", _of_series(frames, 8, 1, draws)
    for backbone in ("dinov2-small", "resnet50-thin"):
        data = _fashion(folder / backbone)
        for each in (12, 24, 48):
            yield (
                f"none: Fashion-MNIST, {each} a class, {backbone}",
                _of_classes(data, 10, each, draws),
            )
    speech = _speech(folder / "whisper-tiny.en")
    yield "none: FSDD, one speaker", _speakers(speech, alone=True)
    yield "speakers: FSDD, five speakers, tested on the sixth", _speakers(speech, alone=False)


def _of_classes(data: Data, classes: int, each: int, draws: int) -> Cells:
    trained, tested = np.flatnonzero(data.series >= 0), np.flatnonzero(data.series < 0)
    for seed in range(draws):
        chosen = np.random.default_rng(seed).permutation(np.unique(data.labels))[:classes]
        rows = trained[np.isin(data.labels[trained], chosen)]
        rows = rows[few_shot(data.labels[rows], each, seed)]
        yield data, rows, tested[np.isin(data.labels[tested], chosen)]


def _of_series(data: Data, pictures: int, each: int, draws: int) -> Cells:
    tested = np.flatnonzero(data.series < 0)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        rows: list[NDArray[np.int64]] = []
        for label in np.unique(data.labels):
            known = np.unique(data.series[(data.labels == label) & (data.series >= 0)])
            rows += [
                rng.permutation(np.flatnonzero(data.series == one))[:each]
                for one in rng.permutation(known)[:pictures]
            ]
        yield data, np.concatenate(rows), tested


def _speakers(data: Data, *, alone: bool) -> Cells:
    for speaker in np.unique(data.series):
        of_one = data.series == speaker
        nobody = np.empty(0, np.int64)
        yield (
            (data, np.flatnonzero(of_one), nobody)
            if alone
            else (data, np.flatnonzero(~of_one), np.flatnonzero(of_one))
        )


def _drawn(data: Data, rows: NDArray[np.int64], test: NDArray[np.int64]) -> Draw:
    classes, labels = np.unique(data.labels[rows], return_inverse=True)
    train = ClassifiedSet(
        classes=tuple(map(str, classes)),
        descriptions=("",) * len(classes),
        labels=labels.astype(np.int32),
        weights=np.ones(len(rows)),
        validation=np.zeros(len(rows), bool),
        groups=np.arange(len(rows)),
        ids=tuple(map(str, rows)),
        origins=tuple(("", int(row)) for row in rows),
        input_digests=tuple(str(row).encode() for row in rows),
        features={view: features[rows] for view, features in data.views.items()},
        recorded=True,
    )
    selection = select_single_label(train, seed=0)
    report, head, new = selection.report, selection.head, 0.0
    if len(test):
        features = stacked({view: it[test] for view, it in data.views.items()}, head.view).astype(np.float32)
        answers = classes[head.scores(features).probabilities.argmax(axis=1)]
        new = float((answers == data.labels[test]).mean())
    found = report.look_alikes
    if found is None:
        return Draw(report.accuracy, False, 0.0, 0.0, 0.0, new)
    return Draw(report.accuracy, True, found.accuracy, found.low, found.high, new)


def _texts(draws: int) -> Iterator[tuple[str, list[float]]]:
    """How far the dimension rises in texts, which are not examined for it."""
    for texts in (banking77(), clinc150(), sms_spam()):
        data, labels = featured(texts).train["pooled"], texts.train_labels
        for each in (16, 32):
            rises = []
            for seed in range(draws):
                rows = few_shot(labels, each, seed)
                rises.append(rise_among([data[rows]], labels[rows], seed))
            yield f"{texts.name}, {each} a class", rises


def _groceries(folder: Path) -> Data:
    photos = [(photo, part) for part in ("train", "test") for photo in groceries(part)]
    views = _encoded("groceries", folder, Kind.IMAGE, lambda: [it.data for it, _ in photos])
    known = np.array([part == "train" for _, part in photos])
    labels = np.array([it.product for it, _ in photos], np.int32)
    return Data(views, labels, np.where(known, np.arange(len(known)), -1))


def _fashion(folder: Path) -> Data:
    (train, labels), (test, truth) = fashion("train"), fashion("t10k")
    pictures = [*train[:PLAIN], *test[:300]]
    views = _encoded("fashion", folder, Kind.IMAGE, lambda: [_png(Image.fromarray(it)) for it in pictures])
    series = np.where(np.arange(len(pictures)) < PLAIN, np.arange(len(pictures)), -1)
    return Data(views, np.concatenate([labels[:PLAIN], truth[:300]]).astype(np.int32), series)


def _frames(folder: Path) -> Data:
    """Frames of some pictures, and one frame each of others."""
    (train, labels), (test, truth) = fashion("train"), fashion("t10k")
    chosen = np.concatenate([np.flatnonzero(labels == label)[:PICTURES] for label in range(10)])
    rng = np.random.default_rng(0)

    def frames() -> list[bytes]:
        of_chosen = [_frame(picture, rng) for it in chosen for picture in [_placed(train[it], rng)] * FRAMES]
        return [*of_chosen, *(_frame(_placed(it, rng), rng) for it in test[:300])]

    views = _encoded("frames", folder, Kind.IMAGE, frames)
    series = np.concatenate([np.repeat(np.arange(len(chosen)), FRAMES), np.full(300, -1)])
    return Data(
        views, np.concatenate([np.repeat(labels[chosen], FRAMES), truth[:300]]).astype(np.int32), series
    )


def _placed(picture: NDArray[np.uint8], rng: np.random.Generator) -> Image.Image:
    """A picture on a background of its own."""
    patches = Image.fromarray(rng.integers(0, 160, (4, 4)).astype(np.uint8))
    background = np.asarray(patches.resize((28, 28), Image.Resampling.BICUBIC))
    return Image.fromarray(np.where(picture > 10, picture, background))


def _frame(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture turned, cut, and lit otherwise."""
    large = picture.resize((112, 112), Image.Resampling.BICUBIC)
    turned = large.rotate(rng.uniform(-15, 15), resample=Image.Resampling.BICUBIC)
    width = 112 * (1 - 0.2 * rng.random())
    left, top = rng.uniform(0, 112 - width, 2)
    cut = turned.crop((int(left), int(top), int(left + width), int(top + width)))
    lit = ImageEnhance.Brightness(cut).enhance(rng.uniform(0.7, 1.3))
    return _png(ImageEnhance.Contrast(lit).enhance(rng.uniform(0.8, 1.2)))


def _speech(folder: Path) -> Data:
    files = [it for it in sorted((DATA / "fsdd").rglob("*.wav")) if int(it.stem.split("_")[2]) < RECORDINGS]
    views = _encoded("speech", folder, Kind.AUDIO, lambda: [it.read_bytes() for it in files])
    digits = np.array([int(it.stem.split("_")[0]) for it in files], np.int32)
    speakers = np.unique([it.stem.split("_")[1] for it in files], return_inverse=True)[1]
    return Data(views, digits, speakers.astype(np.int64))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _encoded(name: str, folder: Path, kind: Kind, inputs: Callable[[], Sequence[bytes]]) -> Views:
    path = CACHE / f"lookalikes-{name}-{folder.name}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_encode(folder, [Input(kind=kind, data=data) for data in inputs()]))
        partial.rename(path)
    with np.load(path) as views:
        return {view: views[view] for view in views.files}


def _encode(folder: Path, inputs: Sequence[Input]) -> dict[str, NDArray[np.float16]]:
    """Features of the graph that `graft-server prepare` made."""
    backbone = open_backbone(folder.name, str(folder))
    preprocessor = backbone.preprocessor()
    if isinstance(
        preprocessor, AudioPreprocessor
    ):  # windows of 30 s take ten times as long for the same words
        preprocessor.recipe = replace(preprocessor.recipe, whole_window=False)
    graph = EncoderCache(GRAPHS).graph(backbone.encoder_id)
    encoder = Encoder(graph, device="cpu", threads=1, collate=preprocessor.collate)
    encoded = [encoder.encode([preprocessor.prepare(it).item]) for it in inputs]
    return {
        view: np.concatenate([it[view] for it in encoded]).astype(np.float16)
        for view in encoder.views
        if all(np.isfinite(it[view].astype(np.float16)).all() for it in encoded)
    }


def _write(found: Mapping[str, Sequence[Draw]], texts: Mapping[str, Sequence[float]]) -> None:
    lines = [
        "# Look-alikes",
        "",
        f"Measured on {', '.join(map(str, hardware().values()))}. `python -m benchmarks.lookalikes FOLDER`",
        "",
        "Accuracy in percent, means over draws: as stated (cross-validated); with whole groups of look-alikes held",
        "out, where such were found; and on new inputs: groceries' test photographs, which show other scenes, frames",
        "of other pictures, Fashion-MNIST's test pictures, the speaker who was not trained on. In brackets, how often",
        "the 95% interval of the second holds the third. Frames are pictures turned by up to 15 degrees, cut by up to",
        "a fifth and lit otherwise, each picture on a background of its own.",
        "",
        "| set | draws | found | stated | groups held out | on new inputs |",
        "|---|---|---|---|---|---|",
    ]
    for name, draws in found.items():
        those = [it for it in draws if it.found]
        apart = "–"
        if those:
            held = sum(it.low <= it.new <= it.high for it in those)
            apart = f"{_mean([it.apart for it in those])} ({held} of {len(those)})"
        new = _mean([it.new for it in draws]) if draws[0].new else "–"
        stated = _mean([it.stated for it in draws])
        lines.append(f"| {name} | {len(draws)} | {len(those)} | {stated} | {apart} | {new} |")
    for kind in ("series", "none"):
        of_kind = [it for name, draws in found.items() if name.startswith(kind) for it in draws]
        if of_kind:
            share = sum(it.found for it in of_kind) / len(of_kind)
            lines.append(f"| **all of {kind}** | {len(of_kind)} | **{share:.0%}** | | | |")
    if texts:
        lines += [
            "",
            "Texts are not examined. By how much log D rises in them, least, median and most of the draws, where",
            f"{RISE} would be taken for series:",
            "",
            "| texts | least | median | most |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {min(of):.2f} | {np.median(of):.2f} | {max(of):.2f} |" for name, of in texts.items()
        ]
    save("lookalikes", lines, {name: [asdict(it) for it in of] for name, of in found.items()})
    print("\n".join(lines), flush=True)


def _mean(shares: Sequence[float]) -> str:
    return f"{100 * float(np.mean(shares)):.1f}"


if __name__ == "__main__":
    main()
