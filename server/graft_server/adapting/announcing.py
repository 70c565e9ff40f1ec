"""What the log says of adaptations and what they publish."""

from __future__ import annotations

import logging
import time

from graft_server.domain.caller import asking
from graft_server.domain.errors import DomainError
from graft_server.domain.model import Version
from graft_server.domain.report import EvaluationMethod, Report, TuningReport
from graft_server.domain.tasks.table import TASKS
from graft_server.sharing.events import Field, figure, log_event, log_failure
from graft_server.store.adaptations.store import AdaptationStore

_log = logging.getLogger(__name__)


def started(store: AdaptationStore) -> None:
    """Says that an adaptation has begun."""
    settings = store.start.settings
    log_event(
        _log,
        "adaptation started",
        model=store.model,
        backbone=settings.backbone,
        task=str(settings.task),
        method=str(settings.method),
        base_version=store.start.extends.base_version if store.start.extends else None,
        declared_labels=len(settings.labels) or None,
        publishes_by_itself=settings.publish.automatic or None,
        adaptation=store.adaptation_id,
    )


def taken_up(store: AdaptationStore, unfinished: int) -> None:
    """Says that an adaptation is gone on with that a server left.

    Args:
        store: The adaptation.
        unfinished: How many of its commits have no outcome yet.
    """
    log_event(
        _log, "adaptation taken up", model=store.model, unfinished=unfinished, adaptation=store.adaptation_id
    )


def makes_way(store: AdaptationStore, idle_s: float) -> None:
    """Says that an adaptation's calls, idle for so many seconds, are sent away."""
    log_event(
        _log,
        "adaptation makes way",
        model=store.model,
        idle_seconds=round(idle_s, 1),
        adaptation=store.adaptation_id,
    )


def accepted(store: AdaptationStore, commit_id: str) -> None:
    """Says that a commit is durable."""
    commit = store.commits[commit_id]
    log_event(
        _log,
        "commit accepted",
        model=store.model,
        changes=sum(commit.watermarks.values()),
        by_policy=not commit.writer_id or None,
        closes=commit.close,
        adaptation=store.adaptation_id,
        commit=commit_id,
    )


def cancelled(store: AdaptationStore, unfinished: int) -> None:
    """Says that an adaptation is cancelled, and how many of its commits had no outcome."""
    log_event(
        _log,
        "adaptation cancelled",
        model=store.model,
        unfinished=unfinished,
        by=asking.get() or None,
        adaptation=store.adaptation_id,
    )


def published(version: Version, report: Report, *, began: float, preliminary: bool) -> None:
    """Says that a version is published.

    Args:
        version: The version.
        report: Its report.
        began: When work on its commit began, by the monotonic clock.
        preliminary: Whether another version of the same commit may follow: the backbone is tuned meanwhile.
    """
    held_back = version.held_back
    log_event(
        _log,
        "version published",
        model=version.model,
        version=version.number,
        **_quality(report),
        examples=report.examples,
        classes=report.classes or None,
        seconds=_seconds_since(began),
        live=held_back is None,
        live_stays=held_back.live or None if held_back else None,
        held_back=("pinned" if held_back.pinned else "policy") if held_back else None,
        preliminary=preliminary or None,
        renews=report.renewal.version if report.renewal else None,
        method=str(report.method),
        adaptation=version.adaptation_id,
        commit=version.commit_id.partition("/")[0],
    )


def failed(store: AdaptationStore, commit_id: str, error: DomainError, *, began: float) -> None:
    """Says that a commit gave no version, and why."""
    log_failure(
        _log,
        "publication failed",
        error,
        model=store.model,
        seconds=_seconds_since(began),
        adaptation=store.adaptation_id,
        commit=commit_id,
    )


def answered(store: AdaptationStore, commit_id: str, number: int) -> None:
    """Says that a commit is answered by a version that is there."""
    log_event(
        _log,
        "commit answered",
        model=store.model,
        version=number,
        adaptation=store.adaptation_id,
        commit=commit_id,
    )


def tuned(store: AdaptationStore, commit_id: str, report: TuningReport) -> None:
    """Says what came of tuning a backbone."""
    measured = bool(report.measured)
    log_event(
        _log,
        "tuning accepted" if report.kept else "tuning rejected",
        model=store.model,
        method=str(report.method),
        ended=report.ended,
        frozen_accuracy=figure(report.frozen_accuracy, measured=measured),
        tuned_accuracy=figure(report.tuned_accuracy, measured=measured),
        measured=report.measured,
        seconds=round(report.seconds, 1),
        adaptation=store.adaptation_id,
        commit=commit_id,
    )


def _quality(report: Report) -> dict[str, Field]:
    """The figure that a version is judged by, under its name."""
    measured = report.evaluation.method is not EvaluationMethod.NONE
    name, value = TASKS[report.task].figure(report)
    return {name: figure(value, measured=measured)}


def _seconds_since(began: float) -> float:
    return round(time.monotonic() - began, 1)
