"""Chooses how many batches run at once, on how many threads, and how large they are: by measuring.

Measured on the device itself, once per encoder and machine: the answer is kept beside the exported graph.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from graft_server.backbones.preprocessing import Preprocessor
from graft_server.encoding.runtime import Encoder

_log = logging.getLogger(__name__)

MEASURE_S = 0.5
"""How long each setting is measured."""
_PASSES = 5
"""All settings are measured in turn so many times, for a part of that time each, and each is compared with the first
within the same pass: others may use the machine, and what they take changes from second to second."""
_WORTH = 1.05
"""The first setting is right on most machines, so another one has to be faster by this factor."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an encoder is driven."""

    workers: int
    """Batches that run at the same time."""
    threads: int
    """Threads of each."""
    budget: int
    """The cost of a batch; see `Preprocessor.price`."""


def tuned(
    graph: Path, *, device: str, cores: int, preprocessor: Preprocessor, measure_s: float = MEASURE_S
) -> Layout:
    """The best layout for this graph on this machine: remembered, or measured now (a few seconds).

    With a `measure_s` of 0 nothing is measured or remembered: it is the one that is right on most machines.
    """
    memory = graph.parent / f"layout-{_machine(device, cores)}.json"
    try:
        return Layout(**json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        pass
    if not measure_s:
        encoder = Encoder(graph, device=device, threads=1, collate=preprocessor.collate)
        return _layouts(encoder.device, cores, preprocessor)[0]
    layout = _measure(
        graph, device=device, cores=cores, preprocessor=preprocessor, seconds=measure_s / _PASSES
    )
    temporary = memory.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(asdict(layout)))
        temporary.replace(memory)
    except OSError as error:
        _log.warning("the layout cannot be remembered, and is measured again at the next start: %s", error)
    return layout


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


def _measure(graph: Path, *, device: str, cores: int, preprocessor: Preprocessor, seconds: float) -> Layout:
    candidates = _candidates(graph, device, cores, preprocessor)
    passes = [
        [_rate(encoder, layout, preprocessor, seconds) for layout, encoder in candidates]
        for _ in range(_PASSES)
    ]
    # Shape (passes, candidates): each over the first of its pass.
    ratios = np.median(np.array(passes) / np.array(passes)[:, :1], axis=0)
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
    """What is worth measuring; the first is right on most machines."""
    budgets = preprocessor.budgets
    if device == "cuda":
        # While the GPU computes one batch, the next is prepared.
        return [Layout(2, 1, budget) for budget in budgets.gpu]
    layouts = [Layout(cores, 1, budget) for budget in budgets.cpu]
    if cores > 1:
        layouts += [Layout(1, cores, budget) for budget in budgets.cpu]
    return layouts


def _rate(encoder: Encoder, layout: Layout, preprocessor: Preprocessor, seconds: float) -> float:
    """The length of what is encoded in a second, of so many."""
    batches = _batches(layout.budget, preprocessor)
    encoder.encode(batches[0])
    started = time.monotonic()
    end = started + seconds

    def run(worker: int) -> int:
        done, turn = 0, worker
        while time.monotonic() < end:
            batch = batches[turn % len(batches)]
            encoder.encode(batch)
            done += sum(map(len, batch))
            turn += layout.workers
        return done

    with ThreadPoolExecutor(layout.workers) as executor:
        total = sum(executor.map(run, range(layout.workers)))
    return total / (time.monotonic() - started)


def _batches(budget: int, preprocessor: Preprocessor) -> list[list[Sized]]:
    """Batches of made-up items as real ones are."""
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
