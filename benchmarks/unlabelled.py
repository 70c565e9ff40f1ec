"""What 2,000 examples without a target add at 8 a class: python -m benchmarks.unlabelled [--draws 10] [--sets …].

Heads are selected twice on the same few-shot draw, without and with unlabelled examples that are drawn from the rest of
the training rows, and both are measured on the published test rows, which neither has seen. On CLINC150 the
out-of-scope inputs say what becomes of novelty: all unlabelled rows are in scope, then a fifth of them are not.

Raw figures are kept in the cache (`unlabelled-*.json`), so that a run can be cut short and gone on with; delete
them after changing what they are of.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import datasets
from benchmarks.datasets import DRAWS, Texts, few_shot
from benchmarks.fewshot.sets import NAMES, UnavailableError, load
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, cached, featured
from benchmarks.heads.measure import VIEWS, auroc, hardware, training_set
from graft_server.domain.views import stacked
from graft_server.evaluation import figures
from graft_server.heads import ABSTAIN_ABOVE
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.reporting.unlabelled import with_strangers
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.task import Selection

PER_CLASS = 8
UNLABELLED = 2_000
OUT_OF_SCOPE = 400
"""Out-of-scope inputs among the unlabelled ones, where some are; the others are measured on."""
PUBLISHED = {
    "banking77": datasets.banking77,
    "clinc150": datasets.clinc150,
    "sms_spam": datasets.sms_spam,
}
MIXED = "clinc150-mixed"
SETS = (*PUBLISHED, MIXED, *(it for it in NAMES if it not in PUBLISHED))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one head is worth on the test rows."""

    accuracy: float
    macro_f1: float
    log_loss: float
    abstains: float
    """Share of the test rows on which it abstains."""
    auroc: float
    """Of novelty, between test rows and out-of-scope ones; 0 without any."""
    seconds: float
    """CPU seconds of the selection."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--draws", type=int, default=DRAWS)
    chosen = parser.parse_args()
    raw: dict[str, list[Any]] = {}
    for seed in range(chosen.draws):
        for name in chosen.sets:
            if (found := _kept(name, seed)) is not None:
                raw.setdefault(name, []).append(found)
                _write(raw)


def _kept(name: str, seed: int) -> Any:
    path = CACHE / f"unlabelled-{name}-{PER_CLASS}-{seed}.json"
    if not path.exists():
        try:
            data = _data(name)
        except UnavailableError as error:
            print(f"{name}: {error}", flush=True)
            return None
        path.write_text(json.dumps(_measured(name, data, seed)), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


_LOADED: dict[str, Featured] = {}


def _data(name: str) -> Featured:
    if name not in _LOADED:
        _LOADED[name] = _loaded(name)
    return _LOADED[name]


def _loaded(name: str) -> Featured:
    published = PUBLISHED.get(name.removesuffix("-mixed"))
    if published is not None:
        return replace(featured(published()), names={})
    made = load(name)
    texts = Texts(
        name,
        made.label_names,
        made.texts,
        made.labels.astype(np.int32),
        made.test_texts,
        made.test_labels.astype(np.int32),
    )
    parts = (
        cached(f"fewshot-{name}-{part}", rows)
        for part, rows in (("train", made.texts), ("test", made.test_texts))
    )
    return Featured(texts, *parts, foreign={}, names={})


def _measured(name: str, data: Featured, seed: int) -> dict[str, Any]:
    labels = data.texts.train_labels
    rows = few_shot(labels, PER_CLASS, seed)
    rng = np.random.default_rng([seed, 1])
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    foreign = rng.permutation(len(data.texts.foreign))
    strange = foreign[:OUT_OF_SCOPE] if name == MIXED else foreign[:0]
    pool = rng.permutation(rest)[: UNLABELLED - len(strange)]
    unlabelled = {
        view: np.concatenate(
            [data.train[view][pool], *([data.foreign[view][strange]] if len(strange) else [])]
        )
        for view in VIEWS
    }
    order = rng.permutation(len(pool) + len(strange))
    train = training_set(data, rows)
    before, alone = _selected(data, train, foreign[len(strange) :])
    train = replace(train, unlabelled={view: them[order] for view, them in unlabelled.items()})
    after, taught = _selected(data, train, foreign[len(strange) :])
    report = with_strangers(taught.report, taught.head, train, len(order)).unlabelled
    assert report is not None
    return {
        "examples": len(rows),
        "test": len(data.texts.test),
        "unlabelled": len(order),
        "kind": alone.head.kind,
        "kept": report.kept,
        "settings": dict(taught.report.head.settings) if taught.report.head else {},
        "novel_share": report.novel_share,
        "drift": report.drift,
        "before": _plain(before),
        "after": _plain(after),
    }


def _plain(outcome: Outcome) -> Mapping[str, float]:
    return {name: getattr(outcome, name) for name in outcome.__slots__}


def _selected(data: Featured, train: ClassifiedSet, foreign: NDArray[np.int64]) -> tuple[Outcome, Selection]:
    started = time.process_time()
    selection = select_single_label(train, seed=0)
    seconds = time.process_time() - started
    head, labels = selection.head, data.texts.test_labels
    output = head.scores(stacked(data.test, head.view).astype(np.float32))
    found = figures.figures(output.probabilities, labels, np.ones(len(labels)))
    above = 0.0
    if len(foreign):
        strange = head.scores(stacked(data.foreign, head.view)[foreign].astype(np.float32)).novelty
        above = auroc(output.novelty, strange)
    abstains = float((output.novelty > ABSTAIN_ABOVE).mean())
    return Outcome(found.accuracy, found.macro_f1, found.log_loss, abstains, above, seconds), selection


def _write(raw: dict[str, list[Any]]) -> None:
    lines = [
        "# Unlabelled examples",
        "",
        f"Measured on {hardware()}. `python -m benchmarks.unlabelled`",
        "",
        f"{PER_CLASS} labelled examples a class, and up to {UNLABELLED:,} of the other training rows without labels.",
        "Accuracies in points on test rows that are in neither; means over draws. Worse: draws in which what was kept",
        "loses more than a point. CPU seconds are of the selection, on a machine that had other work.",
        "",
        (
            "| set | classes × examples | unlabelled | test | draws | kept | accuracy | gain (least, most) "
            "| macro-F1 gain | log-loss | gain | worse | seconds | without |"
        ),
        "|---" * 14 + "|",
    ]
    gains = []
    for name, draws in raw.items():

        def mean(key: str, when: str, draws: list[Any] = draws) -> float:
            return float(np.mean([one[when][key] for one in draws]))

        each = [100 * (one["after"]["accuracy"] - one["before"]["accuracy"]) for one in draws]
        if name != MIXED:
            gains.append(float(np.mean(each)))
        first = draws[0]
        lines.append(
            f"| {name} | {first['examples'] // PER_CLASS} × {PER_CLASS} | {first['unlabelled']:,} | {first['test']:,} "
            f"| {len(draws)} | {sum(one['kept'] for one in draws)} | {100 * mean('accuracy', 'after'):.2f} "
            f"| **{np.mean(each):+.2f}** ({min(each):+.1f}, {max(each):+.1f}) "
            f"| {100 * (mean('macro_f1', 'after') - mean('macro_f1', 'before')):+.2f} "
            f"| {mean('log_loss', 'after'):.3f} | {mean('log_loss', 'before') - mean('log_loss', 'after'):+.3f} "
            f"| {sum(it < -1 for it in each)} | {mean('seconds', 'after'):.1f} | {mean('seconds', 'before'):.1f} |"
        )
    lines += [
        "",
        (
            f"Mean gain over {len(gains)} sets: {np.mean(gains) if gains else 0:+.2f} points; least of a set: "
            f"{min(gains, default=0):+.2f}."
        ),
    ]
    lines += _novelty(raw)
    save("unlabelled", lines, {"hardware": hardware(), **raw})
    print("\n".join(lines), flush=True)


def _novelty(raw: dict[str, list[Any]]) -> list[str]:
    lines = [
        "",
        f"Novelty on CLINC150; `{MIXED}` has {OUT_OF_SCOPE} out-of-scope inputs among the unlabelled ones:",
        "",
        "| unlabelled | out-of-scope AUROC | without | abstains in scope | without | novel among the unlabelled |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("clinc150", MIXED):
        if draws := raw.get(name):
            of = {
                (key, when): float(np.mean([one[when][key] for one in draws]))
                for key in ("auroc", "abstains")
                for when in ("before", "after")
            }
            lines.append(
                f"| {name} | {of['auroc', 'after']:.3f} | {of['auroc', 'before']:.3f} | {of['abstains', 'after']:.3f} "
                f"| {of['abstains', 'before']:.3f} | {np.mean([one['novel_share'] for one in draws]):.3f} |"
            )
    return lines


if __name__ == "__main__":
    main()
