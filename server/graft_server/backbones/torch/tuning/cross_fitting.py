"""Contrastive tuning, measured by cross-fitting: one training without each fold, and one on all examples.

Each begins with the backbone's original weights, and leaves its features of all examples. What a head on those of the
fold that was held out is worth says what the last training, on all examples, is worth: no example is lost to measuring.
What the layers below the cut make of an example is computed once for all of them.

Killed half-way, it goes on from its last checkpoint; what the trainings before left is in there. Steps have seeds of
their own, so that it comes to the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.cross_fitted import LEFT_OUT, NAME, CrossFitted, hopeless
from graft_server.backbones.torch.tuning import contrastive
from graft_server.backbones.torch.tuning.checkpoint import TrainingState
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
from graft_server.jobs.job import OnProgress, Progress

_log = logging.getLogger(__name__)

LEAST_FOLDS = 2
"""Fewer folds than there are, where a time budget leaves no more: the examples of the others are not measured."""
MARGIN = 1.1
"""How much longer a training is taken to need than its first steps say."""
GRAPH_S = 2.0
"""What writing and checking the tuned graph takes, besides encoding."""
TIMED = 4
"""Steps whose time says how long the others take; the first one does not count."""
_CUT_DOWN = "cut down "
"""What the names of an adapter's features in a checkpoint begin with."""


@dataclass(slots=True)
class State(TrainingState):
    """Where the trainings are, and the present one."""

    run: int = 0
    """Which training: that without this fold, or, where it is the number of folds, that on all examples."""
    steps: int = 0
    """How many each has; 0: not known yet."""
    folds: int = 0
    """How many are held out, one after the other."""


def cross_fitted(ground: Ground, progress: OnProgress, *, frozen: NDArray[np.float32]) -> Outcome:
    """Tunes.

    Args:
        ground: What, and where; its examples have folds.
        progress: Told the stages "loading", "caching", "tuning" and "encoding".
        frozen: shape (n, k): what the frozen head says of each example, without having seen it.

    Raises:
        BackboneError: The backbone cannot be tuned.
        FaultError: The tuned graph computes something else than torch (TUNED_PARITY).
    """
    torch.set_num_threads(ground.threads)
    progress(Progress("loading"))
    fitting = CrossFitting(ground, progress, frozen=frozen)
    result = fitting.run()
    outcome = Outcome(result, head=ground.examples.head, by_fold=fitting.by_fold)
    if result.best:
        progress(Progress("encoding", TRAINED))
        outcome = replace(
            outcome,
            top=ground.folder / TOP,
            features=fitting.finish(),
            compressed=fitting.compressed(),
            compressed_by_fold=fitting.compressed_by_fold,
        )
    progress(Progress("encoding", 1.0))
    return replace(outcome, tuned=replace(result, seconds=fitting.seconds))


