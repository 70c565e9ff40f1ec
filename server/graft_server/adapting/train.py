"""The job that turns a commit into the parts of a version, in a worker process that imports no torch.

It reads the examples with their stored features, so no input is encoded again, and writes the version's parts.
The version has no number yet: publishing it is the caller's, so a job that runs twice does no harm.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from graft_server.adapting.assembling import Wanted, assembled, nothing_yet
from graft_server.adapting.precision import admit
from graft_server.adapting.selection import Selection, select_head
from graft_server.adapting.training_set import TrainingSet
from graft_server.adapting.zero_shot import select_by_names
from graft_server.encoding.runtime import Reference
from graft_server.errors import FaultError, StateError
from graft_server.examples import Label
from graft_server.heads import Head, Novelty, decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.reports import Report
from graft_server.store.objects import ObjectMissingError, Objects
from graft_server.store.rows import Rows, read_rows
from graft_server.store.versions import HEAD, HEAD_ONNX, REPORT, Manifest, Source, write_version

PARITY_ROWS = 2000
"""So many rows, evenly spread, are enough to tell two heads apart, and take milliseconds."""
PROBABILITY_PARITY = 5e-5
"""Half of what a bundle may be off. Float32 alone puts a kernel head over 2,000 landmarks off by 1.5e-5."""
NOVELTY_PARITY = 1e-4
ROUNDING = 2e-6
"""How far float32 may put a strangeness off, as a share of the largest: 16 units in the last place. Where the
novelty's table is steep, that alone can move the novelty by more than NOVELTY_PARITY."""

OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(Wanted):
    """The job's payload."""

    store: str
    """Where the store is, for `Objects.open`."""
    model: str
    adaptation_id: str
    commit_id: str
    backbone: str
    """The backbone's name on this server."""
    encoder_id: str
    """Whose features to train on."""
    sources: tuple[Source, ...]
    """The lineage, oldest adaptation first."""
    seed: int = 0
    reference: Reference | None = None
    """The encoder in float32, where features come from one of less precision."""


def train(payload: Mapping[str, Any], progress: OnProgress) -> dict[str, Any]:
    """Trains on everything that a commit names and writes the parts of a version.

    Args:
        payload: A `Training`, as builtins.
        progress: Told `stage` ("reading", "selecting", "comparing" with float32, "publishing"), `fraction`, 0
            to 1, of the whole job, and `metrics` where there are any.

    Returns:
        `manifest`: `key` and `sha256`, as in `ManifestRef`; `report`: the report as JSON, the same bytes as the
        version's part; `summary`: a `Report` as builtins whose lists are empty, for the catalogue.

    Raises:
        StateError: The examples do not suffice (TOO_FEW_CLASSES, TOO_FEW_EXAMPLES), or the encoder's precision
            costs too much accuracy on them (PRECISION_LOSS).
        FaultError: Features are missing (FEATURES_MISSING), the head's graph computes something else than the
            served head (HEAD_PARITY), or the store failed.
    """
    started = time.monotonic()
    task = msgspec.convert(payload, Training)
    objects = Objects.open(task.store)
    progress({"stage": "reading", "fraction": 0.0})
    rows = _read(objects, task)
    seed = task.seed % (1 << 64)  # NumPy's generators take no negative one
    training_set, selection, warnings = _selected(rows, task, seed, progress)
    if task.reference is not None and len(training_set):
        progress({"stage": "comparing", "fraction": 0.9})
        by_id = {example.id: example.input for example in rows.examples}
        inputs = [by_id[id_] for id_ in training_set.ids]
        warnings.append(admit(training_set, inputs, selection.head.view, task.reference, seed=seed))
    progress({"stage": "publishing", "fraction": 0.95})
    head, graph = encode(selection.head), to_onnx(selection.head)
    views = selection.head.view.split("+")
    tried = training_set.features if len(training_set) else training_set.label_features or {}
    features = np.concatenate([tried[view] for view in views], axis=1)
    check_parity(decode(head), graph, features)
    report = dataclasses.replace(
        selection.report,
        warnings=(*warnings, *selection.report.warnings),
        seed=task.seed,
        method="frozen",
        backbone=task.backbone,
        encoder_id=task.encoder_id,
        trained_time_s=time.time(),
        training_duration_s=time.monotonic() - started,
    )
    encoded = msgspec.json.encode(report)
    parts = {HEAD: head, HEAD_ONNX: graph, REPORT: encoded}
    manifest = write_version(objects, _manifest(task, training_set, rows), parts)
    progress({"stage": "publishing", "fraction": 1.0})
    return {
        "manifest": msgspec.to_builtins(manifest),
        "report": encoded,
        "summary": msgspec.to_builtins(_summary(report)),
    }


