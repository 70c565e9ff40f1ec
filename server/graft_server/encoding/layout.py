"""Chooses by measurement how many batches run at once, on how many threads, and how large they are.

It measures on the device itself, once per encoder and machine. The result is kept beside the exported graph, unless
other processes used the processors meanwhile: the fastest layout beside them may be slow without them.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np

from graft_server.backbones.preprocessing import Preprocessor
from graft_server.encoding.encoder import Encoder
from graft_server.onnx_runtime import onnxruntime
from graft_server.sharing.owned_folders import share

_log = logging.getLogger(__name__)

MEASURE_S = 0.5
"""How long each layout is measured, in seconds."""
_PASSES = 5
"""The number of passes. Each measures all layouts in turn, for a part of that time, and compares each with the first:
other processes may use the machine, and their share changes from second to second."""
_UNDISTURBED = 0.05
"""The part of a pass that the encoder's threads may wait for a processor; a longer wait means that others use it."""
_WORTH = 1.05
"""The first layout is right on most machines, so another one has to be faster by this factor."""


FORMAT = 1
"""The newest format of remembered layouts that this release knows."""


class _Said(msgspec.Struct):
    format: int = 1


class _Remembered(msgspec.Struct):
    """A layout as it is remembered; one of a newer format may mean something else."""

    format: int = 1
    workers: int = 0
    threads: int = 0
    budget: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The number, threads and size of an encoder's batches."""

    workers: int
    """The number of batches that run at the same time."""
    threads: int
    """The threads of each batch."""
    budget: int
    """The cost of a batch; see `Preprocessor.price`."""


def tuned(
    graph: Path, *, device: str, cores: int, preprocessor: Preprocessor, measure_s: float = MEASURE_S
) -> Layout:
    """Returns the best layout for this graph on this machine: remembered, or measured now (a few seconds).

    With a `measure_s` of 0 nothing is measured or remembered: it returns the layout that is right on most machines.
    """
    memory = graph.parent / f"layout-{_machine(device, cores)}.json"
    remembered = _remembered(memory, cores, preprocessor)
    newer = remembered is not None and remembered.format > FORMAT
    if remembered is not None and not newer:
        return Layout(remembered.workers, remembered.threads, remembered.budget)
    if not measure_s:
        encoder = Encoder(graph, device=device, threads=1, collate=preprocessor.collate)
        return _layouts(encoder.device, cores, preprocessor)[0]
    candidates = _candidates(graph, device, cores, preprocessor)
    layout = _measure(candidates, preprocessor, measure_s / _PASSES)
    if layout is None:
        _log.warning(
            "others use this machine's processors, so how to drive the encoder is measured again at the next start; "
            "until then as is right on most machines"
        )
        return candidates[0][0]
    if newer:
        _log.warning(
            "the layout that a newer release remembers stays as it is, and this one is not remembered"
        )
        return layout
    temporary = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps({"format": FORMAT, **asdict(layout)}))
        share(temporary)
        temporary.replace(memory)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _log.warning("the layout cannot be remembered, and is measured again at the next start: %s", error)
    return layout


def _remembered(memory: Path, cores: int, preprocessor: Preprocessor) -> _Remembered | None:
    """The layout that a file has; None if it has none that an encoder can be driven by here."""
    try:
        data = memory.read_bytes()
        said = msgspec.json.decode(data, type=_Said)
        # What else a newer one says may have another form.
        found = (
            _Remembered(said.format) if said.format > FORMAT else msgspec.json.decode(data, type=_Remembered)
        )
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, RecursionError):
        found = None
    if found is not None:
        layout = Layout(found.workers, found.threads, found.budget)
        every = [it for device in ("cpu", "cuda") for it in _layouts(device, cores, preprocessor)]
        if layout in every or found.format > FORMAT:
            return found
    _log.warning("%s says nothing that an encoder can be driven by: it is measured again", memory.name)
    return None


def _machine(device: str, cores: int) -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    words = f"{device}-{cores}-{cpu}-{onnxruntime.__version__}"
    return "".join(letter if letter.isalnum() else "_" for letter in words)


