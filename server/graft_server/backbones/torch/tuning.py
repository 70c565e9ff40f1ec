"""The job that tunes the upper layers of a backbone, from the head that was found on its frozen features.

The head comes first, so that the first steps do not tear features apart that are good already (LP-FT, Kumar et
al. 2022), and lower layers learn more slowly than upper ones. What the layers below the cut make of an example is
computed once and kept, so an epoch costs only what is tuned.

It reads and writes a folder, its scratch, which outlives it: killed half-way, it goes on from its last
checkpoint. The best state on held-out examples is what comes out, whatever ends the training; the state that it
starts from is one of those that are compared.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones import scratch
from graft_server.backbones.families import backbone_of_payload
from graft_server.backbones.scratch import Part, Scratch
from graft_server.backbones.torch import tuned_graph
from graft_server.backbones.torch.hidden import Hidden, by_length, parts
from graft_server.backbones.torch.tunable import Tunable, forward
from graft_server.backbones.torch.tuning_state import Checkpoint, Evaluated, State, Weights
from graft_server.backbones.tuning_contract import Task

_log = logging.getLogger(__name__)

BATCH = 32
"""Examples a step."""
TOKENS_AT_ONCE = 8_192
"""A step's examples are worked on in parts of so many tokens, whose gradients add up: memory is bounded by it."""
EVALUATED_TOKENS = 2_048
"""The same where no gradients are needed."""
WARM_UP = 0.1
"""The part of the training in which the learning rate rises."""
CLIP = 1.0
WEIGHT_DECAY = 0.01
PATIENCE = 3
"""Epochs without a better log-loss, after which training ends: the first ones, at the highest rate, often lose."""
MIN_GAIN = 1e-4
"""A log-loss counts as better if it is by so much, in nats."""
EVALUATIONS = 2
"""Evaluations an epoch."""
MIXTURES = (0.75, 0.5, 0.25)
"""Shares of the last state, the rest of the first one, that are tried in the end."""
EXPLODED = 3.0
"""Loss, over that of the start, at which training counts as diverged: and at least one nat more."""
MAX_DIVERGED = 3
SLOWER = 0.3
"""What the learning rate is multiplied by after it diverged."""
SETTLED_S = 1.0
"""How long hidden states are computed before it is judged how long all of them will take."""
PROGRESS_S = 0.5
CHECKPOINT_S = 60.0
"""A checkpoint is written after each evaluation, and as often between them: a kill costs no more."""

_NO_MEMORY = ("can't allocate memory", "bad_alloc", "could not create a primitive")
"""What errors on the CPU say: torch's allocator, the language's, and oneDNN, which means no room for its code."""

OnProgress = Callable[[dict[str, Any]], None]


def tune(payload: Mapping[str, Any], progress: OnProgress) -> dict[str, Any]:
    """Tunes, and writes the tuned graph, its features of all examples and the head to the scratch folder.

    Args:
        payload: A `Task`, as builtins.
        progress: Told `stage` ("loading", "caching", "tuning", "encoding"), `fraction` and `eta_s` of the whole,
            and `metrics`.

    Returns:
        `history`: the evaluations, first that of the start; `best`: which of them was kept; `ended`: "done",
        "no_gain", "time", "no_time" (not one epoch would have fitted) or "diverged"; `epoch_s`; `examples_per_s`;
        `diverged`, `halved`: how often; `resumed`: the step of the checkpoint that it went on from, or 0;
        `parameters`: how many were tuned; `seconds`: what it took, before it was resumed too.

    Raises:
        BackboneError: The backbone cannot be tuned.
        FaultError: The tuned graph computes something else than torch (TUNED_PARITY).
    """
    task = msgspec.convert(payload, Task)
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed % (1 << 63))
    progress({"stage": "loading", "fraction": 0.0})
    tuning = Tuning(task, progress)
    result = tuning.run()
    if result["best"]:
        progress({"stage": "encoding", "fraction": 0.95})
        tuning.finish()
    progress({"stage": "encoding", "fraction": 1.0})
    return {**result, "seconds": tuning.seconds}


