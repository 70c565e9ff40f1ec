"""Whether copies leak into figures, and what it costs that near ones are bound together.

python -m benchmarks.copies [PART ...]     chance, found, without (all by default)

"found": the share of planted copies that is bound, and the share of different inputs. "chance": every input twice, the
second time as a copy; labels are drawn at random, so chance is the true accuracy, and should lie in the stated 95%
interval. "without": stated and true accuracy where nobody planted copies, with and without binding.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DRAWS, banking77, clinc150, few_shot, sms_spam
from benchmarks.harness import Figure, at_least, hardware, merged, save, table
from benchmarks.heads.features import CACHE, Views, cached
from benchmarks.planted import VIEWS, Planted, media, texts
from graft_server.domain.examples import Input
from graft_server.domain.views import stacked
from graft_server.domain.wording import wording_digest
from graft_server.training.examples.copies import Copies, copies_among
from graft_server.training.examples.folded import Parts, examples_in, parts_of
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.search.search import Search
from graft_server.training.tasks.single_label.selection import select_single_label

PARTS = ["found", "chance", "without"]
Set = tuple[str, Views, NDArray[np.int32], Views, NDArray[np.int32], list[bytes]]
"""Name, training features and labels, test features and labels, wordings of the training texts."""
CLASSES = 3
ORIGINALS = 60
"""Inputs of a draw, each with one copy."""
MEDIA = (("groceries", "resnet50-thin"), ("groceries", "dinov2-small"), ("fsdd", "whisper-tiny.en"))
TEXTS = (banking77, sms_spam, clinc150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[], help="chance, found, without")
    chosen = parser.parse_args().parts or PARTS
    figures: list[Figure] = []
    if "found" in chosen:
        figures += _named("found", [*(it for one in _planted() for it in _found(one)), *_different()])
    if "chance" in chosen:
        figures += _named("chance", [it for one in _planted() for it in _chance(one)])
    if "without" in chosen:
        figures += _named("without", list(_without()))
    figures = merged("copies", PARTS, figures)
    machine = hardware()
    lines = [
        "# Copies",
        "",
        ", ".join(f"{key}: {value}" for key, value in machine.items()),
        "",
        *table(figures),
    ]
    save("copies", lines, {"hardware": machine, "figures": [_plain(it) for it in figures]})
    print("\n".join(lines))


def _plain(figure: Figure) -> dict[str, object]:
    return {name: getattr(figure, name) for name in figure.__dataclass_fields__}


def _named(part: str, figures: list[Figure]) -> list[Figure]:
    return [replace(figure, part=part) for figure in figures]


def _planted() -> Iterator[Planted]:
    for make in TEXTS[:2]:
        yield texts(make())
    for data, model in MEDIA:
        yield media(data, model)


def training_set(
    views: Views, labels: NDArray[np.int32], wordings: list[bytes] | None = None
) -> ClassifiedSet:
    """Examples that are all different inputs, for all that a digest says."""
    n, classes = len(labels), int(labels.max()) + 1
    return ClassifiedSet(
        classes=tuple(f"class {c}" for c in range(classes)),
        descriptions=("",) * classes,
        labels=labels,
        weights=np.ones(n),
        validation=np.zeros(n, bool),
        groups=np.arange(n),
        ids=tuple(map(str, range(n))),
        origins=tuple(("w", i) for i in range(n)),
        input_digests=tuple(f"{i}".encode() for i in range(n)),
        features=views,
        wordings=tuple(wordings or ()),
    )


def _twice(planted: Planted, kind: str, rows: NDArray[np.int64], seed: int) -> ClassifiedSet:
    """Some inputs, then a copy of each, with labels drawn at random."""
    copies = planted.copies[kind]
    views = {
        view: np.concatenate([features[rows], copies[view][rows]])
        for view, features in planted.originals.items()
    }
    labels = np.random.default_rng(1000 + seed).integers(0, CLASSES, len(rows)).astype(np.int32)
    labels[:CLASSES] = range(CLASSES)
    wordings = None
    if planted.texts:
        written = [planted.texts[which][row] for which in ("", kind) for row in rows]
        wordings = [wording_digest(Input(text)) for text in written]
    return training_set(views, np.tile(labels, 2), wordings)


def _chance(planted: Planted) -> Iterator[Figure]:
    for kind in planted.copies:
        held, stated = 0, []
        for seed in range(DRAWS):
            rng = np.random.default_rng(seed)
            rows = rng.choice(len(next(iter(planted.originals.values()))), ORIGINALS, replace=False)
            report = select_single_label(_twice(planted, kind, rows, seed), seed=seed).report
            held += report.accuracy_low <= 1 / CLASSES <= report.accuracy_high
            stated.append(report.accuracy)
        what = f"Random labels, {planted.name}, each with a copy ({kind}): chance is in the stated interval"
        yield at_least(
            what, held / DRAWS, 0.9, "of draws", f"{np.mean(stated):.1%} stated, chance {1 / CLASSES:.1%}"
        )


def _found(planted: Planted) -> Iterator[Figure]:
    every = np.arange(len(next(iter(planted.originals.values()))))
    for kind in planted.copies:
        train = _twice(planted, kind, every, 0)
        shares = [_bound(replace(train, wordings=words)) for words in ((), train.wordings)]
        what = f"Planted copies that are bound, {planted.name} ({kind})"
        yield Figure(what, 100 * shares[1], "%", "", f"{shares[0]:.1%} as ready features")


def _bound(train: ClassifiedSet) -> float:
    half = len(train) // 2
    bound = copies_among(train, np.arange(2 * half), 0).bound
    return float((bound[:half] == bound[half:]).mean())


def _different() -> Iterator[Figure]:
    for name, views, labels, *_, words in _sets():
        for size in (8, 64):
            if np.bincount(labels).min() < size:
                continue
            rows = few_shot(labels, size, 0)
            train = training_set(
                {view: it[rows] for view, it in views.items()}, labels[rows], _of(words, rows)
            )
            bound = copies_among(train, np.arange(len(rows)), 0).bound
            counts = np.bincount(bound)
            alone = float((counts[bound] > 1).mean())
            yield Figure(f"Different inputs that are bound, {name}, {size} a class", 100 * alone, "%")


def _sets() -> Iterator[Set]:
    """The sets, inputs of the same wording once."""
    for make in TEXTS:
        data = make()
        words = [wording_digest(Input(text)) or str(i).encode() for i, text in enumerate(data.train)]
        first = np.array(sorted({word: i for i, word in reversed(list(enumerate(words)))}.values()))
        train = cached(f"{data.name}-train", data.train)
        test = cached(f"{data.name}-test", data.test)
        yield (
            data.name,
            {view: train[view][first] for view in VIEWS},
            data.train_labels[first],
            {view: test[view] for view in VIEWS},
            data.test_labels,
            [words[row] for row in first],
        )
    for name in ("groceries-dinov2-small", "fashion-dinov2-small", "fsdd-cut-whisper-tiny.en"):
        path = CACHE / "media" / f"{name}.npz"
        if not path.exists():
            continue
        with np.load(path) as found:
            train, test = (found["split"] == split for split in ("train", "test"))
            views = {view: found[view] for view in found.files if found[view].dtype == np.float16}
            labels = found["coarse" if "coarse" in found.files else "labels"]
            yield (
                name,
                {view: it[train] for view, it in views.items()},
                labels[train],
                {view: it[test] for view, it in views.items()},
                labels[test],
                [],
            )


def _of(words: list[bytes], rows: NDArray[np.int64]) -> list[bytes]:
    return [words[row] for row in rows] if words else []


def _without() -> Iterator[Figure]:
    for name, views, labels, test, test_labels, words in _sets():
        for size in (8, 16):
            if np.bincount(labels).min() < size or size * len(np.unique(labels)) > 2_500:
                continue
            found = []
            for seed in range(DRAWS if size * len(np.unique(labels)) <= 200 else 2):
                rows = few_shot(labels, size, seed)
                train = training_set(
                    {view: it[rows] for view, it in views.items()}, labels[rows], _of(words, rows)
                )
                found.append(_stated_and_true(train, test, test_labels, seed))
            stated, change, true, inside = np.mean(found, axis=0)
            what = f"Change of accuracy out of fold by binding, {name}, {size} a class"
            share = f"{inside:.0%} of {len(found)} draws"
            reference = f"stated {stated:.1%}, true {true:.1%}, in the stated interval in {share}"
            print(what, reference, flush=True)
            yield Figure(what, 100 * change, "points", "", reference)


def _stated_and_true(
    train: ClassifiedSet, test: Views, test_labels: NDArray[np.int32], seed: int
) -> tuple[float, float, float, float]:
    """The stated accuracy, its change by binding, the true one, and whether that is in the stated interval."""
    selection = select_single_label(train, seed=seed)
    features = stacked(test, selection.head.view).astype(np.float32)
    true = float((selection.head.scores(features).probabilities.argmax(axis=1) == test_labels).mean())
    report, every = selection.report, np.arange(len(train))
    apart = Parts(every, every[:0], every[:0], Copies(every, every, every, (), every[:0]), every)
    bound, unbound = (_out_of_fold(train, parts, seed) for parts in (parts_of(train, seed), apart))
    inside = report.accuracy_low <= true <= report.accuracy_high
    return report.accuracy, bound - unbound, true, float(inside)


def _out_of_fold(train: ClassifiedSet, parts: Parts, seed: int) -> float:
    """The share of right answers of the chosen head, each by one that was trained without the example's fold."""
    examples = examples_in(train, parts, seed)
    right = Search(examples).best()[0].trial.probabilities.argmax(axis=1) == examples.labels
    return float(right[examples.measured].mean())


if __name__ == "__main__":
    main()
