"""What a pre-trained backbone is worth: adapted to classes that it was not trained on, against from scratch.

python -m benchmarks.pretraining FOLDER
python -m benchmarks.transfer FOLDER [digits] [fashion] [fashion-tops] [groceries]

Adapting goes through the server, as a user would do it. From scratch, the same architecture is trained from random
weights on the same examples, changed at random as those of pre-training are, and answers the same test set.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import graft
from benchmarks.datasets import few_shot
from benchmarks.harness import Figure, merged, server, write
from benchmarks.pretraining import images as pictures
from benchmarks.pretraining import sounds
from benchmarks.pretraining.training import fit

DRAWS = {10: 10, 100: 2}
"""How often so many examples of each class are drawn."""
CLEAR = 2.0
"""Standard errors by which a margin has to be above none."""
TESTED = 150
"""Test images of each class of Fashion-MNIST: more change the third digit only."""

_NOTES = f"""\
Means over {DRAWS[10]} draws of 10 examples and {DRAWS[100]} of 100, ± their standard deviation; both sides are given
the same examples, and what they differ by is told with its standard error over the draws. At 10 each it is to be ahead
by more than two of them. The backbones are small, and pre-trained in some minutes on two cores
(`benchmarks/pretraining`): figures say what transfer adds, not what a published checkpoint would reach. Adapted means
a head on the frozen backbone, as Adapt trains it by default; from scratch, all weights are trained, for at least 600
steps on examples that are changed at random, as pre-training changes them: no easy rival.

Fashion-MNIST: ResNets of 1.3 million weights, pre-trained on all images of six classes, adapted to the other four (once
shirts, sneakers, bags and ankle boots, once T-shirts, trousers, pullovers and dresses), tested on {TESTED} test images
of each. Groceries: the same, pre-trained on the photographs of every other product, adapted to
those between. FSDD: Whisper's encoder with 130,000 weights and a window of {sounds.WINDOW_S} s, pre-trained on
digits 0 to 5 by {", ".join(sounds.SPEAKERS)}, adapted to 6 to 9 by the same, tested on all recordings of
those by {" and ".join(sounds.HELD_OUT_SPEAKERS)}, whom neither pre-training nor adapting heard.

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
    fashion = {name: partial(_fashion, name) for name in pictures.FASHION}
    parts = {"digits": _digits, **fashion, "groceries": _groceries}
    with tempfile.TemporaryDirectory() as changed:
        cut = _cut_windows(folder / "digits", Path(changed) / "cut")
        sources = {name: folder / name for name in parts} | {"digits-cut": cut}
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


def _fashion(backbone: str, client: graft.Client) -> list[Figure]:
    """The four classes that a backbone has not seen."""
    images, labels = pictures.fashion("train")
    test_images, test_labels = pictures.fashion("t10k")
    classes = pictures.FASHION[backbone]
    rows = np.flatnonzero(np.isin(labels, classes))
    tested = np.concatenate([np.flatnonzero(test_labels == it)[:TESTED] for it in classes])
    test = [Image.fromarray(it) for it in test_images[tested]]
    figures = []
    for shots, draws in DRAWS.items():
        adapted, scratch = [], []
        for seed in range(draws):
            chosen = rows[few_shot(labels[rows].astype(np.int32), shots, seed)]
            train = [Image.fromarray(it) for it in images[chosen]]
            split = Split(list(map(png, train)), labels[chosen], list(map(png, test)), test_labels[tested])
            adapted.append(_adapted(client, backbone, split))
            scratch.append(_seen_from_scratch(train, test, split, pictures.FASHION_EDGE, seed=seed))
        names = f"classes {classes[0]} to {classes[-1]}"
        figures.append(_figure(f"Fashion-MNIST, {names}, {shots} each", adapted, scratch, few=shots == 10))
    return figures


def _digits(client: graft.Client) -> list[Figure]:
    clips = [it for it in sounds.digits() if it.digit in sounds.TRANSFERRED]
    known = [it for it in clips if it.speaker in sounds.SPEAKERS]
    tested = [it for it in clips if it.speaker in sounds.HELD_OUT_SPEAKERS]
    labels = np.array([it.digit for it in known])
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
            scratch.append(_heard_from_scratch(chosen, tested, split, seed=seed))
        few = shots == 10
        figures.append(
            _figure(f"FSDD, 4 new digits, 2 new speakers, {shots} each", adapted, scratch, few=few)
        )
        figures.append(_figure(f"the same, {shots} each, windows cut to the clips", cut, scratch, few=few))
    return figures


