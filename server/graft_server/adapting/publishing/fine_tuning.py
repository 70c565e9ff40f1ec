"""From a frozen version to a tuned one: cut the backbone, tune in a process of its own, make a version of it.

Tuning takes minutes where a head takes seconds, so it has a place of its own to run in: other models' commits
are not kept waiting. What the jobs hand each other lies in a scratch folder, so that a job that was killed goes
on from where it was.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from graft_server.backbones import scratch
from graft_server.backbones.backbone import Backbone
from graft_server.domain.adaptation import AdaptationSettings, FineTuning
from graft_server.domain.errors import DomainError, DrainingError, InvalidError
from graft_server.domain.method import Method
from graft_server.domain.stream import Progress
from graft_server.domain.tasks.table import TASKS
from graft_server.encoding.trunk import Trunk
from graft_server.jobs.job import Job, Jobs
from graft_server.store.adaptations.store import AdaptationStore

_log = logging.getLogger(__name__)

EPOCHS = 4
LEARNING_RATE = 1e-4
LAYER_DECAY = 0.9
MOST_EPOCHS = 100
HIGHEST_RATE = 0.1
FIRST_SHARE = 0.35
"""Of a time budget, what the first of two tunings may take: about what it takes beside the other."""
FROZEN_DONE = 0.3
"""How much of a commit's work is done when the frozen head is found."""
OLD_S = 7 * 24 * 3600.0
"""A scratch folder that nobody wrote to for so long belongs to a commit that never ended."""

