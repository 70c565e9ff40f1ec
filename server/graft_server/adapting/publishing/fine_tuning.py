"""From a frozen version to a tuned one: cut the backbone, tune in a process of its own, make a version of it.

Tuning takes minutes where a head takes seconds, so it has a place of its own to run in: other models' commits
are not kept waiting. What the jobs hand each other lies in the store, below a prefix of the commit's own, until the
commit has an outcome.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from graft_server.adapting import announcing
from graft_server.adapting.publishing.pace import Pace, Part
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.tuning_contract import EXAMPLES_GONE, TUNE, Recipe, Tuned, Tuning
from graft_server.backbones.tunings import Tunings
from graft_server.domain.adaptation import AdaptationSettings, FineTuning
from graft_server.domain.errors import DomainError, DrainingError, InvalidError, StoreError
from graft_server.domain.method import Method
from graft_server.domain.report import TuningObjective
from graft_server.domain.stream import Progress
from graft_server.domain.tasks.table import TASKS
from graft_server.encoding.trunk import Trunk
from graft_server.jobs import job
from graft_server.jobs.job import Jobs, unwatched
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.handover import Old
from graft_server.training.contract import FINISH, Finished, Finishing, Made, Trained

_log = logging.getLogger(__name__)

EPOCHS = 4
LEARNING_RATE = 1e-4
LAYER_DECAY = 0.9
MOST_EPOCHS = 100
HIGHEST_RATE = 0.1
FIRST_SHARE = 0.35
"""Of a time budget, what the first of two tunings may take: about what it takes beside the other."""
LEAST_SHARE = 0.1
"""With less of a time budget left, no further tuning is begun."""
TUNED = 0.9
"""How much of a tuning is done when the process that tunes has ended."""
USUAL_S = 300.0
"""What a tuning is taken to need, without a time budget, before it knows better."""

OnBetter = Callable[[str, Finished], Awaitable[Finished]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One tuning."""

    method: Method
    """PARTIAL or FULL."""
    below: int
    """How many of the backbone's layers stay as they are."""
    objective: TuningObjective = TuningObjective.CROSS_ENTROPY
    """What it learns by."""

    @property
    def name(self) -> str:
        """What the catalogue calls a version on the way that it made."""
        if self.objective is TuningObjective.CROSS_ENTROPY:
            return str(self.method)
        return f"{self.objective}-{self.method}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tuned of a backbone, and how."""

    attempts: tuple[Attempt, ...]
    """What may be tried, one after the other: `suited` says what is, once the examples are known."""
    layers: int
    """How many the backbone has."""
    asked: FineTuning
    """0 in it: the default of what is tried."""
    time_budget_s: float
    auto: bool
    """Whether the tuned version is kept only if it is better than the frozen one beyond noise."""

    def suited(self, objectives: Sequence[TuningObjective]) -> tuple[Attempt, ...]:
        """What is tried with examples from which so can be learned; none without any.

        With `auto` all of it, the contrastive one first, which takes few examples; a method that was asked for is tried
        once, by a head if the examples suffice to hold some out.
        """
        suited = tuple(it for it in self.attempts if it.objective in objectives)
        return suited if self.auto else suited[-1:]


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
    contrastive = replace(attempts[-1], objective=TuningObjective.CONTRASTIVE)
    return Plan(
        attempts=(contrastive, *attempts),
        layers=layers,
        asked=asked,
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
    if not 0 <= asked.learning_rate <= HIGHEST_RATE:  # the negation makes NaN fail too
        raise _invalid("learning_rate", asked.learning_rate, f"give one above 0, at most {HIGHEST_RATE}")
    if not 0 <= asked.layer_decay <= 1:
        raise _invalid("layer_decay", asked.layer_decay, "give one above 0, at most 1")


def _invalid(name: str, value: float, remedy: str) -> InvalidError:
    field = f"start.fine_tuning.{name}"
    return InvalidError(f"{field} is {value:g}: {remedy}.", reason="FINE_TUNING_INVALID", field=field)


@dataclass(frozen=True, slots=True)
class Tuner:
    """Tunes the commits of all adaptations."""

    jobs: Jobs
    """Where heads are fitted."""
    tuning_jobs: Jobs
    """Where backbones are tuned."""
    tunings: Tunings
    """What tunings leave."""

    async def tune(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        commit_id: str,
        *,
        folder: str,
        plan: Plan,
        frozen: Trained,
        pace: Pace,
        on_better: OnBetter,
    ) -> Made:
        """Tunes after the frozen head was found, and makes a version.

        Args:
            store: The adaptation.
            trunk: Its backbone.
            commit_id: The commit.
            folder: The prefix of what the jobs hand each other; see `tuning_folder`.
            plan: What to tune.
            frozen: What the job that found the frozen head returned.
            pace: Told how far it is; has the parts of `parts_of`.
            on_better: Publishes what is better than anything before, if more is tried after it: awaited with its
                name and what is returned of it, and gives the latter with the parts that are to be built on.

        Raises:
            DomainError: The backbone cannot be tuned; with the plan `auto` what is best so far is kept instead.
        """
        best: Made = frozen
        spent, best_measured = 0.0, ""
        attempts = list(plan.suited(frozen.objectives) if frozen.prepared else plan.attempts[:1])
        pace.plan(
            {
                **{name: it for name, it in pace.parts.items() if not _is_part(name)},
                **parts_of(plan, attempts),
            }
        )
        for number, attempt in enumerate(attempts):
            left = plan.time_budget_s and max(plan.time_budget_s - spent, 0.001)
            part = _part(number)
            started = time.monotonic()
            tuned = Tuned(ended=frozen.unprepared or "no_gain")
            if frozen.prepared and not (_is_auto_contrastive(plan, attempt) and frozen.nothing_to_gain):
                payload = Tuning(
                    backbone=trunk.name,
                    encoder_id=trunk.encoder_id,
                    model=store.model,
                    sources=store.sources(commit_id),
                    limits=trunk.limits,
                    prepared=frozen.prepared,
                    folder=folder,
                    recipe=_recipe(plan, attempt, store, left * _share_of(attempts[number:])),
                )
                tuned = await self._run(payload, trunk, commit_id, plan, partial(pace.told, part))
            took = max(time.monotonic() - started, tuned.seconds)
            pace.told(part, TUNED, Progress(stage="selecting"))
            finishing = Finishing(
                best=best.manifest,
                best_measured=best_measured,
                prepared=frozen.prepared,
                folder=folder,
                method=attempt.method,
                layers=plan.layers,
                below=attempt.below,
                auto=plan.auto,
                seed=store.start.settings.seed % (1 << 64),
                learning_rate=plan.asked.learning_rate or LEARNING_RATE,
                objective=attempt.objective,
                seconds=took,
                tuned=tuned,
            )
            finished = await self.jobs.run(FINISH.job(finishing, store.model), unwatched)
            for tried in filter(None, (finished.report.tuning, *finished.report.other_tunings)):
                if (tried.method, tried.objective) == (attempt.method, attempt.objective):
                    announcing.tuned(store, commit_id, tried)
            pace.told(part, 1.0, Progress(stage="selecting"))
            spent += took
            best_measured = finished.measured or best_measured
            if plan.time_budget_s and plan.time_budget_s - spent < LEAST_SHARE * plan.time_budget_s:
                for left_out in range(number + 1, len(attempts)):
                    pace.told(_part(left_out), 1.0, Progress(stage="selecting"))
                del attempts[number + 1 :]
            last = number == len(attempts) - 1
            best = await on_better(attempt.name, finished) if finished.kept and not last else finished
        await self.clear(folder)
        return best

    async def _run(
        self,
        payload: Tuning,
        trunk: Trunk,
        commit_id: str,
        plan: Plan,
        told: Callable[[float, Progress], None],
    ) -> Tuned:
        """What came of a tuning; with the plan `auto` also where it failed."""

        def report(it: job.Progress) -> None:
            counted = Progress(
                "", it.stage, 0.0, dict(it.metrics), it.eta_s, done=it.done, total=it.total, unit=it.unit
            )
            told(TUNED * it.fraction, counted)

        try:
            await trunk.ready()
            if payload.recipe.below:
                await trunk.cut(payload.recipe.below)
            return await trunk.run(self.tuning_jobs, TUNE.job(payload, payload.model), report)
        except DrainingError:
            raise
        except DomainError as error:
            if error.reason == EXAMPLES_GONE or not plan.auto:
                raise
            _log.warning("tuning %s of %s: %s", commit_id, payload.model, error.message)
            return Tuned(ended="failed")

    async def clear(self, folder: str) -> None:
        """Removes what a commit left in this folder, which nobody goes on from."""
        await asyncio.to_thread(self._delete, folder)

    def sweep(self, erasures: Mapping[str, int]) -> None:
        """Removes what commits left that never ended, at start.

        Args:
            erasures: Model to the number of the catalogue's entry that last erased examples of it, or all of it.
        """
        self.tunings.sweep(erasures)

    def old(self) -> Old:
        """Returns what is so old that its commits may never have ended."""
        return self.tunings.old()

    def sweep_old(self, old: Old) -> None:
        """Removes what was old at an earlier look and is there as it was."""
        self.tunings.sweep_old(old)

    def discard(self, store: AdaptationStore, commits: Iterable[str]) -> None:
        """Removes what commits left that were given up for good."""
        with _tolerant():
            self.tunings.discard(store.model, store.name, commits)

    def forget(self, model: str, erasure: int) -> None:
        """Removes what was made of a model's examples before an erasure."""
        self.tunings.forget(model, erasure)

    def _delete(self, folder: str) -> None:
        with _tolerant():
            self.tunings.delete(folder)


@contextmanager
def _tolerant() -> Iterator[None]:
    """A commit keeps its outcome if the store fails while what its tuning left is deleted: a later sweep does that."""
    try:
        yield
    except StoreError as error:
        _log.warning("what a tuning left stays until it is swept at a later start: %s", error.message)


def _is_auto_contrastive(plan: Plan, attempt: Attempt) -> bool:
    return plan.auto and attempt.objective is TuningObjective.CONTRASTIVE


def _recipe(plan: Plan, attempt: Attempt, store: AdaptationStore, seconds: float) -> Recipe:
    asked, contrastive = plan.asked, attempt.objective is TuningObjective.CONTRASTIVE
    return Recipe(
        below=attempt.below,
        epochs=asked.epochs or (0 if contrastive else EPOCHS),
        learning_rate=asked.learning_rate or (0.0 if contrastive else LEARNING_RATE),
        layer_decay=asked.layer_decay or (0.0 if contrastive else LAYER_DECAY),
        seed=store.start.settings.seed,
        seconds=seconds,
        objective=attempt.objective,
        to_the_end=not plan.auto,
    )


def parts_of(plan: Plan | None, attempts: Sequence[Attempt] | None = None) -> dict[str, Part]:
    """The parts of a commit's work that tunings are, by name, in order; none without a plan.

    Args:
        plan: What may be tried.
        attempts: What is tried of it; None: that is not known yet.
    """
    if plan is None:
        return {}
    coming = plan.attempts if attempts is None else attempts
    left_s, parts = plan.time_budget_s or USUAL_S, {}
    for number in range(len(coming)):
        # What a contrastive one leaves of its time is not known: with others after it, it is taken to need half.
        share = min(_share_of(coming[number:]), 1.0 if number == len(coming) - 1 else 0.5)
        parts[_part(number)] = Part(share * left_s, known=bool(plan.time_budget_s))
        left_s -= share * left_s
    return parts


def _share_of(attempts: Sequence[Attempt]) -> float:
    """The share of the time that is left that the first of some attempts may take.

    A contrastive one may take all of it, and does not: it ends with its steps. Where it suits the examples, it is the
    one that most is expected of.
    """
    first = attempts[0].objective is TuningObjective.CROSS_ENTROPY and len(attempts) > 1
    return FIRST_SHARE if first else 1.0


_PART = "tuning "


def _part(number: int) -> str:
    return f"{_PART}{number}"


def _is_part(name: str) -> bool:
    return name.startswith(_PART)