class CrossFitting(Run[State]):
    """All trainings of one tuning."""

    def __init__(self, ground: Ground, progress: OnProgress, *, frozen: NDArray[np.float32]) -> None:
        super().__init__(ground, progress, State)
        if self.set.fold_of is None:
            raise ValueError("examples of a cross-fitting have folds")
        self.fold_of = self.set.fold_of
        self.names = np.flatnonzero(self.fold_of == NAME)
        self.count = len(self.fold_of) - len(self.names)
        self.state = State(folds=int(self.fold_of.max()) + 1, tokens_at_once=TOKENS_AT_ONCE)
        self.by_fold = np.empty((0, self.count, self.set.head[0].shape[0]), np.float16)
        self.compressed_by_fold = self.by_fold
        self._frozen = frozen
        self._encode_s = 0.0
        self._batch = 1.0
        self._began_run, self._allowed_s = self._began, math.inf

    @property
    def rate(self) -> float:
        """The learning rate of the last layer."""
        return self.recipe.learning_rate or contrastive.rate_of(self.set.head[0].shape[0])

    # --- the whole --------------------------------------------------------------------------------------------

    def run(self) -> Tuned:
        """Trains, and leaves the model as the training on all examples does, if it comes to that."""
        try:
            self.keep_hidden()
        except NoTimeError:
            return self._result("no_time")
        self.begin()
        optimizer = self.optimizer()
        resumed = self._resume(optimizer)
        state = self.state
        if not state.steps and not self._plan():
            return self._result("no_time")
        self._tell()
        while True:
            try:
                ended = self._trainings(optimizer)
                break
            except _DivergedError:
                if self._begin_again(optimizer):
                    continue
                ended = "diverged"
                break
        return self._result(ended or "done", resumed, best=0 if ended else 1)

    def _trainings(self, optimizer: torch.optim.Optimizer) -> str:
        """Takes one after the other; returns why there is no tuned graph, or ""."""
        state = self.state
        while state.run < state.folds:
            if self._is_hopeless():
                state.folds = state.run
                return "no_gain"
            self._train(optimizer)
            self._keep_features()
            state.run, state.step = state.run + 1, 0
            # What is slower than expected leaves folds out, rather than the training that is to be served.
            if self._for_each() < contrastive.FLOOR * state.steps * self._step_s and state.run >= LEAST_FOLDS:
                state.folds = state.run
            self._restore(self._first)
            self._reset(optimizer)
            self._save(optimizer)
        if self._is_hopeless():
            return "no_gain"
        if self._for_each() < contrastive.FLOOR * state.steps * self._step_s / 2 and not state.step:
            return "time"
        self._train(optimizer)
        return ""

    def _result(self, ended: str, resumed: int = 0, *, best: int = 0) -> Tuned:
        """What came of it, but for how long it took and what it made."""
        return Tuned(
            ended=ended,
            best=best,
            epoch_s=0.0,
            examples_per_s=self._batch / self._step_s if self._step_s else 0.0,
            diverged=self.state.diverged,
            halved=self.state.halved,
            resumed=resumed,
            parameters=sum(it.size for it in self._original.values()) if self._step_s else 0,
            folds=len(self.by_fold),
            learning_rate=self.rate,
            label_names=len(self.names) > 0,
        )

    def finish(self) -> NDArray[np.float16]:
        """See `Run`; the names of classes are no examples."""
        return super().finish()[: self.count]

    def _is_hopeless(self) -> bool:
        """Whether what there is says that the tuning will not be kept, and that matters."""
        if self.recipe.to_the_end:
            return False
        fitted = CrossFitted(
            labels=self.set.labels[: self.count],
            weights=self.set.weights[: self.count],
            classes=self.set.head[1].shape[0],
            fold_of=self.fold_of[: self.count],
            by_fold=self.by_fold,
            features=np.empty((0, self.by_fold.shape[2]), np.float16),
            frozen=self._frozen,
            seed=self.recipe.seed % (1 << 63),
        )
        return hopeless(fitted)

    # --- one training -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Finds out what gets gradients, and how long steps take: on batches that nothing is learned from."""
        self.model.train()
        times, sizes = [], []
        for number, batch in enumerate(self.batches(0, TIMED)):
            started = time.monotonic()
            self._backward(batch, number)
            times.append(time.monotonic() - started)
            sizes.append(len(batch))
        decay = self.recipe.layer_decay or contrastive.LAYER_DECAY
        self._groups = self.model.groups(self.rate, decay, WEIGHT_DECAY)
        self.model.zero_grad(set_to_none=True)
        self._original, self._first = self.model.tuned(), self._weights()
        self.compressor()  # made here, so that it is not taken for time that encoding needs
        self._step_s = float(np.mean(times[1:] or times))
        self._batch = float(np.mean(sizes))
        some = by_length(self.set, np.arange(self.count))[:: max(1, self.count // 32)]
        started = time.monotonic()
        self._features(some)
        each_s = (time.monotonic() - started) / int(self.set.lengths[some].sum())
        # They are encoded twice: as they are tuned, and as that is cut down to.
        self._encode_s = 2 * each_s * int(self.set.lengths[: self.count].sum())

    def optimizer(self) -> torch.optim.Optimizer:
        """For what gets gradients; `begin` comes before."""
        return torch.optim.AdamW(self._groups, fused=self.device.type == "cpu")

    def batches(self, run: int, steps: int) -> list[NDArray[np.int64]]:
        """The batches of a training, which depend on nothing but the recipe's seed and its number."""
        rows = np.flatnonzero((self.fold_of >= 0) & (self.fold_of != run))
        seed = self.recipe.seed % (1 << 62) + self.state.run
        names = self.names if len(self.names) else None
        return contrastive.batches(self.set.labels, rows, steps=steps, seed=seed, names=names)

    def _train(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes what steps are left of the present training, fewer if the time that it may take is over."""
        state = self.state
        self._began_run, self._allowed_s = time.monotonic(), self._for_each()
        every = self.batches(state.run if state.run < state.folds else LEFT_OUT, state.steps)
        for batch in every[state.step :]:
            share = max(state.step / state.steps, self._time_share())
            if share >= 1:
                break
            started = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * state.rate * _rate_at(share)
            loss = self._backward(batch, state.step)
            torch.nn.utils.clip_grad_norm_([p for g in self._groups for p in g["params"]], CLIP)
            if not math.isfinite(loss):
                raise _DivergedError
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.loss = loss if not state.step else state.loss + 0.1 * (loss - state.loss)
            state.step += 1
            self._step_s += 0.1 * (time.monotonic() - started - self._step_s)
            if time.monotonic() - self._saved > CHECKPOINT_S:
                self._save(optimizer)
            self._tell()

    def _time_share(self) -> float:
        """How much of the time that the present training may take is over."""
        if math.isinf(self._allowed_s):
            return 0.0
        return (time.monotonic() - self._began_run) / max(self._allowed_s, 1e-3)

    def _backward(self, batch: NDArray[np.int64], step: int) -> float:
        """Computes a batch's gradients, in parts that fit into memory; returns its loss."""
        batch = by_length(self.set, batch)

        def whole() -> float:
            return self._in_parts(batch, step)

        return within_memory(self.state, self.set.lengths, batch, whole, self.model)

    def _in_parts(self, batch: NDArray[np.int64], step: int) -> float:
        """The loss is one of the whole batch: where that does not fit at once, features come first, without gradients.

        Then each part is computed again, with the gradients of its features (Gao et al. 2021). It has the same random
        numbers both times.
        """
        labels = torch.from_numpy(self.set.labels[batch].astype(np.int64)).to(self.device)
        weights = torch.from_numpy(self.set.weights[batch].astype(np.float32)).to(self.device)
        every = list(parts(self.set, batch, self.state.tokens_at_once))
        if len(every) == 1:
            loss = contrastive.loss(self._seeded(every[0], step, 0), labels, weights)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())
        with torch.no_grad():
            features = torch.cat([self._seeded(it, step, number) for number, it in enumerate(every)])
        features.requires_grad = True
        loss = contrastive.loss(features, labels, weights)
        (gradients,) = torch.autograd.grad(loss, features)
        start = 0
        for number, part in enumerate(every):
            own = gradients[start : start + len(part)]
            start += len(part)
            self._seeded(part, step, number).backward(own)  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _seeded(self, rows: NDArray[np.int64], step: int, part: int) -> torch.Tensor:
        """Features of some rows, float32 of shape (m, d), with the random numbers of a part of a step."""
        seed = (self.recipe.seed % (1 << 32), self.state.run, step, part)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            return forward(self.model, self.set, self.hidden, self.preprocessor, rows)[0]

    def _features(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """The features of some rows, sorted by length, as the model is."""
        self.model.eval()
        size = min(EVALUATED_TOKENS, self.state.tokens_at_once)
        with torch.no_grad():
            every = [
                forward(self.model, self.set, self.hidden, self.preprocessor, it)[0].cpu().numpy()
                for it in parts(self.set, rows, size)
            ]
        self.model.train()
        return np.concatenate(every).astype(np.float16)

    def _keep_features(self) -> None:
        rows = by_length(self.set, np.arange(self.count))
        started = time.monotonic()
        found = self._features(rows)
        if not np.isfinite(found).all():
            raise _DivergedError
        features = np.empty((1, *found.shape), np.float16)
        features[0, rows] = found
        self.by_fold = np.concatenate([self.by_fold, features])
        if (compressor := self.compressor()) is not None:
            # What a training is worth that is cut down to an adapter; its weights are the first ones again after this.
            cut_down = compressor.weights(compressor.adapter(self.model.tuned()))
            self._restore({f"module.{name}": torch.from_numpy(it) for name, it in cut_down.items()})
            features = np.empty_like(features)
            features[0, rows] = self._features(rows)
            self.compressed_by_fold = np.concatenate([self.compressed_by_fold, features])
        self._encode_s = time.monotonic() - started

    def _begin_again(self, optimizer: torch.optim.Optimizer) -> bool:
        """Begins all trainings anew, at a lower rate, as they have to be alike; returns whether to go on."""
        state = self.state
        state.diverged += 1
        state.rate *= SLOWER
        _log.warning("training diverged at step %d: anew, at %.2g of the rate", state.step, state.rate)
        state.run = state.step = 0
        self.by_fold = self.by_fold[:0]
        self.compressed_by_fold = self.by_fold
        self._restore(self._first)
        self._reset(optimizer)
        return state.diverged < MAX_DIVERGED

    # --- time -------------------------------------------------------------------------------------------------

    def _plan(self) -> bool:
        """Decides how many steps each training has, and how many folds there are; returns whether the time suffices."""
        state = self.state
        trained = int((self.fold_of >= 0).sum())
        classes = len(np.unique(self.set.labels[: self.count][self.fold_of[: self.count] >= 0]))
        wanted = contrastive.steps_of(trained, classes)
        if self.recipe.epochs:
            wanted = max(1, math.ceil(self.recipe.epochs * trained / self._batch))
        for folds in range(state.folds, LEAST_FOLDS - 1, -1):
            state.folds = folds
            steps = min(wanted, int(min(self._for_each() / (MARGIN * self._step_s), wanted)))
            if steps >= max(1, contrastive.FLOOR * wanted):
                state.steps = steps
                return True
        return False

    def _for_each(self) -> float:
        """The seconds that the steps of each training may take that is left; infinite without a budget."""
        if not self.recipe.seconds:
            return math.inf
        state = self.state
        left = state.folds - state.run + 1
        reserved = left * self._encode_s + GRAPH_S
        return max((self.recipe.seconds - self.seconds - reserved) / left, 0.0)

    # --- going on -----------------------------------------------------------------------------------------------

    @staticmethod
    def _reset(optimizer: torch.optim.Optimizer) -> None:
        optimizer.state.clear()

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        self.state.seconds = self.seconds
        kept = {str(fold): torch.from_numpy(it) for fold, it in enumerate(self.by_fold)}
        low = enumerate(self.compressed_by_fold)
        kept |= {f"{_CUT_DOWN}{fold}": torch.from_numpy(it) for fold, it in low}
        self._checkpoint.save(self.state, weights=self._weights(), best=kept, optimizer=optimizer)
        self._saved = time.monotonic()

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Goes on from a checkpoint of the same tuning, if there is one; returns its step of all, or 0."""
        found = self._checkpoint.load(optimizer)
        if found is None:
            return 0
        self.state, weights, kept = found
        self._restore(weights)
        if kept:
            folds = range(sum(not it.startswith(_CUT_DOWN) for it in kept))
            self.by_fold = np.stack([kept[str(fold)].numpy() for fold in folds])
            if self.compressor() is not None:
                low = [kept[f"{_CUT_DOWN}{fold}"].numpy() for fold in folds]
                self.compressed_by_fold = np.stack(low)
        self._began -= self.state.seconds  # what it took before counts against the time budget
        done = self.state.run * self.state.steps + self.state.step
        _log.info("tuning goes on from step %d", done)
        return done

    # --- telling ------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        state = self.state
        trainings = state.folds + 1
        done, total = state.run * state.steps + state.step, trainings * state.steps
        left = trainings - state.run
        eta_s = (total - done) * self._step_s + left * self._encode_s + GRAPH_S
        if self.recipe.seconds:
            eta_s = min(eta_s, max(self.recipe.seconds - self.seconds, 0.0))
        metrics = {"training": state.run + 1.0, "trainings": float(trainings), "train_loss": state.loss}
        share = CACHED + (TRAINED - CACHED) * done / total
        self._progress(Progress("tuning", share, metrics, eta_s, done=done, total=total, unit="steps"))


class _DivergedError(Exception):
    """A loss or a feature is no finite number."""


def _rate_at(share: float) -> float:
    """The learning rate at a share of a training, of the highest one: up, then down to 0."""
    up = contrastive.WARM_UP
    return share / up + 1e-3 if share < up else (1 - share) / (1 - up)
