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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from graft_server.backbones import scratch
from graft_server.backbones.cache import HIDDEN
from graft_server.backbones.cutting import pruned, replant
from graft_server.backbones.packing import pack
from graft_server.backbones.scratch import Part, Scratch
from graft_server.backbones.source import Backbone
from graft_server.backbones.torch.tunable import Tunable, packed_tensors
from graft_server.errors import FaultError

_log = logging.getLogger(__name__)

BATCH = 32
"""Examples a step."""
TOKENS_AT_ONCE = 8_192
"""A step's examples are worked on in parts of so many tokens, whose gradients add up: memory is bounded by it."""
ENCODED_TOKENS = 256
"""Tokens in a batch of what needs no gradients; see `encoding.tuning`."""
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
EXPLODED = 3.0
"""Loss, over that of the start, at which training counts as diverged: and at least one nat more."""
MAX_DIVERGED = 3
SLOWER = 0.3
"""What the learning rate is multiplied by after it diverged."""
PARITY = 1e-4
"""The largest difference between the tuned graph's features and torch's."""
PARITY_TEXTS = 64
PROGRESS_S = 0.5

OnProgress = Callable[[dict[str, Any]], None]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Task:
    """The job's payload."""

    backbone: dict[str, Any]
    """See `Backbone.payload`."""
    scratch: str
    """The folder that has the examples; see `backbones.scratch`."""
    graph: str
    """The encoder's graph, or its part above the cut."""
    below_graph: str = ""
    """The part below the cut; "": all layers are tuned."""
    below: int = 0
    """How many layers it has."""
    epochs: int = 4
    learning_rate: float = 2e-4
    """Of the last layer."""
    layer_decay: float = 0.9
    label_smoothing: float = 0.0
    seed: int = 0
    seconds: float = 0.0
    """How long training may take; 0: until it is done."""
    threads: int = 1
    cache_bytes: int = 1 << 30
    """What is computed once is kept in memory up to here, and on disk beyond."""
    cached: bool = True
    """False: what is below the cut is computed again each time. For measurements."""


@dataclass(slots=True)
class Evaluated:
    """How good a state was on the held-out examples."""

    epoch: float
    log_loss: float
    accuracy: float
    train_loss: float = 0.0
    seconds: float = 0.0
    """Since training began."""


@dataclass(slots=True)
class _State:
    """Where training is: what a checkpoint has, besides weights."""

    step: int = 0
    seconds: float = 0.0
    rate: float = 1.0
    """What learning rates are multiplied by: falls when training diverges."""
    diverged: int = 0
    halved: int = 0
    """How often a step's parts were made smaller."""
    stale: int = 0
    best: int = 0
    """Which evaluation was best."""
    history: list[Evaluated] = field(default_factory=list)


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
        `parameters`: how many were tuned.

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
    return result


