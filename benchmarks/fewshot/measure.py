"""One draw as a user gets it: adapted through a server by the method auto within a budget, measured on test rows."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import graft
from benchmarks.datasets import DRAWS
from benchmarks.fewshot import rows as kept
from benchmarks.fewshot.sets import Set, UnavailableError, draw, load
from benchmarks.harness import Server, hardware
from benchmarks.heads.features import cached
from graft_server.domain.views import stacked
from graft_server.evaluation import figures
from graft_server.heads import decode
from graft_server.heads.single_label import SingleLabelOutput
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.versions import read_head
from graft_server.store.objects.objects import Objects

DEFAULT = "minilm"
"""What lines call the server's default backbone."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured."""

    sets: Sequence[str]
    per_class: Sequence[int]
    draws: int = DRAWS
    budget_s: float = 120.0
    backbone: str = DEFAULT


def measure(wanted: Wanted, running: Server, store: Path) -> None:
    """Measures what is not there yet, cheapest first, a draw of every set before the next one.

    Args:
        wanted: What.
        running: A server that has the backbone.
        store: The server's store, from which frozen heads are read.
    """
    with graft.Client(running.target) as client:
        bench = Bench(client, store, running.process.pid)
        for per_class in sorted(wanted.per_class):
            for seed in range(wanted.draws):
                for name in wanted.sets:
                    _one(bench, wanted, name, per_class, seed)


def _one(bench: Bench, wanted: Wanted, name: str, per_class: int, seed: int) -> None:
    identity = {
        "set": name,
        "per_class": per_class,
        "draw": seed,
        "budget_s": wanted.budget_s,
        "backbone": wanted.backbone,
    }
    if any(all(it[key] == value for key, value in identity.items()) for it in kept.current(kept.read())):
        return
    try:
        data = load(name)
    except UnavailableError as error:
        print(f"{name}: left out: {error}", flush=True)
        return
    if np.bincount(data.labels).min() < per_class:
        if seed == 0:
            print(f"{name}: left out at {per_class} a class: its smallest class has fewer", flush=True)
        return
    chosen = draw(data, per_class, seed)
    found = bench.measured(
        f"{wanted.backbone}/{name}/{per_class}/{seed}",
        data,
        [(data.texts[row], data.label_names[data.labels[row]]) for row in chosen],
        budget_s=wanted.budget_s,
        backbone=wanted.backbone,
        seed=seed,
    )
    machine = hardware()
    line = {
        **identity,
        "about_topic": data.about_topic,
        "classes": len(data.label_names),
        **found,
        "recipe": kept.recipe(),
        "commit": kept.commit(),
        "machine": f"{machine['cpu']}, {machine['cores']} cores",
        "date": machine["date"],
    }
    kept.keep(line)
    print(
        f"{name} {per_class} #{seed}: {line['frozen_accuracy']:.1%} -> {line['accuracy']:.1%} "
        f"{line['served']} in {line['seconds']:.0f} s, load {line['load']:.0f}",
        flush=True,
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """A server, its store and its process."""

    client: graft.Client
    store: Path
    pid: int

    def measured(
        self,
        model: str,
        data: Set,
        examples: Sequence[tuple[str, str]],
        *,
        budget_s: float,
        backbone: str = DEFAULT,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Adapts, and measures the frozen head and what is served on the test rows.

        Args:
            model: The name of a new model, which is deleted afterwards.
            data: Whose test rows; those of labels that are not learned count as wrong.
            examples: Pairs (text, label).
            budget_s: The time budget of tuning.
            backbone: Its name on the server, or DEFAULT.
            seed: Of every random choice.

        Raises:
            GraftError: There is no version.
        """
        load_before, cpu_before = os.getloadavg()[0], _cpu_s(self.pid)
        started = time.monotonic()
        result = self.client.adapt(
            model,
            examples,
            adaptation_id="fewshot",
            method="auto",
            time_budget=budget_s,
            backbone="" if backbone == DEFAULT else backbone,
            seed=seed,
        )
        seconds, cpu_s = time.monotonic() - started, _cpu_s(self.pid) - cpu_before
        report = result.report
        tried = [*report.other_tunings, *([report.tuning] if report.tuning else [])]
        accepted = any(it.kept for it in tried)
        frozen = self._frozen(model, data) if backbone == DEFAULT else self._tested(model, data, 1)
        served = self._tested(model, data, result.version) if accepted else frozen
        self.client.delete_model(model)
        return {
            "examples": len(examples),
            "frozen_accuracy": frozen[0],
            "accuracy": served[0],
            "frozen_log_loss": frozen[1],
            "log_loss": served[1],
            "accepted": accepted,
            "served": f"{report.method} {report.tuning.objective}"
            if accepted and report.tuning
            else report.method,
            "seconds": seconds,
            "cpu_s": cpu_s,
            "load": (load_before + os.getloadavg()[0]) / 2,
            "tunings": [_told(it) for it in tried],
            "warnings": list(report.warnings),
        }

    def _tested(self, model: str, data: Set, version: int) -> tuple[float, float]:
        """Accuracy and log-loss of a version, as the server answers with it."""
        names = (data.label_names[it] for it in data.test_labels)
        found = self.client.evaluate(model, list(zip(data.test_texts, names, strict=True)), version=version)
        assert found.accuracy is not None
        assert found.log_loss is not None
        return found.accuracy, found.log_loss

    def _frozen(self, model: str, data: Set) -> tuple[float, float]:
        """The same of version 1, the frozen head, on features that were computed once for all draws."""
        version = Catalogue(objects := Objects.open(str(self.store))).snapshot.model(model).version(1)
        manifest, encoded = read_head(objects, version.manifest)
        head = decode(encoded)
        views = cached(f"fewshot-{data.name}-test", data.test_texts)
        scored = head.scores(stacked(views, head.view).astype(np.float32))
        assert isinstance(scored, SingleLabelOutput)
        place = {label.name: it for it, label in enumerate(manifest.labels)}
        labels = np.array([place.get(data.label_names[it], -1) for it in data.test_labels], np.int32)
        known = labels >= 0
        of = figures.figures(scored.probabilities[known], labels[known], np.ones(int(known.sum())))
        return of.accuracy * float(known.mean()), of.log_loss


def _cpu_s(pid: int) -> float:
    """Processor time of a process and of what it ran and has ended, which tunings are, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(it) for it in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _told(it: graft.TuningReport) -> dict[str, Any]:
    return {
        "method": it.method,
        "objective": it.objective,
        "kept": it.kept,
        "ended": it.ended,
        "measured": it.measured,
        "frozen_log_loss": it.frozen_log_loss,
        "tuned_log_loss": it.tuned_log_loss,
        "gain_error": it.gain_error,
        "frozen_accuracy": it.frozen_accuracy,
        "tuned_accuracy": it.tuned_accuracy,
        "accuracy_gain_error": it.accuracy_gain_error,
        "folds": it.folds,
        "label_names": it.label_names,
        "tuned_share": it.tuned_share,
        "seconds": it.seconds,
    }
