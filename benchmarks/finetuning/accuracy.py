"""What tuning gains on test sets, as a user gets it: through the server, by the method auto."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import graft
from benchmarks.datasets import Texts, banking77, clinc150, goemotions_single, sms_spam
from benchmarks.finetuning import cells
from benchmarks.harness import server

SETS = {"banking77": banking77, "clinc150": clinc150, "goemotions": goemotions_single, "sms_spam": sms_spam}
BUDGET_S = 6 * 3600.0
"""Long enough that it is never what ends a tuning."""


def measure(name: str, *, epochs: int, store: Path | None) -> None:
    """Measures a set with all of its rows, unless its cell is there already.

    Args:
        name: One of SETS.
        epochs: How often each example is seen at most; 0: the server's default.
        store: Where the server keeps what it has; None: a fresh one, that is gone afterwards. A run that was cut
            short goes on in the middle of a tuning with the same store.
    """
    data, key = SETS[name](), f"{name}/all"
    if key not in cells.read():
        with server(store=store) as running, graft.Client(running.target) as client:
            cells.keep(key, _cell(client, key, data, epochs=epochs))


def _cell(client: graft.Client, key: str, data: Texts, *, epochs: int) -> dict[str, Any]:
    started = time.monotonic()
    result = client.adapt(
        key,
        [(text, data.classes[label]) for text, label in zip(data.train, data.train_labels, strict=True)],
        adaptation_id="finetuning",
        method="auto",
        time_budget=BUDGET_S,
        fine_tuning=graft.FineTuning(epochs=epochs) if epochs else None,
        on_progress=_Teller(key),
    )
    took = time.monotonic() - started
    report = result.report
    tried = [*report.other_tunings, *([report.tuning] if report.tuning else [])]
    seconds = {it.method: it.seconds for it in tried}
    test = [(text, data.classes[label]) for text, label in zip(data.test, data.test_labels, strict=True)]
    versions = []
    for number in range(1, result.version + 1):
        method = client.version(key, version=number).report.method
        if number == result.version and any(it["method"] == method for it in versions):
            continue  # what is published at the end is what was the best in between
        found = client.evaluate(key, test, version=number)
        versions.append(
            {
                "version": number,
                "method": method,
                "accuracy": found.accuracy,
                "macro_f1": found.macro_f1,
                "log_loss": found.log_loss,
                "tuning_s": seconds.get(method, 0.0),
            }
        )
        print(key, versions[-1], flush=True)
    return {
        "examples": len(data.train),
        "seconds": took,
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
        "final": next(it for it in versions if it["method"] == report.method),
        "tunings": [
            {
                "method": it.method,
                "kept": it.kept,
                "ended": it.ended,
                "measured": it.measured,
                "frozen_log_loss": it.frozen_log_loss,
                "tuned_log_loss": it.tuned_log_loss,
                "gain_error": it.gain_error,
                "examples_per_second": it.examples_per_second,
                "seconds": it.seconds,
                "history": [[p.epoch, p.train_loss, p.log_loss, p.accuracy] for p in it.history],
            }
            for it in tried
        ],
        "warnings": list(report.warnings),
    }


class _Teller:
    """Prints each evaluation once."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._last: object = None

    def __call__(self, progress: graft.AdaptProgress) -> None:
        told = progress.metrics.get("held_out_log_loss"), progress.stage
        if told == self._last:
            return
        self._last = told
        figures = " ".join(f"{name} {value:.4g}" for name, value in progress.metrics.items())
        print(
            f"{self._key} {progress.stage} {progress.fraction:.2f} eta {progress.eta_s} {figures}", flush=True
        )
