"""What a pre-trained backbone is worth: adapted to classes that it was not trained on, against from scratch.

python -m benchmarks.pretraining FOLDER
python -m benchmarks.transfer FOLDER [digits] [fashion] [groceries]

Adapting goes through the server, as a user would do it. From scratch, the same architecture is trained from random
weights on the same examples, changed at random as those of pre-training are, and answers the same test set.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import graft
from benchmarks import pretraining as p
from benchmarks.datasets import DATA, few_shot
from benchmarks.harness import Figure, merged, server, write

DRAWS = {10: 5, 100: 2}
"""How often so many examples of each class are drawn."""
TESTED = 150
"""Test images of each class of Fashion-MNIST: more change the third digit only."""

Images = NDArray[np.uint8]

_NOTES = f"""\
Means over {DRAWS[10]} draws of 10 examples and {DRAWS[100]} of 100, ± their standard deviation. The backbones are
small, and pre-trained in some minutes on two cores (`benchmarks/pretraining.py`): figures say what transfer adds, not
what a published checkpoint would reach.

Fashion-MNIST: a ResNet of 1.3 million weights, pre-trained on {p.PER_CLASS:,} images of each of classes 0 to 5, adapted
to 6 to 9, tested on {TESTED} test images of each. FSDD: Whisper's encoder with 130,000 weights and a window of
{p.WINDOW_S} s, pre-trained on digits 0 to 5 by {", ".join(p.SPEAKERS)}, adapted to 6 to 9 by the same, tested on all
recordings of those by {" and ".join(p.HELD_OUT_SPEAKERS)}, whom neither pre-training nor adapting heard.

