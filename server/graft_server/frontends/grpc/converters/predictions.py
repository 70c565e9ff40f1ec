"""Predictions as messages."""

from __future__ import annotations

from collections.abc import Sequence

from graft.v1 import prediction_pb2 as pb
from graft.v1 import types_pb2
from graft_server.api.predictions import answer_too_large
from graft_server.domain.errors import DomainError
from graft_server.domain.prediction import (
    Prediction,
    Predictions,
    StreamedAnswer,
    Timings,
)
from graft_server.domain.stream import Activity
from graft_server.frontends.grpc.converters.tasks import set_answer
from graft_server.frontends.grpc.errors import to_status
from graft_server.frontends.grpc.times import duration
from graft_server.sharing.event_loop import SLICE, in_slices

NUMBERS_AT_ONCE = 4_096
"""The scores and components of features that are converted between two turns of the event loop: some milliseconds."""
MAX_RESPONSE_BYTES = 4 << 20
"""The largest message that generated clients accept by default."""


async def predict_response(value: Predictions) -> pb.PredictResponse:
    """Converts the answer of Predict.

    Raises:
        InvalidError: The answer is larger than clients accept (RESPONSE_TOO_LARGE).
    """
    response = pb.PredictResponse(
        model=value.model,
        version=value.version,
        next_sequence=value.next_sequence,
        timings=_timings(value.timings),
    )
    # Copied slice by slice, too: ten thousand at once would keep all others from the event loop.
    await in_slices(
        lambda it: response.results.append(prediction(it)), value.results, _at_once(value.results)
    )
    size = response.ByteSize()
    if size > MAX_RESPONSE_BYTES:
        raise answer_too_large(f"{size:,}", MAX_RESPONSE_BYTES)
    return response


def _at_once(results: Sequence[Prediction | DomainError]) -> int:
    """Returns how many results are converted between two turns of the event loop: fewer where they are long."""
    first = next((it for it in results if isinstance(it, Prediction)), None)
    if first is None:
        return SLICE
    numbers = 0 if first.features is None else len(first.features)
    scores = len(getattr(first.answer, "scores", ()))
    return max(1, min(SLICE, NUMBERS_AT_ONCE // max(1, numbers + scores)))


async def stream_response(value: StreamedAnswer | Activity) -> pb.PredictStreamResponse:
    """Converts the answer of PredictStream to one request, or what is being done before there is one."""
    if isinstance(value, Activity):
        return pb.PredictStreamResponse(activity=types_pb2.Activity(stage=value.stage))
    response = pb.PredictStreamResponse(request_id=value.request_id)
    if isinstance(value.answer, DomainError):
        response.error.CopyFrom(to_status(value.answer))
        return response
    try:
        response.response.CopyFrom(await predict_response(value.answer))
    except DomainError as error:
        response.error.CopyFrom(to_status(error))
    return response


def _timings(value: Timings) -> pb.Timings:
    return pb.Timings(
        queue=duration(value.queue_s),
        tokenize=duration(value.tokenize_s),
        encode=duration(value.encode_s),
        head=duration(value.head_s),
    )


def prediction(value: Prediction | DomainError) -> pb.Prediction:
    """Converts the answer for one input, or the error of one."""
    if isinstance(value, DomainError):
        return pb.Prediction(error=to_status(value))
    message = pb.Prediction(
        abstained=value.abstained,
        novelty=value.novelty,
        truncated=value.truncated,
        features=None if value.features is None else value.features.tolist(),
    )
    set_answer(message, value.answer)
    return message
