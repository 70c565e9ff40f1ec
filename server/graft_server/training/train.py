"""The job that turns a commit into the parts of a version, in a worker process that imports no torch.

It reads the examples with their stored features, so no input is encoded again, and writes the version's parts.
The version has no number yet: publishing it is the caller's, so a job that runs twice does no harm.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime

from graft_server.backbones.tuning_objects import TuningSet
from graft_server.domain.errors import FaultError, StateError
from graft_server.domain.examples import Kind, Label
from graft_server.domain.method import Method
from graft_server.domain.model import Manifest
from graft_server.domain.report import Report
from graft_server.domain.views import stacked
from graft_server.heads import decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.graph_parity import check_parity
from graft_server.jobs.job import OnProgress, Place, Progress
from graft_server.store.adaptations.features import FEATURES_MISSING
from graft_server.store.adaptations.training_rows import Rows, read_rows
from graft_server.store.catalogue.versions import HEAD, HEAD_ONNX, REPORT, write_version
from graft_server.store.objects.formats import stamped
from graft_server.store.objects.objects import ObjectMissingError, Objects
from graft_server.training.contract import TRAIN, Trained, Training
from graft_server.training.examples.assembling import Seen, assembled, came_in, similar_labels
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.reduced_precision import admit, reference_at
from graft_server.training.reporting.advice import advised
from graft_server.training.reporting.evaluated import evaluation_digest
from graft_server.training.reporting.truncation import with_truncated
from graft_server.training.reporting.unlabelled import with_strangers
from graft_server.training.search import costs
from graft_server.training.steps import Steps
from graft_server.training.tasks.table import TRAINING
from graft_server.training.tasks.task import Selection


@TRAIN.done_by
def train(payload: Training, place: Place, progress: OnProgress) -> Trained:
    """Trains on everything that a commit names and writes the parts of a version.

    Args:
        payload: The commit.
        place: Where this runs.
        progress: Told the stages "reading", "checking" for copies, "selecting", "fitting", "measuring", "comparing"
            with float32, and "publishing".

    Raises:
        StateError: The examples do not suffice (TOO_FEW_CLASSES, TOO_FEW_EXAMPLES), or the encoder's precision
            costs too much accuracy on them (PRECISION_LOSS).
        FaultError: Features are missing (FEATURES_MISSING), the head's graph computes something else than the
            served head (HEAD_PARITY), or the store failed.
    """
    started = time.monotonic()
    task, objects = payload, Objects.open(place.store)
    steps = Steps(progress)
    steps.plan({"reading": 0.05, "selecting": 0.95})
    steps.begin("reading")
    with steps.step(0.05):
        rows = _read(objects, task)
    seed = task.seed % (1 << 64)  # NumPy's generators take no negative one
    training_set, selection, seen, warnings = _selected(rows, task, seed, steps)
    if task.reduced and len(training_set):
        steps.begin("comparing")
        reference = reference_at(place, task.backbone, task.encoder_id)
        by_id = {example.id: example.input for example in rows.examples}
        inputs = [by_id[id_] for id_ in training_set.ids]
        examples = training_set.classified()
        warnings.append(admit(examples, inputs, selection.head.view, reference, seed=seed))
    steps.begin("publishing")
    head, graph = encode(selection.head), to_onnx(selection.head)
    features = stacked(training_set.telling, selection.head.view)
    check_parity(decode(head), graph, features)
    found = with_truncated(selection.report, training_set, rows, task.longest_input)
    found = with_strangers(found, selection.head, training_set, seen.unlabelled)
    report = dataclasses.replace(
        found,
        data=seen.within(found.data),
        renewal=task.renewal,
        evaluation_digest=evaluation_digest(training_set, found.evaluation),
        warnings=(*_renewed(task), *seen.warnings(found.unlabelled), *warnings, *found.warnings),
        seed=task.seed,
        method=Method.FROZEN,
        backbone=task.backbone,
        encoder_id=task.encoder_id,
        trained_time_s=time.time(),
        training_duration_s=time.monotonic() - started,
    )
    report = advised(report, tunable=_is_tunable(task, rows, report), follows=bool(task.tuning_folder))
    parts = {HEAD: head, HEAD_ONNX: graph, REPORT: stamped(report)}
    described = _manifest(task, training_set, rows)
    manifest = write_version(objects, described, parts)
    unprepared, chosen = "too_few", None
    if task.tuning_folder:
        unprepared, chosen = _prepared(task, rows, selection, seed)
    prepared = chosen.write(objects, task.tuning_folder) if chosen else ""
    progress(Progress("publishing", 1.0))
    return Trained(
        manifest=manifest,
        report=report,
        extension=described.extension,
        prepared=prepared,
        objectives=chosen.objectives if chosen else (),
        nothing_to_gain=chosen is not None and chosen.nothing_to_gain,
        unprepared=unprepared,
    )


def _selected(
    rows: Rows, task: Training, seed: int, steps: Steps
) -> tuple[ExampleSet, Selection, Seen, list[str]]:
    """What is trained on, the head that came of it, what was seen of the examples, and further warnings."""
    kind = TRAINING[task.task]
    try:
        training_set, seen = assembled(rows, task, kind.assemble, kind.nothing)
        steps.metrics = {
            "examples": float(len(training_set)),
            "classes": float(len(training_set.labels_named)),
        }
        steps.plan(_costs(training_set, reduced=task.reduced))
        return training_set, kind.select(training_set, seed=seed, steps=steps), seen, []
    except StateError as error:
        named = kind.by_names(task)
        too_few = error.reason in {"TOO_FEW_CLASSES", "TOO_FEW_EXAMPLES"}
        if named is None or not too_few:
            raise (_with_what_came_in(error, rows, kind.nothing.target) if too_few else error) from error
        warning = "Answers come from the labels' names alone, and nothing was measured: " + error.message
        return *named, Seen(similar=similar_labels((), task)), [warning]


def _costs(train: ExampleSet, *, reduced: bool) -> dict[str, float]:
    """What each stage is expected to take, in seconds."""
    n, width = len(train), sum(view.shape[1] for view in train.features.values())
    of_selection = costs.planned(n, max(len(train.labels_named), 1), width)
    compared = {"comparing": costs.COMPARED_S} if reduced else {}
    return {**of_selection, **compared, "publishing": costs.figures(n)}


def _with_what_came_in(error: StateError, rows: Rows, target: str) -> StateError:
    """The error that examples do not suffice, with what came in."""
    counts = {
        "examples": len(rows.examples),
        "unlabelled": sum(not it.labelled for it in rows.examples),
        "refused": sum(rows.refused.values()),
    }
    return StateError(
        f"{error.message} {came_in(rows, target)}".rstrip(),
        reason=error.reason,
        field=error.field,
        metadata={**error.metadata, **{name: str(count) for name, count in counts.items()}},
    )


def _renewed(task: Training) -> list[str]:
    """Says why the server made the version by itself, if it did."""
    if task.renewal is None:
        return []
    why = (
        f"The server made this version by itself, of the same examples as version {task.renewal.version}: backbone "
        f"{task.backbone} is encoder {task.encoder_id}, and that version was trained on encoder "
        f"{task.renewal.encoder_id}."
    )
    return [why]


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


def _is_tunable(task: Training, rows: Rows, report: Report) -> bool:
    """Whether the task, the number of examples and the inputs let a tuning of the backbone be tried."""
    tuning = TRAINING[task.task].tuning
    if tuning is None or report.examples < min(tuning.least_examples, tuning.least_a_class * report.classes):
        return False
    return all(it.input.kind is not Kind.FEATURES for it in rows.examples)


def _prepared(task: Training, rows: Rows, selection: Selection, seed: int) -> tuple[str, TuningSet | None]:
    """What tunings are given, or why none can follow."""
    if any(it.input.kind is Kind.FEATURES for it in rows.examples):
        return "features", None
    tuning = TRAINING[task.task].tuning
    chosen = tuning.prepare(selection, seed=seed) if tuning is not None else None
    return ("too_few" if chosen is None else ""), chosen


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
        extension=rows.extension(task.base),
    )
