"""How true a report's accuracy is: python -m benchmarks.heads.stated [--draws 10] [--sets banking77,sms_spam].

Heads are selected on few examples of each class, and on as many examples at the classes' natural shares. The accuracy
that the report states is compared with the head's accuracy on fresh examples, the test split's and those that were not
drawn, at the shares of classes that the draw has: a draw of equally many examples of each class says nothing of how
frequent they are. Raw figures are kept in the cache; delete its `stated/` after
changing the code that they are of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DRAWS, Texts, banking77, clinc150, goemotions_part_single, sms_spam
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, Views, featured
from benchmarks.heads.measure import VIEWS, hardware, training_set
from graft_server.domain.views import stacked
from graft_server.heads import Head
from graft_server.training.tasks.single_label.selection import select_single_label

SIZES = (8, 16, 64)
"""Examples of each class."""
FRESH = 12_000
"""The most examples that were not drawn, on which the truth is measured besides the test split."""
SKEWED = ("goemotions", "sms_spam")
"""Sets that are drawn at their natural shares too."""
SETS: dict[str, Callable[[], Texts]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "goemotions": goemotions_part_single,
    "sms_spam": sms_spam,
}
MEDIA = {"fashion_mnist": "fashion-dinov2-small", "fsdd": "fsdd-whisper-tiny.en"}
"""Sets whose features lie in the cache, in media/NAME.npz, by the backbone in the name; left out where they do not."""
FEWER = {"clinc150": 2}
"""Sets with fewer draws: 64 of each of 150 classes take a minute."""
AT_ONCE = 2_000
Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to draw from a set."""

    name: str
    size: int
    natural: bool

    def __str__(self) -> str:
        return f"{self.name}, {self.size} a class" + (" on average" if self.natural else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--sets", default=",".join([*SETS, *MEDIA]))
    chosen = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for name in chosen.sets.split(","):
        data = _featured(name)
        if data is None:
            print(f"{name} is left out: {CACHE / 'media' / MEDIA[name]}.npz is not there.", flush=True)
            continue
        for natural in (False, True) if name in SKEWED else (False,):
            for size in SIZES:
                cell = Cell(name, size, natural)
                found[str(cell)] = [
                    _kept(data, cell, seed)
                    for seed in range(min(chosen.draws, FEWER.get(name, chosen.draws)))
                ]
    _write(found)


def _featured(name: str) -> Featured | None:
    if name in SETS:
        return featured(SETS[name]())
    path = CACHE / "media" / f"{MEDIA[name]}.npz"
    if not path.exists():
        return None
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    test = arrays["split"] == "test"
    views = {key: value for key, value in arrays.items() if value.dtype == np.float16}
    classes = tuple(str(label) for label in range(int(arrays["labels"].max()) + 1))
    files = [str(it) for it in arrays["files"]]
    texts = Texts(
        name,
        classes,
        tuple(file for file, held in zip(files, test, strict=True) if not held),
        arrays["labels"][~test],
        tuple(file for file, held in zip(files, test, strict=True) if held),
        arrays["labels"][test],
    )
    return Featured(
        texts,
        *({view: it[rows] for view, it in views.items()} for rows in (~test, test)),
        foreign={},
        names={},
    )


def _kept(data: Featured, cell: Cell, seed: int) -> dict[str, Any]:
    name = f"{cell.name}-{cell.size}-{seed}{'-nat' if cell.natural else ''}.json"
    path = CACHE / "stated" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_measured(data, cell, seed)), encoding="utf-8")
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {
        "stated": kept["stated"],
        "low": kept["low"],
        "high": kept["high"],
        "true": kept["same"],
        "standard_error_of_truth": kept["same_se"],
        "test": kept["test"],
        "kind": kept["kind"],
    }