def _groceries(client: graft.Client) -> list[Figure]:
    """All photographs of those products that the backbone has not seen."""
    train, test = (
        [it for it in pictures.groceries(part) if not pictures.is_pretrained(it.product)]
        for part in ("train", "test")
    )
    split = Split(
        [it.data for it in train], np.array([it.product for it in train]), [it.data for it in test],
        np.array([it.product for it in test]),
    )  # fmt: skip
    read = pictures.opened(train), pictures.opened(test)
    scratch = [_seen_from_scratch(*read, split, pictures.GROCERY_EDGE, seed=seed) for seed in range(3)]
    adapted = [_adapted(client, "groceries", split)] * len(scratch)  # nothing about it is drawn
    products = len(np.unique(split.train_labels))
    return [_figure(f"Grocery photographs, {products} new products, 12 each", adapted, scratch, few=True)]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _adapted(client: graft.Client, backbone: str, split: Split) -> float:
    """Accuracy of a model that the server made of the examples."""
    model = f"transfer/{backbone}"
    pairs = zip(split.train, split.train_labels, strict=True)
    result = client.adapt(model, [(data, str(label)) for data, label in pairs], backbone=backbone)
    answers = client.predict(model, split.test, version=result.version, top_k=1)
    right = [it.label == str(label) for it, label in zip(answers, split.test_labels, strict=True)]
    return 100 * float(np.mean(right))


def _seen_from_scratch(
    train: Sequence[Image.Image], test: Sequence[Image.Image], split: Split, edge: int, *, seed: int
) -> float:
    """Accuracy of the same ResNet trained from random weights."""
    torch.manual_seed(seed)
    classes, labels = np.unique(split.train_labels, return_inverse=True)
    classifier = pictures.Classifier(pictures.resnet(), len(classes))
    size = min(32, max(8, len(labels) // 8))
    steps = -(-len(labels) // size)
    batches = pictures.batches(pictures.pixels(train, edge), labels, size)
    epochs = max(40, 600 // steps)
    fit(classifier, batches, torch.nn.functional.cross_entropy, steps=steps, epochs=epochs, rate=2e-3)
    values = torch.from_numpy(pictures.pixels(test, edge))
    return _accuracy(lambda part: classifier(values[part]), classes, split)


def _heard_from_scratch(
    chosen: Sequence[sounds.Clip], tested: Sequence[sounds.Clip], split: Split, *, seed: int
) -> float:
    """The same of Whisper's encoder; each clip is changed as those of pre-training are."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    voices = sounds.Voices(chosen, generator)
    classes, labels = np.unique(split.train_labels, return_inverse=True)
    classifier = sounds.Classifier(sounds.whisper(), len(classes))
    steps = len(labels) // min(32, max(8, len(labels) // 8))

    def batches() -> Iterator[tuple[sounds.Heard, torch.Tensor]]:
        for rows in np.array_split(generator.permutation(len(labels)), steps):
            yield voices.said([voices.powers[row] for row in rows]), torch.from_numpy(labels[rows])

    loss = torch.nn.functional.cross_entropy
    fit(classifier, batches, loss, steps=steps, epochs=max(40, 600 // steps), rate=2e-3)
    spectra, filled = map(torch.from_numpy, sounds.spectrograms(tested))
    return _accuracy(lambda part: classifier((spectra[part], filled[part])), classes, split)


def _accuracy(logits: Callable[[slice], torch.Tensor], classes: NDArray[np.int64], split: Split) -> float:
    parts = [slice(start, start + 256) for start in range(0, len(split.test), 256)]
    with torch.no_grad():
        found = np.concatenate([classes[logits(part).argmax(1).numpy()] for part in parts])
    return 100 * float((found == split.test_labels).mean())


def _figure(what: str, adapted: Sequence[float], scratch: Sequence[float], *, few: bool) -> Figure:
    """Accuracies of the same draws on both sides, at least two; with `few` examples there is a target."""

    def said(found: Sequence[float]) -> str:
        return f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f} %"

    margins = [one - other for one, other in zip(adapted, scratch, strict=True)]
    ahead, error = statistics.mean(margins), statistics.stdev(margins) / math.sqrt(len(margins))
    reference = f"{said(scratch)} from scratch, adapted {said(adapted)}: {ahead:+.1f} ± {error:.1f} points"
    target = "clearly ahead of scratch" if few else ""
    met = ahead > CLEAR * error if few else None
    return Figure(what, statistics.mean(adapted), "%", target, reference, met)


if __name__ == "__main__":
    main()
