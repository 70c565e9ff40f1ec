"""Adaptations as messages."""

from __future__ import annotations

from typing import Any

from graft.v1 import adaptation_pb2 as pb
from graft_server.domain import stream
from graft_server.domain.adaptation import (
    AdaptationState,
    AdaptationView,
    Cancellation,
    DamagedAdaptation,
    Publication,
)
from graft_server.domain.examples import Rejection
from graft_server.domain.model import LiveThen
from graft_server.frontends.grpc.converters.enums import (
    ADAPTATION_STATES,
    PUBLICATION_STATES,
    TASK_MESSAGES,
)
from graft_server.frontends.grpc.converters.extensions import extension
from graft_server.frontends.grpc.converters.reports import report_message
from graft_server.frontends.grpc.errors import failure_status, to_status
from graft_server.frontends.grpc.times import duration, timestamp


def adapt_response(value: stream.Message) -> pb.AdaptResponse:
    """Converts an answer of Adapt."""
    response = pb.AdaptResponse()
    match value:
        case stream.Started():
            response.started.CopyFrom(_started(value))
        case stream.Accepted():
            response.accepted.next_sequence = value.next_sequence
            response.accepted.rejected.extend(map(_rejection, value.rejected))
        case stream.Committed():
            response.committed.CopyFrom(_committed(value))
        case stream.Published():
            response.published.CopyFrom(_published(value))
        case stream.PublicationFailed():
            response.publication_failed.CopyFrom(_publication_failed(value))
        case stream.Progress():
            response.progress.CopyFrom(_progress(value))
        case stream.Reconnect():
            response.reconnect.next_sequence = value.next_sequence
    return response


def watch_response(value: stream.Happening | stream.Progress) -> pb.WatchAdaptationResponse:
    """Converts an answer of WatchAdaptation."""
    if isinstance(value, stream.Progress):
        return pb.WatchAdaptationResponse(progress=_progress(value))
    response = pb.WatchAdaptationResponse(event=value.number, time=timestamp(value.time))
    match value.what:
        case stream.Rejections(rejected=rejected):
            response.rejected.rejected.extend(map(_rejection, rejected))
        case stream.Committed() as committed:
            response.committed.CopyFrom(_committed(committed))
        case stream.Published() as published:
            response.published.CopyFrom(_published(published))
        case stream.PublicationFailed() as failed:
            response.publication_failed.CopyFrom(_publication_failed(failed))
        case AdaptationState() as state:
            response.state = ADAPTATION_STATES[state]
    return response


def adaptation(value: AdaptationView) -> pb.Adaptation:
    """An adaptation."""
    return pb.Adaptation(
        model=value.model,
        adaptation_id=value.adaptation_id,
        state=ADAPTATION_STATES[value.state],
        backbone=value.backbone,
        create_time=timestamp(value.created),
        writers=[pb.Writer(writer_id=it, next_sequence=end) for it, end in value.writers.items()],
        publications=[_publication(it) for it in value.publications],
        task=TASK_MESSAGES[value.task],
        metrics=value.metrics,
        extension=extension(value.extension),
        metadata=value.metadata,
    )


def cancelled(value: Cancellation) -> pb.CancelAdaptationResponse:
    """The result of a cancellation."""
    return pb.CancelAdaptationResponse(
        adaptation=adaptation(value.adaptation), changed=value.changed, given_up=value.given_up
    )


def listed_adaptation(value: AdaptationView | DamagedAdaptation) -> pb.Adaptation:
    """An adaptation of a list."""
    if isinstance(value, AdaptationView):
        return adaptation(value)
    return pb.Adaptation(model=value.model, adaptation_id=value.adaptation_id, error=to_status(value.error))


def _publication(value: Publication) -> pb.Publication:
    return pb.Publication(
        commit_id=value.commit_id,
        state=PUBLICATION_STATES[value.state],
        version=value.version,
        status=None if value.failure is None else failure_status(value.failure),
        create_time=timestamp(value.created),
        **_live(value.live),
    )


def _live(then: LiveThen | None) -> dict[str, Any]:
    """Returns the fields that say where `live` pointed once a version was published."""
    if then is None:
        return {}
    pinned = None if then.pinned is None else timestamp(then.pinned)
    return {"live_version": then.version, "live_pinned_time": pinned}


def _started(value: stream.Started) -> pb.Started:
    return pb.Started(
        adaptation_id=value.adaptation_id,
        next_sequence=value.next_sequence,
        writer_id=value.writer_id,
        backbone=value.backbone,
        extension=extension(value.extension),
        live=None
        if value.live is None
        else pb.LiveVersion(version=value.live.version, examples=value.live.examples),
    )


def _rejection(value: Rejection) -> pb.Rejection:
    return pb.Rejection(
        sequence=value.sequence,
        reason=value.reason,
        field=value.field,
        detail=value.detail,
        writer_id=value.writer_id,
    )


def _committed(value: stream.Committed) -> pb.Committed:
    return pb.Committed(
        commit_id=value.commit_id,
        next_sequence=value.next_sequence,
        extension=extension(value.extension),
    )


def _published(value: stream.Published) -> pb.Published:
    return pb.Published(
        commit_id=value.commit_id,
        model=value.model,
        version=value.version,
        summary=None if value.report is None else report_message(value.report),
        extension=extension(value.extension),
        **_live(value.live),
    )


def _publication_failed(value: stream.PublicationFailed) -> pb.PublicationFailed:
    return pb.PublicationFailed(
        commit_id=value.commit_id,
        status=failure_status(value.failure),
        extension=extension(value.extension),
    )


def _progress(value: stream.Progress) -> pb.Progress:
    return pb.Progress(
        commit_id=value.commit_id,
        stage=value.stage,
        fraction=value.fraction,
        metrics=value.metrics,
        eta=None if value.eta_s is None else duration(value.eta_s),
        done=value.done,
        total=value.total,
        unit=value.unit,
        elapsed=None if value.elapsed_s is None else duration(value.elapsed_s),
    )
