"""What to label next, as messages."""

from __future__ import annotations

from graft.v1 import model_pb2 as pb
from graft.v1 import types_pb2
from graft_server.domain.suggestion import Suggestion, Suggestions
from graft_server.frontends.grpc.converters.enums import SUGGESTION_REASONS, TASK_MESSAGES
from graft_server.frontends.grpc.converters.predictions import prediction


def suggest_response(value: Suggestions) -> pb.SuggestExamplesResponse:
    """Converts the answer of SuggestExamples."""
    return pb.SuggestExamplesResponse(
        model=value.model,
        version=value.version,
        suggestions=[_suggestion(it) for it in value.suggestions],
        candidates=value.candidates,
        labelled=value.labelled,
        copies=value.copies,
        rejected=[
            pb.EvaluationRejection(index=it.index, reason=it.reason, detail=it.detail)
            for it in value.rejected
        ],
        total_rejected=value.total_rejected,
        task=types_pb2.TASK_UNSPECIFIED if value.task is None else TASK_MESSAGES[value.task],
    )


def _suggestion(value: Suggestion) -> pb.Suggestion:
    return pb.Suggestion(
        index=value.index,
        id=value.id,
        score=value.score,
        reasons=[SUGGESTION_REASONS[it] for it in value.why],
        similar=value.similar,
        uncertainty=value.uncertainty,
        prediction=None if value.prediction is None else prediction(value.prediction),
    )