def _selected(
    rows: Rows, task: Training, seed: int, progress: OnProgress
) -> tuple[TrainingSet, Selection, list[str]]:
    """What is trained on, the head that came of it, and warnings."""
    try:
        training_set, warnings = assembled(rows, task)
        if not isinstance(training_set, TrainingSet):
            raise FaultError(f"This server has no head for {task.task.words} tasks.", reason="TASK_UNKNOWN")
        metrics = {"examples": float(len(training_set)), "classes": float(len(training_set.classes))}

        def selecting(_stage: str, fraction: float) -> None:
            progress({"stage": "selecting", "fraction": 0.1 + 0.8 * fraction, "metrics": metrics})

        return training_set, select_head(training_set, seed=seed, progress=selecting), warnings
    except StateError as error:
        nothing = nothing_yet(task)
        if nothing is None or error.reason not in {"TOO_FEW_CLASSES", "TOO_FEW_EXAMPLES"}:
            raise
        warning = "Answers come from the labels' names alone, and nothing was measured: " + error.message
        return nothing, select_by_names(nothing), [warning]


def check_parity(head: Head, graph: bytes, features: NDArray[np.float16]) -> None:
    """Raises FaultError unless the ONNX graph computes what the head does on features of shape (n, d)."""
    finite = features[np.isfinite(features).all(axis=1)]
    every = max(1, -(-len(finite) // PARITY_ROWS))
    rows = finite[::every].astype(np.float32)
    served = head.scores(rows)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a tiny graph: threads cost more than they give
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    probabilities, novelty = session.run(["probabilities", "novelty"], {"features": rows})
    off = float(np.abs(probabilities - served.probabilities).max(initial=0))
    novelty_off = float(np.abs(novelty - served.novelty).max(initial=0))
    allowed = NOVELTY_PARITY + _rounding(head.novelty)
    if not (off <= PROBABILITY_PARITY and novelty_off <= allowed):  # so said, NaN fails too
        raise FaultError(
            "The new version's ONNX graph does not agree with the head that would be served: probabilities "
            f"differ by up to {off:.1e} (at most {PROBABILITY_PARITY:.0e} is accepted), novelty by up to "
            f"{novelty_off:.1e} ({allowed:.0e}). Nothing was published. Commit again; if it fails again, "
            "report it.",
            reason="HEAD_PARITY",
        )


def _rounding(novelty: Novelty) -> float:
    """How far rounding alone can put the novelty off."""
    steepest = (np.diff(novelty.shares) / np.diff(novelty.knots)).max()
    return float(ROUNDING * np.abs(novelty.knots).max() * steepest)


def _read(objects: Objects, task: Training) -> Rows:
    try:
        return read_rows(objects, task.model, task.sources, task.encoder_id)
    except ObjectMissingError as error:
        key = error.metadata["object"]
        if f"/features/{task.encoder_id}/" not in key:
            raise
        raise FaultError(
            "The features of some examples are not stored yet: commit again, and they are computed anew.",
            reason="FEATURES_MISSING",
            metadata={"object": key},
        ) from error


def _manifest(task: Training, training_set: TrainingSet, rows: Rows) -> Manifest:
    labels = zip(training_set.classes, training_set.descriptions, strict=True)
    return Manifest(
        model=task.model,
        adaptation_id=task.adaptation_id,
        commit_id=task.commit_id,
        backbone=task.backbone,
        encoder_id=task.encoder_id,
        labels=tuple(Label(name, description) for name, description in labels),
        sources=tuple(
            dataclasses.replace(it, generation=rows.generations[it.adaptation_id]) for it in task.sources
        ),
        seed=task.seed,
        created=datetime.now(UTC),
    )


def _summary(report: Report) -> Report:
    """The report's figures: the catalogue is replayed at every start and never forgets, so it names no example."""
    return dataclasses.replace(
        report,
        head=dataclasses.replace(report.head, candidates=()),
        per_class=(),
        confusions=(),
        warnings=(),
        reliability=(),
        data=None,
        learning_curve=None,
        feature_map=(),
    )
