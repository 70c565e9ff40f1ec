"""The labelled data sets that benchmarks and tests run on, found through GRAFT_DATA."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(os.environ.get("GRAFT_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
PART = (10_000, 2_000)
"""Training and test comments of a part of GoEmotions."""
DRAWS = 10
"""Few-shot figures are means over this many draws (seeds 0 to 9)."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A text data set with its published split."""

    name: str
    classes: tuple[str, ...]
    """Sorted names; labels are indices into it."""
    train: tuple[str, ...]
    train_labels: NDArray[np.int32]
    test: tuple[str, ...]
    test_labels: NDArray[np.int32]
    foreign: tuple[str, ...] = ()
    """Test inputs that belong to none of the classes."""


@dataclass(frozen=True, slots=True)
class LabelledSets:
    """A text data set whose texts carry any number of labels, with its published split."""

    name: str
    classes: tuple[str, ...]
    """Sorted names."""
    train: tuple[str, ...]
    train_targets: NDArray[np.bool_]
    """shape (n, k): which labels apply."""
    test: tuple[str, ...]
    test_targets: NDArray[np.bool_]
    foreign: tuple[str, ...] = ()


def _coded(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int32]:
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[label] for label in labels], np.int32)


def banking77() -> Texts:
    """10,003 / 3,080 questions to a bank, 77 intents."""
    rows = {}
    for split in ("train", "test"):
        with (DATA / "banking77" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
            rows[split] = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    return _texts("banking77", rows["train"], rows["test"])


def clinc150() -> Texts:
    """15,000 / 3,000 / 4,500 requests to an assistant, 150 intents, and 1,000 that are none of them."""
    data = json.loads((DATA / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    foreign = tuple(text for text, _ in data["oos_test"])
    return _texts("clinc150", data["train"], data["test"], foreign)


def goemotions_single() -> Texts:
    """The rows of GoEmotions that carry one emotion only: 36,308 / 4,590 comments, 28 emotions."""
    rows = {split: goemotions(split) for split in ("train", "test")}
    single = {split: [(t, ls[0]) for t, ls in rows[split] if len(ls) == 1] for split in rows}
    return _texts("goemotions", single["train"], single["test"])


def sms_spam() -> Texts:
    """5,574 text messages, 13% spam; a fifth is held out, equal messages on the same side."""
    text = (DATA / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf-8")
    rows = [
        (message, label) for label, _, message in (line.partition("\t") for line in text.split("\n")) if label
    ]
    messages = sorted({message for message, _ in rows})
    held_out = set(np.random.default_rng(0).permutation(messages)[: len(messages) // 5].tolist())
    return _texts(
        "sms_spam",
        [row for row in rows if row[0] not in held_out],
        [row for row in rows if row[0] in held_out],
    )


def goemotions_sets() -> LabelledSets:
    """All of GoEmotions: 43,410 / 5,427 comments with 1 to 5 of 28 emotions."""
    rows = {split: goemotions(split) for split in ("train", "test")}
    classes = tuple(sorted({label for _, labels in rows["train"] for label in labels}))
    index = {name: i for i, name in enumerate(classes)}
    targets = {split: np.zeros((len(rows[split]), len(classes)), bool) for split in rows}
    for split, carried in targets.items():
        for row, (_, labels) in zip(carried, rows[split], strict=True):
            row[[index[label] for label in labels]] = True
    texts = {split: tuple(text for text, _ in rows[split]) for split in rows}
    return LabelledSets(
        "goemotions-sets", classes, texts["train"], targets["train"], texts["test"], targets["test"]
    )


def goemotions_part() -> LabelledSets:
    """The first 10,000 / 2,000 comments of GoEmotions, where all take too long to encode."""
    whole = goemotions_sets()
    train, test = PART
    return LabelledSets(
        "goemotions-part",
        whole.classes,
        whole.train[:train],
        whole.train_targets[:train],
        whole.test[:test],
        whole.test_targets[:test],
    )


def goemotions_part_single() -> Texts:
    """The comments of `goemotions_part` that carry one emotion only."""
    part = goemotions_part()
    one, held_out = (it.sum(axis=1) == 1 for it in (part.train_targets, part.test_targets))
    return Texts(
        "goemotions-part-single",
        part.classes,
        tuple(text for text, kept in zip(part.train, one, strict=True) if kept),
        part.train_targets[one].argmax(axis=1).astype(np.int32),
        tuple(text for text, kept in zip(part.test, held_out, strict=True) if kept),
        part.test_targets[held_out].argmax(axis=1).astype(np.int32),
    )


def goemotions(split: str) -> list[tuple[str, list[str]]]:
    """The comments of a published split (train, dev, test), each with its emotions."""
    folder = DATA / "goemotions" / "original"
    names = (folder / "labels.txt").read_text(encoding="utf-8").split()
    rows = []
    with (folder / f"{split}.tsv").open(newline="\n", encoding="utf-8") as file:
        for line in file:
            text, ids, _ = line.rstrip("\n").split("\t")
            rows.append((text, [names[int(i)] for i in ids.split(",")]))
    return rows


def _texts(
    name: str,
    train: Sequence[Sequence[str]],
    test: Sequence[Sequence[str]],
    foreign: tuple[str, ...] = (),
) -> Texts:
    classes = tuple(sorted({label for _, label in train}))
    return Texts(
        name,
        classes,
        tuple(text for text, _ in train),
        _coded([label for _, label in train], classes),
        tuple(text for text, _ in test),
        _coded([label for _, label in test], classes),
        foreign,
    )


def few_shot(labels: NDArray[np.int32], per_class: int, seed: int) -> NDArray[np.int64]:
    """Rows of one few-shot draw: `per_class` of each class, without replacement, class by class."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in np.unique(labels)
    ]
    return np.concatenate(rows)