OnProgress = Callable[[Progress], None]
OnBetter = Callable[[Method, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One tuning."""

    method: Method
    """PARTIAL or FULL."""
    below: int
    """How many of the backbone's layers stay as they are."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tuned of a backbone, and how."""

    attempts: tuple[Attempt, ...]
    """What is tried, one after the other."""
    layers: int
    """How many the backbone has."""
    epochs: int
    learning_rate: float
    layer_decay: float
    time_budget_s: float
    auto: bool
    """Whether the tuned version is kept only if it is better than the frozen one beyond noise."""


def plan_of(settings: AdaptationSettings, backbone: Backbone) -> Plan | None:
    """What settings ask for on a backbone; None: no tuning."""
    layers = backbone.layers
    auto = settings.method is Method.AUTO
    if (
        not TASKS[settings.task].tunable
        or settings.method is Method.FROZEN
        or (auto and not settings.time_budget_s)
    ):
        return None
    asked = settings.fine_tuning
    unfrozen = min(asked.unfrozen_layers or max(1, round(layers / 3)), layers - 1)
    full, attempts = Attempt(Method.FULL, 0), []
    if settings.method is not Method.FULL and unfrozen:
        attempts.append(Attempt(Method.PARTIAL, layers - unfrozen))
    if not attempts or (auto and not asked.unfrozen_layers):
        attempts.append(full)
    return Plan(
        attempts=tuple(attempts),
        layers=layers,
        epochs=asked.epochs or EPOCHS,
        learning_rate=asked.learning_rate or LEARNING_RATE,
        layer_decay=asked.layer_decay or LAYER_DECAY,
        time_budget_s=settings.time_budget_s,
        auto=auto,
    )


def check(settings: AdaptationSettings, backbone: Backbone) -> None:
    """Raises InvalidError if a start asks for a tuning that cannot be."""
    asked, layers = settings.fine_tuning, backbone.layers
    if settings.method is Method.FROZEN and (asked != FineTuning() or settings.time_budget_s):
        raise InvalidError(
            "start.method is METHOD_FROZEN, which tunes nothing, but fine_tuning or time_budget is set: leave them "
            "out, or choose another method.",
            reason="FINE_TUNING_UNUSED",
            field="start.fine_tuning",
        )
    if settings.method in (Method.PARTIAL, Method.FULL) and not TASKS[settings.task].tunable:
        raise InvalidError(
            f"start.method tunes the backbone, which works with one label an example, but start.task is "
            f"{settings.task.words}: use METHOD_FROZEN or METHOD_AUTO.",
            reason="METHOD_UNSUPPORTED",
            field="start.method",
        )
    if settings.method is Method.FULL and asked.unfrozen_layers:
        raise _invalid(
            "unfrozen_layers", asked.unfrozen_layers, "METHOD_FULL tunes all of them: leave it out"
        )
    if settings.method is not Method.FROZEN and not 0 <= asked.unfrozen_layers < max(layers, 2):
        raise _invalid(
            "unfrozen_layers",
            asked.unfrozen_layers,
            f"the backbone has {layers} layers, of which METHOD_PARTIAL tunes 1 to {layers - 1}: for all of them use "
            "METHOD_FULL",
        )
    if not 0 <= asked.epochs <= MOST_EPOCHS:
        raise _invalid("epochs", asked.epochs, f"give 1 to {MOST_EPOCHS}")
    if not 0 <= asked.learning_rate <= HIGHEST_RATE:  # so said, NaN fails too
        raise _invalid("learning_rate", asked.learning_rate, f"give one above 0, at most {HIGHEST_RATE}")
    if not 0 <= asked.layer_decay <= 1:
        raise _invalid("layer_decay", asked.layer_decay, "give one above 0, at most 1")


def _invalid(name: str, value: float, remedy: str) -> InvalidError:
    field = f"start.fine_tuning.{name}"
    return InvalidError(f"{field} is {value:g}: {remedy}.", reason="FINE_TUNING_INVALID", field=field)


@dataclass(frozen=True, slots=True)
class Tuner:
    """Tunes the commits of all adaptations."""

    location: str
    """Where the objects are, for workers."""
    jobs: Jobs
    """Where heads are fitted."""
    tuning_jobs: Jobs
    """Where backbones are tuned."""
    folder: Path
    """Where scratch folders are."""
    threads: int
    cache_bytes: int
    """How much memory a tuning may use for what is below the cut; more goes to disk."""

    def preparation(self, store: AdaptationStore, trunk: Trunk, commit_id: str) -> dict[str, Any]:
        """What the job that finds the frozen head needs to prepare a tuning; see `train.Tuning`."""
        backbone = trunk.backbone
        return {
            "scratch": str(self._scratch(store, commit_id)),
            "backbone": backbone.payload(),
            "limits": asdict(trunk.limits),
        }

    async def tune(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        commit_id: str,
        *,
        plan: Plan,
        frozen: Mapping[str, Any],
        on_progress: OnProgress,
        on_better: OnBetter,
    ) -> Mapping[str, Any]:
        """Tunes after the frozen head was found, and makes a version: see `tuned.finish` for what is returned.

        Args:
            store: The adaptation.
            trunk: Its backbone.
            commit_id: The commit.
            plan: What to tune.
            frozen: What the job that found the frozen head returned.
            on_progress: Told how far it is.
            on_better: Publishes what is better than anything before, if more is tried after it: awaited with its
                method and what is returned of it, and gives the latter with the parts that are to be built on.

        Raises:
            DomainError: The backbone cannot be tuned; with the plan `auto` what is best so far is kept instead.
        """
        folder = self._scratch(store, commit_id)
        best, spent = frozen, 0.0
        attempts = plan.attempts[:1] if frozen["unprepared"] else plan.attempts
        for number, attempt in enumerate(attempts):
            last = number == len(attempts) - 1
            left = plan.time_budget_s and max(plan.time_budget_s - spent, 0.001)
            told = _part(on_progress, number / len(attempts), (number + 1) / len(attempts))
            started = time.monotonic()
            outcome: Mapping[str, Any] = {"ended": frozen["unprepared"]}
            if not frozen["unprepared"]:
                try:
                    outcome = await self._run(
                        folder,
                        store,
                        trunk,
                        commit_id,
                        plan=plan,
                        attempt=attempt,
                        seconds=left if last else left * FIRST_SHARE,
                        on_progress=told,
                    )
                except DrainingError:
                    raise
                except DomainError as error:
                    if not plan.auto:
                        scratch.remove(folder)
                        raise
                    _log.warning("tuning %s of %s: %s", commit_id, store.model, error.message)
                    outcome = {"ended": "failed"}
            took = max(time.monotonic() - started, float(outcome.get("seconds", 0.0)))
            payload = {
                "store": self.location,
                "best": best["manifest"],
                "scratch": str(folder),
                "own": attempt.method,
                "method": attempt.method,
                "layers": plan.layers,
                "below": attempt.below,
                "auto": plan.auto,
                "seed": store.start.settings.seed % (1 << 64),
                "learning_rate": plan.learning_rate,
                "seconds": took,
                "outcome": dict(outcome),
            }
            told(Progress(commit_id, "selecting", 0.95))
            job = Job("graft_server.training.finish_tuning:finish", payload, key=store.model)
            best = await self.jobs.run(job, lambda _: None)
            spent += took
            if best["kept"] and not last:
                best = await on_better(attempt.method, best)
        scratch.remove(folder)
        return best

    def sweep(self, models: Iterable[str]) -> None:
        """Removes what commits left that never ended, at start.

        Args:
            models: Those that are deleted, or of which examples were erased, once: it may have been after the commits.
        """
        for model in models:
            self.forget(model)
        for folder in self.folder.glob("*/*/"):
            if time.time() - folder.stat().st_mtime > OLD_S:
                scratch.remove(folder)

    def discard(self, store: AdaptationStore, commits: Iterable[str]) -> None:
        """Removes the scratch of commits that were given up for good."""
        for commit_id in commits:
            scratch.remove(self._scratch(store, commit_id))

    def forget(self, model: str) -> None:
        """Removes the scratch of a model's commits, which has the tokens of their examples: some were erased."""
        scratch.remove(self._scratches(model))

    async def _run(
        self,
        folder: Path,
        store: AdaptationStore,
        trunk: Trunk,
        commit_id: str,
        *,
        plan: Plan,
        attempt: Attempt,
        seconds: float,
        on_progress: OnProgress,
    ) -> Mapping[str, Any]:
        await trunk.ready()
        backbone = trunk.backbone
        graphs = {"graph": str(trunk.graph)}
        if attempt.below:
            below, above = await trunk.cut(attempt.below)
            graphs = {"graph": str(above), "below_graph": str(below)}
        payload = {
            "backbone": backbone.payload(),
            "below": attempt.below,
            "scratch": str(folder),
            "own": attempt.method,
            **graphs,
            "epochs": plan.epochs,
            "learning_rate": plan.learning_rate,
            "layer_decay": plan.layer_decay,
            "seed": store.start.settings.seed,
            "seconds": seconds,
            "threads": self.threads,
            "cache_bytes": self.cache_bytes,
        }

        def report(told: Mapping[str, Any]) -> None:
            on_progress(
                Progress(
                    commit_id,
                    str(told.get("stage", "")),
                    float(told.get("fraction", 0.0)),
                    dict(told.get("metrics", {})),
                    told.get("eta_s"),
                )
            )

        job = Job("graft_server.backbones.torch.tuning:tune", payload, key=store.model, fresh=True)
        outcome: Mapping[str, Any] = await self.tuning_jobs.run(job, report)
        return outcome

    def _scratch(self, store: AdaptationStore, commit_id: str) -> Path:
        return self._scratches(store.model) / _digest(store.name, commit_id)

    def _scratches(self, model: str) -> Path:
        return self.folder / _digest(self.location, model)


def _part(on_progress: OnProgress, start: float, end: float) -> OnProgress:
    """Tells of work that is a part of what follows the frozen head, of which `start` to `end` is its own."""

    def told(progress: Progress) -> None:
        done = start + (end - start) * progress.fraction
        on_progress(replace(progress, fraction=FROZEN_DONE + (0.95 - FROZEN_DONE) * done))

    return told


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