def _measure(
    candidates: Sequence[tuple[Layout, Encoder]], preprocessor: Preprocessor, seconds: float
) -> Layout | None:
    """Returns the fastest layout; None if others used the processors in most of the passes."""
    rates = []
    for turn in range(_PASSES):
        measured = [_rate(encoder, layout, preprocessor, seconds) for layout, encoder in candidates]
        # The first has one thread per processor, so its threads do not wait for each other.
        if measured[0].waited <= _UNDISTURBED:
            rates.append([it.rate for it in measured])
        elif turn + 1 - len(rates) > _PASSES // 2:
            return None
    # Shape (passes, candidates): each rate over that of the first layout in its pass.
    ratios = np.median(np.array(rates) / np.array(rates)[:, :1], axis=0)
    for (layout, _), ratio in zip(candidates, ratios, strict=True):
        _log.info("measured %s: %.2f times the first", layout, ratio)
    best = int(ratios.argmax())
    return candidates[best if ratios[best] > _WORTH else 0][0]


def _candidates(
    graph: Path, device: str, cores: int, preprocessor: Preprocessor
) -> list[tuple[Layout, Encoder]]:
    encoders = {1: Encoder(graph, device=device, threads=1, collate=preprocessor.collate)}
    layouts = _layouts(encoders[1].device, cores, preprocessor)
    for threads in {it.threads for it in layouts} - encoders.keys():
        encoders[threads] = Encoder(graph, device=device, threads=threads, collate=preprocessor.collate)
    return [(it, encoders[it.threads]) for it in layouts]


def _layouts(device: str, cores: int, preprocessor: Preprocessor) -> list[Layout]:
    """Returns the layouts worth measuring; the first is right on most machines."""
    budgets = preprocessor.budgets
    if device == "cuda":
        # While the GPU computes one batch, the next is prepared.
        return [Layout(2, 1, budget) for budget in budgets.gpu]
    layouts = [Layout(cores, 1, budget) for budget in budgets.cpu]
    if cores > 1:
        layouts += [Layout(1, cores, budget) for budget in budgets.cpu]
    return layouts


@dataclass(frozen=True, slots=True)
class _Measured:
    rate: float
    """The length encoded in a second."""
    waited: float
    """The part of the time that the encoder's calling threads were ready to run but had no processor."""


def _rate(encoder: Encoder, layout: Layout, preprocessor: Preprocessor, seconds: float) -> _Measured:
    """Returns how fast an encoder is, measured for `seconds`."""
    batches = _batches(layout.budget, preprocessor)
    encoder.encode(batches[0])
    started = time.monotonic()
    end = started + seconds

    def run(worker: int) -> tuple[int, float]:
        done, turn = 0, worker
        waited_s = _waited_s()
        while time.monotonic() < end:
            batch = batches[turn % len(batches)]
            encoder.encode(batch)
            done += sum(map(len, batch))
            turn += layout.workers
        return done, _waited_s() - waited_s

    with ThreadPoolExecutor(layout.workers) as executor:
        ran = list(executor.map(run, range(layout.workers)))
    took_s = time.monotonic() - started
    waited_s = sum(it for _, it in ran)
    return _Measured(sum(done for done, _ in ran) / took_s, waited_s / (took_s * layout.workers))


def _waited_s() -> float:
    """Returns how long the calling thread has waited for a processor in all, in seconds; 0 if the system does not say.

    The second field of Linux's schedstat (Documentation/scheduler/sched-stats).
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _batches(budget: int, preprocessor: Preprocessor) -> list[list[Sized]]:
    """Returns batches of made-up items that resemble real ones."""
    generator = np.random.default_rng(0)
    batches: list[list[Sized]] = [[]]
    total = longest = 0
    while len(batches) < 32:
        item = preprocessor.typical(generator)
        longest = max(longest, len(item))
        if batches[-1] and preprocessor.price(len(batches[-1]) + 1, total + len(item), longest) > budget:
            batches.append([])
            total, longest = 0, len(item)
        batches[-1].append(item)
        total += len(item)
    return batches[:-1]
