"""How many labels a given accuracy takes, chosen by Graft or at random: python -m benchmarks.labelling [SET ...].

A pool is 5,000 rows of a training set, drawn anew for each of ten draws, without their labels. Chosen labels come 50 at
a time, from nothing: what was ranked best by the head of what is labelled so far, by the code that answers
SuggestExamples. The head is the one that `graft adapt` selects, of the classes that have a label by then, and is
measured on the whole test set. Most draws are measured only where the two meet; the first have all points. Draws that
were measured are kept in GRAFT_BENCHMARK_CACHE, so that an interrupted run goes on; --anew forgets them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DRAWS, Texts, banking77, clinc150, goemotions_part_single, sms_spam
from benchmarks.harness import RESULTS, Figure, at_most, hardware, save, table
from benchmarks.heads.features import CACHE, Featured, featured
from benchmarks.heads.measure import training_set
from graft_server.domain.errors import StateError
from graft_server.domain.views import POOLED, stacked
from graft_server.heads import Head
from graft_server.serving.suggesting.choosing import choose
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.single_label.selection import select_single_label

SETS: Mapping[str, Callable[[], Texts]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "sms_spam": sms_spam,
    "goemotions": goemotions_part_single,
}
MANY = ("banking77", "clinc150")
"""The sets of many labels, of which something is demanded."""
POOL = 5_000
BATCH = 50
RANDOM = 400
"""The random labels whose accuracy is to be reached."""
MOST = 0.7
"""The share of them that chosen ones may take."""
CHOSEN_AT = (50, 100, 150, 200)
RANDOM_AT = (RANDOM,)
WHOLE = 2
"""The draws whose curves are measured as a whole."""
WHOLE_CHOSEN_AT = (*CHOSEN_AT, 250, 300)
WHOLE_RANDOM_AT = (50, 100, 200, 300, RANDOM)
DRAWS_KEPT = CACHE / "labelling.jsonl"
SVG = Path(__file__).resolve().parents[1] / "docs" / "labelling.svg"


WIDTH, HEIGHT, LEFT, PANEL, GAP = 760, 320, 44, 320, 52
LOW, HIGH = 0, 100
TITLES = {"banking77": "Banking77: accuracy, 77 intents", "clinc150": "CLINC150: accuracy, 150 intents"}
LINES = (("chosen by Graft", "#2b7a4b", -10), ("at random", "#9c6b30", 24))


@dataclass(frozen=True, slots=True)
class Draw:
    """The accuracies of one draw."""

    data: str
    chosen: bool
    seed: int
    accuracies: dict[str, float]
    """By the number of labels."""
    classes: dict[str, int]
    """How many classes have a label."""
    choosing_s: float = 0.0
    """The processor time of one ranking, at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET", help=", ".join(SETS))
    parser.add_argument("--draws", type=int, default=DRAWS, help="how many draws")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--anew", action="store_true", help="forget the draws that were measured")
    args = parser.parse_args()
    if args.anew:
        DRAWS_KEPT.unlink(missing_ok=True)
    draws = [Draw(**json.loads(line)) for line in _lines()]
    done = {(it.data, it.chosen, it.seed) for it in draws}
    data = {name: featured(SETS[name]()) for name in args.sets}
    for seed in range(args.first, args.first + args.draws):
        for name in args.sets:
            for chosen in (True, False):
                if (name, chosen, seed) not in done:
                    draws.append(_drawn(name, data[name], seed, chosen=chosen))
                    with DRAWS_KEPT.open("a") as file:
                        file.write(json.dumps(asdict(draws[-1])) + "\n")
    report(draws)


def _lines() -> list[str]:
    return DRAWS_KEPT.read_text().splitlines() if DRAWS_KEPT.exists() else []


def _drawn(name: str, data: Featured, seed: int, *, chosen: bool) -> Draw:
    rng = np.random.default_rng(seed)
    labels = data.texts.train_labels
    pool = rng.permutation(len(labels))[:POOL]
    rows = pool[:0]
    accuracies, classes = {}, {}
    head: Head | None = None
    choosing_s = 0.0
    whole = seed < WHOLE
    sizes = (WHOLE_CHOSEN_AT if whole else CHOSEN_AT) if chosen else (WHOLE_RANDOM_AT if whole else RANDOM_AT)
    for size in sizes:
        if chosen:
            began = time.process_time()
            rows = np.concatenate([rows, _next(data, pool, rows, head, size - len(rows))])
            choosing_s = max(choosing_s, time.process_time() - began)
        else:
            rows = pool[:size]
        try:
            head = select_single_label(_labelled(data, rows), seed=0).head
        except StateError:  # one class alone
            head = None
        accuracies[str(size)] = 0.0 if head is None else _accuracy(data, head, rows)
        classes[str(size)] = len(np.unique(labels[rows]))
    print(f"{name} {seed} {'chosen' if chosen else 'random'}: {accuracies}", flush=True)
    return Draw(name, chosen, seed, accuracies, classes, choosing_s)


def _next(
    data: Featured, pool: NDArray[np.int64], rows: NDArray[np.int64], head: Head | None, count: int
) -> NDArray[np.int64]:
    """The rows of the pool to label next, as `serving.suggesting` ranks them."""
    left = np.setdiff1d(pool, rows)
    view = POOLED if head is None else head.view
    features = stacked(data.train, view)
    read = features[left].astype(np.float32)
    uncertainty = None if head is None else head.uncertainty(head.scores(read))
    choice = choose(read, features[rows], uncertainty, count)
    return left[choice.rows]


