"""The job that turns a commit into the parts of a version, in a worker process that imports no torch.

It reads the examples with their stored features, so no input is encoded again, and writes the version's parts.
The version has no number yet: publishing it is the caller's, so a job that runs twice does no harm.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from graft_server.backbones.decoding.limits import Bounded
from graft_server.backbones.families import backbone_of_payload
from graft_server.domain.errors import FaultError, StateError
from graft_server.domain.examples import Kind, Label
from graft_server.domain.method import Method
from graft_server.domain.model import Manifest
from graft_server.domain.views import stacked
from graft_server.heads import decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.graph_parity import check_parity
from graft_server.store.adaptations.features import FEATURES_MISSING
from graft_server.store.adaptations.training_rows import Rows, read_rows
from graft_server.store.catalogue.versions import HEAD, HEAD_ONNX, REPORT, write_version
from graft_server.store.objects.objects import ObjectMissingError, Objects
from graft_server.training import finish_tuning
from graft_server.training.contract import Training, Tuning
from graft_server.training.examples.assembling import assembled
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.reduced_precision import admit
from graft_server.training.tasks.table import TRAINING
from graft_server.training.tasks.task import Selection

OnProgress = Callable[[dict[str, Any]], None]


def train(payload: Mapping[str, Any], progress: OnProgress) -> dict[str, Any]:
    """Trains on everything that a commit names and writes the parts of a version.

    Args:
        payload: A `Training`, as builtins.
        progress: Told `stage` ("reading", "selecting", "comparing" with float32, "publishing"), `fraction`, 0
            to 1, of the whole job, and `metrics` where there are any.

    Returns:
        `manifest`: `key` and `sha256`, as in `ManifestRef`; `report`: the report as JSON, the same bytes as the
        version's part; `summary`: a `Report` as builtins whose lists are empty, for the catalogue; `unprepared`:
        why no tuning can follow ("too_few" examples, or some are "features" already), "" if one can.

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
        examples = training_set.classified()
        warnings.append(admit(examples, inputs, selection.head.view, task.reference, seed=seed))
    progress({"stage": "publishing", "fraction": 0.95})
    head, graph = encode(selection.head), to_onnx(selection.head)
    features = stacked(training_set.telling, selection.head.view)
    check_parity(decode(head), graph, features)
    report = dataclasses.replace(
        selection.report,
        warnings=(*warnings, *selection.report.warnings),
        seed=task.seed,
        method=Method.FROZEN,
        backbone=task.backbone,
        encoder_id=task.encoder_id,
        trained_time_s=time.time(),
        training_duration_s=time.monotonic() - started,
    )
    parts = {HEAD: head, HEAD_ONNX: graph, REPORT: msgspec.json.encode(report)}
    manifest = write_version(objects, _manifest(task, training_set, rows), parts)
    unprepared = "too_few"
    if task.tuning is not None:
        unprepared = _prepare(task.tuning, rows, training_set, selection, seed)
    progress({"stage": "publishing", "fraction": 1.0})
    return finish_tuning.result_of(manifest, report) | {"unprepared": unprepared}


def _selected(
    rows: Rows, task: Training, seed: int, progress: OnProgress
) -> tuple[ExampleSet, Selection, list[str]]:
    """What is trained on, the head that came of it, and warnings."""
    kind = TRAINING[task.task]
    try:
        training_set, warnings = assembled(rows, task, kind.assemble, kind.nothing)
        metrics = {"examples": float(len(training_set)), "classes": float(len(training_set.labels_named))}

        def selecting(_stage: str, fraction: float) -> None:
            progress({"stage": "selecting", "fraction": 0.1 + 0.8 * fraction, "metrics": metrics})

        return training_set, kind.select(training_set, seed=seed, progress=selecting), warnings
    except StateError as error:
        named = kind.by_names(task)
        if named is None or error.reason not in {"TOO_FEW_CLASSES", "TOO_FEW_EXAMPLES"}:
            raise
        warning = "Answers come from the labels' names alone, and nothing was measured: " + error.message
        return *named, [warning]


def _read(objects: Objects, task: Training) -> Rows:
    try:
        return read_rows(objects, task.model, task.sources, task.encoder_id)
    except ObjectMissingError as error:
        key = error.metadata["object"]
        if f"/features/{task.encoder_id}/" not in key:
            raise
        raise FaultError(
            "The features of some examples are not stored yet: commit again, and they are computed anew.",
            reason=FEATURES_MISSING,
            metadata={"object": key},
        ) from error


def _prepare(tuning: Tuning, rows: Rows, training_set: ExampleSet, selection: Selection, seed: int) -> str:
    inputs = {example.id: example.input for example in rows.examples}
    if any(it.kind is Kind.FEATURES for it in inputs.values()):
        return "features"
    preprocessor = backbone_of_payload(tuning.backbone).preprocessor()
    if isinstance(preprocessor, Bounded):
        preprocessor = preprocessor.within(tuning.limits)
    # One after the other: pixels and samples are far larger than the files that they come from.
    items = (preprocessor.prepare(inputs[id_]).item for id_ in training_set.ids)
    prepared = finish_tuning.prepare(Path(tuning.scratch), items, selection, seed=seed)
    return "" if prepared else "too_few"


def _manifest(task: Training, training_set: ExampleSet, rows: Rows) -> Manifest:
    return Manifest(
        model=task.model,
        adaptation_id=task.adaptation_id,
        commit_id=task.commit_id,
        backbone=task.backbone,
        encoder_id=task.encoder_id,
        labels=tuple(Label(*named) for named in training_set.labels_named),
        sources=tuple(
            dataclasses.replace(it, generation=rows.generations[it.adaptation_id]) for it in task.sources
        ),
        seed=task.seed,
        created=datetime.now(UTC),
        task=task.task,
    )