Whisper reads whole windows, silence behind each clip; "cut to the clips" is what `"whole_window": false` makes of it
(`docs/images-and-audio.md`).
"""


@dataclass(frozen=True, slots=True)
class Split:
    """Examples to adapt to, and others to test on."""

    train: list[bytes]
    train_labels: NDArray[np.int64]
    test: list[bytes]
    test_labels: NDArray[np.int64]


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    folder = Path(sys.argv[1])
    parts = {"digits": _digits, "fashion": _fashion, "groceries": _groceries}
    with tempfile.TemporaryDirectory() as changed:
        cut = _cut_windows(folder / "digits", Path(changed) / "cut")
        sources = {"fashion": folder / "fashion", "digits": folder / "digits", "digits-cut": cut}
        flags = [f"--backbone={name}={source}" for name, source in sources.items()]
        with server(*flags) as running, graft.Client(running.target) as client:
            for name in sys.argv[2:] or parts:
                figures = [replace(it, part=name) for it in parts[name](client)]
                write(
                    "transfer",
                    "Transfer to classes that a backbone was not trained on",
                    merged("transfer", [*parts], figures),
                    _NOTES.splitlines(),
                )


def _cut_windows(digits: Path, folder: Path) -> Path:
    """The same checkpoint, asking for windows that are cut to the clip."""
    shutil.copytree(digits, folder)
    settings = folder / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"whole_window": False}))
    return folder


def _fashion(client: graft.Client) -> list[Figure]:
    images, labels = p.fashion("train")
    test_images, test_labels = p.fashion("t10k")
    rows = np.flatnonzero(labels >= p.TRANSFERRED[0])
    tested = np.concatenate([np.flatnonzero(test_labels == it)[:TESTED] for it in p.TRANSFERRED])
    figures = []
    for shots, draws in DRAWS.items():
        adapted, scratch = [], []
        for seed in range(draws):
            chosen = rows[few_shot(labels[rows].astype(np.int32), shots, seed)]
            split = Split(
                [png(it) for it in images[chosen]], labels[chosen], [png(it) for it in test_images[tested]],
                test_labels[tested],
            )  # fmt: skip
            adapted.append(_adapted(client, "fashion", split))
            scratch.append(
                _from_scratch(
                    lambda classes: p.ImageClassifier(p.resnet(), classes),
                    (p.pixels(images[chosen]), np.zeros(len(chosen), np.int64)),
                    (p.pixels(test_images[tested]), np.zeros(len(tested), np.int64)),
                    split, change=p.shifted, seed=seed,
                )
            )  # fmt: skip
        figures.append(_figure(f"Fashion-MNIST, 4 new classes, {shots} each", adapted, scratch))
    return figures


def _digits(client: graft.Client) -> list[Figure]:
    clips = [it for it in p.digits() if it.digit in p.TRANSFERRED]
    known = [it for it in clips if it.speaker in p.SPEAKERS]
    tested = [it for it in clips if it.speaker in p.HELD_OUT_SPEAKERS]
    labels = np.array([it.digit for it in known])
    heard = p.spectrograms(tested)
    figures = []
    for shots, draws in DRAWS.items():
        adapted, cut, scratch = [], [], []
        for seed in range(draws):
            chosen = [known[row] for row in few_shot(labels.astype(np.int32), shots, seed)]
            split = Split(
                [it.data for it in chosen], np.array([it.digit for it in chosen]), [it.data for it in tested],
                np.array([it.digit for it in tested]),
            )  # fmt: skip
            adapted.append(_adapted(client, "digits", split))
            cut.append(_adapted(client, "digits-cut", split))
            scratch.append(_heard_from_scratch(chosen, heard, split, seed=seed))
        figures.append(_figure(f"FSDD, 4 new digits, 2 new speakers, {shots} each", adapted, scratch))
        figures.append(_figure(f"the same, {shots} each, windows cut to the clips", cut, scratch))
    return figures


def _groceries(client: graft.Client) -> list[Figure]:
    """All photographs of 81 products, on a backbone that has only seen clothes, in grey."""
    folder = DATA / "grocery_store_subset" / "dataset"
    files: dict[str, list[bytes]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    for part in ("train", "test"):
        lines = (folder / f"{part}_subset.txt").read_text().splitlines()
        rows = [[it.strip() for it in line.split(",")] for line in lines if line.strip()]
        files[part] = [(folder / row[0]).read_bytes() for row in rows]
        labels[part] = np.array([int(row[1]) for row in rows])
    split = Split(files["train"], labels["train"], files["test"], labels["test"])
    adapted = _adapted(client, "fashion", split)

    def read(data: Sequence[bytes]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        photos = [np.asarray(Image.open(io.BytesIO(it)).convert("RGB").resize((64, 64))) for it in data]
        return p.pixels(np.stack(photos)), np.zeros(len(data), np.int64)

    scratch = _from_scratch(
        lambda classes: p.ImageClassifier(p.resnet(), classes), read(split.train), read(split.test), split,
        change=p.shifted, seed=0,
    )  # fmt: skip
    return [_figure("Grocery photographs, 81 products, 12 each", [adapted], [scratch])]


def png(image: Images) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _adapted(client: graft.Client, backbone: str, split: Split) -> float:
    """Accuracy of a model that the server made of the examples."""
    model = f"transfer/{backbone}"
    pairs = zip(split.train, split.train_labels, strict=True)
    result = client.adapt(model, [(data, str(label)) for data, label in pairs], backbone=backbone)
    answers = client.predict(model, split.test, version=result.version, top_k=1)
    right = [it.label == str(label) for it, label in zip(answers, split.test_labels, strict=True)]
    return 100 * float(np.mean(right))


def _from_scratch(
    make: Callable[[int], torch.nn.Module],
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    test: tuple[NDArray[np.float32], NDArray[np.int64]],
    split: Split,
    *,
    change: Callable[[torch.Tensor], torch.Tensor],
    seed: int,
) -> float:
    """Accuracy of the same architecture trained from random weights."""
    torch.manual_seed(seed)
    classes, labels = np.unique(split.train_labels, return_inverse=True)
    classifier = make(len(classes))
    batch = min(32, max(8, len(labels) // 8))
    epochs = max(10, min(40, 1_500 * batch // len(labels) // 8))
    p.fit(classifier, *train, labels, epochs=epochs, rate=2e-3, change=change, batch=batch)
    return _accuracy(classifier, test, classes, split)


def _heard_from_scratch(
    chosen: Sequence[p.Clip], heard: tuple[NDArray[np.float32], NDArray[np.int64]], split: Split, *, seed: int
) -> float:
    """The same of Whisper's encoder; each clip is changed as those of pre-training are."""
    torch.manual_seed(seed)
    generator, voices = np.random.default_rng(seed), p.Voices(chosen)
    classes, labels = np.unique(split.train_labels, return_inverse=True)
    classifier = p.AudioClassifier(p.whisper(), len(classes))
    size = min(32, max(8, len(labels) // 8))
    steps = len(labels) // size

    def batches() -> Iterator[tuple[p.Heard, torch.Tensor]]:
        for rows in np.array_split(generator.permutation(len(labels)), steps):
            yield (
                voices.batch([voices.samples[row] for row in rows], generator),
                torch.from_numpy(labels[rows]),
            )

    loss = torch.nn.functional.cross_entropy
    p.fit_heard(classifier, batches, loss, steps=steps, epochs=max(40, 600 // steps), rate=2e-3)
    return _accuracy(classifier, heard, classes, split)


def _accuracy(
    classifier: torch.nn.Module,
    test: tuple[NDArray[np.float32], NDArray[np.int64]],
    classes: NDArray[np.int64],
    split: Split,
) -> float:
    found = []
    with torch.no_grad():
        for start in range(0, len(split.test), 256):
            part = slice(start, start + 256)
            logits = classifier(torch.from_numpy(test[0][part]), torch.from_numpy(test[1][part]))
            found.append(classes[logits.argmax(1).numpy()])
    return 100 * float((np.concatenate(found) == split.test_labels).mean())


def _figure(what: str, adapted: Sequence[float], scratch: Sequence[float]) -> Figure:
    def said(found: Sequence[float]) -> str:
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        return f"{statistics.mean(found):.1f}{spread} %"

    ahead = statistics.mean(adapted) - statistics.mean(scratch)
    reference = f"{said(scratch)} from scratch, adapted {said(adapted)}: {ahead:+.1f} points"
    return Figure(what, statistics.mean(adapted), "%", "ahead of scratch", reference, ahead > 0)


if __name__ == "__main__":
    main()