class Tuning:
    """One run."""

    def __init__(self, task: Task, progress: OnProgress) -> None:
        self.task = task
        self.began = time.monotonic()
        self.set = Scratch.read(Path(task.scratch))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        weight, bias = self.set.head
        self.model = Tunable(
            Backbone.of_payload(task.backbone),
            below=task.below,
            weight=weight,
            bias=bias,
        ).to(self.device)
        self.state = _State()
        self._progress = progress
        self._told = 0.0
        self._below = _session(task.below_graph) if task.below_graph else None
        self._hidden: NDArray[np.float16] | None = None
        self._train = np.flatnonzero(self.set.part == Part.TRAIN)
        self._held_out = np.flatnonzero(self.set.part == Part.STOP)
        self._tokens_at_once = TOKENS_AT_ONCE
        self._step_s = 0.0

    # --- the whole --------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Trains, and leaves the model in its best state."""
        if self._below is not None and self.task.cached:
            self._fill_cache()
        self._begin()
        self._original = self.model.tuned()
        optimizer = torch.optim.AdamW(self._groups, fused=self.device.type == "cpu")
        total = self.task.epochs * self._steps
        resumed = self.state.step if self._resume(optimizer) else 0
        if not self.state.history:
            self.state.history.append(self._evaluate(0.0))
            self._best = self._weights()
            self._loss = self.state.history[0].log_loss
        ended = "done"
        if self.task.seconds and self._left() < self._steps * self._step_s:
            ended, total = "no_time", 0
        while self.state.step < total:
            ended = self._step(optimizer, total)
            if ended:
                break
        else:
            ended = ended if ended == "no_time" else "done"
        self._restore(self._best)
        return {
            "history": [asdict(it) for it in self.state.history],
            "best": self.state.best,
            "ended": ended,
            "epoch_s": self._steps * self._step_s,
            "examples_per_s": BATCH / self._step_s,
            "diverged": self.state.diverged,
            "halved": self.state.halved,
            "resumed": resumed,
            "parameters": sum(it.size for it in self._original.values()),
        }

    def finish(self) -> None:
        """Writes the tuned graph, checks it, and writes the head and the features of all examples."""
        graph = onnx.load(self.task.graph)
        tuned = self.model.tuned()
        replant(graph, self._original, tuned)
        for output in list(graph.graph.output):
            if output.name != "pooled":
                graph.graph.output.remove(output)
        path = self.set.folder / scratch.TOP
        onnx.save(pruned(graph), str(path))
        session = _session(str(path))
        features = self._features(session)
        self._check(features)
        np.save(self.set.folder / scratch.FEATURES, features.astype(np.float16))
        weight, bias = (it.detach().cpu().numpy() for it in (self.model.weight, self.model.bias))
        np.savez(self.set.folder / scratch.TUNED_HEAD, weight=weight, bias=bias)

    # --- training ---------------------------------------------------------------------------------------------

    @property
    def _steps(self) -> int:
        """Steps an epoch."""
        return max(1, math.ceil(len(self._train) / BATCH))

    def _begin(self) -> None:
        """Finds out what gets gradients, and how long a step takes: on batches that nothing is learned from."""
        self.model.train()
        times = []
        for batch in self._epoch(0)[:3]:
            started = time.monotonic()
            self._backward(batch)
            times.append(time.monotonic() - started)
        self._groups = self.model.groups(self.task.learning_rate, self.task.layer_decay, WEIGHT_DECAY)
        self.model.zero_grad(set_to_none=True)
        self._step_s = min(times)
        torch.manual_seed(self.task.seed % (1 << 63))

    def _step(self, optimizer: torch.optim.Optimizer, total: int) -> str:
        """One step; returns why training ends, or ""."""
        started = time.monotonic()
        state, steps = self.state, self._steps
        if state.step % steps == 0 or not hasattr(self, "_order"):
            self._order = self._epoch(state.step // steps)
        self._set_rates(optimizer, total)
        loss = self._backward(self._order[state.step % steps])
        torch.nn.utils.clip_grad_norm_([p for g in self._groups for p in g["params"]], CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.step += 1
        self._loss += 0.05 * (loss - self._loss)
        if self._has_diverged(loss):
            return self._roll_back(optimizer)
        took = time.monotonic() - started
        self._step_s += 0.05 * (took - self._step_s)
        state.seconds += took
        if self.task.seconds and self._left() < 0:
            return "time"
        if self._is_due() and self._is_stale(optimizer):
            return "no_gain"
        self._tell(total)
        return ""

    def _is_due(self) -> bool:
        """Whether the state is evaluated after this step: so many times an epoch, and at its end."""
        step, steps = self.state.step, self._steps
        return step * EVALUATIONS // steps > (step - 1) * EVALUATIONS // steps

    def _backward(self, batch: NDArray[np.int64]) -> float:
        """Adds a batch's gradients up, in parts that fit into memory; returns its loss."""
        while True:
            try:
                return self._in_parts(batch)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or self._tokens_at_once <= self.set.lengths.max():
                    raise
                _log.warning("out of memory with %d tokens at once: half as many", self._tokens_at_once)
                self._tokens_at_once //= 2
                self.state.halved += 1
                self.model.zero_grad(set_to_none=True)

    def _in_parts(self, batch: NDArray[np.int64]) -> float:
        total, whole = 0.0, float(self.set.weights[batch].sum())
        for part in self._parts(batch, self._tokens_at_once):
            _, logits = self._forward(part)
            losses = torch.nn.functional.cross_entropy(
                logits.float(),
                torch.from_numpy(self.set.labels[part].astype(np.int64)).to(self.device),
                reduction="none",
                label_smoothing=self.task.label_smoothing,
            )
            weights = torch.from_numpy(self.set.weights[part].astype(np.float32)).to(self.device)
            loss = (losses * weights).sum() / whole
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _forward(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = pack([self.set.tokens_of(row) for row in rows])
        hidden = None
        if self._below is not None:
            hidden = torch.from_numpy(self._hidden_of(rows, inputs)).to(self.device)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            features, logits = self.model(packed_tensors(inputs, self.device), hidden)
        return features, logits

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

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The batches of an epoch: random ones, in which texts of about one length are together."""
        generator = np.random.default_rng((self.task.seed % (1 << 63), epoch))
        order = generator.permutation(self._train)
        chunks = np.array_split(order, max(1, len(order) // (BATCH * 50)))
        order = np.concatenate([it[np.argsort(self.set.lengths[it], kind="stable")] for it in chunks])
        batches = np.array_split(order, self._steps)
        return [batches[i] for i in generator.permutation(len(batches))]

    def _parts(self, rows: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
        start, size = 0, 0
        for end, row in enumerate(rows):
            length = int(self.set.lengths[row])
            if end > start and size + length > tokens:
                yield rows[start:end]
                start, size = end, 0
            size += length
        yield rows[start:]

    # --- stopping, rolling back, going on -----------------------------------------------------------------------

    def _is_stale(self, optimizer: torch.optim.Optimizer) -> bool:
        state = self.state
        found = self._evaluate(state.step / self._steps)
        if found.log_loss < state.history[state.best].log_loss - MIN_GAIN:
            state.best, state.stale = len(state.history), 0
            self._best = self._weights()
        else:
            state.stale += 1
        state.history.append(found)
        self._save(optimizer)
        return state.stale >= PATIENCE * EVALUATIONS

    def _evaluate(self, epoch: float) -> Evaluated:
        self.model.eval()
        rows = self._held_out[np.argsort(self.set.lengths[self._held_out], kind="stable")]
        with torch.no_grad():
            every = [self._forward(part)[1].float().cpu().numpy() for part in self._parts(rows, 2048)]
        self.model.train()
        weights = self.set.weights[rows]
        logits, labels = np.concatenate(every), self.set.labels[rows]
        return Evaluated(
            epoch=epoch,
            log_loss=_calibrated_loss(logits, labels, weights),
            accuracy=float(np.average(logits.argmax(axis=1) == labels, weights=weights)),
            train_loss=getattr(self, "_loss", 0.0),
            seconds=self.state.seconds,
        )

    def _has_diverged(self, loss: float) -> bool:
        start = self.state.history[0].log_loss
        return not math.isfinite(loss) or self._loss > max(EXPLODED * start, start + 1)

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
        self._loss = state.history[state.best].log_loss
        return "diverged" if state.diverged >= MAX_DIVERGED else ""

    def _left(self) -> float:
        """Seconds that training may still take."""
        return self.task.seconds - (time.monotonic() - self.began)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: it.detach().clone() for name, it in self.model.named_parameters() if it.requires_grad}

    def _restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.model.load_state_dict(weights, strict=False)

    @property
    def _fingerprint(self) -> str:
        told = {**asdict(self.task), "scratch": "", "seconds": 0, "threads": 0, "cache_bytes": 0}
        return hashlib.sha256(repr((sorted(told.items()), self.set.digest)).encode()).hexdigest()

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        path = self.set.folder / scratch.CHECKPOINT
        temporary = path.with_suffix(".new")
        torch.save(
            {
                "fingerprint": self._fingerprint,
                "state": msgspec.json.encode(self.state),
                "weights": self._weights(),
                "best": self._best,
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "loss": self._loss,
            },
            temporary,
        )
        temporary.replace(path)

    def _resume(self, optimizer: torch.optim.Optimizer) -> bool:
        """Goes on from a checkpoint of the same task, if there is one."""
        try:
            kept = torch.load(self.set.folder / scratch.CHECKPOINT, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError):
            return False
        if kept["fingerprint"] != self._fingerprint:
            return False
        self.state = msgspec.json.decode(kept["state"], type=_State)
        self.began -= self.state.seconds  # what it took before counts against the time budget
        self._best = kept["best"]
        self._restore(kept["weights"])
        self._loss = float(kept["loss"])
        optimizer.load_state_dict(kept["optimizer"])
        torch.set_rng_state(kept["random"])
        _log.info("tuning goes on from step %d", self.state.step)
        return True

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
                "eta_s": eta_s,
                "metrics": {
                    "epoch": state.step / self._steps,
                    "train_loss": self._loss,
                    "held_out_log_loss": last.log_loss,
                    "held_out_accuracy": last.accuracy,
                },
            }
        )

    # --- what needs no gradients --------------------------------------------------------------------------------

    def _fill_cache(self) -> None:
        """Computes what is below the cut for all examples."""
        dimension = self.set.head[0].shape[0]
        shape = int(self.set.offsets[-1]), dimension
        if shape[0] * shape[1] * 2 <= self.task.cache_bytes:
            self._hidden = np.empty(shape, np.float16)
        else:
            path = self.set.folder / scratch.HIDDEN
            self._hidden = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        hidden, done = self._hidden, 0

        def fill(rows: NDArray[np.int64]) -> int:
            computed = self._run_below(pack([self.set.tokens_of(row) for row in rows]))
            ends = np.cumsum(self.set.lengths[rows])
            for row, end in zip(rows, ends, strict=True):
                hidden[self.set.slice_of(row)] = computed[end - self.set.lengths[row] : end]
            return len(rows)

        order = np.argsort(self.set.lengths, kind="stable")
        with ThreadPoolExecutor(self.task.threads) as executor:
            for count in executor.map(fill, list(self._parts(order, ENCODED_TOKENS))):
                done += count
                now = time.monotonic()
                if now - self._told > PROGRESS_S:
                    self._told = now
                    self._progress({"stage": "caching", "fraction": 0.05 * done / len(order)})

    def _run_below(self, inputs: Mapping[str, NDArray[np.int64]]) -> Array:
        below = cast("onnxruntime.InferenceSession", self._below)
        names = [it.name for it in below.get_inputs()]
        (hidden,) = below.run([HIDDEN], {name: inputs[name] for name in names})
        return np.asarray(hidden[0], np.float32)

    def _hidden_of(self, rows: NDArray[np.int64], inputs: Mapping[str, NDArray[np.int64]]) -> Array:
        if self._hidden is None:
            return self._run_below(inputs)
        return np.concatenate([self._hidden[self.set.slice_of(row)] for row in rows]).astype(np.float32)

    def _features(self, session: onnxruntime.InferenceSession) -> Array:
        """The tuned graph's features of all examples, shape (n, d)."""
        names = [it.name for it in session.get_inputs()]
        kinds = {
            it.name: np.float16 if it.type == "tensor(float16)" else np.float32 for it in session.get_inputs()
        }
        features = np.empty((len(self.set.labels), self.set.head[0].shape[0]), np.float32)

        def encode(rows: NDArray[np.int64]) -> None:
            inputs: dict[str, Any] = dict(pack([self.set.tokens_of(row) for row in rows]))
            if HIDDEN in names:
                inputs[HIDDEN] = self._hidden_of(rows, inputs)[None].astype(kinds[HIDDEN])
            (features[rows],) = session.run(["pooled"], {name: inputs[name] for name in names})

        order = np.argsort(self.set.lengths, kind="stable")
        with ThreadPoolExecutor(self.task.threads) as executor:
            list(executor.map(encode, list(self._parts(order, ENCODED_TOKENS))))
        return features

    def _check(self, features: Array) -> None:
        self.model.eval()
        order = np.argsort(self.set.lengths, kind="stable")
        rows = order[:: max(1, len(order) // PARITY_TEXTS)]
        worst = 0.0
        with torch.no_grad():
            for part in self._parts(rows, 2048):
                found, _ = self._forward(part)
                worst = max(worst, float(np.abs(found.float().cpu().numpy() - features[part]).max()))
        if not worst <= PARITY:  # so said, NaN fails too
            raise FaultError(
                f"The tuned graph's features differ from torch's by {worst:.1e} (at most {PARITY:.0e} is accepted), so "
                "it is not served. Commit again; if it fails again, report it.",
                reason="TUNED_PARITY",
            )


def _calibrated_loss(logits: Array, labels: NDArray[np.int32], weights: NDArray[np.float64]) -> float:
    """The log-loss at the best temperature: being too sure is no reason to stop, since calibration follows."""
    losses = []
    for sharpness in np.geomspace(0.2, 2, 24):
        scaled = logits * np.float32(sharpness)
        scaled -= scaled.max(axis=1, keepdims=True)
        own = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]
        losses.append(float(np.average(own, weights=weights)))
    return min(losses)


def _session(graph: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several batches at once are faster
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(it in str(error) for it in ("can't allocate memory", "bad_alloc"))  # on the CPU