def _labelled(data: Featured, rows: NDArray[np.int64]) -> ClassifiedSet:
    """The rows as a training set of the classes that they have."""
    found = training_set(data, rows)
    seen, labels = np.unique(found.labels, return_inverse=True)
    names = found.label_features or {}
    return replace(
        found,
        classes=tuple(found.classes[it] for it in seen),
        descriptions=("",) * len(seen),
        labels=labels.astype(np.int32),
        label_features={view: array[seen] for view, array in names.items()},
    )


def _accuracy(data: Featured, head: Head, rows: NDArray[np.int64]) -> float:
    seen = np.unique(data.texts.train_labels[rows])
    output = head.scores(stacked(data.test, head.view).astype(np.float32))
    found: NDArray[np.float32] = output.probabilities  # type: ignore[attr-defined]
    return float((seen[found.argmax(axis=1)] == data.texts.test_labels).mean())


def mean_curve(draws: list[Draw], name: str, *, chosen: bool) -> dict[int, float]:
    """The mean accuracy by the number of labels."""
    some = [it.accuracies for it in draws if (it.data, it.chosen) == (name, chosen)]
    sizes = sorted({int(size) for it in some for size in it})
    return {at: float(np.mean([it[str(at)] for it in some if str(at) in it])) for at in sizes}


def needed(curve: Mapping[int, float], accuracy: float) -> float:
    """The number of labels at which a curve reaches an accuracy, between its points along lines; inf: nowhere."""
    before = (0, 0.0)
    for size, reached in sorted(curve.items()):
        if reached >= accuracy:
            share = (accuracy - before[1]) / (reached - before[1])
            return before[0] + share * (size - before[0])
        before = (size, reached)
    return float("inf")


def report(draws: list[Draw]) -> None:
    """Writes results/labelling.md and .json, and docs/labelling.svg."""
    figures, lines = [], []
    for name in SETS:
        chosen, at_random = (mean_curve(draws, name, chosen=it) for it in (True, False))
        if not chosen or not at_random:
            continue
        count = min(sum(it.data == name and it.chosen is kind for it in draws) for kind in (True, False))
        target = at_random[RANDOM]
        labels = needed(chosen, target)
        what = f"{name}: chosen labels for the accuracy of {RANDOM} random ones, as a share of them"
        reference = f"{labels:.0f} labels, {100 * target:.1f}% ({count} draws)"
        share = labels / RANDOM
        figures.append(at_most(what, share, MOST if name in MANY else 1.0, "", reference))
        seconds = max(it.choosing_s for it in draws if it.data == name and it.chosen)
        figures.append(Figure(f"{name}: processor time of one ranking of {POOL:,}, at most", seconds, "s"))
        lines += [
            "",
            f"## {name}",
            "",
            "| labels | chosen | classes | random | classes |",
            "|---|---|---|---|---|",
        ]
        for size in sorted({*chosen, *at_random}):
            cells = [
                (f"{100 * curve[size]:.1f}", f"{_classes(draws, name, size, chosen=kind):.0f}")
                if size in curve
                else ("", "")
                for curve, kind in ((chosen, True), (at_random, False))
            ]
            lines.append(f"| {size} | {' | '.join(' | '.join(it) for it in cells)} |")
    machine = hardware()
    head = ["# What to label next: accuracy over the number of labels", ""]
    head += [", ".join(f"{key}: {value}" for key, value in machine.items()), "", *table(figures), ""]
    head += [(__doc__ or "").split("\n\n", 1)[1].strip()]
    save(
        "labelling",
        [*head, *lines],
        {
            "hardware": machine,
            "figures": [asdict(it) for it in figures],
            "draws": [asdict(it) for it in draws],
        },
    )
    print("\n".join([*head, *lines]))
    SVG.write_text(_drawing(draws))
    print(f"written: {RESULTS / 'labelling.md'}")


def _drawing(draws: list[Draw]) -> str:
    """A learning curve for each set of many labels, chosen and at random."""
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for place, name in enumerate(MANY):
        left = LEFT + place * (PANEL + GAP)
        curves = [mean_curve(draws, name, chosen=it) for it in (True, False)]
        if not all(curves):
            continue
        parts.append(f'<text x="{left}" y="22" font-weight="600">{TITLES[name]}</text>')
        for percent in range(LOW, HIGH + 1, 20):
            y = _y(percent)
            parts.append(f'<line x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(
                f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{percent}%</text>'
            )
        for size in (50, 150, 250, RANDOM):
            x = _x(left, size)
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - 28}" text-anchor="middle" fill="#555">{size}</text>'
            )
        target = curves[1][RANDOM]
        y = _y(100 * target)
        parts.append(
            f'<line x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="#888" '
            'stroke-dasharray="4 3"/>'
        )
        for curve, (words, colour, offset) in zip(curves, LINES, strict=True):
            points = [(_x(left, size), _y(100 * it)) for size, it in sorted(curve.items())]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
            x, y = points[2]
            parts.append(f'<text x="{x + 10:.0f}" y="{y + offset:.0f}" fill="{colour}">{words}</text>')
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#555">labels; dashed: what '
        f"{RANDOM} random ones give</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="13">{"".join(parts)}</svg>\n'
    )


def _x(left: float, size: int) -> float:
    return left + 10 + (size - BATCH) / (RANDOM - BATCH) * (PANEL - 20)


def _y(percent: float) -> float:
    return 36 + (HIGH - percent) / (HIGH - LOW) * (HEIGHT - 36 - 48)


def _classes(draws: list[Draw], name: str, size: int, *, chosen: bool) -> float:
    some = [it.classes for it in draws if (it.data, it.chosen) == (name, chosen)]
    return float(np.mean([it[str(size)] for it in some if str(size) in it]))


if __name__ == "__main__":
    main()
