"""The training loop: from the head that was found on frozen features to tuned upper layers.

The head comes first, so that the first steps do not tear features apart that are good already (LP-FT, Kumar et
al. 2022), and lower layers learn more slowly than upper ones. What the layers below the cut make of an example is
computed once and kept, so an epoch costs only what is tuned.

Killed half-way, it goes on from its last checkpoint. The best state on held-out examples is what comes out, whatever
ends the training; the state that it starts from is one of those that are compared.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.torch.tuning.checkpoint import State
from graft_server.backbones.torch.tuning.ground import Ground, Outcome
from graft_server.backbones.torch.tuning.hidden import by_length, parts
from graft_server.backbones.torch.tuning.memory import within_memory
from graft_server.backbones.torch.tuning.run import (
    CACHED,
    CHECKPOINT_S,
    CLIP,
    EVALUATED_TOKENS,
    MAX_DIVERGED,
    PROGRESS_S,
    SLOWER,
    TOKENS_AT_ONCE,
    TOP,
    TRAINED,
    WEIGHT_DECAY,
    NoTimeError,
    Run,
)
from graft_server.backbones.torch.tuning.tunable import forward
from graft_server.backbones.tuning_contract import Tuned
from graft_server.backbones.tuning_objects import Part
from graft_server.domain.report import TuningPoint
from graft_server.jobs.job import OnProgress, Progress

_log = logging.getLogger(__name__)

BATCH = 32
"""Examples a step."""
WARM_UP = 0.1
"""The part of the training in which the learning rate rises."""
PATIENCE = 3
"""Epochs without a better log-loss, after which training ends: the first ones, at the highest rate, often lose."""
MIN_GAIN = 1e-4
"""By how much a log-loss has to fall to count as better, in nats."""
EVALUATIONS = 2
"""Evaluations an epoch."""
MIXTURES = (0.75, 0.5, 0.25)
"""Shares of the last state, the rest of the first one, that are tried in the end."""
EXPLODED = 3.0
"""Loss, over that of the start, at which training counts as diverged: and at least one nat more."""


def tuned(ground: Ground, progress: OnProgress) -> Outcome:
    """Tunes.

    Args:
        ground: What, and where.
        progress: Told the stages "loading", "caching", "tuning" and "encoding".

    Raises:
        BackboneError: The backbone cannot be tuned.
        FaultError: The tuned graph computes something else than torch (TUNED_PARITY).
    """
    torch.set_num_threads(ground.threads)
    torch.manual_seed(ground.recipe.seed % (1 << 63))
    progress(Progress("loading"))
    loop = Loop(ground, progress)
    result = loop.run()
    outcome = Outcome(result)
    if result.best:
        progress(Progress("encoding", TRAINED))
        outcome = replace(
            outcome,
            top=ground.folder / TOP,
            features=loop.finish(),
            head=loop.head,
            compressed=loop.compressed(),
        )
    progress(Progress("encoding", 1.0))
    return replace(outcome, tuned=replace(result, seconds=loop.seconds))


class Loop(Run[State]):
    """One run."""

    def __init__(self, ground: Ground, progress: OnProgress) -> None:
        super().__init__(ground, progress, State)
        self.state = State(tokens_at_once=TOKENS_AT_ONCE)
        self._train = np.flatnonzero(self.set.part == Part.TRAIN)
        self._held_out = np.flatnonzero(self.set.part == Part.STOP)
        self._reserved_s = 0.0
        self._order: list[NDArray[np.int64]] = []

    # --- the whole --------------------------------------------------------------------------------------------

    def run(self) -> Tuned:
        """Trains, and leaves the model in its best state."""
        try:
            self.keep_hidden()
        except NoTimeError:
            return self._result("no_time")
        self.begin()
        optimizer = self.optimizer()
        total = self.recipe.epochs * self._steps
        resumed = self._resume(optimizer)
        if not self.state.history:
            if not self._fits():
                return self._result("no_time")
            self._start()
        ended = "done"
        if not resumed and not self._fits():
            ended, total = "no_time", 0
        else:
            self._tell(total)
        while self.state.step < total:
            if ended := self._step(optimizer, total):
                break
        if self.state.step:
            self._mix()
        self._restore(self._best)
        return self._result(ended or "done", resumed)

    def _result(self, ended: str, resumed: int = 0) -> Tuned:
        """What came of it, but for how long it took and what it made."""
        return Tuned(
            ended=ended,
            history=tuple(self.state.history),
            best=self.state.best,
            epoch_s=self._steps * self._step_s,
            examples_per_s=BATCH / self._step_s if self._step_s else 0.0,
            diverged=self.state.diverged,
            halved=self.state.halved,
            resumed=resumed,
            parameters=sum(it.size for it in self._original.values()),
        )

    @property
    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The head, as it is."""
        return self.model.weight.detach().cpu().numpy(), self.model.bias.detach().cpu().numpy()

    # --- training ---------------------------------------------------------------------------------------------

    @property
    def _steps(self) -> int:
        """Steps an epoch."""
        return max(1, math.ceil(len(self._train) / BATCH))

    def begin(self) -> None:
        """Finds out what gets gradients, and how long a step takes: on batches that nothing is learned from."""
        self.model.train()
        times = []
        for batch in self.epoch(0)[:3]:
            started = time.monotonic()
            self._backward(batch)
            times.append(time.monotonic() - started)
        self._groups = self.model.groups(self.recipe.learning_rate, self.recipe.layer_decay, WEIGHT_DECAY)
        self.model.zero_grad(set_to_none=True)
        self._original, self._first = self.model.tuned(), self._weights()
        self._step_s = min(times)
        torch.manual_seed(self.recipe.seed % (1 << 63))

    def optimizer(self) -> torch.optim.Optimizer:
        """For what gets gradients; `begin` comes before."""
        return torch.optim.AdamW(self._groups, fused=self.device.type == "cpu")

    def learn(self, batch: NDArray[np.int64], optimizer: torch.optim.Optimizer) -> float:
        """One step; returns the batch's loss."""
        loss = self._backward(batch)
        torch.nn.utils.clip_grad_norm_([p for g in self._groups for p in g["params"]], CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def _start(self) -> None:
        """Evaluates the state that training starts from, and how long that takes."""
        started = time.monotonic()
        self.state.history.append(self._evaluate(0.0))
        self._best = self._weights()
        self.state.loss = self.state.history[0].log_loss
        each_s = (time.monotonic() - started) / int(self.set.lengths[self._held_out].sum())
        # What comes after the last step, and encoding all examples, have to fit into the time as well.
        evaluations = (1 + len(MIXTURES)) * (time.monotonic() - started)
        # They are encoded twice: by the tuned graph, and by the adapter that it is cut down to.
        self._reserved_s = 2 * each_s * int(self.set.lengths.sum()) + evaluations

    def _step(self, optimizer: torch.optim.Optimizer, total: int) -> str:
        """One step; returns why training ends, or ""."""
        started = time.monotonic()
        state, steps = self.state, self._steps
        if state.step % steps == 0 or not self._order:
            self._order = self.epoch(state.step // steps)
        self._set_rates(optimizer, total)
        loss = self.learn(self._order[state.step % steps], optimizer)
        state.step += 1
        state.loss += 0.05 * (loss - state.loss)
        if self._has_diverged(loss):
            return self._roll_back(optimizer)
        self._step_s += 0.05 * (time.monotonic() - started - self._step_s)
        late = bool(self.recipe.seconds) and self._left() < 0
        if late or self._is_due():
            stale = self._is_stale(optimizer)
            return "time" if late else "no_gain" if stale else ""
        if time.monotonic() - self._saved > CHECKPOINT_S:
            self._save(optimizer)
        self._tell(total)
        return ""

    def _is_due(self) -> bool:
        """Whether the state is evaluated after this step: EVALUATIONS times an epoch, and at its end."""
        step, steps = self.state.step, self._steps
        return step * EVALUATIONS // steps > (step - 1) * EVALUATIONS // steps

    def _backward(self, batch: NDArray[np.int64]) -> float:
        """Adds a batch's gradients up, in parts that fit into memory; returns its loss."""
        return within_memory(self.state, self.set.lengths, batch, lambda: self._in_parts(batch), self.model)

    def _in_parts(self, batch: NDArray[np.int64]) -> float:
        total, whole = 0.0, float(self.set.weights[batch].sum())
        for part in parts(self.set, batch, self.state.tokens_at_once):
            logits = self.logits(part)
            losses = torch.nn.functional.cross_entropy(
                logits,
                torch.from_numpy(self.set.labels[part].astype(np.int64)).to(self.device),
                reduction="none",
            )
            weights = torch.from_numpy(self.set.weights[part].astype(np.float32)).to(self.device)
            loss = (losses * weights).sum() / whole
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def logits(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Shape (n, k) float32 of some rows, computed in mixed precision where that is faster."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            return forward(self.model, self.set, self.hidden, self.preprocessor, rows)[1]

    def _set_rates(self, optimizer: torch.optim.Optimizer, total: int) -> None:
        """Up, then down along a cosine: over the steps, or over the time if that ends sooner."""
        done = self.state.step / total
        if self.recipe.seconds:
            done = max(done, 1 - self._left() / self.recipe.seconds)
        done = min(max(done, 0.0), 1.0)
        share = (
            done / WARM_UP
            if done < WARM_UP
            else 0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))
        )
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * self.state.rate * max(share, 1e-3)

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        """The batches of an epoch: random ones, in which texts of about one length are together."""
        generator = np.random.default_rng((self.recipe.seed % (1 << 63), number))
        order = generator.permutation(self._train)
        chunks = np.array_split(order, max(1, len(order) // (BATCH * 50)))
        order = np.concatenate([by_length(self.set, it) for it in chunks])
        batches = np.array_split(order, self._steps)
        return [batches[i] for i in generator.permutation(len(batches))]

    # --- stopping, rolling back, going on -----------------------------------------------------------------------

    def _is_stale(self, optimizer: torch.optim.Optimizer) -> bool:
        self._judge()
        self._save(optimizer)
        return self.state.stale >= PATIENCE * EVALUATIONS

    def _mix(self) -> None:
        """Evaluates states on the way from the first to the last one as well.

        Where there are few examples of much that the backbone knows, they are often better than both (WiSE-FT,
        Wortsman et al. 2022), and they cost nothing at serving.
        """
        last = self._weights()
        for share in MIXTURES:
            self._restore({name: torch.lerp(first, last[name], share) for name, first in self._first.items()})
            self._judge()

    def _judge(self) -> None:
        """Evaluates the state as it is, which may be the best one so far."""
        state = self.state
        found = self._evaluate(state.step / self._steps)
        if found.log_loss < state.history[state.best].log_loss - MIN_GAIN:
            state.best, state.stale = len(state.history), 0
            self._best = self._weights()
        else:
            state.stale += 1
        state.history.append(found)

    def _evaluate(self, epoch: float) -> TuningPoint:
        self.model.eval()
        rows = by_length(self.set, self._held_out)
        with torch.no_grad():
            size = min(EVALUATED_TOKENS, self.state.tokens_at_once)
            every = [self.logits(part).cpu().numpy() for part in parts(self.set, rows, size)]
        self.model.train()
        logits, labels, weights = np.concatenate(every), self.set.labels[rows], self.set.weights[rows]
        return TuningPoint(
            epoch=epoch,
            log_loss=_calibrated_loss(logits, labels, weights),
            accuracy=float(np.average(logits.argmax(axis=1) == labels, weights=weights)),
            train_loss=self.state.loss,
            seconds=self.seconds,
        )

    def _has_diverged(self, loss: float) -> bool:
        start = self.state.history[0].log_loss
        return not math.isfinite(loss) or self.state.loss > max(EXPLODED * start, start + 1)

    def _roll_back(self, optimizer: torch.optim.Optimizer) -> str:
        state = self.state
        state.diverged += 1
        state.rate *= SLOWER
        _log.warning(
            "training diverged at step %d: back to the best state, at %.2g of the rate",
            state.step,
            state.rate,
        )
        self._restore(self._best)
        optimizer.state.clear()
        state.loss = state.history[state.best].log_loss
        return "diverged" if state.diverged >= MAX_DIVERGED else ""

    def _fits(self) -> bool:
        """Whether an epoch fits into the time that is left."""
        return not self.recipe.seconds or self._left() >= self._steps * self._step_s

    def _left(self) -> float:
        """Seconds that training may still take."""
        return self.recipe.seconds - self._reserved_s - self.seconds

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        self.state.seconds = self.seconds
        self._checkpoint.save(self.state, weights=self._weights(), best=self._best, optimizer=optimizer)
        self._saved = time.monotonic()

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Goes on from a checkpoint of the same tuning, if there is one; returns its step, or 0."""
        found = self._checkpoint.load(optimizer)
        if found is None:
            return 0
        self.state, weights, self._best = found
        self._restore(weights)
        self._began -= self.state.seconds  # what it took before counts against the time budget
        _log.info("tuning goes on from step %d", self.state.step)
        return self.state.step

    # --- telling ------------------------------------------------------------------------------------------------

    def _tell(self, total: int) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        state = self.state
        last = state.history[-1]
        eta_s = (total - state.step) * self._step_s
        if self.recipe.seconds:
            eta_s = min(eta_s, max(self._left(), 0.0))
        metrics = {
            "epoch": state.step / self._steps,
            "epochs": float(self.recipe.epochs),
            "train_loss": state.loss,
            "held_out_log_loss": last.log_loss,
            "held_out_accuracy": last.accuracy,
        }
        done = CACHED + (TRAINED - CACHED) * state.step / total
        self._progress(
            Progress(
                "tuning",
                done,
                metrics,
                eta_s + self._reserved_s,
                done=state.step,
                total=total,
                unit="steps",
            )
        )


def _calibrated_loss(
    logits: NDArray[np.float32], labels: NDArray[np.int32], weights: NDArray[np.float64]
) -> float:
    """The log-loss at the best temperature: being too sure is no reason to stop, since calibration follows."""
    losses = []
    for sharpness in np.geomspace(0.2, 2, 24):
        scaled = logits * np.float32(sharpness)
        scaled -= scaled.max(axis=1, keepdims=True)
        own = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]
        losses.append(float(np.average(own, weights=weights)))
    return min(losses)
