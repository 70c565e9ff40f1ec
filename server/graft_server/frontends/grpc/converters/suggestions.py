"""What to label next, as messages."""

from __future__ import annotations

from graft.v1 import model_pb2 as pb
from graft.v1 import types_pb2
from graft_server.domain.suggestion import Suggestion, Suggestions
from graft_server.frontends.grpc.converters.enums import SUGGESTION_REASONS, TASK_MESSAGES
from graft_server.frontends.grpc.converters.predictions import prediction
from graft_server.sharing.event_loop import in_slices


async def suggest_response(value: Suggestions) -> pb.SuggestExamplesResponse:
    """Converts the answer of SuggestExamples, slice by slice: there may be a thousand suggestions."""
    response = pb.SuggestExamplesResponse(
        model=value.model,
        version=value.version,
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
    await in_slices(lambda it: response.suggestions.append(_suggestion(it)), value.suggestions)
    return response


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