def draw(labels: Labels, size: int, seed: int, *, natural: bool) -> NDArray[np.int64]:
    """Rows of a draw: `size` of each class, but at most two thirds of its own; or as many on average."""
    rng = np.random.default_rng(seed)
    present = np.unique(labels)
    if natural:
        return np.sort(rng.permutation(len(labels))[: size * len(present)])
    rows = []
    for label in present:
        own = np.flatnonzero(labels == label)
        rows.append(rng.choice(own, min(size, len(own) * 2 // 3), replace=False))
    return np.concatenate(rows)


def _measured(data: Featured, cell: Cell, seed: int) -> dict[str, Any]:
    labels, texts = data.texts.train_labels, data.texts
    rows = draw(labels, cell.size, seed, natural=cell.natural)
    selection = select_single_label(training_set(data, rows), seed=seed)
    drawn = {texts.train[row] for row in rows}
    rest = [row for row in np.setdiff1d(np.arange(len(labels)), rows) if texts.train[row] not in drawn]
    rest = np.random.default_rng(9).permutation(np.array(rest, np.int64))[:FRESH]
    views = {view: data.train[view][rest] for view in VIEWS if view in data.train}
    on_test = _right(selection.head, data.test, texts.test_labels)
    answered = np.concatenate([on_test, _right(selection.head, views, labels[rest])])
    fresh = np.concatenate([texts.test_labels, labels[rest]])
    k = len(texts.classes)
    counts = np.bincount(fresh, minlength=k)
    recall = np.bincount(fresh, answered, k) / np.maximum(counts, 1)
    shares = np.bincount(labels[rows], minlength=k) * (counts > 0)
    shares = shares / shares.sum()
    variance = float((shares**2 * recall * (1 - recall) / np.maximum(counts, 1)).sum())
    return {
        "stated": selection.report.accuracy,
        "low": selection.report.accuracy_low,
        "high": selection.report.accuracy_high,
        "same": float(shares @ recall),
        "same_se": variance**0.5,
        "test": float(on_test.mean()),
        "kind": selection.report.head.kind,
    }


def _right(head: Head, views: Views, labels: Labels) -> NDArray[np.bool_]:
    features = stacked(views, head.view)
    found = [
        head.scores(features[start : start + AT_ONCE].astype(np.float32)).probabilities.argmax(axis=1)
        for start in range(0, len(features), AT_ONCE)
    ]
    return np.asarray(np.concatenate(found) == labels)


def _rows(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    for name, draws in found.items():
        off = 100 * np.array([it["stated"] - it["true"] for it in draws])
        width = 100 * np.mean([it["high"] - it["low"] for it in draws])
        stated, true, test = (100 * np.mean([it[key] for it in draws]) for key in ("stated", "true", "test"))
        yield (
            f"| {name} | {len(draws)} | {stated:.1f} | {true:.1f} | {off.mean():+.2f} ± {off.std():.2f} | {width:.1f} "
            f"| {np.mean(_held(draws)):.0%} | {test:.1f} |"
        )


def _held(draws: list[dict[str, Any]]) -> list[bool]:
    return [it["low"] <= it["true"] <= it["high"] for it in draws]


def _write(found: dict[str, list[dict[str, Any]]]) -> None:
    means = [float(np.mean([100 * (it["stated"] - it["true"]) for it in draws])) for draws in found.values()]
    held = [one for draws in found.values() for one in _held(draws)]
    lines = [
        "# Stated and true accuracy",
        "",
        f"Measured on {hardware()}. Accuracies in points, means over draws; intervals are stated to hold 95%.",
        "The truth is the published head's accuracy on fresh examples at the draw's shares of classes; on the test",
        "split as it is, classes may be more or less frequent. `python -m benchmarks.heads.stated`",
        "",
        "| set | draws | stated | true | stated - true, ± its deviation | width | holds | on the test split |",
        "|---|---|---|---|---|---|---|---|",
        *_rows(found),
        "",
        f"Over all: stated - true {np.mean(means):+.2f} points; the interval holds the truth in {np.mean(held):.0%} of",
        f"{len(held)} draws.",
    ]
    save("heads-stated", lines, found)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
