"""What comes of examples that nothing can be learned from, or of a budget in which nothing can be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import graft
from benchmarks.fewshot import rows as kept
from benchmarks.fewshot.measure import DEFAULT, Bench
from benchmarks.fewshot.sets import Set, UnavailableError, draw, load
from benchmarks.harness import Server, hardware

Examples = list[tuple[str, str]]
BUDGET_S = 120.0
CHANCE = 5
"""Draws of labels that are chance."""


@dataclass(frozen=True, slots=True)
class _Case:
    set: str
    make: Callable[[Set, int], Examples]
    draws: int = 1
    budget_s: float = BUDGET_S


def measure(running: Server, store: Path) -> None:
    """Measures the cases that are not there yet."""
    known = {(it["case"], it["draw"]) for it in kept.current(kept.read()) if "case" in it}
    with graft.Client(running.target) as client:
        bench = Bench(client, store, running.process.pid)
        for name, case in _CASES.items():
            for seed in range(case.draws):
                if (name, seed) not in known:
                    try:
                        _one(bench, name, case, seed)
                    except UnavailableError as error:
                        print(f"{name}: left out: {error}", flush=True)


def _one(bench: Bench, name: str, case: _Case, seed: int) -> None:
    data = load(case.set)
    examples = case.make(data, seed)
    line = {"case": name, "set": case.set, "draw": seed, "budget_s": case.budget_s, "backbone": DEFAULT}
    model = f"bad/{name}/{seed}".replace(" ", "-").replace(",", "")
    try:
        found = bench.measured(model, data, examples, budget_s=case.budget_s, seed=seed)
    except graft.GraftError as error:
        found = {"examples": len(examples), "error": str(error)}
    machine = hardware()
    line |= found
    line |= {"recipe": kept.recipe(), "commit": kept.commit(), "date": machine["date"]}
    line |= {"machine": f"{machine['cpu']}, {machine['cores']} cores"}
    kept.keep(line)
    print(
        {key: line.get(key) for key in ("case", "draw", "error", "served", "seconds", "warnings")}, flush=True
    )


def _pairs(data: Set, chosen: NDArray[np.int64]) -> Examples:
    return [(data.texts[row], data.label_names[data.labels[row]]) for row in chosen]


def _each(per_class: int) -> Callable[[Set, int], Examples]:
    return lambda data, seed: _pairs(data, draw(data, per_class, seed))


def _uneven(data: Set, seed: int) -> Examples:
    """Classes of 2 to 200 examples."""
    generator = np.random.default_rng(seed)
    sizes = np.geomspace(2, 200, len(data.label_names)).astype(int)
    chosen = [
        generator.choice(np.flatnonzero(data.labels == label), size, replace=False)
        for label, size in enumerate(sizes)
    ]
    return _pairs(data, np.concatenate(chosen))


def _alike(data: Set, seed: int) -> Examples:
    """One sentence, again and again, with each of the labels."""
    text = data.texts[draw(data, 1, seed)[0]]
    return [(text, label) for label in data.label_names for _ in range(16)]


def _chance(data: Set, seed: int) -> Examples:
    """16 a class, whose labels are dealt out anew."""
    examples = _pairs(data, draw(data, 16, seed))
    order = np.random.default_rng(100 + seed).permutation(len(examples))
    return [(text, examples[it][1]) for (text, _), it in zip(examples, order, strict=True)]


_CASES: Mapping[str, _Case] = {
    "one example a class": _Case("questions", _each(1)),
    "classes of 2 to 200 examples": _Case("questions", _uneven),
    "all examples alike": _Case("questions", _alike),
    "labels that are chance, emotions": _Case("emotions", _chance, CHANCE),
    "labels that are chance, films": _Case("films", _chance, CHANCE),
    "a budget of 3 s": _Case("questions", _each(16), budget_s=3.0),
    "150 classes of 8": _Case("clinc150", _each(8)),
}