class Tuning:
    """One run."""

    def __init__(self, task: Task, progress: OnProgress) -> None:
        self._began = self._saved = time.monotonic()
        self.task = task
        self.set = Scratch.read(Path(task.scratch))
        self.folder = self.set.folder / task.own
        self.folder.mkdir(exist_ok=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.mixed = self.device.type == "cuda" or has_bfloat16()
        weight, bias = self.set.head
        backbone = backbone_of_payload(task.backbone)
        self.preprocessor = backbone.preprocessor()
        self.model = Tunable(backbone, below=task.below, weight=weight, bias=bias).to(self.device)
        self.state = State(tokens_at_once=TOKENS_AT_ONCE)
        self.hidden = (
            Hidden(self.set, task.below_graph, self.preprocessor, folder=self.folder)
            if task.below_graph
            else None
        )
        self._train = np.flatnonzero(self.set.part == Part.TRAIN)
        self._held_out = np.flatnonzero(self.set.part == Part.STOP)
        told = {**asdict(task), "scratch": "", "own": "", "seconds": 0, "threads": 0, "cache_bytes": 0}
        fingerprint = hashlib.sha256(repr((sorted(told.items()), self.set.digest)).encode()).hexdigest()
        self._checkpoint = Checkpoint(self.folder / scratch.CHECKPOINT, fingerprint)
        self._progress = progress
        self._told = 0.0
        self._step_s = 0.0
        self._reserved_s = 0.0
        self._order: list[NDArray[np.int64]] = []
        self._original: dict[str, NDArray[np.float32]] = {}

    @property
    def seconds(self) -> float:
        """What it took so far, before it was resumed too."""
        return time.monotonic() - self._began

    # --- the whole --------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Trains, and leaves the model in its best state."""
        try:
            self.keep_hidden()
        except _NoTimeError:
            return self._result("no_time")
        self.begin()
        optimizer = self.optimizer()
        total = self.task.epochs * self._steps
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

    def _result(self, ended: str, resumed: int = 0) -> dict[str, Any]:
        """What `tune` returns, but how long it took."""
        return {
            "history": [asdict(it) for it in self.state.history],
            "best": self.state.best,
            "ended": ended,
            "epoch_s": self._steps * self._step_s,
            "examples_per_s": BATCH / self._step_s if self._step_s else 0.0,
            "diverged": self.state.diverged,
            "halved": self.state.halved,
            "resumed": resumed,
            "parameters": sum(it.size for it in self._original.values()),
        }

    def finish(self) -> None:
        """Writes what comes out of it; see `tuned_graph.write`."""
        tuned_graph.write(
            self.folder,
            self.set,
            self.model,
            graph=self.task.graph,
            original=self._original,
            hidden=self.hidden,
            preprocessor=self.preprocessor,
            threads=self.task.threads,
        )

    # --- training ---------------------------------------------------------------------------------------------

    @property
    def _steps(self) -> int:
        """Steps an epoch."""
        return max(1, math.ceil(len(self._train) / BATCH))

    def keep_hidden(self) -> None:
        """Computes what is below the cut, and keeps it."""
        if self.hidden is not None and self.task.cached:
            task = self.task
            self._cached_from = time.monotonic()
            self.hidden.keep(memory_bytes=task.cache_bytes, threads=task.threads, told=self._caching)

    def begin(self) -> None:
        """Finds out what gets gradients, and how long a step takes: on batches that nothing is learned from."""
        self.model.train()
        times = []
        for batch in self.epoch(0)[:3]:
            started = time.monotonic()
            self._backward(batch)
            times.append(time.monotonic() - started)
        self._groups = self.model.groups(self.task.learning_rate, self.task.layer_decay, WEIGHT_DECAY)
        self.model.zero_grad(set_to_none=True)
        self._original, self._first = self.model.tuned(), self._weights()
        self._step_s = min(times)
        torch.manual_seed(self.task.seed % (1 << 63))

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
        self._reserved_s = each_s * int(self.set.lengths.sum()) + evaluations

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
        late = bool(self.task.seconds) and self._left() < 0
        if late or self._is_due():
            stale = self._is_stale(optimizer)
            return "time" if late else "no_gain" if stale else ""
        if time.monotonic() - self._saved > CHECKPOINT_S:
            self._save(optimizer)
        self._tell(total)
        return ""

    def _is_due(self) -> bool:
        """Whether the state is evaluated after this step: so many times an epoch, and at its end."""
        step, steps = self.state.step, self._steps
        return step * EVALUATIONS // steps > (step - 1) * EVALUATIONS // steps

    def _backward(self, batch: NDArray[np.int64]) -> float:
        """Adds a batch's gradients up, in parts that fit into memory; returns its loss."""
        state = self.state
        while True:
            try:
                return self._in_parts(batch)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or state.tokens_at_once <= self.set.lengths.max():
                    raise
                # What a batch has at most is less than the bound, as long as texts are short.
                size = min(state.tokens_at_once, int(self.set.lengths[batch].sum()))
                state.tokens_at_once = max(size // 2, int(self.set.lengths.max()))
                state.halved += 1
                _log.warning(
                    "out of memory with %d tokens at once: %d from here on", size, state.tokens_at_once
                )
                self.model.zero_grad(set_to_none=True)

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
        if self.task.seconds:
            done = max(done, 1 - self._left() / self.task.seconds)
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
        generator = np.random.default_rng((self.task.seed % (1 << 63), number))
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

    def _evaluate(self, epoch: float) -> Evaluated:
        self.model.eval()
        rows = by_length(self.set, self._held_out)
        with torch.no_grad():
            size = min(EVALUATED_TOKENS, self.state.tokens_at_once)
            every = [self.logits(part).cpu().numpy() for part in parts(self.set, rows, size)]
        self.model.train()
        logits, labels, weights = np.concatenate(every), self.set.labels[rows], self.set.weights[rows]
        return Evaluated(
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
        return not self.task.seconds or self._left() >= self._steps * self._step_s

    def _left(self) -> float:
        """Seconds that training may still take."""
        return self.task.seconds - self._reserved_s - self.seconds

    def _weights(self) -> Weights:
        return {name: it.detach().clone() for name, it in self.model.named_parameters() if it.requires_grad}

    def _restore(self, weights: Weights) -> None:
        self.model.load_state_dict(weights, strict=False)

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

    def _caching(self, done: float) -> None:
        now = time.monotonic()
        # Once it has settled. The longest come last, so this is the least that it will take.
        took_s = now - self._cached_from
        needed_s = took_s * (1 - done) / done if took_s > SETTLED_S else 0.0
        # What a checkpoint has is kept, whatever it takes to compute its hidden states again.
        if self.task.seconds and needed_s > self._left() and not self._checkpoint.path.exists():
            raise _NoTimeError
        if now - self._told > PROGRESS_S:
            self._told = now
            self._progress({"stage": "caching", "fraction": 0.05 * done})

    def _tell(self, total: int) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        state = self.state
        last = state.history[-1]
        eta_s = (total - state.step) * self._step_s
        if self.task.seconds:
            eta_s = min(eta_s, max(self._left(), 0.0))
        self._progress(
            {
                "stage": "tuning",
                "fraction": 0.05 + 0.9 * state.step / total,
                "eta_s": eta_s + self._reserved_s,
                "metrics": {
                    "epoch": state.step / self._steps,
                    "train_loss": state.loss,
                    "held_out_log_loss": last.log_loss,
                    "held_out_accuracy": last.accuracy,
                },
            }
        )


class _NoTimeError(Exception):
    """The budget does not even suffice for what is computed once."""


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


def has_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 faster than float32: a step of MiniLM 1.75 times."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error that torch raised, on whatever device, is that memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(it in str(error) for it in _NO_MEMORY)
