"""PredictionService."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from graft.v1 import prediction_pb2 as pb
from graft_server.api.predictions import PredictionApi
from graft_server.domain.caller import new_call
from graft_server.frontends.grpc.ageing import RequestsUntilAge
from graft_server.frontends.grpc.converters import predictions as answers
from graft_server.frontends.grpc.converters.lazy import ConvertedStream
from graft_server.frontends.grpc.converters.predictions import MAX_RESPONSE_BYTES
from graft_server.frontends.grpc.converters.requests import prediction_request, streamed_request
from graft_server.frontends.grpc.errors import Context
from graft_server.frontends.grpc.handlers import Malformed, answers_each, resumes, takes
from graft_server.frontends.grpc.sizes import MAX_REQUEST_BYTES


class PredictionService:
    """Implements graft.v1.PredictionService."""

    def __init__(self, predictions: PredictionApi, max_age_s: float = 0.0) -> None:
        """Makes it; calls that can go on in another one end at the age; 0: never."""
        self._predictions = predictions
        self._max_age_s = max_age_s

    @takes(MAX_REQUEST_BYTES)
    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Predicts for some inputs with one model."""
        found = await self._predictions.predict(
            prediction_request(request),
            caller=new_call(connection=context.peer()),
            deadline=_deadline(context),
            max_bytes=MAX_RESPONSE_BYTES,
        )
        return await answers.predict_response(found)

    @takes(MAX_REQUEST_BYTES)
    @answers_each
    @resumes
    async def PredictStream(
        self, requests: AsyncIterator[pb.PredictStreamRequest | Malformed], context: Context
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Answers many requests, each when it is ready."""
        taken = RequestsUntilAge(requests, self._max_age_s)
        stream = self._predictions.predict_stream(
            ConvertedStream(taken, streamed_request),
            caller=new_call(connection=context.peer()),
            deadline=_deadline(context),
            max_bytes=MAX_RESPONSE_BYTES,
        )
        async with aclosing(stream) as found:
            async for answer in found:
                yield await answers.stream_response(answer)


def _deadline(context: Context) -> float:
    """Returns the call's deadline on the clock of time.monotonic()."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining
