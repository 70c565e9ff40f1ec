"""What labels that a report lists as worth a second look are: python -m benchmarks.heads.doubtful.

- Planted: a share of the labels is changed, to any other or to the one that is most easily taken for it.
- Natural: in GoEmotions and Banking77 some texts occur several times, but for case and punctuation, each labelled by
  other people. A label that most others of its text contradict counts as wrong, one that most share as right. Equal
  texts share a fold, so that no head knows the others' labels.
- Accepted: the twelve most doubtful labels are changed to what is suggested, unseen, and the head is trained again.

Raw figures are kept in the cache; delete its `doubtful-*.json` after changing the code that they are of.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import Texts, banking77, clinc150, goemotions_part_single, sms_spam
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, featured
from benchmarks.heads.measure import hardware, training_set
from graft_server.domain.views import stacked
from graft_server.evaluation import figures
from graft_server.training.examples.folded import examples_of
from graft_server.training.reporting.data_quality import suspects
from graft_server.training.search.search import Search
from graft_server.training.tasks.single_label.selection import select_single_label

SETS: Mapping[str, Callable[[], Texts]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "goemotions": goemotions_part_single,
    "sms_spam": sms_spam,
}
PLANTED = (
    ("banking77", 2000, 0.03, "any"),
    ("banking77", 2000, 0.03, "similar"),
    ("sms_spam", 1000, 0.03, "any"),
    ("goemotions", 2000, 0.03, "any"),
    ("goemotions", 2000, 0.03, "similar"),
)
"""Sets, examples, shares of labels that are changed, and to which ones."""
NATURAL = (("banking77", 0), ("goemotions", 0))
"""Sets and examples; 0: all."""
ACCEPTED = (("sms_spam", 600, 4), ("banking77", 1000, 3), ("goemotions", 1000, 3))
"""Sets, examples and draws."""
TAKEN = 12
FIRST = (10, 30)
Labels = NDArray[np.int32]
Rows = NDArray[np.int64]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    found: dict[str, list[Any]] = {"planted": [], "natural": [], "accepted": []}
    for name, size, share, kind in PLANTED:
        key = f"doubtful-planted-{name}-{size}-{share}-{kind}"
        found["planted"].append(_kept(key, lambda: _planted(name, size, share, kind)))  # noqa: B023
    for name, size in NATURAL:
        found["natural"].append(_kept(f"doubtful-natural-{name}-{size}", lambda: _natural(name, size)))  # noqa: B023
    for name, size, draws in ACCEPTED:
        for seed in range(draws):
            key = f"doubtful-accepted-{name}-{size}-{seed}"
            found["accepted"].append(_kept(key, lambda: _accepted(name, size, seed)))  # noqa: B023
    _write(found)


def _kept(key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    path = CACHE / f"{key}.json"
    if not path.exists():
        path.write_text(json.dumps(measure()), encoding="utf-8")
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _drawn(data: Featured, size: int, seed: int = 0) -> Rows:
    rows = np.random.default_rng(seed).permutation(len(data.texts.train))
    return np.sort(rows[: size or len(rows)])


def _listed(data: Featured, rows: Rows, labels: Labels) -> Rows:
    """The places, among the rows, whose labels are worth a second look, most doubtful first."""
    train = training_set(data, rows, labels=labels)
    train = replace(train, input_digests=tuple(_worded(data.texts.train[row]).encode() for row in rows))
    examples = examples_of(train, np.arange(len(train)), 0)
    return suspects(examples, Search(examples).best()[0].trial.probabilities)


def _worded(text: str) -> str:
    """A text without case, spacing and punctuation, where it has more."""
    return " ".join(re.findall(r"[^\W_]+", text.lower())) or text


def _planted(name: str, size: int, share: float, kind: str) -> dict[str, Any]:
    data = featured(SETS[name]())
    rows = _drawn(data, size)
    labels, k = data.texts.train_labels[rows].copy(), len(data.texts.classes)
    rng = np.random.default_rng(1)
    changed = rng.choice(size, round(share * size), replace=False)
    if kind == "any":
        labels[changed] = (labels[changed] + rng.integers(1, k, len(changed))) % k
    else:
        labels[changed] = _similar(data, rows, labels)[changed]
    listed = _listed(data, rows, labels)
    right = np.isin(listed, changed)
    return {
        "set": name,
        "examples": size,
        "kind": kind,
        "changed": len(changed),
        "listed": len(listed),
        "precision": float(right.mean()) if len(listed) else 0.0,
        "recall": float(right.sum() / len(changed)),
        "first": [float(right[:first].mean()) for first in FIRST],
    }


def _similar(data: Featured, rows: Rows, labels: Labels) -> Labels:
    """Of each row the class, other than its own, whose mean is closest."""
    features = data.train["pooled"][rows].astype(np.float32)
    k = len(data.texts.classes)
    sums = np.zeros((k, features.shape[1]), np.float32)
    np.add.at(sums, labels, features)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    closeness = features @ means.T
    closeness[np.arange(len(rows)), labels] = -2
    closest: Labels = closeness.argmax(axis=1).astype(np.int32)
    return closest


def _natural(name: str, size: int) -> dict[str, Any]:
    data = featured(SETS[name]())
    repeated = _repeated(data)
    others = _drawn(data, size)
    rows = np.union1d(repeated, others) if size else others
    labels = data.texts.train_labels[rows]
    listed = _listed(data, rows, labels)
    verdicts = _verdicts([_worded(data.texts.train[row]) for row in rows], labels)
    judged = verdicts[listed]
    return {
        "set": name,
        "examples": len(rows),
        "listed": len(listed),
        "judged": int((judged >= 0).sum()),
        "wrong": int((judged == 1).sum()),
        "all judged": int((verdicts >= 0).sum()),
        "all wrong": int((verdicts == 1).sum()),
    }


def _repeated(data: Featured) -> Rows:
    worded = np.array([_worded(text) for text in data.texts.train])
    _, inverse, counts = np.unique(worded, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse] > 2)


def _verdicts(texts: list[str], labels: Labels) -> NDArray[np.int8]:
    """1 where most of at least two others of a text carry another label, 0 where most share it, -1 where unknown."""
    members: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        members.setdefault(text, []).append(place)
    verdicts = np.full(len(texts), -1, np.int8)
    for places in members.values():
        for place in places:
            others = [labels[other] for other in places if other != place]
            if len(others) < 2:
                continue
            same = sum(label == labels[place] for label in others)
            most = max(others.count(label) for label in set(others))
            if same > len(others) / 2:
                verdicts[place] = 0
            elif most > len(others) / 2 and same < most:
                verdicts[place] = 1
    return verdicts


def _accepted(name: str, size: int, seed: int) -> dict[str, Any]:
    data = featured(SETS[name]())
    rows = _drawn(data, size, seed)
    labels = data.texts.train_labels[rows]
    before, errors = _trained(data, rows, labels, seed)
    places = {str(row): place for place, row in enumerate(rows)}
    changed = labels.copy()
    for id_, suggested in errors[:TAKEN]:
        changed[places[id_]] = data.texts.classes.index(suggested)
    after, _ = _trained(data, rows, changed, seed)
    taken = min(len(errors), TAKEN)
    return {"set": name, "examples": size, "taken": taken, "before": before, "after": after}


def _trained(data: Featured, rows: Rows, labels: Labels, seed: int) -> tuple[float, list[tuple[str, str]]]:
    """The log-loss on the test split, and ids with suggested labels."""
    selection = select_single_label(training_set(data, rows, labels=labels), seed=seed)
    features = stacked(data.test, selection.head.view).astype(np.float32)
    truth = data.texts.test_labels
    loss = figures.log_loss(selection.head.scores(features).probabilities, truth, np.ones(len(truth)))
    listed = selection.report.data.label_errors if selection.report.data else ()
    return loss, [(it.example.id, it.suggested) for it in listed]


def _write(found: dict[str, list[Any]]) -> None:
    lines = [
        "# Labels worth a second look",
        "",
        f"Measured on {hardware()}. `python -m benchmarks.heads.doubtful`",
        "",
        "Planted errors: how many of the listed labels are changed ones, and how many of the changed ones are listed.",
        "",
        "| set | examples | changed, to | listed | of these changed | of the first 10 / 30 | of the changed listed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {it['set']} | {it['examples']:,} | {it['changed']}, {it['kind']} | {it['listed']} | {it['precision']:.0%} "
        f"| {it['first'][0]:.0%} / {it['first'][1]:.0%} | {it['recall']:.0%} |"
        for it in found["planted"]
    ]
    lines += [
        "",
        "Natural errors: labels of texts that occur several times, contradicted by most of the others, which other",
        "people labelled.",
        "",
        "| set | examples | listed | judged by others of their text | of these contradicted | of all so judged |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {it['set']} | {it['examples']:,} | {it['listed']} | {it['judged']} "
        f"| {it['wrong'] / max(it['judged'], 1):.0%} | {it['all wrong'] / max(it['all judged'], 1):.0%} "
        f"of {it['all judged']} |"
        for it in found["natural"]
    ]
    lines += [
        "",
        f"Accepting the most doubtful labels' suggestions unseen, at most {TAKEN}: log-loss on the test split.",
        "",
        "| set | examples | accepted | before | after |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {it['set']} | {it['examples']:,} | {it['taken']} | {it['before']:.3f} | {it['after']:.3f} |"
        for it in found["accepted"]
    ]
    save("heads-doubtful", lines, found)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
