"""Beside the search that tries everything: python -m benchmarks.heads.exhaustive [--draws 10].

Every view, with and without the classes' names, every kind of head at every strength, and blends of the best of
each, all on all examples; the choice is the simplest whose cross-validated log-loss is within 0.002 of the least. On
the test set, what the greedy search chose must be as good, and no single candidate, tuned by itself, may be better by
much.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DRAWS, Texts, banking77, clinc150, few_shot, goemotions_single, sms_spam
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, featured
from benchmarks.heads.measure import hardware, training_set
from graft_server.domain.views import stacked
from graft_server.heads.maps import blended
from graft_server.training.examples.folded import Examples, examples_of
from graft_server.training.search import candidates
from graft_server.training.search.candidates import LogisticTrials, Trial
from graft_server.training.search.search import AS_GOOD, STRENGTHS, Judged, Search, judge, views_of
from graft_server.training.solvers.kernel import RIDGES

SETS: dict[str, Callable[[], Texts]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "sms_spam": sms_spam,
    "goemotions": goemotions_single,
}
CELLS = (
    *(("banking77", size) for size in (8, 16)),
    *(("sms_spam", size) for size in (8, 16, 0)),
    *(("goemotions", size) for size in (8, 16)),
    *(("clinc150", size) for size in (8, 16)),
    *((name, 0) for name in ("banking77", "clinc150", "goemotions")),
)
COLUMNS = (
    "set / per class",
    "draws",
    "exhaustive",
    "ours",
    "exhaustive − ours",
    "best single candidate",
    "best single − ours",
    "heads tried",
    "CPU time, times ours",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    chosen = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, size in CELLS:
        data = featured(SETS[name]())
        for seed in range(chosen.draws if size else 1):
            cell = found.setdefault(f"{name}/{size or 'all'}", [])
            cell.append(
                {
                    **_kept(f"greedy-{name}-{size}-{seed}", greedy, data, size, seed),
                    **_kept(f"exhaustive-{name}-{size}-{seed}", exhaustive, data, size, seed),
                }
            )
        _write(found)


def _kept(
    name: str, measure: Callable[[Featured, int, int], dict[str, Any]], data: Featured, size: int, seed: int
) -> dict[str, Any]:
    path = CACHE / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(measure(data, size, seed)), encoding="utf-8")
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _examples(data: Featured, size: int, seed: int) -> Examples:
    labels = data.texts.train_labels
    train = training_set(data, few_shot(labels, size, seed) if size else np.arange(len(labels)))
    return examples_of(train, np.arange(len(train)), 0)


def greedy(data: Featured, size: int, seed: int) -> dict[str, Any]:
    """Test accuracy of the greedy search's choice."""
    examples = _examples(data, size, seed)
    start = time.process_time()
    chosen = Search(examples).best()[0].trial
    accuracy = _accuracy(data, chosen)
    return {"ours": accuracy, "kind": chosen.kind, "cpu_seconds": time.process_time() - start}


def exhaustive(data: Featured, size: int, seed: int) -> dict[str, Any]:
    """Test accuracies of the exhaustive search's choice, and of each candidate alone."""
    examples = _examples(data, size, seed)
    start = time.process_time()
    search = Search(examples)
    singles: dict[str, float] = {}
    finalists: list[tuple[float, float]] = []
    tried = 0
    for view in views_of(examples.train):
        for names in (False, True):
            groups = _everything(search, view, names, np.arange(len(examples.rows)))
            tried += sum(map(len, groups))
            for group in groups:
                best = min(group, key=lambda one: one.candidate.log_loss)
                accuracy = _accuracy(data, best.trial)
                finalists.append((best.candidate.log_loss, accuracy))
                if "+" not in best.candidate.kind:
                    singles[f"{best.candidate.kind} on {view}{', names' if names else ''}"] = accuracy
    least = min(loss for loss, _ in finalists)
    return {
        "examples": len(examples.rows),
        "exhaustive": next(accuracy for loss, accuracy in finalists if loss <= least + AS_GOOD),
        "singles": singles,
        "tried": tried,
        "exhaustive_cpu_seconds": time.process_time() - start,
    }


def _everything(search: Search, view: str, names: bool, rows: NDArray[np.int64]) -> list[list[Judged]]:
    """All heads of one view, by kind, simplest kind first."""
    problem, measure = search.problem(view, names, rows)
    trials = LogisticTrials(problem, measure)
    linear = [judge(trials.trial(strength), measure) for strength in STRENGTHS]
    kernel = [judge(candidates.kernel(problem, measure, ridge), measure) for ridge in RIDGES]
    both = candidates.blend(
        *(min(kind, key=lambda one: one.candidate.log_loss).trial for kind in (linear, kernel)), measure
    )
    return [
        [judge(candidates.prototypes(problem, measure), measure)],
        linear,
        kernel,
        [judge(both, measure)],
    ]


def _accuracy(data: Featured, trial: Trial) -> float:
    """On the test set, of the head that the trial's settings give on all examples."""
    members = trial.fit()
    features = stacked(data.test, trial.problem.view).astype(np.float32)
    found = blended(
        [member.map.logits(features) for member in members],
        [member.temperature for member in members],
        [member.share for member in members],
        trial.temperature if len(members) > 1 else 1.0,
    )
    return float((found.argmax(axis=1) == data.texts.test_labels).mean())


def _write(found: dict[str, list[dict[str, Any]]]) -> None:
    lines = [
        "# The greedy search beside the exhaustive one",
        "",
        f"Measured on {hardware()}. Test accuracies in points, means over draws. A single candidate is one kind",
        "of head in one view, its strength chosen by cross-validation; the best of them is the best by test",
        "accuracy, which nobody could have known before. Positive differences are what we miss.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    for name, draws in found.items():
        ours, exhaustive = (
            float(100 * np.mean([draw[key] for draw in draws])) for key in ("ours", "exhaustive")
        )
        singles = {
            key: float(100 * np.mean([draw["singles"][key] for draw in draws])) for key in draws[0]["singles"]
        }
        best = max(singles, key=lambda key: singles[key])
        times = np.mean([draw["exhaustive_cpu_seconds"] / draw["cpu_seconds"] for draw in draws])
        lines.append(
            f"| {name} | {len(draws)} | {exhaustive:.2f} | {ours:.2f} | {exhaustive - ours:+.2f} "
            f"| {singles[best]:.2f} ({best}) | {singles[best] - ours:+.2f} | {draws[0]['tried']} | {times:.1f} |"
        )
    save("heads-exhaustive", lines, found)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
