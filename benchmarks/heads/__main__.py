"""Measures the head factory: python -m benchmarks.heads [--sets banking77 clinc150 goemotions sms_spam].

Few-shot rows are means over 10 draws. Raw figures are kept in the cache and not measured again, so that a run
can be cut short and gone on with; delete the cache's `heads-*.json` after changing the code that it measures
here; baselines can stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.datasets import DRAWS, Texts, banking77, clinc150, few_shot, goemotions_single, sms_spam
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, featured
from benchmarks.heads.measure import baseline, from_scratch, hardware, measured, planted_errors

SETS: dict[str, Callable[[], Texts]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "goemotions": goemotions_single,
    "sms_spam": sms_spam,
}
SIZES = (8, 16, 0)
"""Examples per class; 0 is all."""
CURVE_SIZES = (2, 4, 8, 16, 20, 24, 32)
"""Of Banking77, for the curve beside learning from scratch."""
FLIPPED = 0.05
COLUMNS = (
    "set / per class",
    "examples",
    "draws",
    "accuracy",
    "baseline",
    "macro-F1",
    "baseline",
    "log-loss",
    "baseline",
    "ECE",
    "best single − ours",
    "out-of-scope AUROC",
    "baseline",
    "abstains",
    "seconds",
    "CPU seconds",
    "kinds",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--draws", type=int, default=DRAWS)
    chosen = parser.parse_args()
    raw: dict[str, dict[str, Any]] = {}
    for name in chosen.sets:
        data = featured(SETS[name]())
        for size in SIZES:
            raw |= _size(data, size, chosen.draws)
            _write(raw)
        if name == "banking77":
            raw |= _extras(data)
            _write(raw)


def _size(data: Featured, size: int, draws: int) -> dict[str, dict[str, Any]]:
    labels = data.texts.train_labels
    if size and np.bincount(labels).min() < size:
        return {}
    found = []
    for seed in range(draws if size else 1):
        rows = few_shot(labels, size, seed) if size else np.arange(len(labels))

        found.append(
            {
                "head": _kept(
                    f"{data.texts.name}-{size}-{seed}", lambda rows=rows: asdict(measured(data, rows)[0])
                ),
                "baseline": _kept(
                    f"baseline-{data.texts.name}-{size}-{seed}",
                    lambda rows=rows: asdict(baseline(data, rows)),
                ),
            }
        )
    return {f"{data.texts.name}/{size or 'all'}": {"draws": found, "examples": len(rows)}}


def _extras(data: Featured) -> dict[str, dict[str, Any]]:
    labels = data.texts.train_labels
    everything = np.arange(len(labels))
    curve: dict[str, Any] = {}
    for size in CURVE_SIZES:
        rows = few_shot(labels, size, 0)
        curve[str(len(rows))] = {
            "head": _kept(f"curve-{size}", lambda rows=rows: measured(data, rows)[0].accuracy),
            "scratch": _kept(f"scratch-{size}", lambda rows=rows: from_scratch(data, rows)),
        }
    curve[str(len(labels))] = {
        "head": _kept("banking77-0-0", dict)["accuracy"],
        "scratch": _kept("scratch-all", lambda: from_scratch(data, everything)),
    }
    planted = _kept("planted", lambda: planted_errors(data, FLIPPED, 0))
    return {"curve": curve, "planted": {"precision": planted}}


def _kept(name: str, measure: Callable[[], Any]) -> Any:
    path = CACHE / f"heads-{name}.json"
    if not path.exists():
        path.write_text(json.dumps(measure()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def _write(raw: dict[str, dict[str, Any]]) -> None:
    lines = [
        "# The head factory",
        "",
        f"Measured on {hardware()}. Accuracies in points, means over draws ± one",
        "",
    ]
    lines[2] += " standard deviation; seconds are of a machine that may have had other work;"
    lines[2] += " the baseline is scikit-learn's LogisticRegression(C=10) on the pooled features."
    lines += _table(raw)
    if "planted" in raw:
        lines += [
            "",
            f"Planted label errors ({FLIPPED:.0%} of Banking77 flipped): precision at the number planted ",
        ]
        lines[-1] += f"{raw['planted']['precision']:.3f}."
        lines += ["", "| examples of Banking77 | frozen head | TF-IDF from scratch |", "|---|---|---|"]
        lines += [
            f"| {int(size):,} | {100 * at['head']:.1f} | {100 * at['scratch']:.1f} |"
            for size, at in raw["curve"].items()
        ]
    save("heads", lines, {"hardware": hardware(), **raw})
    print("\n".join(lines), flush=True)


def _table(raw: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    for name, cell in raw.items():
        if "draws" not in cell:
            continue
        heads = [draw["head"] for draw in cell["draws"]]
        bases = [draw["baseline"] for draw in cell["draws"]]

        def mean(of: list[dict[str, Any]], key: str) -> float:
            return float(np.mean([one[key] for one in of]))

        kinds = ", ".join(sorted({f"{head['kind']} on {head['view']}" for head in heads}))
        spread = 100 * np.std([head["accuracy"] for head in heads])
        lines.append(
            f"| {name} | {cell['examples']:,} | {len(heads)} | **{100 * mean(heads, 'accuracy'):.2f}** ± {spread:.2f} "
            f"| {100 * mean(bases, 'accuracy'):.2f} | {100 * mean(heads, 'macro_f1'):.2f} "
            f"| {100 * mean(bases, 'macro_f1'):.2f} | {mean(heads, 'log_loss'):.3f} | {mean(bases, 'log_loss'):.3f} "
            f"| {mean(heads, 'calibration_error'):.3f} "
            f"| {100 * (mean(heads, 'best_single') - mean(heads, 'accuracy')):.2f} | {mean(heads, 'auroc'):.3f} "
            f"| {mean(bases, 'auroc'):.3f} | {mean(heads, 'false_alarms'):.3f} | {mean(heads, 'seconds'):.1f} "
            f"| {mean(heads, 'cpu_seconds'):.1f} | {kinds} |"
        )
    return lines


if __name__ == "__main__":
    main()
