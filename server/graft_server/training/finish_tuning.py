"""The job that makes a version of what a tuning made, in a worker process that imports no torch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.tuning_objects import (
    write_probabilities,
)
from graft_server.domain.method import Method
from graft_server.domain.report import (
    Report,
    TuningObjective,
    TuningReport,
)
from graft_server.heads import decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.graph_parity import check_parity
from graft_server.jobs.job import OnProgress, Place, Progress
from graft_server.store.catalogue.versions import (
    HEAD,
    HEAD_ONNX,
    REPORT,
    read_part,
    read_report,
    write_version,
)
from graft_server.store.objects.formats import stamped
from graft_server.store.objects.objects import Objects
from graft_server.training import cut_down
from graft_server.training.contract import FINISH, Finished, Finishing
from graft_server.training.reporting.advice import advised
from graft_server.training.reporting.evaluated import tuned_digest
from graft_server.training.reporting.truncation import with_truncated_of
from graft_server.training.tasks.table import TRAINING
from graft_server.training.tasks.task import TunedHead

Array = NDArray[np.float32]


@FINISH.done_by
def finish(payload: Finishing, place: Place, progress: OnProgress) -> Finished:
    """Makes a version of what a tuning made, or of the best one so far.

    Raises:
        FaultError: The head's graph computes something else than the head (HEAD_PARITY), or the store failed.
    """
    started = time.monotonic()
    task, objects, tuned = payload, Objects.open(place.store), payload.tuned
    progress(Progress("selecting"))
    manifest, report = read_report(objects, task.best)
    tried = TuningReport(
        method=task.method,
        kept=False,
        ended=tuned.ended,
        unfrozen_layers=task.layers - task.below,
        layers=task.layers,
        parameters=tuned.parameters,
        learning_rate=tuned.learning_rate or task.learning_rate,
        diverged=tuned.diverged,
        seconds=task.seconds,
        examples_per_second=tuned.examples_per_s,
        history=tuned.history,
        objective=task.objective,
        label_names=tuned.label_names,
        folds=tuned.folds,
    )
    tuning = TRAINING[manifest.task].tuning
    measured, layers = None, dict[str, bytes]()
    if tuning is not None and tuned.made:
        tried, measured, layers = cut_down.measured(objects, task, tried, tuning.measure[task.objective])
    key = ""
    if measured is not None:
        parts = {**_parts(measured), **layers}
        key = write_probabilities(objects, task.folder, measured.of_measured)
        names = tuple(label.name for label in manifest.labels)
        told = with_truncated_of(measured.reported(report, names), report)
        digest = tuned_digest(report, told, task.seed)
        # The head on tuned features learns from labelled examples alone.
        unlabelled = told.unlabelled and dataclasses.replace(told.unlabelled, kept=False)
        report = dataclasses.replace(
            told, method=task.method, evaluation_digest=digest, unlabelled=unlabelled
        )
        manifest = dataclasses.replace(manifest, below=task.below)
    else:
        parts = {it: read_part(objects, task.best, manifest, it) for it in manifest.parts if it != REPORT}
    least = (tuning.least_a_class, tuning.least_examples) if tuning is not None else (0, 0)
    report = _with_tuning(report, tried, least, auto=task.auto)
    report = dataclasses.replace(
        report,
        training_duration_s=report.training_duration_s + task.seconds + time.monotonic() - started,
        trained_time_s=time.time(),
    )
    progress(Progress("publishing", 0.9))
    ref = write_version(objects, manifest, {**parts, REPORT: stamped(report)})
    return Finished(manifest=ref, report=report, extension=manifest.extension, kept=tried.kept, measured=key)


def _with_tuning(report: Report, tried: TuningReport, least: tuple[int, int], *, auto: bool) -> Report:
    """The report of the best version so far, with a tuning more: what was kept comes first, and then the last.

    Args:
        report: The report.
        tried: The tuning.
        least: How many examples one takes: of a class on average, or in all.
        auto: Whether it was the server's own choice to try it.
    """
    before = report.tuning
    others = report.other_tunings
    if before is not None and before.kept and not tried.kept:
        tuning, others = before, (*others, tried)
    else:
        tuning, others = tried, others if before is None else (*others, before)
    warnings = (*_warnings(tried, report, least, auto=auto), *report.warnings)
    told = dataclasses.replace(report, tuning=tuning, other_tunings=others, warnings=warnings)
    return advised(told, tried=tried)


def _parts(measured: TunedHead) -> dict[str, bytes]:
    head, graph = encode(measured.head), to_onnx(measured.head)
    check_parity(decode(head), graph, measured.features.astype(np.float16))
    return {HEAD: head, HEAD_ONNX: graph}


def _warnings(tried: TuningReport, report: Report, least: tuple[int, int], *, auto: bool) -> tuple[str, ...]:
    """What a person should know of a tuning; the report is that of what serves now."""
    warnings = []
    serves = (
        "The frozen head serves."
        if report.method is Method.FROZEN
        else f"The {report.method} version serves."
    )
    if tried.ended == "too_few":
        warnings.append(
            f"The backbone was not tuned: {least[0]} training examples of a class on average, or {least[1]} training "
            "examples in all, that are not duplicates or of one group are needed, and there are "
            f"{report.examples:,} of {report.classes:,} classes. {serves}"
        )
    if tried.ended == "features":
        warnings.append(
            f"The backbone was not tuned: some examples are features of it already, rather than inputs. {serves}"
        )
    if tried.ended == "diverged":
        warnings.append(
            f"Training diverged {tried.diverged} times and was ended; the best state before that counts. Give a "
            f"learning_rate below {tried.learning_rate:g}."
        )
    elif tried.diverged:
        warnings.append(
            f"Training diverged {tried.diverged} times: it went back to its best state and on more slowly. Give a "
            f"learning_rate below {tried.learning_rate:g}."
        )
    warnings += [f"{nothing} {serves}" for nothing in _came_to_nothing(tried, auto=auto)]
    if tried.measured and tried.kept and tried.tuned_log_loss >= tried.frozen_log_loss:
        warnings.append(
            f"On {tried.measured:,} held-out examples the tuned version is no better than the frozen one (log-loss "
            f"{tried.tuned_log_loss:.3f}, {tried.frozen_log_loss:.3f}): the method auto would not have kept it."
        )
    return tuple(warnings)


def _came_to_nothing(tried: TuningReport, *, auto: bool) -> Iterator[str]:
    """Says that a tuning that was begun made no version, where its figures do not."""
    contrastive = tried.objective is TuningObjective.CONTRASTIVE
    if tried.ended == "failed":
        yield f"The method {tried.method} failed; the server's log has the details."
    elif contrastive:  # where the time was over, the advice says so
        # Of what `auto` tried and dropped, the figures say it all.
        if tried.ended in ("done", "no_gain") and not tried.kept and not auto:
            yield f"The method {tried.method} improved nothing on held-out examples."
    elif not tried.measured and tried.ended not in ("too_few", "features", "no_time"):
        yield f"The method {tried.method} improved nothing on held-out examples."
