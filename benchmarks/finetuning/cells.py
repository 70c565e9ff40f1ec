"""What was measured, cell by cell: a run that is cut short keeps what it has, and the next one goes on from there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import RESULTS, Figure, hardware, save, table

NAME = "finetuning"
SETS = {
    "banking77": "Banking77",
    "clinc150": "CLINC150",
    "goemotions": "GoEmotions, rows with one label",
    "sms_spam": "SMS spam",
}

Cell = dict[str, Any]


def read() -> dict[str, Cell]:
    """The cells by name; none before the first run."""
    path = RESULTS / f"{NAME}.json"
    return dict(json.loads(path.read_text())["cells"]) if path.exists() else {}


def keep(name: str, cell: Cell) -> None:
    """Adds or replaces a cell, and writes the page anew."""
    cells = {**read(), name: {**cell, "date": hardware()["date"]}}
    content = {"hardware": hardware(), "cells": dict(sorted(cells.items()))}
    save(NAME, page(cells).splitlines(), content)


def page(cells: Mapping[str, Cell]) -> str:
    """All of it, for people."""
    lines = ["# Fine-tuning", "", ", ".join(f"{key}: {value}" for key, value in hardware().items()), ""]
    lines += [
        "`python -m benchmarks.finetuning` measures it; see `docs/fine-tuning.md` for what it means.",
        "",
    ]
    timed = [it for key in ("speed", "parting") for it in cells.get(key, {}).get("figures", ())]
    figures = [*_accuracy_figures(cells), *(Figure(**it) for it in timed)]
    lines += [*table(figures, "reference"), "", *_adapters(cells), *_trainings(cells)]
    lines += _all_rows(cells)
    return "\n".join(lines).rstrip() + "\n"


def _accuracy_figures(cells: Mapping[str, Cell]) -> list[Figure]:
    figures = []
    frozen, full, partial = _frozen("goemotions"), _trained(cells, "full"), _trained(cells, "partial")
    if full:
        best = full["best"]
        gain = 100 * (best["macro_f1"] - frozen["macro_f1"])
        words = (
            f"after {best['epoch']:.0f} of {full['epochs']} epochs macro-F1 {frozen['macro_f1']:.1%} to "
            f"{best['macro_f1']:.1%}, accuracy {frozen['accuracy']:.1%} to "
            f"{best['accuracy']:.1%}, log-loss {frozen['log_loss']:.3f} to {best['log_loss']:.3f}"
        )
        figures.append(
            Figure("GoEmotions, full over frozen, macro-F1", gain, "points", "≥ 5", words, gain >= 5)
        )
    if full and partial:
        figures += _partial_figures(frozen, partial, full)
    banking = cells.get("banking77/all")
    if banking:
        got = 100 * banking["final"]["accuracy"]
        words = f"frozen {_versions(banking)['frozen']['accuracy']:.2%}, {banking['final']['method']} kept"
        figures.append(Figure("Banking77, all rows, auto, accuracy", got, "%", "≥ 93.9", words, got >= 93.9))
    return figures


def _frozen(name: str) -> Cell:
    """What `python -m benchmarks.heads` measured of the frozen head on all rows."""
    cell = json.loads((RESULTS / "heads.json").read_text())[f"{name}/all"]
    found: Cell = cell["draws"][0]["head"]
    return found


def _trained(cells: Mapping[str, Cell], method: str) -> Cell | None:
    """GoEmotions by the method, of several trainings the best."""
    found = [it for key, it in cells.items() if key.startswith(f"goemotions/{method}/")]
    return min(found, key=lambda it: it["best"]["held_out_log_loss"], default=None)


def _partial_figures(frozen: Cell, partial: Cell, full: Cell) -> list[Figure]:
    """Both after as many epochs as both have, of the same schedule."""
    tested = [{it["epoch"]: it for it in cell["states"] if "macro_f1" in it} for cell in (partial, full)]
    epoch = max(tested[0].keys() & tested[1].keys())
    if not epoch:
        return []
    upper, every = (it[epoch] for it in tested)
    share = (upper["macro_f1"] - frozen["macro_f1"]) / (every["macro_f1"] - frozen["macro_f1"])
    of_loss = (frozen["log_loss"] - upper["log_loss"]) / (frozen["log_loss"] - every["log_loss"])
    words = (
        f"macro-F1 {upper['macro_f1']:.1%} and {every['macro_f1']:.1%} after {epoch:.0f} of {full['epochs']} "
        f"epochs; of the gain in log-loss {of_loss:.2f}"
    )
    what = "GoEmotions, partial (k = 2) over full: share of the gain kept"
    return [Figure(what, share, "", "≥ 0.7", words, share >= 0.7)]


def _adapters(cells: Mapping[str, Cell]) -> list[str]:
    """Low-rank adapters beside tuning the layers themselves, on the same rows."""
    of = {key.partition("/")[0] for key in cells if "/lora" in key}
    found = [(key, it) for key, it in cells.items() if key.partition("/")[0] in of and it.get("parameters")]
    if not found:
        return []
    lines = [
        "## Low-rank adapters",
        "",
        "Each after its last epoch, on the test set; `NAME@N` are N of its rows. Other work used the",
        "machine, so examples/s of different trainings cannot be compared.",
        "",
    ]
    lines += ["| training | accuracy | macro-F1 | log-loss | tuned weights | examples/s | peak memory |"]
    lines += ["|---|" + 6 * "---|"]
    for key, it in found:
        last = next(state for state in it["states"] if state["epoch"] == it["epochs"])
        figures = f"{last['accuracy']:.2%} | {last['macro_f1']:.2%} | {last['log_loss']:.3f}"
        cost = f"{it['parameters']:,} | {it['examples_per_s']:.0f} | {it['peak_mb']:.0f} MB"
        lines.append(f"| {key} | {figures} | {cost} |")
    return [*lines, ""]


def _trainings(cells: Mapping[str, Cell]) -> list[str]:
    lines = ["## Trainings, state by state", ""]
    lines += ["Test figures by the head that was tuned along. The last rows of a training are states on the"]
    lines += ["way from the first to the last one; see `docs/fine-tuning.md`.", ""]
    lines += [
        "| training | epoch | train loss | held-out log-loss | accuracy | macro-F1 | log-loss |",
        "|---|" + 6 * "---|",
    ]
    for key, cell in cells.items():
        for it in cell.get("states", ()):
            figures = " | | "
            if "macro_f1" in it:
                figures = f"{it['accuracy']:.2%} | {it['macro_f1']:.2%} | {it['log_loss']:.3f}"
            kept = " (kept)" if it == cell["best"] and cell["ended"] in ("done", "no_gain") else ""
            where = f"{it['epoch']:.1f}{kept} | {it['train_loss']:.3f} | {it['held_out_log_loss']:.4f}"
            lines.append(f"| {key} | {where} | {figures} |")
    return [*lines, ""]


def _all_rows(cells: Mapping[str, Cell]) -> list[str]:
    lines = ["## All rows", "", "Measured on the test set; each version as the server answers with it.", ""]
    lines += [
        "| set | version | accuracy | macro-F1 | log-loss | tuning took | live |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, cell in cells.items():
        if not key.endswith("/all"):
            continue
        for it in cell["versions"]:
            live = (
                "yes"
                if it["version"] == cell["final"]["version"] or it["method"] == cell["final"]["method"]
                else ""
            )
            took = f"{it['tuning_s']:.0f} s" if it["tuning_s"] else ""
            figures = f"{it['accuracy']:.2%} | {it['macro_f1']:.2%} | {it['log_loss']:.3f}"
            lines.append(f"| {SETS[key.partition('/')[0]]} | {it['method']} | {figures} | {took} | {live} |")
    return [*lines, ""]


def _versions(cell: Cell | None) -> dict[str, Cell]:
    """The first version of each method."""
    found: dict[str, Cell] = {}
    for it in cell["versions"] if cell else ():
        found.setdefault(it["method"], it)
    return found
